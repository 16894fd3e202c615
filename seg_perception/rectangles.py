# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of geometry: convex hulls, smallest rectangles in a plane, and the box that stands on such a rectangle."""

from __future__ import annotations

import numpy as np
from numba import njit

COLUMNS = 128
BITS = np.iinfo(np.int64).max
FEW = 64  # so many extremes are kept in order as they come; of more, all values are sorted
MANY = 128  # points; of more, a hull is made of the ends of their columns


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
    left_out = min(int(np.ceil(outliers * n)), (n - 1) // 2)
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
    """The range of float64 `values` less `left_out` of them at each end."""
    keys = _keys(values)
    if left_out >= FEW:
        _sort_pairs(keys, keys)
        return _values(keys[left_out], keys[len(keys) - 1 - left_out])
    low = _lowest_but(keys, left_out)
    for i in range(len(keys)):
        keys[i] = -keys[i]
    return _values(low, -_lowest_but(keys, left_out))


@njit(cache=True, nogil=True)
def _keys(values):  # type: ignore[no-untyped-def]
    """float64 `values` as whole numbers in the same order: only the ends of these are found by vector instructions."""
    bits, keys = values.view(np.int64), np.empty(len(values), np.int64)
    for i in range(len(bits)):
        keys[i] = bits[i] ^ ((bits[i] >> 63) & BITS)
    return keys


@njit(cache=True, nogil=True)
def _values(low, high):  # type: ignore[no-untyped-def]
    """The two values with these keys."""
    values = np.array([low ^ ((low >> 63) & BITS), high ^ ((high >> 63) & BITS)]).view(np.float64)
    return values[0], values[1]


@njit(cache=True, nogil=True)
def _lowest_but(keys, left_out):  # type: ignore[no-untyped-def]
    """The lowest of `keys` less `left_out` of them."""
    below, lowest = -BITS, BITS
    for _ in range(left_out + 1):
        lowest, count = BITS, 0
        for i in range(len(keys)):
            lowest = min(lowest, keys[i] if keys[i] > below else BITS)
        for i in range(len(keys)):
            count += keys[i] == lowest
        if left_out < count:
            break
        left_out, below = left_out - count, lowest
    return lowest


@njit(cache=True, nogil=True)
def hull(x, y):  # type: ignore[no-untyped-def]
    """Corners (K, 2) of the convex hull of points x, y, float64, counterclockwise (Andrew's monotone chain).

    Of more than MANY points only the lowest and highest in each of 128 columns are looked at: that moves a corner
    by at most 1/128 of the width.
    """
    if len(x) > MANY:
        low_x, low_y, high_x, high_y = _column_ends(x, y)
    else:
        low_x, low_y = x.copy(), y.copy()
        _sort_pairs(low_x, low_y)
        high_x, high_y = low_x, low_y
    corners = np.empty((len(low_x) + len(high_x) + 1, 2))
    n = 0
    for side in range(2):
        start = n
        x, y = (low_x, low_y) if side == 0 else (high_x[::-1], high_y[::-1])
        for i in range(len(x)):
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
    """x and y of the lowest, and of the highest points of the columns, ordered by x; both have the first and the last
    point of all."""
    keys = _keys(x)
    least, most = BITS, -BITS
    for i in range(len(keys)):
        least, most = min(least, keys[i]), max(most, keys[i])
    low, high = _values(least, most)
    scale = (COLUMNS - 1) / max(high - low, 1e-12)
    column = np.empty(len(x), np.int32)
    for i in range(len(x)):
        place = (x[i] - low) * scale
        column[i] = np.int32(place) if 0 <= place < COLUMNS else 0  # not finite
    lowest, highest = np.full(COLUMNS, np.inf), np.full(COLUMNS, -np.inf)
    at_lowest, at_highest = np.empty(COLUMNS), np.empty(COLUMNS)
    for i in range(len(x)):
        k = column[i]  # without a branch, which would be guessed wrong
        lower, higher = y[i] < lowest[k], y[i] > highest[k]
        lowest[k], at_lowest[k] = y[i] if lower else lowest[k], x[i] if lower else at_lowest[k]
        highest[k], at_highest[k] = y[i] if higher else highest[k], x[i] if higher else at_highest[k]
    ends = np.empty((4, COLUMNS + 2))
    low_x, low_y, high_x, high_y = ends[0], ends[1], ends[2], ends[3]
    n = 1
    for k in range(COLUMNS):
        if lowest[k] <= highest[k]:
            low_x[n], low_y[n], high_x[n], high_y[n] = at_lowest[k], lowest[k], at_highest[k], highest[k]
            n += 1
    i, j = (0, 1) if low_x[1] <= high_x[1] else (2, 3)
    low_x[0] = high_x[0] = ends[i, 1]
    low_y[0] = high_y[0] = ends[j, 1]
    i, j = (0, 1) if low_x[n - 1] > high_x[n - 1] else (2, 3)
    low_x[n] = high_x[n] = ends[i, n - 1]
    low_y[n] = high_y[n] = ends[j, n - 1]
    return low_x[: n + 1], low_y[: n + 1], high_x[: n + 1], high_y[: n + 1]


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
