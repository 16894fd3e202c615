# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of fusion: what is beside a mask's outline and beside steps in its depth."""

from __future__ import annotations

import numpy as np
from numba import njit

from seg_perception.points import FOREIGN, height_of, row_flags, set_places, step

OUTLINE_REACH = 6  # px, how far to look past holes in the depth for what is beside the outline
BESIDE = 4  # px outside the outline where the support is measured
PLACES = 160  # of a long outline, about so many places are looked at


@njit(cache=True, nogil=True)
def outline(kind):  # type: ignore[no-untyped-def]
    """Rows and columns (R, 2) of the mask's pixels beside others, evenly thinned to about PLACES."""
    rows, columns = kind.shape
    places = np.empty((rows * columns, 2), np.int32)
    flags, words, found = row_flags(columns)
    n = 0
    for y in range(1, rows - 1):
        above, here, below = kind[y - 1], kind[y], kind[y + 1]
        for x in range(1, columns - 1):
            edge = (above[x] == FOREIGN) | (below[x] == FOREIGN) | (here[x - 1] == FOREIGN) | (here[x + 1] == FOREIGN)
            flags[x] = edge & (here[x] != FOREIGN)
        count = set_places(flags, words, found)
        for k in range(count):
            places[n + k, 0], places[n + k, 1] = y, found[k]
        n += count
    every = max(1, n // PLACES) | 1  # odd: a row has two ends
    return places[:n:every]


@njit(cache=True, nogil=True)
def support_beside(places, kind, depth, rays, roi, plane, reach):  # type: ignore[no-untyped-def]
    """Median and robust standard deviation m of the heights over `plane` of what lies around the mask and less than
    `reach` m from it; NaN with fewer than 20 such pixels. Depth cameras bend planes: this is the plane as seen here."""
    rows, columns = kind.shape
    heights = np.empty(4 * len(places))
    n = 0
    for k in range(len(places)):
        y, x = places[k, 0], places[k, 1]
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            if kind[y + dy, x + dx] != FOREIGN:
                continue
            v, u = roi[1] + y - 1 + BESIDE * dy, roi[0] + x - 1 + BESIDE * dx
            gy, gx = y + BESIDE * dy, x + BESIDE * dx
            if v < 0 or u < 0 or v >= depth.shape[0] or u >= depth.shape[1]:
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
def away_from_steps(keep, kind, depth, roi, steps):  # type: ignore[no-untyped-def]
    """`keep` less the pixels beside a depth step, or on an outline without depth beyond it; and the number left."""
    width = roi[2]
    out = np.zeros(keep.shape, np.uint8)
    beside = np.empty((3, width + 2), np.float32)  # rows of depth with a margin, in turns
    _row(depth, roi[1] - 1, roi[0], beside[0])
    _row(depth, roi[1], roi[0], beside[1])
    count = 0
    for y in range(1, roi[3] + 1):
        before, here, after = beside[(y - 1) % 3], beside[y % 3], beside[(y + 1) % 3]
        _row(depth, roi[1] + y, roi[0], after)
        row, wanted = out[y], keep[y]
        over, kinds, under = kind[y - 1], kind[y], kind[y + 1]
        for x in range(1, width + 1):
            z = here[x]
            t = step(z, steps)
            cut = (abs(here[x - 1] - z) > t) | (abs(here[x + 1] - z) > t)
            cut |= (abs(before[x] - z) > t) | (abs(after[x] - z) > t)
            cut |= (kinds[x - 1] == FOREIGN) & ~(here[x - 1] > 0) | (kinds[x + 1] == FOREIGN) & ~(here[x + 1] > 0)
            cut |= (over[x] == FOREIGN) & ~(before[x] > 0) | (under[x] == FOREIGN) & ~(after[x] > 0)
            row[x] = wanted[x] & ~cut
            count += row[x]
    return out, count


@njit(cache=True, nogil=True)
def _row(depth, v, u, out):  # type: ignore[no-untyped-def]
    """Depth of row v from column u - 1 on; beyond the image, that of its last pixel."""
    row = depth[min(max(v, 0), depth.shape[0] - 1)]
    width = len(out) - 2
    inside = row[u : u + width]
    for x in range(width):
        out[x + 1] = inside[x]
    out[0] = row[max(u - 1, 0)]
    out[width + 1] = row[min(u + width, depth.shape[1] - 1)]


@njit(cache=True, nogil=True)
def occluded_ratio(places, kind, depth, roi, steps):  # type: ignore[no-untyped-def]
    """Share of the mask's outline with a nearer surface outside, NaN = no depth on both sides anywhere."""
    known = nearer = 0
    for k in range(len(places)):
        y, x = places[k, 0], places[k, 1]
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            if kind[y + dy, x + dx] != FOREIGN:
                continue
            here = there = np.float32(0)
            v, u = roi[1] + y - 1, roi[0] + x - 1
            for _ in range(OUTLINE_REACH):
                if v < 0 or u < 0 or v >= depth.shape[0] or u >= depth.shape[1] or here > 0:
                    break
                here = depth[v, u] if 0 < depth[v, u] < np.inf else np.float32(0)
                v, u = v - dy, u - dx
            v, u = roi[1] + y - 1 + dy, roi[0] + x - 1 + dx
            for _ in range(OUTLINE_REACH):
                if v < 0 or u < 0 or v >= depth.shape[0] or u >= depth.shape[1] or there > 0:
                    break
                there = depth[v, u] if 0 < depth[v, u] < np.inf else np.float32(0)
                v, u = v + dy, u + dx
            if here > 0 and there > 0:
                known += 1
                nearer += there < here - step(here, steps)
    return nearer / known if known > 0 else np.nan
