# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Installs seg_perception with pip, without ROS. ROS 2 workspaces build it with colcon, from CMakeLists.txt."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = ElementTree.parse(HERE / "package.xml").findtext("version")  # the one place that says it

EXTRAS = {
    "onnx": ["onnxruntime>=1.23"],
    "openvino": ["openvino>=2025.0"],
    # torch owns the CUDA buffers and streams; the others convert to float16 and verify an engine
    "tensorrt": ["tensorrt>=10.3,<11.5", "torch>=2.4", "onnx", "onnxruntime>=1.23"],
    "torch": ["torch>=2.6"],  # before it, weights_only=True could be tricked (CVE-2025-32434)
    "kserve": ["tritonclient[grpc,http]>=2.50"],
    "quantize": ["nncf>=2.14", "onnx>=1.16", "onnxruntime>=1.23", "openvino>=2025.0"],
    "text": ["tokenizers>=0.15"],
    "video": ["torch>=2.6", "transformers>=5.0"],
    "metrics": ["prometheus-client>=0.14"],
    "capture": ["mcap>=1.1", "mcap-ros2-support>=0.5"],
    "sim": ["mujoco>=3.5"],
    "viz": ["open3d>=0.19"],
    "dev": ["hypothesis", "mypy", "pycocotools", "pytest", "ruff", "types-PyYAML"],
}


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
        ("share/seg_perception", ["package.xml", "entry_points.txt"]),  # read above, so a source archive needs them
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
    extras_require=EXTRAS,
    entry_points=(HERE / "entry_points.txt").read_text(encoding="utf-8"),
    zip_safe=False,
)
