# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of fusion: from the depth under one mask to points, and what is on the support.

All kernels of fusion work on a grid: the mask's tight box `roi` (x, y, width, height) with a margin of one pixel, so
that neighbours need no bounds checks. Depth on the grid is metres; NaN = no usable depth, or not in the mask.
"""

from __future__ import annotations

import numpy as np
from numba import njit

FOREIGN, UNKNOWN, USABLE = 0, 1, 2  # pixels of a grid: not in the mask; in it without usable depth; with
NAN, NEAR, FAR, IGNORED, TOTAL = 0, 1, 2, 3, 4  # what `depth_under_mask` counts
HOLE = 10  # px, how far a pixel without depth may take that of its row


@njit(cache=True, nogil=True)
def depth_under_mask(depth, spans, roi, ignore, near, far):  # type: ignore[no-untyped-def]
    """Grid of usable depth, grid of pixel kinds, and the counts (NAN, NEAR, FAR, IGNORED, TOTAL)."""
    x0, y0, w, h = roi[0], roi[1], roi[2], roi[3]
    z = np.full((h + 2, w + 2), np.nan, np.float32)
    kind = np.zeros((h + 2, w + 2), np.uint8)
    counts = np.zeros(5, np.int64)
    near, far = np.float32(near), np.float32(far)
    for k in range(len(spans)):
        y, start, stop = spans[k, 0], spans[k, 1], spans[k, 2]
        seen = depth[y, start:stop]
        values = z[y - y0 + 1, start - x0 + 1 : stop - x0 + 1]
        kinds = kind[y - y0 + 1, start - x0 + 1 : stop - x0 + 1]
        bad = 0
        for x in range(len(seen)):
            good = near <= seen[x] <= far
            values[x] = seen[x] if good else np.float32(np.nan)
            kinds[x] = USABLE if good else UNKNOWN
            bad += not good
        counts[TOTAL] += len(seen)
        if bad > 0:
            for x in range(len(seen)):
                if kinds[x] == UNKNOWN:
                    counts[_fault(seen[x], near, far)] += 1
        if ignore.size > 0:
            _leave_out(ignore[y, start:stop], seen, values, kinds, counts, near, far)
    return z, kind, counts


@njit(cache=True, nogil=True)
def _fault(value, near, far):  # type: ignore[no-untyped-def]
    if value > far:
        return FAR
    return NEAR if value == -np.inf or 0 < value < near else NAN


@njit(cache=True, nogil=True)
def _leave_out(ignored, seen, values, kinds, counts, near, far):  # type: ignore[no-untyped-def]
    for x in range(len(seen)):
        if ignored[x]:
            if kinds[x] == UNKNOWN:
                counts[_fault(seen[x], near, far)] -= 1
            counts[TOTAL] -= 1
            counts[IGNORED] += 1
            kinds[x] = FOREIGN
            values[x] = np.nan


@njit(cache=True, nogil=True)
def step(z, steps):  # type: ignore[no-untyped-def]
    """Neighbouring pixels at `z` m that differ by more are on two surfaces: steps (2,) are m per m and m per m^2."""
    return z * (steps[0] + z * steps[1])


@njit(cache=True, nogil=True)
def agreement(z, steps):  # type: ignore[no-untyped-def]
    """How many of each pixel's 8 neighbours have its depth to within a step, uint8 grid.

    A pixel that flies between two surfaces agrees with few; the corner of a surface still agrees with 3.
    """
    rows, columns = z.shape
    out = np.zeros((rows, columns), np.uint8)
    for y in range(1, rows - 1):
        for x in range(1, columns - 1):
            here = z[y, x]
            t = step(here, steps)
            n = np.uint8(abs(z[y - 1, x - 1] - here) <= t) + np.uint8(abs(z[y - 1, x] - here) <= t)
            n += np.uint8(abs(z[y - 1, x + 1] - here) <= t) + np.uint8(abs(z[y, x - 1] - here) <= t)
            n += np.uint8(abs(z[y, x + 1] - here) <= t) + np.uint8(abs(z[y + 1, x - 1] - here) <= t)
            n += np.uint8(abs(z[y + 1, x] - here) <= t) + np.uint8(abs(z[y + 1, x + 1] - here) <= t)
            out[y, x] = n
    return out


@njit(cache=True, nogil=True)
def above_support(z, keep, rays, roi, plane, limit):  # type: ignore[no-untyped-def]
    """The pixels of `keep` that are at least `limit` m above the support, and those at more than twice that."""
    out = np.zeros(keep.shape, np.bool_)
    high = np.zeros(keep.shape, np.bool_)
    a, b, c, d = np.float32(plane[0]), np.float32(plane[1]), np.float32(plane[2]), np.float32(plane[3])
    low, twice = np.float32(limit), np.float32(2.0 * limit)
    for y in range(roi[3]):
        wanted, depth = keep[y + 1, 1 : roi[2] + 1], z[y + 1, 1 : roi[2] + 1]
        ray = rays[roi[1] + y, roi[0] : roi[0] + roi[2]]
        above, well_above = out[y + 1, 1 : roi[2] + 1], high[y + 1, 1 : roi[2] + 1]
        for x in range(len(wanted)):
            height = (a * ray[x, 0] + b * ray[x, 1] + c) * depth[x] + d
            above[x] = wanted[x] & (height >= low)
            well_above[x] = wanted[x] & (height > twice)
    return out, high


@njit(cache=True, nogil=True)
def height_of(z, rays, v, u, plane):  # type: ignore[no-untyped-def]
    """Height m over `plane` (4,) of depth z at pixel u, v."""
    return (plane[0] * rays[v, u, 0] + plane[1] * rays[v, u, 1] + plane[2]) * z + plane[3]


@njit(cache=True, nogil=True)
def points_of(keep, z, rays, roi, count, every):  # type: ignore[no-untyped-def]
    """Points (M, 3) float32 m of every `every`-th of the `count` pixels in `keep`, row by row."""
    points = np.empty(((count + every - 1) // every, 3), np.float32)
    k = skip = 0
    for y in range(roi[3]):
        wanted, depth = keep[y + 1], z[y + 1, 1:]
        ray = rays[roi[1] + y, roi[0] : roi[0] + roi[2]]
        start = _next(wanted, 1, True)
        while start < len(wanted):
            stop = _next(wanted, start, False)
            if every == 1:
                out, run_ray, run = points[k : k + stop - start], ray[start - 1 : stop - 1], depth[start - 1 : stop - 1]
                for x in range(len(run)):
                    out[x, 0] = run_ray[x, 0] * run[x]
                    out[x, 1] = run_ray[x, 1] * run[x]
                    out[x, 2] = run[x]
                k += stop - start
            else:
                x = start + skip
                while x < stop:
                    d = depth[x - 1]
                    points[k, 0], points[k, 1], points[k, 2] = ray[x - 1, 0] * d, ray[x - 1, 1] * d, d
                    k += 1
                    x += every
                skip = x - stop
            start = _next(wanted, stop, True)
    return points


@njit(cache=True, nogil=True)
def _next(row, x, value):  # type: ignore[no-untyped-def]
    """The first place at or after x where `row` is `value`, else its length."""
    while x < len(row) and row[x] != value:
        x += 1
    return x


@njit(cache=True, nogil=True)
def colors_of(keep, color, roi, count):  # type: ignore[no-untyped-def]
    """Colors (count, 3) of the pixels in `keep`, row by row."""
    colors = np.empty(3 * count, np.uint8)
    flat = color.reshape((color.shape[0], 3 * color.shape[1]))
    k = 0
    for y in range(roi[3]):
        wanted, row = keep[y + 1], flat[roi[1] + y]
        start = _next(wanted, 1, True)
        while start < len(wanted):
            stop = _next(wanted, start, False)
            run = row[3 * (roi[0] + start - 1) : 3 * (roi[0] + stop - 1)]
            out = colors[k : k + len(run)]
            for i in range(len(run)):
                out[i] = run[i]
            k += len(run)
            start = _next(wanted, stop, True)
    return colors.reshape((count, 3))


@njit(cache=True, nogil=True)
def moments(keep, kind, z, rays, roi):  # type: ignore[no-untyped-def]
    """Mean (3,) m and covariance (3, 3) m^2 of the points of the pixels in `keep`.

    A pixel of the mask whose depth was not measured counts too, at the depth beside it in its row, up to 10 px away: a
    sensor loses whole faces that it sees at a slant, and the mean would shift away from them.
    """
    n = 0
    sx = sy = sz = sxx = sxy = sxz = syy = syz = szz = 0.0
    for y in range(roi[3]):
        wanted, kinds, depth = keep[y + 1, 1 : roi[2] + 1], kind[y + 1, 1 : roi[2] + 1], z[y + 1, 1 : roi[2] + 1]
        ray = rays[roi[1] + y, roi[0] : roi[0] + roi[2]]
        for x in range(len(wanted)):
            d = np.float64(depth[x])
            if not wanted[x]:
                if kinds[x] != UNKNOWN:
                    continue
                d = _beside(wanted, depth, x)
                if not d > 0:
                    continue
            px, py = ray[x, 0] * d, ray[x, 1] * d
            n += 1
            sx, sy, sz = sx + px, sy + py, sz + d
            sxx, sxy, sxz = sxx + px * px, sxy + px * py, sxz + px * d
            syy, syz, szz = syy + py * py, syz + py * d, szz + d * d
    mean = np.array([sx, sy, sz]) / max(n, 1)
    squares = np.array([[sxx, sxy, sxz], [sxy, syy, syz], [sxz, syz, szz]]) / max(n, 1)
    return mean, squares - np.outer(mean, mean)


@njit(cache=True, nogil=True)
def _beside(wanted, depth, x):  # type: ignore[no-untyped-def]
    """Depth at x from the nearest wanted pixels of the row at both sides, or at one; NaN = none near."""
    before, after = x - 1, x + 1
    while before >= 0 and before > x - HOLE and not wanted[before]:
        before -= 1
    while after < len(wanted) and after < x + HOLE and not wanted[after]:
        after += 1
    left = before >= 0 and wanted[before]
    if after < len(wanted) and wanted[after]:
        if left:
            return depth[before] + (np.float64(depth[after]) - depth[before]) * (x - before) / (after - before)
        return np.float64(depth[after])
    return np.float64(depth[before]) if left else np.nan
