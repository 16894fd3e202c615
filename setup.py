# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Installs seg_perception with pip, without ROS. ROS 2 workspaces build it with colcon, from CMakeLists.txt."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = ElementTree.parse(HERE / "package.xml").findtext("version")  # the one place that says it


def extras() -> dict[str, list[str]]:
    """Requirements by extra, from scripts/extras.txt; a colcon install has it as its requires.txt (no comments there).

    torch before 2.6 could be tricked in spite of weights_only=True (CVE-2025-32434); beside tensorrt it owns the CUDA
    buffers and streams, and onnx and onnxruntime convert to float16 and verify an engine.
    """
    found: dict[str, list[str]] = {}
    for line in (HERE / "scripts" / "extras.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            found[line.strip("[]")] = current = []
        elif line and not line.startswith("#"):
            current.append(line)
    return found


def config_files() -> dict[str, list[str]]:
    """The config tree, by folder, relative to here."""
    folders: dict[str, list[str]] = {}
    for path in sorted(p for p in HERE.glob("config/**/*") if p.suffix in (".yaml", ".xml", ".json")):
        relative = path.relative_to(HERE)
        folders.setdefault(str(relative.parent), []).append(str(relative))
    return folders


setup(
    name="seg_perception",
    version=VERSION,
    description="RGB-D in, objects a robot can pick out: masks, point clouds, oriented boxes and grasps",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The seg_perception authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["seg_perception", "seg_perception.*"]),
    # <prefix>/share/seg_perception, as in a ROS 2 install; seg_perception.files.shipped() finds them there.
    data_files=[
        # read above, so a source archive needs them
        ("share/seg_perception", ["package.xml", "entry_points.txt"]),
        ("share/seg_perception/scripts", ["scripts/extras.txt"]),
        ("share/seg_perception/models", ["models/manifest.yaml"]),
        *((f"share/seg_perception/{folder}", files) for folder, files in config_files().items()),
    ],
    install_requires=[
        "PyYAML>=5.4",
        "numba>=0.57",
        "numpy>=1.23",
        "opencv-python-headless>=4.5.4",
        "scipy>=1.8",
        "tqdm>=4.60",
    ],
    extras_require=extras(),
    entry_points=(HERE / "entry_points.txt").read_text(encoding="utf-8"),
    zip_safe=False,
)
