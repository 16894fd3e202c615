# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What kernels are timed on: a table with N round things, as a YOLO puts them out and as a depth camera sees them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.scene import Frame, Intrinsics
from seg_perception.segmenters.networks.letterbox import Letterbox
from seg_perception.sim.noise import sensor_depth

NET = (384, 640)  # px, height and width of the network's input
STRIDES, MAP_STRIDE = (8, 16, 32), 4
CLASSES, PROTOTYPES = 80, 32
DUPLICATES = 3  # detections of each thing, for NMS to choose from
TABLE, HEIGHT = 0.9, 0.05  # m, distance of the table and height of the things on it
TILT = (0.05, 0.35)  # dz/dx, dz/dy of the table
LARGEST, COVERED = 70.0, 375_000.0  # px at 1280x720: radius of a thing, area of all of them where they are many


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A frame and what a network says about it: `outputs` by name, `boxes` (N, 4) image px and `coefficients` (N, K)
    of its detections after NMS, best first."""

    frame: Frame
    outputs: dict[str, NDArray[np.float32]]
    boxes: NDArray[np.float32]
    coefficients: NDArray[np.float32]
    letterbox: Letterbox

    @property
    def depth(self) -> NDArray[np.float32]:
        """(H, W) m."""
        assert self.frame.depth is not None  # made so
        return self.frame.depth

    @property
    def intrinsics(self) -> Intrinsics:
        assert self.frame.intrinsics is not None  # made so
        return self.frame.intrinsics

    @property
    def prototypes(self) -> NDArray[np.float32]:
        """(K, h, w)."""
        return self.outputs["prototypes"][0]

    def save(self, path: Path) -> None:
        """The outputs as a file that `replay:Replay` plays."""
        np.savez(path, **self.outputs)

    def save_frame(self, folder: Path) -> None:
        """The frame as a new folder of RGB-D frames, which `folder.RgbdFolder` reads."""
        (folder / "frames").mkdir(parents=True)
        k = self.intrinsics
        meta = {name: getattr(k, name) for name in ("width", "height", "fx", "fy", "cx", "cy")}
        (folder / "meta.json").write_text(json.dumps({**meta, "depth_scale_to_m": 0.001}), encoding="utf-8")
        cv2.imwrite(str(folder / "frames" / "0_rgb.png"), self.frame.color[..., ::-1])
        depth = np.rint(1e3 * np.nan_to_num(self.depth, posinf=0, neginf=0)).astype(np.uint16)
        cv2.imwrite(str(folder / "frames" / "0_depth.png"), depth)


def make_sample(count: int, width: int = 1280, height: int = 720, seed: int = 0) -> Sample:
    """`count` ellipses with wavy edges, spread evenly; at 1280x720 20 of them cover about 300 000 px. Deterministic."""
    rng = np.random.default_rng(seed)
    letterbox = Letterbox.fit((height, width), NET)
    ellipses = _ellipses(count, width, height, rng)
    prototypes = _prototypes(rng)
    coefficients = _coefficients(ellipses, letterbox, rng)
    centre, radius = ellipses[:, :2], ellipses[:, 2:]
    boxes = np.concatenate([centre - 1.08 * radius, centre + 1.08 * radius], axis=1)
    boxes = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)
    outputs = {"predictions": _predictions(boxes, coefficients, letterbox, rng), "prototypes": prototypes[None]}
    return Sample(_frame(ellipses, width, height, rng), outputs, boxes, coefficients, letterbox)


def _ellipses(count: int, width: int, height: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(N, 4) centre x, y and half axes, px, on a grid with some disorder."""
    scale = math.sqrt(width * height / (1280 * 720))
    radius = scale * min(LARGEST, math.sqrt(COVERED / (math.pi * count)))
    columns = math.ceil(math.sqrt(count * width / height))
    rows = math.ceil(count / columns)
    cells = np.arange(count)
    centre = (np.stack([cells % columns, cells // columns], axis=1) + 0.5) * [width / columns, height / rows]
    centre += rng.uniform(-0.15, 0.15, (count, 2)) * radius
    return np.concatenate([centre, radius * rng.uniform(0.9, 1.1, (count, 2))], axis=1)


def _prototypes(rng: np.random.Generator) -> NDArray[np.float32]:
    """(K, h, w): 1, u, v, u^2, v^2, then smooth waves; u, v = -1..1 over the network's input."""
    h, w = NET[0] // MAP_STRIDE, NET[1] // MAP_STRIDE
    v, u = np.meshgrid((np.arange(h) + 0.5) / h * 2 - 1, (np.arange(w) + 0.5) / w * 2 - 1, indexing="ij")
    maps = [np.ones_like(u), u, v, u * u, v * v]
    while len(maps) < PROTOTYPES:
        a, b, phase = rng.uniform(10, 30), rng.uniform(10, 30), rng.uniform(0, 2 * math.pi)
        maps.append(np.sin(a * u + phase) * np.cos(b * v))
    return np.stack(maps).astype(np.float32)


def _coefficients(ellipses: NDArray, letterbox: Letterbox, rng: np.random.Generator) -> NDArray[np.float32]:
    """(N, K) that make 2 (1 - ((u - cu) / a)^2 - ((v - cv) / b)^2) of the prototypes, and waves a tenth as high."""
    x, y, rx, ry = ellipses.T
    fx, fy = letterbox.scaled_width / letterbox.width, letterbox.scaled_height / letterbox.height
    cu, cv = (x * fx + letterbox.left) / NET[1] * 2 - 1, (y * fy + letterbox.top) / NET[0] * 2 - 1
    a, b = rx * fx / NET[1] * 2, ry * fy / NET[0] * 2
    out = rng.uniform(-0.02, 0.02, (len(ellipses), PROTOTYPES))
    out[:, 0] = 2 * (1 - (cu / a) ** 2 - (cv / b) ** 2)
    out[:, 1], out[:, 2] = 4 * cu / a**2, 4 * cv / b**2
    out[:, 3], out[:, 4] = -2 / a**2, -2 / b**2
    return out.astype(np.float32)


def _predictions(
    boxes: NDArray, coefficients: NDArray, letterbox: Letterbox, rng: np.random.Generator
) -> NDArray[np.float32]:
    """(1, 4 + classes + K, anchors) of a raw head: every thing several times, noise below the threshold elsewhere."""
    anchors = sum((NET[0] // stride) * (NET[1] // stride) for stride in STRIDES)
    out = np.zeros((4 + CLASSES + PROTOTYPES, anchors), np.float32)
    out[4 : 4 + CLASSES] = rng.uniform(0, 0.05, (CLASSES, anchors))
    out[:4] = rng.uniform(10, 100, (4, anchors))
    scale = np.array([letterbox.scaled_width / letterbox.width, letterbox.scaled_height / letterbox.height] * 2)
    net = boxes * scale + np.array([letterbox.left, letterbox.top] * 2)
    places = rng.permutation(anchors)[: DUPLICATES * len(boxes)].reshape(DUPLICATES, -1)
    for k, columns in enumerate(places):
        moved = net + (rng.uniform(-1, 1, net.shape) if k else 0.0)
        out[:2, columns] = ((moved[:, :2] + moved[:, 2:]) / 2).T
        out[2:4, columns] = (moved[:, 2:] - moved[:, :2]).T
        out[4 + 39, columns] = np.linspace(0.95, 0.6, len(boxes)) - 0.1 * k
        out[4 + CLASSES :, columns] = coefficients.T
    return out[None]


def _frame(ellipses: NDArray, width: int, height: int, rng: np.random.Generator) -> Frame:
    focal = 0.72 * width
    intrinsics = Intrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
    v, u = np.meshgrid(np.arange(height) - intrinsics.cy, np.arange(width) - intrinsics.cx, indexing="ij")
    depth = (TABLE / (1 + (TILT[0] * u + TILT[1] * v) / focal)).astype(np.float32)
    for x, y, rx, ry in ellipses:
        x0, x1 = max(0, int(x - rx)), min(width, math.ceil(x + rx) + 1)
        y0, y1 = max(0, int(y - ry)), min(height, math.ceil(y + ry) + 1)
        row, column = np.ogrid[y0:y1, x0:x1]
        depth[y0:y1, x0:x1][((column - x) / rx) ** 2 + ((row - y) / ry) ** 2 < 1] -= HEIGHT
    color = rng.integers(90, 110, (height, width, 3), np.uint8)
    return Frame(color, sensor_depth(depth, intrinsics, (0, 0, 1), "d435"), intrinsics)
