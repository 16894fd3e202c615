# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How alike the results of two runtimes are: the network's outputs as numbers, the instances as masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from seg_perception.scene import Instances

LEAST_SPREAD = 0.1  # of the largest value: an output of one number has no spread of its own
LEAST_IOU = 0.3  # below that two masks are not of one object
EQUAL_OUTPUTS = 1e-3  # RMS of the difference in spreads of an output
EQUAL_PIXELS = 1e-4  # share of the masks' pixels
EQUAL_SCORES = 1e-3
CLOSE_IOU = 0.8
CLOSE_LOST = 0.2  # share of the instances that have no counterpart


@dataclass(frozen=True)
class Agreement:
    """Over all images: `outputs` RMS of the difference over the spread of the output where that is largest; of the
    masks' pixels the share `pixels` that differs; the rest speaks of the instances that are in both."""

    outputs: float
    expected: int  # instances of the reference
    found: int
    matched: int
    mean_iou: float
    least_iou: float
    pixels: float
    scores: float  # largest difference

    @property
    def missing(self) -> int:
        return self.expected - self.matched

    @property
    def extra(self) -> int:
        return self.found - self.matched

    @property
    def equal(self) -> bool:
        """No instance more or less, 1 pixel in 10 000, scores to 0.001."""
        same = self.outputs <= EQUAL_OUTPUTS and not self.missing and not self.extra
        return same and self.pixels <= EQUAL_PIXELS and self.scores <= EQUAL_SCORES

    @property
    def close(self) -> bool:
        """As near as a lower precision comes: the same objects on the whole, other edges."""
        if not self.expected:
            return self.found <= 1 and bool(np.isfinite(self.outputs))
        lost = (self.missing + self.extra) / (self.expected + self.found)
        return lost <= CLOSE_LOST and (self.mean_iou >= CLOSE_IOU or not self.matched) and np.isfinite(self.outputs)


class Comparison:
    """Adds up over images."""

    def __init__(self) -> None:
        self._outputs, self._scores = 0.0, 0.0
        self._expected = self._found = self._different = self._pixels = 0
        self._ious: list[float] = []

    def add(
        self,
        expected: Instances,
        found: Instances,
        expected_outputs: Sequence[dict[str, NDArray]],
        found_outputs: Sequence[dict[str, NDArray]],
    ) -> None:
        """One image. Outputs are call by call of the network."""
        if len(expected_outputs) != len(found_outputs):
            self._outputs = np.inf
        for want, got in zip(expected_outputs, found_outputs, strict=False):
            worst = [output_difference(got[name], want[name]) if name in got else np.inf for name in want]
            self._outputs = max([self._outputs, *worst])
        expected, found = (rows[np.flatnonzero(rows.masks.areas > 0)] for rows in (expected, found))
        pairs = matched(expected, found)
        self._expected += len(expected)
        self._found += len(found)
        areas, others = expected.masks.areas, found.masks.areas
        for i, j, shared in pairs:
            union = int(areas[i]) + int(others[j]) - shared
            self._ious.append(shared / union)
            self._different += union - shared
            self._scores = max(self._scores, abs(float(expected.scores[i]) - float(found.scores[j])))
        self._pixels += int(areas.sum())

    def result(self) -> Agreement:
        mean, least = (float(np.mean(self._ious)), float(min(self._ious))) if self._ious else (np.nan, np.nan)
        share = self._different / max(self._pixels, 1)
        counts = (self._expected, self._found, len(self._ious))
        return Agreement(float(self._outputs), *counts, mean, least, share, self._scores)


def output_difference(got: NDArray, expected: NDArray) -> float:
    """RMS of the difference over the spread (the larger of the two); of other sizes or with NaN elsewhere infinite.

    Both are sorted first: two values that are nearly equal may change places in a top-k, and so may rows.
    """
    if got.ndim != expected.ndim:
        return np.inf
    if got.shape != expected.shape:  # as many rows as were found: the instances are counted elsewhere
        return 0.0 if got.shape[1:] == expected.shape[1:] or got.shape[2:] == expected.shape[2:] else np.inf
    a, b = (np.sort(array.astype(np.float64), axis=None) for array in (got, expected))
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite):
        return np.inf
    a, b = a[finite], b[finite]
    if not a.size:
        return 0.0
    spread = max(a.std(), b.std(), LEAST_SPREAD * max(float(np.abs(a).max()), float(np.abs(b).max())))
    return float(np.sqrt(np.mean((a - b) ** 2)) / spread) if spread else 0.0


def matched(expected: Instances, found: Instances) -> list[tuple[int, int, int]]:
    """One to one pairs (row, row, pixels in both) of the same class and an IoU of at least 0.3, best in sum."""
    shared = np.zeros((len(expected), len(found)), np.int64)
    rois, others = expected.masks.rois, found.masks.rois
    for i in range(len(expected)):
        for j in range(len(found)):
            if expected.class_ids[i] == found.class_ids[j]:
                roi = _overlap(rois[i], others[j])
                if roi is not None:
                    both = expected.masks.crop(i, roi) & found.masks.crop(j, roi)
                    shared[i, j] = np.count_nonzero(both)
    union = expected.masks.areas[:, None] + found.masks.areas[None] - shared
    iou = shared / np.maximum(union, 1)
    # Masks may be one and the same twice (two points on one object): then the score decides.
    near = 1e-3 * np.abs(expected.scores[:, None] - found.scores[None])
    rows = linear_sum_assignment(np.where(iou >= LEAST_IOU, 1 + iou - near, 0.0), maximize=True)
    return [(int(i), int(j), int(shared[i, j])) for i, j in zip(*rows, strict=True) if iou[i, j] >= LEAST_IOU]


def _overlap(a: NDArray[np.int32], b: NDArray[np.int32]) -> tuple[int, int, int, int] | None:
    """What two boxes `x_offset, y_offset, width, height` have in common."""
    x, y = max(int(a[0]), int(b[0])), max(int(a[1]), int(b[1]))
    width = min(int(a[0] + a[2]), int(b[0] + b[2])) - x
    height = min(int(a[1] + a[3]), int(b[1] + b[3])) - y
    return (x, y, width, height) if width > 0 and height > 0 else None
