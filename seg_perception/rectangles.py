# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of geometry: convex hulls, smallest rectangles in a plane, and the box that stands on such a rectangle."""

from __future__ import annotations

import numpy as np
from numba import njit

COLUMNS = 256


@njit(cache=True, nogil=True)
def axes_with_z(z, hint):  # type: ignore[no-untyped-def]
    """(3, 3) rotation whose third column lies along `z` (3,); its first lies towards `hint` (3,) as far as it can."""
    out = np.empty((3, 3))
    axis = z / np.sqrt((z * z).sum())
    x = hint - axis * (axis * hint).sum()
    length = np.sqrt((x * x).sum())
    if length < 1e-6:  # along the axis: any other direction
        x = np.zeros(3)
        x[np.argmin(np.abs(axis))] = 1.0
        x = x - axis * (axis * x).sum()
        length = np.sqrt((x * x).sum())
    x = x / length
    out[:, 0], out[:, 2] = x, axis
    out[0, 1] = axis[1] * x[2] - axis[2] * x[1]
    out[1, 1] = axis[2] * x[0] - axis[0] * x[2]
    out[2, 1] = axis[0] * x[1] - axis[1] * x[0]
    return out


@njit(cache=True, nogil=True)
def turned_bounds(xyz, frame, outliers):  # type: ignore[no-untyped-def]
    """The smallest box around points (M, 3) whose z axis is the third of the axes `frame` (3, 3): angle of the longer
    side of its footprint in that frame, and bounds (3,), (3,) along the turned axes, less the share `outliers`."""
    n = len(xyz)
    u, v, w = np.empty(n, xyz.dtype), np.empty(n, xyz.dtype), np.empty(n, xyz.dtype)
    axes = frame.astype(xyz.dtype)
    for i in range(n):
        x, y, z = xyz[i, 0], xyz[i, 1], xyz[i, 2]
        u[i] = axes[0, 0] * x + axes[1, 0] * y + axes[2, 0] * z
        v[i] = axes[0, 1] * x + axes[1, 1] * y + axes[2, 1] * z
        w[i] = axes[0, 2] * x + axes[1, 2] * y + axes[2, 2] * z
    angle, _ = smallest_rectangle(hull(u, v))
    c, s = xyz.dtype.type(np.cos(angle)), xyz.dtype.type(np.sin(angle))
    for i in range(n):
        u[i], v[i] = c * u[i] + s * v[i], c * v[i] - s * u[i]
    low, high = np.empty(3), np.empty(3)
    low[0], high[0] = _trimmed(u, outliers)
    low[1], high[1] = _trimmed(v, outliers)
    low[2], high[2] = _trimmed(w, outliers)
    if high[1] - low[1] > high[0] - low[0]:  # x is the longer side
        angle += np.pi / 2
        low[0], low[1], high[0], high[1] = low[1], -high[0], high[1], -low[0]
    return angle, low, high


@njit(cache=True, nogil=True)
def _trimmed(values, outliers):  # type: ignore[no-untyped-def]
    """The range of `values` less the share `outliers` at each end, to 1/1024 of the range."""
    low, high = values[0], values[0]
    for v in values:
        low = min(low, v)
        high = max(high, v)
    left_out = int(outliers * len(values))
    if left_out < 1 or high <= low:
        return low, high
    counts = np.zeros(1025, np.int64)
    scale = 1024.0 / (high - low)
    for v in values:
        counts[int((v - low) * scale)] += 1
    first, last = 0, 1024
    outside = counts[0]
    while outside <= left_out:
        first += 1
        outside += counts[first]
    outside = counts[1024]
    while outside <= left_out:
        last -= 1
        outside += counts[last]
    return low + first / scale, min(high, low + (last + 1) / scale)


@njit(cache=True, nogil=True)
def hull(x, y):  # type: ignore[no-untyped-def]
    """Corners (K, 2) of the convex hull of points x, y, counterclockwise (Andrew's monotone chain).

    Of more than a thousand points only the lowest and highest in each of 256 columns are looked at: that moves a corner
    by at most 1/256 of the width.
    """
    if len(x) > 1024:
        x, y = _column_ends(x, y)
    else:
        order = np.argsort(y, kind="mergesort")
        order = order[np.argsort(x[order], kind="mergesort")]
        x, y = x[order], y[order]
    corners = np.empty((2 * len(x) + 1, 2))
    n = 0
    for side in range(2):
        start = n
        for k in range(len(x)):
            i = k if side == 0 else len(x) - 1 - k
            while n >= start + 2:
                a, b = corners[n - 2], corners[n - 1]
                if (b[0] - a[0]) * (y[i] - a[1]) - (b[1] - a[1]) * (x[i] - a[0]) > 0.0:
                    break
                n -= 1
            corners[n, 0], corners[n, 1] = x[i], y[i]
            n += 1
        n -= 1  # the end of this side begins the next
    return corners[: max(n, 1)].copy()


@njit(cache=True, nogil=True)
def _column_ends(x, y):  # type: ignore[no-untyped-def]
    """The lowest and the highest point of each column, ordered by x."""
    low = x.min()
    scale = (COLUMNS - 1) / max(x.max() - low, 1e-12)
    first = np.full(COLUMNS, -1, np.int64)
    last = np.full(COLUMNS, -1, np.int64)
    for i in range(len(x)):
        k = int((x[i] - low) * scale)
        if first[k] < 0 or y[i] < y[first[k]]:
            first[k] = i
        if last[k] < 0 or y[i] > y[last[k]]:
            last[k] = i
    chosen = np.empty(2 * COLUMNS, np.int64)
    n = 0
    for k in range(COLUMNS):
        if first[k] >= 0:
            a, b = first[k], last[k]
            if x[b] < x[a]:
                a, b = b, a
            chosen[n], chosen[n + 1] = a, b
            n += 2
    return x[chosen[:n]], y[chosen[:n]]


@njit(cache=True, nogil=True)
def smallest_rectangle(hull):  # type: ignore[no-untyped-def]
    """Angle and bounds of the smallest rectangle; one of its sides lies on an edge of the hull (rotating calipers)."""
    n = len(hull)
    best_angle = 0.0
    best = np.empty((2, 2))
    best_area = np.inf
    right = up = left = 0  # corners farthest along the edge, away from it, and against it: they only move forward
    for i in range(n):
        j = (i + 1) % n
        angle = np.arctan2(hull[j, 1] - hull[i, 1], hull[j, 0] - hull[i, 0])
        c, s = np.cos(angle), np.sin(angle)
        right = _farthest(hull, max(right, i), c, s)
        up = _farthest(hull, max(up, right), -s, c)
        left = _farthest(hull, max(left, up), -c, -s)
        x_high = c * hull[right % n, 0] + s * hull[right % n, 1]
        x_low = c * hull[left % n, 0] + s * hull[left % n, 1]
        y_high = c * hull[up % n, 1] - s * hull[up % n, 0]
        y_low = c * hull[i, 1] - s * hull[i, 0]
        area = (x_high - x_low) * (y_high - y_low)
        if area < best_area:
            best_area, best_angle = area, angle
            best[0, 0], best[0, 1], best[1, 0], best[1, 1] = x_low, y_low, x_high, y_high
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
        a, b = hull[k % n], hull[(k + 1) % n]
        if (b[0] - a[0]) * dx + (b[1] - a[1]) * dy < 0:
            break
        k += 1
    return k
