# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A family of somebody else: one file, one entry point, installed as a package of its own and found without a word."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_onnxruntime import field

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "test/example_plugin"
HEIGHT, WIDTH = 64, 96  # of the network's input
DETECTIONS = np.float32([[8, 16, 40, 48, 0.6, 1], [50, 20, 90, 60, 0.9, 0], [0, 0, 5, 5, 0.1, 0]])


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder that the example is installed into, as its README's reader would."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(EXAMPLE, folder / "source")  # a build leaves things beside the source
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--target", str(folder / "site"), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> Path:
    """A network that always sees the same: a constant, written by hand as an ONNX file; a sidecar names its classes."""
    path = tmp_path_factory.mktemp("net") / "detector.onnx"

    def tensor(name, sizes):
        dims = b"".join(field(1, field(1, n)) for n in sizes)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))

    value = b"".join(field(1, n) for n in (1, *DETECTIONS.shape)) + field(2, 1) + _long(9, DETECTIONS.tobytes())
    attribute = field(1, b"value") + _long(5, value) + bytes([0xA0, 1, 4])  # 4: a tensor
    node = field(2, b"dets") + field(4, b"Constant") + _long(5, attribute)
    graph = _long(1, node) + field(2, b"g")
    graph += field(11, tensor(b"image", (1, 3, HEIGHT, WIDTH))) + field(12, tensor(b"dets", (1, *DETECTIONS.shape)))
    path.write_bytes(field(1, 8) + _long(7, graph) + field(8, field(2, 17)))
    path.with_suffix(".yaml").write_text("names: [bolt, nut]\n")
    return path


def _long(number: int, value: bytes) -> bytes:
    """A field of more than 127 bytes."""
    assert len(value) < 1 << 14
    return bytes([number << 3 | 2, len(value) & 0x7F | 0x80, len(value) >> 7]) + value


def run(installed, *arguments) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(installed), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )


USE = """
import json, sys
import numpy as np
from seg_perception import Frame, Pipeline
pipeline = Pipeline.from_config({"segmenter": {"plugin": "boxes", "model": sys.argv[1]}})
found = pipeline.segment(Frame(np.zeros((128, 192, 3), np.uint8)))
print(json.dumps([found.class_names, found.scores.tolist(), found.boxes.tolist(), found.masks.areas.tolist()]))
"""


def test_it_is_used_by_its_name(installed, detector):
    done = run(installed, "-c", USE, detector)
    assert done.returncode == 0, done.stderr
    names, scores, boxes, areas = json.loads(done.stdout)
    assert names == ["bolt", "nut"]  # best first; 0.1 is below the family's threshold
    np.testing.assert_allclose(scores, [0.9, 0.6], atol=1e-6)
    np.testing.assert_allclose(boxes, [[100, 40, 180, 120], [16, 32, 80, 96]], atol=1e-4)  # the image is twice as large
    assert areas == [80 * 80, 64 * 64]


TILED = """
import json, sys
import numpy as np
from seg_perception import Frame, Pipeline
segmenter = {"plugin": "boxes", "model": sys.argv[1]}
tiles = {"tile_width": 96, "tile_height": 64, "overlap": 0.0, "whole_image": False}
selection = {"deny": ["nut"], "remap": ["bolt=screw"]}
tiled = {"plugin": "tiled", "segmenter": segmenter, **tiles}
pipeline = Pipeline.from_config({"segmenter": tiled, "selection": selection})
found = pipeline.segment(Frame(np.zeros((128, 192, 3), np.uint8)))
print(json.dumps([found.class_names, found.boxes.tolist()]))
"""


def test_tiles_and_the_selection_are_for_it_too(installed, detector):
    done = run(installed, "-c", TILED, detector)
    assert done.returncode == 0, done.stderr
    names, boxes = json.loads(done.stdout)
    assert names == ["screw"] * 4  # one in each tile
    np.testing.assert_allclose(sorted(boxes)[0], [50, 20, 90, 60], atol=1e-4)
    np.testing.assert_allclose(sorted(boxes)[3], [146, 84, 186, 124], atol=1e-4)


def test_the_tools_know_it_without_a_word(installed, detector):
    done = run(installed, ROOT / "scripts/seg-perception", "models", "inspect", detector, "--json", "--no-support")
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    assert (about["segmenter"], about["family"], about["class_names"]) == ("boxes", "boxes", ["bolt", "nut"])


def test_without_the_package_nobody_knows_it(detector):
    done = run("", ROOT / "scripts/seg-perception", "models", "inspect", detector, "--json", "--no-support")
    assert json.loads(done.stdout)["segmenter"] is None


def test_the_page_shows_the_file_as_it_is():
    page = (ROOT / "docs/plugins.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    file = (EXAMPLE / "box_detector.py").read_text(encoding="utf-8")
    assert shown[0].strip() == file[file.index("from dataclasses") :].strip()
    assert re.search(r"\[project\.entry-points.*?\]\nboxes = .*\n", page)[0] in (EXAMPLE / "pyproject.toml").read_text()
