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
def grown(rows, used, room):  # type: ignore[no-untyped-def]
    """A longer copy of `rows` (S, columns): the first `used` of them, and space for as many again and `room` more."""
    longer = np.empty((2 * len(rows) + room, rows.shape[1]), rows.dtype)
    longer[:used] = rows[:used]
    return longer


@njit(cache=True, nogil=True)
def runs_of_row(row, k0, last, first, weight, step, y, x0, x1, changes, spans, total):  # type: ignore[no-untyped-def]
    """Appends the spans of row y: the pixels of x0:x1 where the line through the knots `row` (k0 first) is above 0;
    `last` is the knot of pixel x1 - 1.

    Most knots change nothing, so those where the sign changes are collected first, without a branch: in `changes`, with
    room for all of them.
    """
    n = 0
    for j in range(last - k0 + 1):
        changes[n] = j
        n += (row[j] > 0) != (row[j + 1] > 0)
    inside, start, before = row[0] > 0, x0, total
    for i in range(n):
        j = changes[i]
        k = k0 + j
        turn = _turn(row[j], row[j + 1], k, weight, step, max(first[k], x0), max(min(first[k + 1], x1), x0))
        if inside:
            if turn > start:
                spans[total, 0], spans[total, 1], spans[total, 2] = y, start, turn
                total += 1
            inside = False
        else:
            inside, start = True, turn
            if total > before and spans[total - 1, 2] == turn:  # no pixel is between the two
                total -= 1
                start = spans[total, 1]
    if inside and x1 > start:
        spans[total, 0], spans[total, 1], spans[total, 2] = y, start, x1
        total += 1
    return total


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
