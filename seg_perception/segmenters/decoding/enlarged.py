# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Row spans of maps that a network puts out small and that count at the image's size, enlarged bilinearly.

Pixel centres decide (`align_corners=False`): pixel p of an enlarged row lies at `(p + 0.5) * knots / pixels - 0.5`. A
row of the enlarged map is piecewise linear between its few knots. So four knots on one side of the level say that no
run begins or ends among them, and pixels are looked at only in the few cells that have knots on both sides.
"""

from __future__ import annotations

import numpy as np
from numba import njit

ROUNDING = np.float32(1e-6)  # an interpolated value may leave its knots' range by this much of it
TINY = np.float32(1e-30)  # and by this much where numbers are too small for float32
ABOVE, BELOW = np.uint8(1), np.uint8(2)
NONE = np.int64(0)  # for a count that is given to kernels: for a literal 0 each would be compiled a second time


@njit(cache=True, nogil=True)
def axis(knots, pixels):  # type: ignore[no-untyped-def]
    """Per pixel the knot at or before its centre and the weight of the next one; per knot its first pixel."""
    knot = np.empty(pixels, np.int64)
    weight = np.empty(pixels, np.float32)
    first = np.full(knots + 1, pixels, np.int64)
    first[0] = 0
    last = 0
    for p in range(pixels):
        source = max(0.0, (p + 0.5) * knots / pixels - 0.5)
        k = min(int(source), knots - 1)
        knot[p] = k
        weight[p] = source - k if k < knots - 1 else 0.0
        for passed in range(last + 1, k + 1):
            first[passed] = p
        last = k
    return knot, weight, first


@njit(cache=True, nogil=True)
def grown(rows, used, room):  # type: ignore[no-untyped-def]
    """A longer copy of `rows` (S, columns): the first `used` of them, and space for as many again and `room` more."""
    longer = np.empty((2 * len(rows) + room, rows.shape[1]), rows.dtype)
    for i in range(used):  # a slice would bring in the text of an error about its size: seconds of compiling
        for k in range(rows.shape[1]):
            longer[i, k] = rows[i, k]
    return longer


@njit(cache=True, nogil=True)
def spans_above(area, level, corner, box, y_axis, x_axis, spans, total):  # type: ignore[no-untyped-def]
    """Appends the spans of the pixels in `box` (x0, y0, x1, y1) where `area`, enlarged, is above `level`.

    `area` has the knots of the box, from knot `corner` (row, column) on; the axes are as `axis` makes them. Returns
    `spans`, longer if need be, and how many there are.
    """
    (j0, k0), (x0, y0, x1, y1) = corner, box
    y_knot, y_weight, y_first = y_axis
    x_knot, x_weight, x_first = x_axis
    cells = min(x_knot[x1 - 1] + 1, len(x_first) - 2) - k0
    if total + (y1 - y0) * (cells // 2 + 2) > len(spans):  # a run and a gap take a knot each
        spans = grown(spans, total, (y1 - y0) * (cells // 2 + 2))
    sides = _sides(area, level, cells + 1)
    turning = np.empty(cells + 1, np.int64)
    for j in range(y_knot[y0] - j0, y_knot[y1 - 1] - j0 + 1):
        below = min(j + 1, len(area) - 1)
        n = 0
        for k in range(cells):  # without a branch: most cells are passed over
            turning[n] = k
            n += (sides[j, k] | sides[j, k + 1] | sides[below, k] | sides[below, k + 1]) == (ABOVE | BELOW)
        for y in range(max(y_first[j0 + j], y0), min(y_first[j0 + j + 1], y1)):
            w = y_weight[y]
            inside, start, before = _between(area[j, 0], area[below, 0], w) - level > 0, x0, total
            for i in range(n):
                k = turning[i]
                a = _between(area[j, k], area[below, k], w) - level
                b = _between(area[j, k + 1], area[below, k + 1], w) - level
                if (a > 0) == (b > 0):
                    continue
                x = _turn(a, b, x_weight, max(x_first[k0 + k], x0), min(x_first[k0 + k + 1], x1))
                if not inside:
                    start = x
                    if total > before and spans[total - 1, 2] == x:  # no pixel is between the two
                        total -= 1
                        start = spans[total, 1]
                elif x > start:
                    spans[total, 0], spans[total, 1], spans[total, 2] = y, start, x
                    total += 1
                inside = not inside
            if inside and x1 > start:
                spans[total, 0], spans[total, 1], spans[total, 2] = y, start, x1
                total += 1
    return spans, total


@njit(cache=True, nogil=True)
def _sides(area, level, columns):  # type: ignore[no-untyped-def]
    """On which side of the level a row through each knot may be: ABOVE, BELOW (or on it), or both, if not sure."""
    sides = np.empty((len(area), columns), np.uint8)
    for j in range(len(area)):
        for k in range(columns):
            value = area[j, k]
            margin = ROUNDING * (abs(value) + abs(level)) + TINY
            above = np.uint8(0) if value < level - margin else ABOVE
            sides[j, k] = above | (np.uint8(0) if value > level + margin else BELOW)  # both for NaN and inf
    return sides


@njit(cache=True, nogil=True)
def _turn(a, b, weight, start, stop):  # type: ignore[no-untyped-def]
    """The first pixel of `start:stop` on b's side of the line from a to b; `stop` if none is."""
    x = start
    for p in range(start, stop):
        x += (_between(a, b, weight[p]) > 0) == (a > 0)
    return x


@njit(cache=True, nogil=True)
def _between(a, b, weight):  # type: ignore[no-untyped-def]
    return a * (np.float32(1) - weight) + b * weight
