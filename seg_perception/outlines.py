# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of fusion: what is beside a mask's outline and beside steps in its depth."""

from __future__ import annotations

import numpy as np
from numba import njit

from seg_perception.points import FOREIGN, height_of, step

OUTLINE_REACH = 6  # px, how far to look past holes in the depth for what is beside the outline
BESIDE = 4  # px outside the outline where the support is measured


@njit(cache=True, nogil=True)
def rim(kind, agreeing):  # type: ignore[no-untyped-def]
    """Rows and columns (R, 2) of the mask's pixels that do not agree with all neighbours: its outline, its steps."""
    rows, columns = kind.shape
    places = np.empty((rows * columns, 2), np.int32)
    n = 0
    for y in range(rows):
        kinds, agree = kind[y], agreeing[y]
        for x in range(columns):
            if (kinds[x] != FOREIGN) & (agree[x] < 8):
                places[n, 0], places[n, 1] = y, x
                n += 1
    return places[:n]


@njit(cache=True, nogil=True)
def support_beside(places, kind, depth, rays, roi, plane, reach):  # type: ignore[no-untyped-def]
    """Median and robust standard deviation m of the heights over `plane` of what lies around the mask and less than
    `reach` m from it; NaN with fewer than 20 such pixels. Depth cameras bend planes: this is the plane as seen here."""
    rows, columns = kind.shape
    heights = np.empty(8 * (rows + columns))
    n = 0
    for k in range(0, len(places), 3 if len(places) > 600 else 1):
        y, x = places[k]
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            if kind[y + dy, x + dx] != FOREIGN:
                continue
            v, u = roi[1] + y - 1 + BESIDE * dy, roi[0] + x - 1 + BESIDE * dx
            gy, gx = y + BESIDE * dy, x + BESIDE * dx
            if v < 0 or u < 0 or v >= depth.shape[0] or u >= depth.shape[1] or n == len(heights):
                continue
            if 0 <= gy < rows and 0 <= gx < columns and kind[gy, gx] != FOREIGN:
                continue
            height = height_of(depth[v, u], rays, v, u, plane)
            if abs(height) < reach:
                heights[n] = height
                n += 1
    if n < 20:
        return np.nan, np.nan
    middle = np.median(heights[:n])
    return middle, 1.4826 * np.median(np.abs(heights[:n] - middle))


@njit(cache=True, nogil=True)
def away_from_steps(places, keep, kind, depth, roi, steps):  # type: ignore[no-untyped-def]
    """`keep` less the pixels beside a depth step, or on an outline without depth beyond it, bool grid."""
    out = keep.copy()
    for k in range(len(places)):
        y, x = places[k]
        if not keep[y, x]:
            continue
        here = depth[roi[1] + y - 1, roi[0] + x - 1]
        t = step(here, steps)
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            v, u = roi[1] + y - 1 + dy, roi[0] + x - 1 + dx
            if v < 0 or u < 0 or v >= depth.shape[0] or u >= depth.shape[1]:
                continue
            other = depth[v, u]
            if abs(other - here) > t or (kind[y + dy, x + dx] == FOREIGN and not other > 0):
                out[y, x] = False
    return out


@njit(cache=True, nogil=True)
def occluded_ratio(places, kind, depth, roi, steps):  # type: ignore[no-untyped-def]
    """Share of the mask's outline with a nearer surface outside, NaN = no depth on both sides anywhere.

    Of a long outline, every third place is looked at.
    """
    known = nearer = 0
    for k in range(0, len(places), 3 if len(places) > 600 else 1):
        y, x = places[k]
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            if kind[y + dy, x + dx] != FOREIGN:
                continue
            v, u = roi[1] + y - 1, roi[0] + x - 1
            here = _first_depth(depth, v, u, -dy, -dx)
            there = _first_depth(depth, v + dy, u + dx, dy, dx)
            if here > 0 and there > 0:
                known += 1
                nearer += there < here - step(here, steps)
    return nearer / known if known > 0 else np.nan


@njit(cache=True, nogil=True)
def _first_depth(depth, v, u, dy, dx):  # type: ignore[no-untyped-def]
    for _ in range(OUTLINE_REACH):
        if v < 0 or u < 0 or v >= depth.shape[0] or u >= depth.shape[1]:
            break
        if 0 < depth[v, u] < np.inf:
            return depth[v, u]
        v += dy
        u += dx
    return np.float32(np.nan)
