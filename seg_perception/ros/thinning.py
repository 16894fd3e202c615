# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Fewer points of objects, evenly: which to keep, and how many of each object."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

GOLDEN = (math.sqrt(5) - 1) / 2
BITS = 32  # of a place that are a fraction
ONE = 1 << BITS


def fair_share(counts: Sequence[int], total: int) -> int:
    """The most that each may have so that all have `total` together; who has less keeps all of it."""
    left = total
    for served, count in enumerate(sorted(counts)):
        share = left // (len(counts) - served)
        if count > share:
            return share
        left -= count
    return max(counts, default=0)


def one_per_cell(points: NDArray[np.float32], size: float) -> NDArray[np.int64]:
    """Indices, ascending, of the first point in each occupied cell of a grid of `size` m."""
    if not len(points):
        return np.empty(0, np.int64)
    cells = np.floor((points - points.min(axis=0)) / size).astype(np.int64)
    across = cells.max(axis=0) + 1
    keys = (cells[:, 0] * across[1] + cells[:, 1]) * across[2] + cells[:, 2]
    return np.sort(np.unique(keys, return_index=True)[1])


@njit(cache=True, nogil=True, error_model="numpy")
def evenly(points, count, fx, fy):  # type: ignore[no-untyped-def]
    """Indices (count,) int32, ascending, of `count` points (at most all) that lie evenly in the image they come from.

    Points (M, 3) m are pixels row by row, so every n-th of them would make stripes. Of each n = M / count in turn one
    is taken, so that in image row v the columns taken are those that differ from v n g by a multiple of n. With g the
    golden ratio this lattice has no holes or stripes, whatever n is; where a lens bends rows it begins anew at times.
    `fx`, `fy` px tell columns and rows. A place never leaves its n points, so none lies beyond the last.
    """
    count = min(count, len(points))
    chosen = np.empty(count, np.int32)
    if count == len(points):
        for i in range(count):
            chosen[i] = i
        return chosen
    n = len(points) / max(count, 1)
    per_row, per_column, per_place = fy * GOLDEN, fx / n, 1 / (n * ONE)  # of share
    stride, column = (np.int64(len(points)) << BITS) // max(count, 1), 1 / fx
    along, slack = np.float32(n / fx), np.float32(1.5 / fx)  # of x / z from one to the next in the row
    begin = place = np.int64(0)  # of the n points in turn, and of the one to take
    before = np.float32(np.inf)
    k = -1
    for i in range(count):
        last = k
        k = max(place >> BITS, last + 1)
        x, y, z = points[k, 0], points[k, 1], points[k, 2]
        ray = x / z
        if not abs(ray - before - along) < slack:  # another row, or beyond a hole
            share = (y * per_row - x * per_column) / z + ((k << BITS) - begin) * per_place
            share -= np.floor(share)
            if not 0 <= share < 1:  # not a number
                share = 0.0
            place = begin + np.int64(share * stride)
            on_lattice = max(place >> BITS, last + 1)
            ray += np.float32((on_lattice - k) * column)
            if abs(points[on_lattice, 0] / points[on_lattice, 2] - ray) < slack:  # else in the row before: k will do
                k = on_lattice
        before = ray
        begin += stride
        place += stride
        chosen[i] = k
    return chosen
