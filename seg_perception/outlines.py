# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of fusion: what is beside a mask's outline and beside steps in its depth."""

from __future__ import annotations

import numpy as np
from numba import njit

from seg_perception.points import FOREIGN, empty_flags, height_of, number_set, rows_of, set_places, step

OUTLINE_REACH = 6  # px, how far to look past holes in the depth for what is beside the outline
BESIDE = 4  # px outside the outline where the support is measured
BITS = np.int32(np.iinfo(np.int32).max)  # all but the sign
PLACES = 160  # of a long outline, about so many places are looked at


@njit(cache=True, nogil=True)
def outline(kind):  # type: ignore[no-untyped-def]
    """Rows and columns (R, 2) of the mask's pixels beside others, evenly thinned to about PLACES."""
    flags, words, found = empty_flags(kind.size)
    above, here, below = rows_of(kind)
    edges = flags[kind.shape[1] :]
    for k in range(len(below) - 2):
        edge = (above[k + 1] == FOREIGN) | (below[k + 1] == FOREIGN) | (here[k] == FOREIGN) | (here[k + 2] == FOREIGN)
        edges[k + 1] = edge & (here[k + 1] != FOREIGN)
    n = set_places(flags, words, found)
    every = max(1, n // PLACES) | 1  # odd: a row has two ends
    places = np.empty((-(-n // every), 2), np.int32)
    for i in range(len(places)):
        places[i, 0], places[i, 1] = found[i * every] // kind.shape[1], found[i * every] % kind.shape[1]
    return places


@njit(cache=True, nogil=True)
def support_beside(places, kind, depth, rays, straight, roi, plane, reach):  # type: ignore[no-untyped-def]
    """Median and robust standard deviation m of the heights over `plane` of what lies around the mask and less than
    `reach` m from it; NaN with fewer than 20 such pixels. Depth cameras bend planes: this is the plane as seen here."""
    rows, columns = kind.shape
    beside = np.empty((4 * len(places), 2), np.int32)
    m = 0
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
            beside[m, 0], beside[m, 1] = v, u
            m += 1
    heights = np.empty(m, np.float32)
    for k in range(m):  # far apart in memory: fetched at once, one does not wait for the other
        heights[k] = depth[beside[k, 0], beside[k, 1]]
    n = 0
    for k in range(m):
        height = height_of(heights[k], rays, straight, beside[k, 0], beside[k, 1], plane)
        if abs(height) < reach:
            heights[n] = height
            n += 1
    if n < 20:
        return np.nan, np.nan
    middle = middle_of(heights[:n])
    for k in range(n):
        heights[k] = abs(heights[k] - middle)
    return middle, 1.4826 * middle_of(heights[:n])


@njit(cache=True, nogil=True)
def middle_of(values):  # type: ignore[no-untyped-def]
    """The median of float32 `values`, (M,) with M > 0. Their bits, as whole numbers, are in the same order but for the
    sign; among these it is found by halving, which counts without a branch that could be guessed wrong."""
    bits, keys = values.view(np.int32), np.empty(len(values), np.int32)
    for i in range(len(bits)):
        keys[i] = bits[i] ^ ((bits[i] >> 31) & BITS)
    place = (len(keys) - 1) // 2
    low, high = -1 - np.int64(BITS), np.int64(BITS)
    while low < high:
        half = (low + high) >> 1
        if _up_to(keys, half) > place:
            high = half
        else:
            low = half + 1
    above = low
    if 2 * place + 2 == len(keys) and _up_to(keys, low) == place + 1:  # of an even number: the next one too
        above = np.int64(BITS)
        for i in range(len(keys)):
            above = min(above, keys[i] if keys[i] > low else above)
    ends = np.empty(2, np.int32)
    ends[0], ends[1] = low ^ ((low >> 63) & BITS), above ^ ((above >> 63) & BITS)
    middle = ends.view(np.float32)
    return 0.5 * (np.float64(middle[0]) + np.float64(middle[1]))


@njit(cache=True, nogil=True)
def _up_to(keys, limit):  # type: ignore[no-untyped-def]
    count, most = 0, np.int32(limit)
    for i in range(len(keys)):
        count += keys[i] <= most
    return count


@njit(cache=True, nogil=True)
def away_from_steps(keep, seen, steps):  # type: ignore[no-untyped-def]
    """`keep` less the pixels beside a depth step, or on an outline without depth beyond it; and the number left."""
    out = np.zeros(keep.shape, np.uint8)
    above, here, below = rows_of(seen)
    wanted, row = rows_of(keep)[1], rows_of(out)[1]
    for k in range(len(below) - 2):
        z = here[k + 1]
        t = step(z, steps)
        cut = np.uint8(abs(here[k] - z) > t) | np.uint8(abs(here[k + 2] - z) > t)
        cut |= np.uint8(abs(above[k + 1] - z) > t) | np.uint8(abs(below[k + 1] - z) > t)
        row[k + 1] = wanted[k + 1] & (cut ^ 1)
    return out, number_set(out)


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
