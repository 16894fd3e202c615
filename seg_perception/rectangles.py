# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of geometry: convex hulls, smallest rectangles in a plane, and the box that stands on such a rectangle."""

from __future__ import annotations

import numpy as np
from numba import njit

COLUMNS = 128
LOOKED_AT = 64  # values at once
FEW = 64  # so many extremes are kept in order as they come; of more, all values are sorted


@njit(cache=True, nogil=True)
def axes_with_z(z, hint):  # type: ignore[no-untyped-def]
    """(3, 3) rotation whose third column lies along `z` (3,); its first lies towards `hint` (3,) as far as it can."""
    a, b, c = _unit(z[0], z[1], z[2])
    along = a * hint[0] + b * hint[1] + c * hint[2]
    x, y, w = hint[0] - along * a, hint[1] - along * b, hint[2] - along * c
    if x * x + y * y + w * w < 1e-12:  # along the axis: any other direction
        if abs(a) <= min(abs(b), abs(c)):
            x, y, w = 1.0 - a * a, -a * b, -a * c
        elif abs(b) <= abs(c):
            x, y, w = -b * a, 1.0 - b * b, -b * c
        else:
            x, y, w = -c * a, -c * b, 1.0 - c * c
    x, y, w = _unit(x, y, w)
    out = np.empty((3, 3))
    out[0, 0], out[1, 0], out[2, 0] = x, y, w
    out[0, 1], out[1, 1], out[2, 1] = b * w - c * y, c * x - a * w, a * y - b * x
    out[0, 2], out[1, 2], out[2, 2] = a, b, c
    return out


@njit(cache=True, nogil=True)
def _unit(x, y, z):  # type: ignore[no-untyped-def]
    length = np.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


@njit(cache=True, nogil=True)
def turned_bounds(x, y, z, frame, outliers, low, high):  # type: ignore[no-untyped-def]
    """The smallest box around points x, y, z, (M,) each, whose z axis is the third of the axes `frame` (3, 3): returns
    the angle of the longer side of its footprint in that frame, sets the bounds `low`, `high` (3,) along the turned
    axes, less the share `outliers` at each end."""
    n = len(x)
    u, v, w = np.empty(n), np.empty(n), np.empty(n)
    _along(x, y, z, frame[0, 0], frame[1, 0], frame[2, 0], u)
    _along(x, y, z, frame[0, 1], frame[1, 1], frame[2, 1], v)
    _along(x, y, z, frame[0, 2], frame[1, 2], frame[2, 2], w)
    angle, _ = smallest_rectangle(hull(u, v))
    c, s = np.cos(angle), np.sin(angle)
    for i in range(n):
        along = c * u[i] + s * v[i]
        v[i] = c * v[i] - s * u[i]
        u[i] = along
    left_out = int(outliers * n)
    low[0], high[0] = _trimmed(u, left_out)
    low[1], high[1] = _trimmed(v, left_out)
    low[2], high[2] = _trimmed(w, left_out)
    if high[1] - low[1] > high[0] - low[0]:  # x is the longer side
        angle += np.pi / 2
        low[0], low[1], high[0], high[1] = low[1], -high[0], high[1], -low[0]
    return angle


@njit(cache=True, nogil=True)
def _along(x, y, z, a, b, c, out):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] = a * x[i] + b * y[i] + c * z[i]


@njit(cache=True, nogil=True)
def _trimmed(values, left_out):  # type: ignore[no-untyped-def]
    """The range of `values` less `left_out` of them at each end."""
    if left_out >= FEW:
        ordered = values.copy()
        _sort_pairs(ordered, ordered)
        return ordered[left_out], ordered[len(ordered) - 1 - left_out]
    lowest = np.full(left_out + 1, np.inf, values.dtype)  # ascending
    highest = np.full(left_out + 1, -np.inf, values.dtype)  # descending
    blocks = (len(values) + LOOKED_AT - 1) // LOOKED_AT
    for i in range(blocks):
        start = (i + blocks - 1) % blocks * LOOKED_AT  # both ends first, as values often rise or fall all along
        some = values[start : start + LOOKED_AT]
        low, high = _ends(some)
        if low >= lowest[left_out] and high <= highest[left_out]:
            continue
        for value in some:
            if value < lowest[left_out]:
                k = left_out
                while k > 0 and lowest[k - 1] > value:
                    lowest[k] = lowest[k - 1]
                    k -= 1
                lowest[k] = value
            if value > highest[left_out]:
                k = left_out
                while k > 0 and highest[k - 1] < value:
                    highest[k] = highest[k - 1]
                    k -= 1
                highest[k] = value
    return lowest[left_out], highest[left_out]


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz", "reassoc"})
def _ends(values):  # type: ignore[no-untyped-def]
    low = high = values[0]
    for value in values:
        low = value if value < low else low
        high = value if value > high else high
    return low, high


