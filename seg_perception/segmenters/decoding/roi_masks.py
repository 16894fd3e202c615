# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Masks that a network gives per instance, inside the instance's box, over the whole input, or as a polygon.

Straight to row spans of the image.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.segmenters.decoding.enlarged import grown


def paste_in_boxes(
    probabilities: NDArray[np.float32],
    boxes: NDArray[np.float32],
    height: int,
    width: int,
    threshold: float,
    rounded: bool,
) -> Masks:
    """Where `probabilities` (N, h, w), stretched over `boxes` (N, 4) image px, are above `threshold`.

    They fall off to 0 one cell beyond their edge. `rounded` = the box is grown by that cell and cut to whole pixels,
    its last one included (torchvision's `paste_masks_in_image`); else the box counts as it is (Detectron2's
    `_do_paste_mask`, which mmdetection has too).
    """
    ringed = np.zeros((len(probabilities), probabilities.shape[1] + 2, probabilities.shape[2] + 2), np.float32)
    ringed[:, 1:-1, 1:-1] = probabilities
    spans, offsets = _paste(ringed, np.ascontiguousarray(boxes, np.float32), height, width, threshold, rounded)
    return Masks(height, width, spans, offsets)


def fill_polygons(polygons: NDArray[np.float32], height: int, width: int) -> Masks:
    """The pixels whose centre is inside each of `polygons` (N, P, 2) `x, y` image px, even-odd."""
    spans, offsets = _fill(np.ascontiguousarray(polygons, np.float64), height, width)
    return Masks(height, width, spans, offsets)


@njit(cache=True, nogil=True)
def _paste(ringed, boxes, height, width, threshold, rounded):  # type: ignore[no-untyped-def]
    n = len(boxes)
    spans = np.empty((4096, 3), np.int32)
    offsets = np.zeros(n + 1, np.int64)
    total = 0
    for i in range(n):
        x0, x_knot, x_weight = _samples(boxes[i, 0], boxes[i, 2], ringed.shape[2], width, rounded)
        y0, y_knot, y_weight = _samples(boxes[i, 1], boxes[i, 3], ringed.shape[1], height, rounded)
        for p in range(len(y_knot)):
            upper = ringed[i, y_knot[p]]
            lower = ringed[i, min(y_knot[p] + 1, ringed.shape[1] - 1)]
            wy = y_weight[p]
            if total + len(x_knot) // 2 + 1 > len(spans):
                spans = grown(spans, total, width)
            inside = False
            for q in range(len(x_knot)):
                k, wx = x_knot[q], x_weight[q]
                after = min(k + 1, ringed.shape[2] - 1)
                left = upper[k] * (np.float32(1) - wy) + lower[k] * wy
                right = upper[after] * (np.float32(1) - wy) + lower[after] * wy
                now = left * (np.float32(1) - wx) + right * wx > threshold
                if now and not inside:
                    spans[total, 0] = y0 + p
                    spans[total, 1] = x0 + q
                elif inside and not now:
                    spans[total, 2] = x0 + q
                    total += 1
                inside = now
            if inside:
                spans[total, 2] = x0 + len(x_knot)
                total += 1
        offsets[i + 1] = total
    return spans[:total].copy(), offsets


@njit(cache=True, nogil=True)
def _samples(low, high, cells, limit, rounded):  # type: ignore[no-untyped-def]
    """The first pixel of an axis that a ringed map of `cells` over low..high reaches, and per pixel knot and weight."""
    own = cells - 2
    if not (math.isfinite(low) and math.isfinite(high)) or (not rounded and high <= low):
        return 0, np.empty(0, np.int64), np.empty(0, np.float32)
    if rounded:
        half = (high - low) * np.float32(0.5) * np.float32(cells / own)
        middle = (high + low) * np.float32(0.5)
        begin = float(int(middle - half))
        size = float(max(int(middle + half) - int(begin) + 1, 1))
        start, stop = int(begin), int(begin + size)
    else:
        cell = (high - low) / own
        begin, size = low - cell, (high - low) + 2 * cell
        start, stop = math.floor(begin), math.ceil(begin + size)
    start, stop = max(start, 0), min(stop, limit)
    count = max(stop - start, 0)
    knot = np.empty(count, np.int64)
    weight = np.empty(count, np.float32)
    for p in range(count):
        source = (start + p + 0.5 - begin) * cells / size - 0.5
        source = min(max(source, 0.0), cells - 1.0)
        knot[p] = int(source)
        weight[p] = source - knot[p]
    return start, knot, weight


@njit(cache=True, nogil=True)
def _fill(polygons, height, width):  # type: ignore[no-untyped-def]
    n, corners = polygons.shape[:2]
    spans = np.empty((4096, 3), np.int32)
    offsets = np.zeros(n + 1, np.int64)
    crossings = np.empty(corners)
    total = 0
    for i in range(n):
        ys = polygons[i, :, 1]
        low, high = ys.min(), ys.max()
        if math.isfinite(low) and math.isfinite(high):
            for y in range(max(0, math.ceil(low - 0.5)), min(height, math.ceil(high - 0.5))):
                count = 0
                for c in range(corners):
                    xa, ya = polygons[i, c]
                    xb, yb = polygons[i, (c + 1) % corners]
                    if (ya <= y + 0.5) != (yb <= y + 0.5):
                        crossings[count] = xa + (y + 0.5 - ya) * (xb - xa) / (yb - ya)
                        count += 1
                inside = np.sort(crossings[:count])
                if total + count > len(spans):
                    spans = grown(spans, total, count)
                for c in range(0, count - 1, 2):
                    x0, x1 = _pixels(inside[c], inside[c + 1], width)
                    if x0 < x1:
                        if total > offsets[i] and spans[total - 1, 0] == y and spans[total - 1, 2] >= x0:
                            spans[total - 1, 2] = x1
                            continue
                        spans[total, 0] = y
                        spans[total, 1] = x0
                        spans[total, 2] = x1
                        total += 1
        offsets[i + 1] = total
    return spans[:total].copy(), offsets


@njit(cache=True, nogil=True)
def _pixels(low, high, width):  # type: ignore[no-untyped-def]
    """The pixels whose centres are in low..high; none for what is no number."""
    if not (low <= high):
        return 0, 0
    first = math.ceil(min(max(low, -1.0), width + 1.0) - 0.5)
    stop = math.ceil(min(max(high, -1.0), width + 1.0) - 0.5)
    return max(first, 0), min(stop, width)
