# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Small exports with random weights (../shared/models/contracts), each beside a sidecar that the test writes."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import yaml

from seg_perception.options import parse


class Rig:
    """A segmenter on one of the exports. `outputs`, when set, stand in for what the network puts out."""

    def __init__(self, segmenter: type, model: Path, **options):
        values = {"model": str(model), "backend": {"plugin": "onnxruntime", "threads": 1}, **options}
        self.segmenter = segmenter(parse(segmenter.Config, values))
        self.backend = self.segmenter._backend
        self.segmenter._backend = self
        self.given, self.inputs, self.outputs = {}, {}, {}

    def __call__(self, inputs):
        self.inputs = {name: array.copy() for name, array in inputs.items()}
        self.outputs = {**self.backend(inputs), **self.given}
        return self.outputs

    def __getattr__(self, name):
        return getattr(self.backend, name)


def beside(folder: Path, export: Path, sidecar: dict | str | None) -> Path:
    """A copy of the export in `folder`, with the sidecar beside it."""
    model = folder / export.name
    shutil.copyfile(export, model)
    model.with_suffix(".yaml").unlink(missing_ok=True)
    if sidecar is not None:
        text = sidecar if isinstance(sidecar, str) else yaml.safe_dump(sidecar)
        model.with_suffix(".yaml").write_text(text)
    return model


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth, colorful image."""
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (7, 9, 3), np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)


def blobs(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """(count, height, width) float32 logits: a round blob each, side by side, a little ragged."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(count)))
    y, x = np.mgrid[:height, :width] + 0.5
    maps = []
    for i in range(count):
        cy, cx = (np.array([i // side, i % side]) + 0.5 + rng.uniform(-0.2, 0.2, 2)) / side * (height, width)
        far = ((y - cy) / height) ** 2 + ((x - cx) / width) ** 2
        maps.append(4 - 4 * far * (side / 0.35) ** 2 + rng.normal(scale=0.3, size=(height, width)))
    return np.array(maps, np.float32).reshape(count, height, width)


def different_pixels(found, expected: np.ndarray) -> int:
    """Pixels in which the masks differ from an (N, H, W) stack."""
    assert len(found.masks) == len(expected)
    return int((found.masks.dense() != expected).sum())