@njit(cache=True, nogil=True)
def hull(x, y):  # type: ignore[no-untyped-def]
    """Corners (K, 2) of the convex hull of points x, y, counterclockwise (Andrew's monotone chain).

    Of more than a thousand points only the lowest and highest in each of 128 columns are looked at: that moves a corner
    by at most 1/128 of the width, and along an edge only.
    """
    if len(x) > 1024:
        x, y = _column_ends(x, y)
    else:
        x, y = x.copy(), y.copy()
        _sort_pairs(x, y)
    corners = np.empty((2 * len(x) + 1, 2))
    n = 0
    for side in range(2):
        start = n
        for k in range(len(x)):
            i = k if side == 0 else len(x) - 1 - k
            while n >= start + 2:
                ax, ay = corners[n - 2, 0], corners[n - 2, 1]
                if (corners[n - 1, 0] - ax) * (y[i] - ay) - (corners[n - 1, 1] - ay) * (x[i] - ax) > 0.0:
                    break
                n -= 1
            corners[n, 0], corners[n, 1] = x[i], y[i]
            n += 1
        n -= 1  # the end of this side begins the next
    return corners[: max(n, 1)].copy()


@njit(cache=True, nogil=True)
def _sort_pairs(x, y):  # type: ignore[no-untyped-def]
    """Sorts by x, then y, in place (Shell's sort: few lines, so quickly compiled)."""
    gap = len(x)
    while gap > 1:
        gap = max(1, gap * 5 // 11)
        for i in range(gap, len(x)):
            a, b, k = x[i], y[i], i
            while k >= gap and (x[k - gap] > a or (x[k - gap] == a and y[k - gap] > b)):
                x[k], y[k] = x[k - gap], y[k - gap]
                k -= gap
            x[k], y[k] = a, b


@njit(cache=True, nogil=True)
def _column_ends(x, y):  # type: ignore[no-untyped-def]
    """The lowest and the highest point of each column, ordered by x."""
    low = x.min()
    scale = x.dtype.type((COLUMNS - 1) / max(x.max() - low, 1e-12))
    column = np.empty(len(x), np.int32)
    for i in range(len(x)):
        column[i] = np.int32((x[i] - low) * scale)
    lowest, highest = np.full(COLUMNS, np.inf, x.dtype), np.full(COLUMNS, -np.inf, x.dtype)
    at_lowest, at_highest = np.empty(COLUMNS, x.dtype), np.empty(COLUMNS, x.dtype)
    for i in range(len(x)):
        k = column[i]  # without a branch, which would be guessed wrong
        lower, higher = y[i] < lowest[k], y[i] > highest[k]
        lowest[k], at_lowest[k] = y[i] if lower else lowest[k], x[i] if lower else at_lowest[k]
        highest[k], at_highest[k] = y[i] if higher else highest[k], x[i] if higher else at_highest[k]
    chosen_x, chosen_y = np.empty(2 * COLUMNS, x.dtype), np.empty(2 * COLUMNS, x.dtype)
    n = 0
    for k in range(COLUMNS):
        if lowest[k] <= highest[k]:
            i, j = (n, n + 1) if at_lowest[k] <= at_highest[k] else (n + 1, n)
            chosen_x[i], chosen_y[i], chosen_x[j], chosen_y[j] = at_lowest[k], lowest[k], at_highest[k], highest[k]
            n += 2
    return chosen_x[:n], chosen_y[:n]


@njit(cache=True, nogil=True)
def smallest_rectangle(hull):  # type: ignore[no-untyped-def]
    """Angle and bounds of the smallest rectangle; one of its sides lies on an edge of the hull (rotating calipers)."""
    n = len(hull)
    best_c, best_s = 1.0, 0.0
    best = np.empty((2, 2))
    best_area = np.inf
    right = up = left = 0  # corners farthest along the edge, away from it, and against it: they only move forward
    for i in range(n):
        j = (i + 1) % n
        c, s = hull[j, 0] - hull[i, 0], hull[j, 1] - hull[i, 1]
        length = np.sqrt(c * c + s * s)
        c, s = (c / length, s / length) if length > 0 else (1.0, 0.0)
        right = _farthest(hull, max(right, i), c, s)
        up = _farthest(hull, max(up, right), -s, c)
        left = _farthest(hull, max(left, up), -c, -s)
        x_high = c * hull[right % n, 0] + s * hull[right % n, 1]
        x_low = c * hull[left % n, 0] + s * hull[left % n, 1]
        y_high = c * hull[up % n, 1] - s * hull[up % n, 0]
        y_low = c * hull[i, 1] - s * hull[i, 0]
        area = (x_high - x_low) * (y_high - y_low)
        if area < best_area:
            best_area, best_c, best_s = area, c, s
            best[0, 0], best[0, 1], best[1, 0], best[1, 1] = x_low, y_low, x_high, y_high
    best_angle = np.arctan2(best_s, best_c)
    turns = int(np.floor(best_angle / (np.pi / 2)))  # into [0, pi/2): each turn back swaps the axes
    for _ in range(turns % 4):
        x_low, x_high, y_low, y_high = best[0, 0], best[1, 0], best[0, 1], best[1, 1]
        best[0, 0], best[1, 0], best[0, 1], best[1, 1] = -y_high, -y_low, x_low, x_high
    return best_angle - turns * np.pi / 2, best


@njit(cache=True, nogil=True)
def _farthest(hull, k, dx, dy):  # type: ignore[no-untyped-def]
    """The corner at or after `k` where the way along (dx, dy) ends; not reduced to the number of corners."""
    n = len(hull)
    for _ in range(n):
        i, j = k % n, (k + 1) % n
        if (hull[j, 0] - hull[i, 0]) * dx + (hull[j, 1] - hull[i, 1]) * dy < 0:
            break
        k += 1
    return k
