# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Masks from prototypes: a mask is a weighted sum of the network's prototype maps, seen at the color image's size.

Decoded straight to row spans, see `enlarged`. The result is that of the dense way (enlarge bilinearly, cut at the box,
compare with 0), as Ultralytics' `process_mask_native` does it.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.segmenters.decoding.enlarged import NONE, axis, spans_above
from seg_perception.segmenters.networks.letterbox import Letterbox


def decode_masks(
    prototypes: NDArray[np.float32],
    coefficients: NDArray[np.float32],
    boxes: NDArray[np.float32],
    letterbox: Letterbox,
) -> Masks:
    """The pixels inside each box whose logit `coefficients @ prototypes` is above 0.

    `prototypes` (K, h, w), `coefficients` (N, K), `boxes` (N, 4) image px; a pixel column x is inside a box when
    `x_min <= x < x_max`. Raises ValueError when the prototypes do not divide the network's input evenly.
    """
    count, map_height, map_width = prototypes.shape
    if coefficients.shape != (len(boxes), count):
        raise ValueError(f"coefficients: expected {(len(boxes), count)}, got {coefficients.shape}")
    stride = letterbox.net_height // max(map_height, 1)
    if (map_height * stride, map_width * stride) != (letterbox.net_height, letterbox.net_width):
        raise ValueError(
            f"prototypes: {map_width}x{map_height} does not divide the network's "
            f"{letterbox.net_width}x{letterbox.net_height} evenly"
        )
    cell = whole_cell(letterbox, stride)
    spans, offsets = _decode(
        np.ascontiguousarray(prototypes, np.float32),
        np.ascontiguousarray(coefficients, np.float32),
        np.ascontiguousarray(boxes, np.float32),
        stride // cell,
        letterbox.top // cell,
        letterbox.left // cell,
        letterbox.scaled_height // cell,
        letterbox.scaled_width // cell,
        letterbox.height,
        letterbox.width,
    )
    return Masks(letterbox.height, letterbox.width, spans, offsets)


def cropped_probabilities(
    prototypes: NDArray[np.float32], coefficients: NDArray[np.float32], boxes: NDArray[np.float32], margin: float
) -> NDArray[np.float32]:
    """(N, h, w) the sigmoid of `prototypes @ coefficients`, 0 outside each box.

    `prototypes` (h, w, K), `coefficients` (N, K), `boxes` (N, 4) in shares of the map, grown by `margin` cells; a
    column x is inside when `x_min <= x < x_max` (YOLACT's `crop`).
    """
    return _cropped(prototypes, np.ascontiguousarray(coefficients, np.float32), boxes, np.float32(margin))


def whole_cell(letterbox: Letterbox, stride: int) -> int:
    """The largest cell (network px, a divisor of `stride`) of which image and padding are whole multiples.

    The prototype map, one value in `stride` px, is enlarged to this cell before the padding is cut off.
    """
    edges = (letterbox.top, letterbox.left, letterbox.scaled_height, letterbox.scaled_width)
    return math.gcd(stride, *edges)


@njit(cache=True, nogil=True)
def _decode(prototypes, coefficients, boxes, enlarge, top, left, rows, columns, height, width):  # type: ignore[no-untyped-def]
    n = len(boxes)
    y_axis, x_axis = axis(rows, height), axis(columns, width)
    y_knot, x_knot = y_axis[0], x_axis[0]
    spans = np.empty((4096, 3), np.int32)
    offsets = np.zeros(n + 1, np.int64)
    total = NONE
    for i in range(n):
        x0, y0 = max(0, math.ceil(boxes[i, 0])), max(0, math.ceil(boxes[i, 1]))
        x1, y1 = min(width, math.ceil(boxes[i, 2])), min(height, math.ceil(boxes[i, 3]))
        if x0 < x1 and y0 < y1:
            j0, j1 = y_knot[y0], min(y_knot[y1 - 1] + 1, rows - 1)
            k0, k1 = x_knot[x0], min(x_knot[x1 - 1] + 1, columns - 1)
            logits = _logits(prototypes, coefficients[i], enlarge, top + j0, top + j1 + 1, left + k0, left + k1 + 1)
            box = (x0, y0, x1, y1)
            spans, total = spans_above(logits, np.float32(0), (j0, k0), box, y_axis, x_axis, spans, total)
        offsets[i + 1] = total
    return spans[:total].copy(), offsets


@njit(cache=True, nogil=True)
def _logits(prototypes, coefficients, enlarge, top, bottom, left, right):  # type: ignore[no-untyped-def]
    """Logits of the cells `top:bottom, left:right`, or some more to the right, of the map enlarged `enlarge` times,
    bilinearly."""
    map_height, map_width = prototypes.shape[1:]
    reach = (enlarge - 1) / 2
    p0 = max(0, math.floor((top - reach) / enlarge))
    q0 = max(0, math.floor((left - reach) / enlarge))
    p1 = min(map_height, max(0, math.ceil((bottom - 1 - reach) / enlarge)) + 1)
    q1 = min(map_width, max(0, math.ceil((right - 1 - reach) / enlarge)) + 1)
    q1 = min(map_width, q0 + (q1 - q0 + 7) // 8 * 8)  # whole vectors: a rest of single values takes longer than they
    coarse = np.zeros((p1 - p0, q1 - q0), np.float32)
    for c in range(len(coefficients)):
        weight = coefficients[c]
        for p in range(p0, p1):
            total = coarse[p - p0]
            values = prototypes[c, p, q0:q1]
            for q in range(q1 - q0):
                total[q] += weight * values[q]
    if enlarge == 1:
        return coarse
    fine = np.empty((bottom - top, right - left), np.float32)
    for y in range(top, bottom):
        v = max(0.0, (y + 0.5) / enlarge - 0.5)
        p = min(int(v), map_height - 1)
        below = min(p + 1, p1 - 1) - p0
        wy = np.float32(v - p)
        for x in range(left, right):
            u = max(0.0, (x + 0.5) / enlarge - 0.5)
            q = min(int(u), map_width - 1)
            after = min(q + 1, q1 - 1) - q0
            wx = np.float32(u - q)
            upper = coarse[p - p0, q - q0] * (np.float32(1) - wx) + coarse[p - p0, after] * wx
            lower = coarse[below, q - q0] * (np.float32(1) - wx) + coarse[below, after] * wx
            fine[y - top, x - left] = upper * (np.float32(1) - wy) + lower * wy
    return fine


@njit(cache=True, nogil=True)
def _cropped(prototypes, coefficients, boxes, margin):  # type: ignore[no-untyped-def]
    height, width, channels = prototypes.shape
    out = np.zeros((len(boxes), height, width), np.float32)
    for i in range(len(boxes)):
        x0, x1 = _cells(boxes[i, 0] * np.float32(width), boxes[i, 2] * np.float32(width), margin, width)
        y0, y1 = _cells(boxes[i, 1] * np.float32(height), boxes[i, 3] * np.float32(height), margin, height)
        for y in range(y0, y1):
            for x in range(x0, x1):
                logit = np.float32(0)
                for k in range(channels):
                    logit += coefficients[i, k] * prototypes[y, x, k]
                out[i, y, x] = 1 / (1 + np.exp(-logit))
    return out


@njit(cache=True, nogil=True)
def _cells(a, b, margin, limit):  # type: ignore[no-untyped-def]
    """The whole cells between a and b, in either order, and `margin` beyond."""
    low, high = max(min(a, b) - margin, np.float32(0)), min(max(a, b) + margin, np.float32(limit))
    return math.ceil(low), max(math.ceil(high), 0)
