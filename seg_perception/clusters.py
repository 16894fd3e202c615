# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of fusion: which pixels of a mask hang together in depth, and which of these are the object.

Runs of a row stand for their pixels: (R, 4) int32 `y, x_start, x_stop, root`, ordered, `root` the first run of the
cluster. A noisy cloud has ten pixels per run, a clean one a hundred.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from seg_perception.points import FOREIGN, empty_flags, height_of, number_set, rows_of, set_places, step

BRIDGE = 3  # px, holes in the depth up to this wide do not part an object
Y, START, STOP, ROOT = 0, 1, 2, 3
FARTHEST = np.iinfo(np.int32).max


@njit(cache=True, nogil=True)
def clusters(z, keep, steps):  # type: ignore[no-untyped-def]
    """Pixels joined by continuous depth, as runs. Holes of less than BRIDGE pixels are bridged."""
    rows, columns = z.shape
    runs = np.empty((rows * columns // 2 + 2, 4), np.int32)
    first = np.zeros(rows + 1, np.int64)  # run of each row
    n = _runs(z, keep, steps, runs, first)
    for back in range(1, BRIDGE + 1):
        _join_rows(runs, first, back, z, keep, steps)
        if _flatten(runs, n) < 2:
            break
    return runs[:n]


@njit(cache=True, nogil=True)
def _flatten(runs, n):  # type: ignore[no-untyped-def]
    """Makes every run point at its root, and returns how many roots there are."""
    roots = 0
    for k in range(n):
        runs[k, ROOT] = runs[runs[k, ROOT], ROOT]  # a root is an earlier run than all that point at it
        roots += runs[k, ROOT] == k
    return roots


@njit(cache=True, nogil=True)
def _runs(z, keep, steps, runs, first):  # type: ignore[no-untyped-def]
    """Sets the runs of all rows, joined over small holes, and the `first` run of each row; returns how many."""
    columns = z.shape[1]
    depth, mine = z.reshape(z.size), keep.reshape(keep.size)
    flags, words, places = empty_flags(len(mine))
    next_depth, next_mine, next_flags = depth[1:], mine[1:], flags[1:]
    for k in range(len(next_mine)):
        here, both = next_depth[k], next_mine[k] & mine[k]
        joined = both & (abs(depth[k] - here) <= step(here, steps))
        next_flags[k] = (next_mine[k] | mine[k]) & (joined ^ 1)
    n = y = 0
    for i in range(set_places(flags, words, places)):
        k = places[i]
        while k >= (y + 1) * columns:
            y += 1
            first[y] = n
        x = k - y * columns
        if mine[k - 1]:
            runs[n - 1, STOP] = x
        if mine[k]:
            runs[n, Y], runs[n, START], runs[n, ROOT] = y, x, n
            if n > first[y]:
                hole = x - runs[n - 1, STOP] + 1
                if 1 < hole <= BRIDGE and abs(depth[k - hole] - depth[k]) <= step(depth[k], steps):
                    runs[n, ROOT] = runs[n - 1, ROOT]
            n += 1
    first[y + 1 :] = n
    return n


@njit(cache=True, nogil=True)
def _join_rows(runs, first, back, z, keep, steps):  # type: ignore[no-untyped-def]
    """Unites runs with those of the row `back` above where depth goes on, with holes only between."""
    for y in range(1 + back, len(z) - 1):
        i, j = first[y], first[y - back]
        stop, stop_above = first[y + 1], first[y - back + 1]
        while i < stop and j < stop_above:
            left = max(runs[i, START], runs[j, START])
            right = min(runs[i, STOP], runs[j, STOP])
            a, b = runs[i, ROOT], runs[j, ROOT]
            if a != b and left < right:
                while runs[a, ROOT] != a:
                    a = runs[a, ROOT]
                while runs[b, ROOT] != b:
                    b = runs[b, ROOT]
                if a != b and _goes_on(y, back, left, right, z, keep, steps):
                    runs[max(a, b), ROOT] = min(a, b)
                    a = b = min(a, b)
                runs[i, ROOT], runs[j, ROOT] = a, b
            if runs[i, STOP] <= runs[j, STOP]:
                i += 1
            else:
                j += 1


@njit(cache=True, nogil=True)
def _goes_on(y, back, left, right, z, keep, steps):  # type: ignore[no-untyped-def]
    """Whether depth is continuous from row y to the row `back` above, at a pixel of left:right with a hole between."""
    for x in range(left, right):
        if abs(z[y - back, x] - z[y, x]) <= step(z[y, x], steps):
            hole = True
            for k in range(1, back):
                hole &= keep[y - k, x] == 0
            if hole:
                return True
    return False


@njit(cache=True, nogil=True)
def largest(runs, columns, rows):  # type: ignore[no-untyped-def]
    """The pixels of the largest cluster, and their number."""
    area = np.zeros(len(runs), np.int64)
    best = 0
    for k in range(len(runs)):
        area[runs[k, ROOT]] += runs[k, STOP] - runs[k, START]
    for k in range(len(runs)):
        if area[k] > area[best]:
            best = k
    out = np.zeros((rows, columns), np.uint8)
    for k in range(len(runs)):
        if runs[k, ROOT] == best:
            out[runs[k, Y], runs[k, START] : runs[k, STOP]] = 1
    return out


@njit(cache=True, nogil=True)
def grown(z, core, keep, steps):  # type: ignore[no-untyped-def]
    """`core` and the pixels of `keep` that touch it in depth: the rim that a core lacks, but no thin band along it; and
    their number."""
    out = np.zeros(z.shape, np.uint8)
    inner = np.empty(z.shape, np.float32)  # depth of the core, else inf
    depth, inside, depth_inside = z.reshape(z.size), core.reshape(core.size), inner.reshape(inner.size)
    for k in range(len(depth)):
        depth_inside[k] = depth[k] if inside[k] else np.float32(np.inf)
    above, row, below = rows_of(inner)
    depths, mine, wanted, grown = rows_of(z)[1], rows_of(core)[1], rows_of(keep)[1], rows_of(out)[1]
    for k in range(len(below) - 2):
        here = depths[k + 1]
        least = min(abs(above[k] - here), abs(above[k + 1] - here))
        least = min(min(least, abs(above[k + 2] - here)), abs(row[k] - here))
        least = min(min(least, abs(row[k + 2] - here)), abs(below[k] - here))
        least = min(min(least, abs(below[k + 1] - here)), abs(below[k + 2] - here))
        grown[k + 1] = mine[k + 1] | (wanted[k + 1] & (least <= step(here, steps)))
    return out, number_set(out)


@njit(cache=True, nogil=True)
def add_parts(body, z, kind, runs, depth, rays, straight, roi, plane, limit, steps, gap, least):  # type: ignore[no-untyped-def]
    """Adds to `body` those of the clusters `runs` beside it that plausibly are parts of the same object; how many
    pixels these have.

    Such a part has at least `least` pixels, lies within `gap` m of the body's range of depth, and does not simply go on
    beyond the mask's outline as background under a bleeding mask does: not counting what lies less than `limit` over
    the support `plane` (4,), NaN = none.
    """
    n = len(runs)
    area = np.zeros(n, np.int64)
    for k in range(n):
        area[runs[k, ROOT]] += runs[k, STOP] - runs[k, START]
    low = np.full(n, np.inf)
    high = np.full(n, -np.inf)
    rim = np.zeros(n, np.int64)
    open_rim = np.zeros(n, np.int64)
    nearest, farthest = _depth_range(body, z)
    for k in range(n):
        y, i = runs[k, Y], runs[k, ROOT]
        if area[i] < least:
            continue
        for x in range(runs[k, START], runs[k, STOP]):
            here = z[y, x]
            low[i] = min(low[i], here)
            high[i] = max(high[i], here)
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                if kind[y + dy, x + dx] != FOREIGN:
                    continue
                v, u = roi[1] + y - 1 + dy, roi[0] + x - 1 + dx
                if 0 <= v < depth.shape[0] and 0 <= u < depth.shape[1]:
                    rim[i] += 1
                    goes_on = abs(depth[v, u] - here) <= step(here, steps)
                    open_rim[i] += goes_on and not height_of(depth[v, u], rays, straight, v, u, plane) < limit
    count = 0
    for k in range(n):
        i = runs[k, ROOT]
        if area[i] < least or low[i] > farthest + gap or high[i] < nearest - gap or 2 * open_rim[i] > rim[i]:
            continue
        body[runs[k, Y], runs[k, START] : runs[k, STOP]] = 1
        count += runs[k, STOP] - runs[k, START]
    return count


@njit(cache=True, nogil=True)
def _depth_range(body, z):  # type: ignore[no-untyped-def]
    """Nearest and farthest depth m of the pixels in `body`: numbers above 0 are ordered like their bits."""
    nearest, farthest = FARTHEST, np.int32(0)
    bits = z.view(np.int32)
    for y in range(1, z.shape[0] - 1):
        mine, row = body[y], bits[y]
        for x in range(len(mine)):
            nearest = min(nearest, row[x] if mine[x] else FARTHEST)
            farthest = max(farthest, row[x] if mine[x] else np.int32(0))
    ends = np.array([nearest, farthest], np.int32).view(np.float32)
    return np.float64(ends[0]), np.float64(ends[1])
