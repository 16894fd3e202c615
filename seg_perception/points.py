# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of fusion: from the depth under one mask to the pixels that belong to the object, and to its points.

All work on a grid: the mask's tight box with a margin of one pixel, so that neighbours need no bounds checks.
Depth on the grid is metres; NaN = no usable depth, or not in the mask.
"""

from __future__ import annotations

import numpy as np
from numba import njit

FOREIGN, UNKNOWN, USABLE = 0, 1, 2  # pixels of a grid: not in the mask; in it without usable depth; with
NAN, NEAR, FAR, IGNORED, TOTAL = 0, 1, 2, 3, 4  # what `depth_under_mask` counts
OUTLINE_REACH = 6  # px, how far to look past holes in the depth for what is beside the outline
BESIDE = 4  # px outside the outline where the support is measured
HOLE = 10  # px, how far a pixel without depth may take that of its row
BRIDGE = 3  # px, holes in the depth up to this wide do not part an object


@njit(cache=True, nogil=True)
def depth_under_mask(depth, spans, roi, ignore, near, far):  # type: ignore[no-untyped-def]
    """Grid of usable depth, grid of pixel kinds, and the counts (NAN, NEAR, FAR, IGNORED, TOTAL)."""
    x0, y0, w, h = roi[0], roi[1], roi[2], roi[3]
    z = np.full((h + 2, w + 2), np.nan, np.float32)
    kind = np.zeros((h + 2, w + 2), np.uint8)
    counts = np.zeros(5, np.int64)
    for k in range(len(spans)):
        y = spans[k, 0]
        for x in range(spans[k, 1], spans[k, 2]):
            if ignore.size > 0 and ignore[y, x]:
                counts[IGNORED] += 1
                continue
            counts[TOTAL] += 1
            kind[y - y0 + 1, x - x0 + 1] = UNKNOWN
            value = depth[y, x]
            if near <= value <= far:
                z[y - y0 + 1, x - x0 + 1] = value
                kind[y - y0 + 1, x - x0 + 1] = USABLE
            elif value > far:
                counts[FAR] += 1
            elif value == -np.inf or 0 < value < near:
                counts[NEAR] += 1
            else:
                counts[NAN] += 1
    return z, kind, counts


@njit(cache=True, nogil=True)
def _step(z, steps):  # type: ignore[no-untyped-def]
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
            t = _step(here, steps)
            n = np.uint8(abs(z[y - 1, x - 1] - here) <= t) + np.uint8(abs(z[y - 1, x] - here) <= t)
            n += np.uint8(abs(z[y - 1, x + 1] - here) <= t) + np.uint8(abs(z[y, x - 1] - here) <= t)
            n += np.uint8(abs(z[y, x + 1] - here) <= t) + np.uint8(abs(z[y + 1, x - 1] - here) <= t)
            n += np.uint8(abs(z[y + 1, x] - here) <= t) + np.uint8(abs(z[y + 1, x + 1] - here) <= t)
            out[y, x] = n
    return out


@njit(cache=True, nogil=True)
def above_support(z, keep, rays, roi, plane, limit):  # type: ignore[no-untyped-def]
    """`keep` without the pixels on the support: those less than `limit` m above it.

    An object so flat that hardly anything of it rises above twice the limit is left whole.
    """
    rows, columns = z.shape
    out = keep.copy()
    high = 0
    total = 0
    for y in range(1, rows - 1):
        for x in range(1, columns - 1):
            if not keep[y, x]:
                continue
            height = _height(z[y, x], rays, roi[1] + y - 1, roi[0] + x - 1, plane)
            total += 1
            if height < limit:
                out[y, x] = False
            elif height > 2.0 * limit:
                high += 1
    return out if high > 0.15 * total else keep


@njit(cache=True, nogil=True)
def _height(z, rays, v, u, plane):  # type: ignore[no-untyped-def]
    return (plane[0] * rays[v, u, 0] + plane[1] * rays[v, u, 1] + plane[2]) * z + plane[3]


@njit(cache=True, nogil=True)
def support_beside(kind, agreeing, depth, rays, roi, plane, reach):  # type: ignore[no-untyped-def]
    """Median and robust standard deviation m of the heights over `plane` of what lies around the mask and less than
    `reach` m from it; NaN with fewer than 20 such pixels. Depth cameras bend planes: this is the plane as seen here."""
    rows, columns = kind.shape
    heights = np.empty(8 * (rows + columns))
    n = 0
    for y in range(1, rows - 1):
        for x in range(1, columns - 1):
            if kind[y, x] == FOREIGN or agreeing[y, x] == 8:
                continue
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                if kind[y + dy, x + dx] != FOREIGN:
                    continue
                v, u = roi[1] + y - 1 + BESIDE * dy, roi[0] + x - 1 + BESIDE * dx
                gy, gx = y + BESIDE * dy, x + BESIDE * dx
                if v < 0 or u < 0 or v >= depth.shape[0] or u >= depth.shape[1] or n == len(heights):
                    continue
                if 0 <= gy < rows and 0 <= gx < columns and kind[gy, gx] != FOREIGN:
                    continue
                height = _height(depth[v, u], rays, v, u, plane)
                if abs(height) < reach:
                    heights[n] = height
                    n += 1
    if n < 20:
        return np.nan, np.nan
    middle = np.median(heights[:n])
    return middle, 1.4826 * np.median(np.abs(heights[:n] - middle))


@njit(cache=True, nogil=True)
def _root(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def clusters(z, keep, steps):  # type: ignore[no-untyped-def]
    """Pixels joined by continuous depth: int32 grid of numbers 1..n, and n. Small holes are bridged."""
    rows, columns = z.shape
    labels = np.zeros((rows, columns), np.int32)
    parent = np.empty(rows * columns // 2 + 2, np.int32)
    count = 0
    for y in range(1, rows - 1):
        for x in range(1, columns - 1):
            if not keep[y, x]:
                continue
            here = z[y, x]
            t = _step(here, steps)
            label = 0
            for k in range(1, min(x, BRIDGE + 1)):
                if keep[y, x - k]:
                    if abs(z[y, x - k] - here) <= t:
                        label = labels[y, x - k]
                    break
            for k in range(1, min(y, BRIDGE + 1)):
                if keep[y - k, x]:
                    other = labels[y - k, x]
                    if other != label and abs(z[y - k, x] - here) <= t:
                        if label == 0:
                            label = other
                        else:
                            a, b = _root(parent, label), _root(parent, other)
                            parent[max(a, b)] = min(a, b)
                    break
            if label == 0:
                count += 1
                parent[count] = count
                label = count
            labels[y, x] = label
    numbers = np.zeros(count + 1, np.int32)
    n = 0
    for i in range(1, count + 1):
        root = _root(parent, i)
        if root == i:
            n += 1
            numbers[i] = n
        else:
            numbers[i] = numbers[root]
    for y in range(1, rows - 1):
        for x in range(1, columns - 1):
            labels[y, x] = numbers[labels[y, x]]
    return labels, n


@njit(cache=True, nogil=True)
def largest(labels, n):  # type: ignore[no-untyped-def]
    """The pixels of the largest of the clusters 1..n, bool grid."""
    area = np.zeros(n + 1, np.int64)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            area[labels[y, x]] += 1
    area[0] = 0
    return labels == np.argmax(area)


@njit(cache=True, nogil=True)
def with_parts(body, z, kind, labels, n, depth, rays, roi, plane, limit, steps, gap, least):  # type: ignore[no-untyped-def]
    """`body` and those of the clusters 1..n beside it that plausibly are parts of the same object, bool grid.

    Such a part has at least `least` pixels, lies within `gap` m of the body's range of depth, and does not simply go on
    beyond the mask's outline as background under a bleeding mask does: not counting what lies less than `limit` over
    the support `plane` (4,), NaN = none.
    """
    rows, columns = z.shape
    area = np.zeros(n + 1, np.int64)
    low = np.full(n + 1, np.inf)
    high = np.full(n + 1, -np.inf)
    rim = np.zeros(n + 1, np.int64)
    open_rim = np.zeros(n + 1, np.int64)
    for y in range(1, rows - 1):
        for x in range(1, columns - 1):
            i = labels[y, x]
            here = z[y, x]
            if body[y, x]:
                low[0] = min(low[0], here)
                high[0] = max(high[0], here)
            if i == 0:
                continue
            area[i] += 1
            low[i] = min(low[i], here)
            high[i] = max(high[i], here)
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                if kind[y + dy, x + dx] != FOREIGN:
                    continue
                v, u = roi[1] + y - 1 + dy, roi[0] + x - 1 + dx
                if 0 <= v < depth.shape[0] and 0 <= u < depth.shape[1]:
                    rim[i] += 1
                    goes_on = abs(depth[v, u] - here) <= _step(here, steps)
                    open_rim[i] += goes_on and not _height(depth[v, u], rays, v, u, plane) < limit
    chosen = np.zeros(n + 1, np.bool_)
    for i in range(1, n + 1):
        near = low[i] <= high[0] + gap and high[i] >= low[0] - gap
        chosen[i] = near and area[i] >= least and 2 * open_rim[i] <= rim[i]
    out = body.copy()
    for y in range(1, rows - 1):
        for x in range(1, columns - 1):
            if chosen[labels[y, x]]:
                out[y, x] = True
    return out


@njit(cache=True, nogil=True)
def grown(z, core, keep, steps):  # type: ignore[no-untyped-def]
    """`core` and the pixels of `keep` that touch it in depth: the rim that a core lacks, but no thin band along it."""
    rows, columns = z.shape
    out = core.copy()
    for y in range(1, rows - 1):
        for x in range(1, columns - 1):
            if core[y, x] or not keep[y, x]:
                continue
            t = _step(z[y, x], steps)
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    if core[y + dy, x + dx] and abs(z[y + dy, x + dx] - z[y, x]) <= t:
                        out[y, x] = True
    return out


@njit(cache=True, nogil=True)
def away_from_steps(keep, kind, agreeing, depth, roi, margin, steps):  # type: ignore[no-untyped-def]
    """`keep` less the pixels within `margin` px of a depth step or of an outline without depth beside it, bool grid."""
    rows, columns = keep.shape
    out = keep.copy()
    for y in range(1, rows - 1):
        for x in range(1, columns - 1):
            if not keep[y, x] or (margin == 1 and agreeing[y, x] == 8):
                continue
            here = depth[roi[1] + y - 1, roi[0] + x - 1]
            t = _step(here, steps)
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                for k in range(1, margin + 1):
                    v, u = roi[1] + y - 1 + k * dy, roi[0] + x - 1 + k * dx
                    if v < 0 or u < 0 or v >= depth.shape[0] or u >= depth.shape[1]:
                        break
                    other = depth[v, u]
                    gy, gx = y + k * dy, x + k * dx
                    inside = 0 <= gy < rows and 0 <= gx < columns and kind[gy, gx] != FOREIGN
                    if abs(other - here) > t or (not inside and not other > 0):
                        out[y, x] = False
                    if not abs(other - here) <= t:
                        break
                if not out[y, x]:
                    break
    return out


@njit(cache=True, nogil=True)
def points_of(keep, z, rays, roi, every):  # type: ignore[no-untyped-def]
    """Points (M, 3) float32 m of every `every`-th pixel in `keep`, row by row."""
    points = np.empty(((keep.sum() + every - 1) // every, 3), np.float32)
    k = 0
    for y in range(roi[3]):
        wanted, depth = keep[y + 1, 1 : roi[2] + 1], z[y + 1, 1 : roi[2] + 1]
        ray = rays[roi[1] + y, roi[0] : roi[0] + roi[2]]
        for x in range(len(wanted)):
            if wanted[x]:
                if k % every == 0:
                    point = points[k // every]
                    point[0] = ray[x, 0] * depth[x]
                    point[1] = ray[x, 1] * depth[x]
                    point[2] = depth[x]
                k += 1
    return points


@njit(cache=True, nogil=True)
def colors_of(keep, color, roi, count):  # type: ignore[no-untyped-def]
    """Colors (count, 3) of the pixels in `keep`, row by row."""
    colors = np.empty((count, 3), np.uint8)
    k = 0
    for y in range(roi[3]):
        wanted, row = keep[y + 1, 1 : roi[2] + 1], color[roi[1] + y, roi[0] : roi[0] + roi[2]]
        for x in range(len(wanted)):
            if wanted[x]:
                out = colors[k]
                out[0], out[1], out[2] = row[x, 0], row[x, 1], row[x, 2]
                k += 1
    return colors


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
            if wanted[x]:
                d = np.float64(depth[x])
            elif kinds[x] == UNKNOWN:
                d = _beside(wanted, depth, x)
                if not d > 0:
                    continue
            else:
                continue
            px, py = ray[x, 0] * d, ray[x, 1] * d
            n += 1
            sx += px
            sy += py
            sz += d
            sxx += px * px
            sxy += px * py
            sxz += px * d
            syy += py * py
            syz += py * d
            szz += d * d
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


@njit(cache=True, nogil=True)
def outline(kind, agreeing, depth, roi, steps):  # type: ignore[no-untyped-def]
    """Counts along the mask's outline: pixel pairs with depth on both sides, those of them with the nearer surface
    outside, and pairs at the image's border."""
    rows, columns = kind.shape
    known = 0
    nearer = 0
    cut = 0
    for y in range(1, rows - 1):
        for x in range(1, columns - 1):
            if kind[y, x] == FOREIGN or agreeing[y, x] == 8:
                continue
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                if kind[y + dy, x + dx] != FOREIGN:
                    continue
                v, u = roi[1] + y - 1, roi[0] + x - 1
                if not (0 <= v + dy < depth.shape[0] and 0 <= u + dx < depth.shape[1]):
                    cut += 1
                    continue
                here = _first_depth(depth, v, u, -dy, -dx)
                there = _first_depth(depth, v + dy, u + dx, dy, dx)
                if here > 0 and there > 0:
                    known += 1
                    nearer += there < here - _step(here, steps)
    return known, nearer, cut


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
