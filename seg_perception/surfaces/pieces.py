# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels for pieces of one plane: how far apart they are, and what lies between."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def nearest_pair(planes, a, b):  # type: ignore[no-untyped-def]
    """Which of the cells `a` and `b`, rows of `planes` (n, 5), are nearest to each other, and how far apart, m."""
    best, first, second = np.inf, 0, 0
    for i in range(len(a)):
        cell = planes[a[i]]
        x, y, z = cell[0] / cell[2], cell[1] / cell[2], 1 / cell[2]
        for j in range(len(b)):
            other = planes[b[j]]
            dx, dy, dz = other[0] / other[2] - x, other[1] / other[2] - y, 1 / other[2] - z
            square = dx * dx + dy * dy + dz * dz
            if square < best:
                best, first, second = square, i, j
    return first, second, np.sqrt(best)


@njit(cache=True, nogil=True, error_model="numpy")
def sees_through(planes, rms, start, stop, share, behind):  # type: ignore[no-untyped-def]
    """Whether more than `share` of the cells between the places `start` and `stop` on a plane lie `behind` it, by that
    share of the distance or more. `planes` (R, C, 5) and `rms` (R, C) as in `Cells`."""
    columns = planes.shape[1]
    r, c = start // columns, start % columns
    down, right = stop // columns - r, stop % columns - c
    first, last = planes[r, c, 2], planes[r + down, c + right, 2]
    steps = max(abs(down), abs(right))
    count = 0
    for k in range(1, steps):
        y, x = int(np.rint(r + k * down / steps)), int(np.rint(c + k * right / steps))
        expected = first + (last - first) * k / steps
        count += planes[y, x, 2] < expected * (1 - behind) and rms[y, x] < np.inf
    return count > share * max(1, steps - 1)
