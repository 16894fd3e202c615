# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Row spans of maps that a network puts out small and that count at the image's size, enlarged bilinearly.

Pixel centres decide (`align_corners=False`): pixel p of an enlarged row lies at `(p + 0.5) * knots / pixels - 0.5`. A
row of the enlarged map is piecewise linear, so each sign change of its few knots gives the exact end of a run, and no
pixel is looked at in between.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit


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
def runs_of_row(row, k0, first, weight, step, y, x0, x1, spans, total):  # type: ignore[no-untyped-def]
    """Appends the spans of row y: the pixels of x0:x1 where the line through the knots `row` (k0 first) is above 0."""
    inside = False
    k = k0
    x = x0
    while x < x1:
        stop = min(first[k + 1], x1)
        if x < stop:
            a, b = row[k - k0], row[k - k0 + 1]
            turn = stop if (a > 0) == (b > 0) else _turn(a, b, k, weight, step, x, stop)
            if x < turn and (a > 0) != inside:
                inside = not inside
                total = _toggle(spans, total, inside, y, x)
            if turn < stop and (b > 0) != inside:
                inside = not inside
                total = _toggle(spans, total, inside, y, turn)
            x = stop
        k += 1
    if inside:
        total = _toggle(spans, total, False, y, x1)
    return total


@njit(cache=True, nogil=True)
def _toggle(spans, total, inside, y, x):  # type: ignore[no-untyped-def]
    if inside:
        spans[total, 0] = y
        spans[total, 1] = x
        return total
    spans[total, 2] = x
    return total + 1


@njit(cache=True, nogil=True)
def _turn(a, b, k, weight, step, start, stop):  # type: ignore[no-untyped-def]
    """The first pixel of `start:stop` on b's side of the line from a (knot k) to b; `stop` if none is."""
    share = a / (a - b)
    if not 0 <= share <= 1:  # an infinite or undefined logit
        share = np.float32(0.5)
    x = min(max(math.ceil((k + share + 0.5) / step - 0.5), start), stop)
    # The estimate may round to the neighbour: the line's own value at the pixel decides.
    while x > start and (a * (np.float32(1) - weight[x - 1]) + b * weight[x - 1] > 0) == (b > 0):
        x -= 1
    while x < stop and (a * (np.float32(1) - weight[x]) + b * weight[x] > 0) != (b > 0):
        x += 1
    return x
