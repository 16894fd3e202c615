# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What stands around an object: thinned points of the whole frame, each with the mask it lies in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.geometry import ray_table
from seg_perception.masks import Masks
from seg_perception.scene import Frame

COUNT = 16000  # about so many points are taken from a frame, whatever its size
STEP, STEP_RATIO = 0.012, 0.015  # m and share of depth; neighbours farther apart belong to two surfaces
NO_IGNORE = np.empty((0, 0), np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class ScenePoints:
    """Thinned points of the frame, `points` (P, 3) m, and the row of the mask each is in, `owner` (P,), -1 = none."""

    points: NDArray[np.float32]
    owner: NDArray[np.int32]

    def without(self, row: int) -> NDArray[np.float32]:
        """Everything but the points of mask `row`."""
        return self.points[self.owner != row]


def scene_points(frame: Frame, masks: Masks) -> ScenePoints:
    """Every k-th pixel's point, so that about 16000 remain; none of the robot (`frame.ignore`) and none that fly
    between surfaces. Where masks overlap the later one owns the point. Empty when the frame cannot give 3D."""
    if frame.no_3d is not None or frame.depth is None or frame.intrinsics is None:
        return ScenePoints(np.empty((0, 3), np.float32), np.empty(0, np.int32))
    stride = max(1, round((frame.width * frame.height / COUNT) ** 0.5))
    ignore = NO_IGNORE if frame.ignore is None else frame.ignore
    points, owner = _sample(frame.depth, ray_table(frame.intrinsics), ignore, masks.spans, masks.offsets, stride)
    return ScenePoints(points, owner)


@njit(cache=True, nogil=True)
def around(points, middle, reach):  # type: ignore[no-untyped-def]
    """Those of `points` (P, 3) that are finite and nearer than `reach` m to `middle` (3,), as float64."""
    out = np.empty((len(points), 3))
    n = 0
    for i in range(len(points)):
        x, y, z = points[i, 0] - middle[0], points[i, 1] - middle[1], points[i, 2] - middle[2]
        if x * x + y * y + z * z < reach * reach:
            out[n, 0], out[n, 1], out[n, 2] = points[i, 0], points[i, 1], points[i, 2]
            n += 1
    return out[:n]


@njit(cache=True, nogil=True)
def _sample(depth, rays, ignore, spans, offsets, stride):  # type: ignore[no-untyped-def]
    height, width = depth.shape
    rows, columns = (height + stride - 1) // stride, (width + stride - 1) // stride
    owners = np.full((rows, columns), -1, np.int32)
    for i in range(len(offsets) - 1):
        for k in range(offsets[i], offsets[i + 1]):
            if spans[k, 0] % stride == 0:
                first = (spans[k, 1] + stride - 1) // stride
                last = (spans[k, 2] + stride - 1) // stride
                owners[spans[k, 0] // stride, first:last] = i
    points = np.empty((rows * columns, 3), np.float32)
    owner = np.empty(rows * columns, np.int32)
    n = 0
    for r in range(rows):
        for c in range(columns):
            y, x = r * stride, c * stride
            z = depth[y, x]
            if not 0 < z < np.inf or (ignore.size > 0 and ignore[y, x]):
                continue
            t = max(STEP, STEP_RATIO * z)
            beside = (x > 0 and abs(depth[y, x - 1] - z) <= t) + (x + 1 < width and abs(depth[y, x + 1] - z) <= t)
            above = (y > 0 and abs(depth[y - 1, x] - z) <= t) + (y + 1 < height and abs(depth[y + 1, x] - z) <= t)
            if beside + above < 2:
                continue
            points[n, 0] = rays[y, x, 0] * z
            points[n, 1] = rays[y, x, 1] * z
            points[n, 2] = z
            owner[n] = owners[r, c]
            n += 1
    return points[:n], owner[:n]
