# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which of several small maps, enlarged bilinearly, is the highest at each pixel: without enlarging them all.

Between four values of a map the enlarged one lies between the lowest and the highest of these. So in such a cell only
the maps count whose highest corner reaches the best of all lowest corners; mostly that is one, and no pixel is looked
at. Where pixels are looked at, their values are those of the plain way, bit by bit.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from seg_perception.segmenters.decoding.enlarged import axis

ROUNDING = np.float32(1e-6)  # an interpolated value may leave its corners' range by this much of it


@njit(cache=True, nogil=True)
def highest(maps, weights, height, width, least):  # type: ignore[no-untyped-def]
    """(height, width) the first of `maps` (n, rows, columns), times its weight, that is highest, -1 where none is above
    `least`; and how many pixels each has, (n,)."""
    n, rows, columns = maps.shape
    _, y_weight, y_first = axis(rows, height)
    _, x_weight, x_first = axis(columns, width)
    out = np.empty((height, width), np.int32)
    won = np.zeros(n, np.int64)
    low = np.empty((n, columns), np.float32)
    high = np.empty((n, columns), np.float32)
    bound = np.empty(columns, np.float32)
    chosen = np.empty(n, np.int64)
    for r in range(rows):
        y0, y1 = y_first[r], y_first[r + 1]
        if y0 == y1:
            continue
        below = min(r + 1, rows - 1)
        bound[:] = least
        for i in range(n):
            _corners(maps[i, r], maps[i, below], weights[i], low[i], high[i])
            for k in range(columns):
                if low[i, k] > bound[k]:
                    bound[k] = low[i, k]
        for k in range(columns):
            x0, x1 = x_first[k], x_first[k + 1]
            if x0 == x1:
                continue
            count = 0
            for i in range(n):
                if high[i, k] >= bound[k] - ROUNDING * (abs(high[i, k]) + abs(bound[k])):
                    chosen[count] = i
                    count += 1
            if count == 1 and low[chosen[0], k] > least + ROUNDING * (abs(low[chosen[0], k]) + abs(least)):
                out[y0:y1, x0:x1] = chosen[0]
                won[chosen[0]] += (y1 - y0) * (x1 - x0)
                continue
            after = min(k + 1, columns - 1)
            for y in range(y0, y1):
                weight = y_weight[y]
                for x in range(x0, x1):
                    best = np.float32(least)
                    winner = -1
                    for c in range(count):
                        i = chosen[c]
                        a = maps[i, r, k] * (np.float32(1) - weight) + maps[i, below, k] * weight
                        b = maps[i, r, after] * (np.float32(1) - weight) + maps[i, below, after] * weight
                        value = (a * (np.float32(1) - x_weight[x]) + b * x_weight[x]) * weights[i]
                        if value > best:
                            best = value
                            winner = i
                    out[y, x] = winner
                    if winner >= 0:
                        won[winner] += 1
    return out, won


@njit(cache=True, nogil=True)
def count_at_least(maps, weights, height, width, threshold):  # type: ignore[no-untyped-def]
    """(n,) pixels of a (height, width) image where each of `maps`, times its weight, is at least `threshold`."""
    n, rows, columns = maps.shape
    _, y_weight, y_first = axis(rows, height)
    _, x_weight, x_first = axis(columns, width)
    out = np.zeros(n, np.int64)
    low = np.empty(columns, np.float32)
    high = np.empty(columns, np.float32)
    for i in range(n):
        for r in range(rows):
            y0, y1 = y_first[r], y_first[r + 1]
            if y0 == y1:
                continue
            below = min(r + 1, rows - 1)
            _corners(maps[i, r], maps[i, below], weights[i], low, high)
            for k in range(columns):
                x0, x1 = x_first[k], x_first[k + 1]
                margin = ROUNDING * (abs(high[k]) + abs(low[k]) + abs(threshold))
                if high[k] < threshold - margin:
                    continue
                if low[k] >= threshold + margin:
                    out[i] += (y1 - y0) * (x1 - x0)
                    continue
                after = min(k + 1, columns - 1)
                for y in range(y0, y1):
                    weight = y_weight[y]
                    a = maps[i, r, k] * (np.float32(1) - weight) + maps[i, below, k] * weight
                    b = maps[i, r, after] * (np.float32(1) - weight) + maps[i, below, after] * weight
                    for x in range(x0, x1):
                        if (a * (np.float32(1) - x_weight[x]) + b * x_weight[x]) * weights[i] >= threshold:
                            out[i] += 1
    return out


@njit(cache=True, nogil=True)
def _corners(upper, lower, weight, low, high):  # type: ignore[no-untyped-def]
    """The lowest and the highest corner of each cell of a row; -inf and inf where one of them is not finite."""
    columns = len(upper)
    for k in range(columns):
        after = min(k + 1, columns - 1)
        a, b, c, d = upper[k], upper[after], lower[k], lower[after]
        least, most = min(min(a, b), min(c, d)), max(max(a, b), max(c, d))
        sum_of_all = a + b + c + d
        if sum_of_all - sum_of_all != 0:  # also of NaN
            low[k] = -np.inf
            high[k] = np.inf
        else:
            low[k] = least * weight
            high[k] = most * weight
