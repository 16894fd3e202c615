# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of fusion: from the depth under one mask to points, and what is on the support.

All kernels of fusion work on a grid: the mask's tight box `roi` (x, y, width, height) with a margin of one pixel, so
that neighbours need no bounds checks. Depth on the grid is metres; NaN = no usable depth, or not in the mask. Sets of
pixels are uint8 grids, 1 = in the set. `rays` (2, H, W) are x/z and y/z of the image's pixels. Loops go along rows
without a branch, so that they become vector instructions; what is rare is collected first (`set_places`).
"""

from __future__ import annotations

import numpy as np
from numba import njit

FOREIGN, UNKNOWN, USABLE = 0, 1, 2  # pixels of a grid: not in the mask; in it without usable depth; with
NAN, NEAR, FAR, IGNORED, TOTAL = 0, 1, 2, 3, 4  # what `depth_under_mask` counts
BLOCK = 32  # values copied at once
HOLE = 10  # px, how far a pixel without depth may take that of its row


@njit(cache=True, nogil=True)
def depth_under_mask(depth, spans, roi, ignore, near, far, counts):  # type: ignore[no-untyped-def]
    """Grid of usable depth, grid of pixel kinds; adds to the `counts` (NAN, NEAR, FAR, IGNORED, TOTAL)."""
    x0, y0, w, h = roi[0], roi[1], roi[2], roi[3]
    z = np.full((h + 2, w + 2), np.nan, np.float32)
    kind = np.zeros((h + 2, w + 2), np.uint8)
    near, far = np.float32(near), np.float32(far)
    for k in range(len(spans)):
        y, start, stop = spans[k, 0], spans[k, 1], spans[k, 2]
        seen = depth[y, start:stop]
        values = z[y - y0 + 1, start - x0 + 1 : stop - x0 + 1]
        kinds = kind[y - y0 + 1, start - x0 + 1 : stop - x0 + 1]
        good_ones = nearer = farther = 0
        for x in range(len(seen)):
            good = (seen[x] >= near) & (seen[x] <= far)
            values[x] = seen[x] if good else np.float32(np.nan)
            kinds[x] = USABLE if good else UNKNOWN
            good_ones += good
            farther += seen[x] > far
            nearer += (seen[x] == -np.inf) | ((seen[x] > 0) & (seen[x] < near))
        counts[TOTAL] += len(seen)
        counts[NEAR] += nearer
        counts[FAR] += farther
        counts[NAN] += len(seen) - good_ones - nearer - farther
        if ignore.size > 0:
            _leave_out(ignore[y, start:stop], seen, values, kinds, counts, near, far)
    return z, kind


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
def set_places(flags, words, out):  # type: ignore[no-untyped-def]
    """Writes where `flags` are not 0 to `out`, and returns how many there are. `words` are the flags' own bytes."""
    n = 0
    for k in range(len(words)):
        if words[k] != 0:
            for x in range(8 * k, 8 * k + 8):
                out[n] = x  # without a branch, which would be guessed wrong at every second hole
                n += flags[x] != 0
    return n


@njit(cache=True, nogil=True)
def row_flags(columns):  # type: ignore[no-untyped-def]
    """An empty row of flags, the same bytes as words, and room for the places of those that are set."""
    words = np.zeros((columns + 8) // 8, np.uint64)
    return words.view(np.uint8), words, np.empty(8 * len(words) + 8, np.int32)


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
def agreeing_pixels(kind, agreeing, least):  # type: ignore[no-untyped-def]
    """The usable pixels that at least `least` neighbours agree with, and their number."""
    out = np.zeros(kind.shape, np.uint8)
    total = 0
    for y in range(1, kind.shape[0] - 1):
        kinds, agree, row = kind[y], agreeing[y], out[y]
        for x in range(len(row)):
            row[x] = (kinds[x] == USABLE) & (agree[x] >= least)
            total += row[x]
    return out, total


@njit(cache=True, nogil=True)
def above_support(z, keep, rays, roi, plane, limit):  # type: ignore[no-untyped-def]
    """The pixels of `keep` at least `limit` m above the support, their number, and that of those at twice that."""
    out = np.zeros(keep.shape, np.uint8)
    a, b, c, d = np.float32(plane[0]), np.float32(plane[1]), np.float32(plane[2]), np.float32(plane[3])
    low, twice = np.float32(limit), np.float32(2.0 * limit)
    count = high = 0
    for y in range(roi[3]):
        wanted, depth = keep[y + 1, 1 : roi[2] + 1], z[y + 1, 1 : roi[2] + 1]
        ray_x = rays[0, roi[1] + y, roi[0] : roi[0] + roi[2]]
        ray_y = rays[1, roi[1] + y, roi[0] : roi[0] + roi[2]]
        above = out[y + 1, 1 : roi[2] + 1]
        for x in range(len(wanted)):
            height = (a * ray_x[x] + b * ray_y[x] + c) * depth[x] + d
            above[x] = wanted[x] & (height >= low)
            count += above[x]
            high += wanted[x] & (height > twice)
    return out, count, high


@njit(cache=True, nogil=True)
def height_of(z, rays, v, u, plane):  # type: ignore[no-untyped-def]
    """Height m over `plane` (4,) of depth z at pixel u, v."""
    return (plane[0] * rays[0, v, u] + plane[1] * rays[1, v, u] + plane[2]) * z + plane[3]


@njit(cache=True, nogil=True)
def sample_of(keep, z, rays, roi, every, out):  # type: ignore[no-untyped-def]
    """Writes the points of about every `every`-th pixel of `keep` to `out` (3, M) float32 m, and returns how many.

    They lie on a lattice slanted to the rows, so that none of an object's edges falls between its lines.
    """
    n = 0
    slant = int(0.618 * every) | 1
    xs, ys, zs = out[0], out[1], out[2]
    for y in range(roi[3]):
        if n + roi[2] // every + 1 > len(xs):
            break
        wanted, depth = keep[y + 1, 1 : roi[2] + 1], z[y + 1, 1 : roi[2] + 1]
        ray_x = rays[0, roi[1] + y, roi[0] : roi[0] + roi[2]]
        ray_y = rays[1, roi[1] + y, roi[0] : roi[0] + roi[2]]
        for x in range((y * slant) % every, len(wanted), every):
            d = depth[x]
            xs[n], ys[n], zs[n] = ray_x[x] * d, ray_y[x] * d, d
            n += wanted[x] != 0
    return n


@njit(cache=True, nogil=True)
def add_ends(keep, z, rays, roi, out, n):  # type: ignore[no-untyped-def]
    """Writes the points of the outermost pixels of `keep` in each row and column to `out` (3, M) from n on, as far as
    there is room; returns how many there are then."""
    rows, columns = roi[3], roi[2]
    top = np.zeros(columns + 2, np.int32)
    bottom = np.zeros(columns + 2, np.int32)
    for y in range(1, rows + 1):
        wanted = keep[y]
        for x in range(len(wanted)):
            bottom[x] = y if wanted[x] else bottom[x]
            top[x] = y if wanted[x] and top[x] == 0 else top[x]
        left, right = 1, columns
        while left <= columns and not wanted[left]:
            left += 1
        while right > left and not wanted[right]:
            right -= 1
        if left <= columns and n + 2 <= out.shape[1]:
            for x in (left, right):
                _put(z[y, x], rays, roi[1] + y - 1, roi[0] + x - 1, out, n)
                n += 1
    for x in range(1, columns + 1):
        if top[x] > 0 and n + 2 <= out.shape[1]:
            for y in (top[x], bottom[x]):
                _put(z[y, x], rays, roi[1] + y - 1, roi[0] + x - 1, out, n)
                n += 1
    return n


@njit(cache=True, nogil=True)
def _put(z, rays, v, u, out, n):  # type: ignore[no-untyped-def]
    out[0, n], out[1, n], out[2, n] = rays[0, v, u] * z, rays[1, v, u] * z, z


@njit(cache=True, nogil=True)
def _runs_of_row(row, flags, words, places):  # type: ignore[no-untyped-def]
    """Writes starts and stops of the runs of 1 in a row of a grid, in turns, to `places`, and returns how many."""
    for x in range(1, len(row)):
        flags[x] = row[x] ^ row[x - 1]
    return set_places(flags, words, places)


@njit(cache=True, nogil=True)
def points_of(keep, z, rays, color, roi, points, colors):  # type: ignore[no-untyped-def]
    """Writes points (M, 3) float32 m and colors (M, 3) of the pixels in `keep`, row by row; returns M."""
    flags, words, places = row_flags(roi[2] + 2)
    flat = color.reshape((color.shape[0], 3 * color.shape[1]))
    flat_points, flat_colors = points.reshape(points.size), colors.reshape(colors.size)
    xyz = np.empty(3 * roi[2] + BLOCK, np.float32)
    n = 0
    for y in range(roi[3]):
        v = roi[1] + y
        k = _runs_of_row(keep[y + 1], flags, words, places)
        if k == 0:
            continue
        depth = z[y + 1, 1 : roi[2] + 1]
        ray_x, ray_y = rays[0, v, roi[0] : roi[0] + roi[2]], rays[1, v, roi[0] : roi[0] + roi[2]]
        row = flat[v, 3 * roi[0] :]
        for x in range(len(depth)):
            d = depth[x]
            xyz[3 * x], xyz[3 * x + 1], xyz[3 * x + 2] = ray_x[x] * d, ray_y[x] * d, d
        for i in range(0, k, 2):
            start, stop = 3 * (places[i] - 1), 3 * (places[i + 1] - 1)
            _copy(xyz, start, stop, flat_points, n)
            _copy(row, start, stop, flat_colors, n)
            n += stop - start
    return n // 3


@njit(cache=True, nogil=True)
def _copy(source, start, stop, target, at):  # type: ignore[no-untyped-def]
    """Copies `source[start:stop]` to `target` from `at` on: in whole blocks where there is room, what they write beyond
    is overwritten by the next run. Their number is easier to guess for the processor than that of single values."""
    blocks = (stop - start + BLOCK - 1) // BLOCK
    if at + blocks * BLOCK <= len(target) and start + blocks * BLOCK <= len(source):
        for k in range(blocks):
            run, to = source[start + k * BLOCK :], target[at + k * BLOCK :]
            for x in range(BLOCK):
                to[x] = run[x]
    else:
        for x in range(stop - start):
            target[at + x] = source[start + x]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def moments(keep, kind, z, rays, roi, mean, spread):  # type: ignore[no-untyped-def]
    """Sets mean (3,) m and covariance (3, 3) m^2 of the points of the pixels in `keep`.

    A pixel of the mask whose depth was not measured counts too, at the depth beside it in its row, up to 10 px away: a
    sensor loses whole faces that it sees at a slant, and the mean would shift away from them.
    """
    n = 0
    sx = sy = sz = sxx = sxy = sxz = syy = syz = szz = 0.0
    flags, words, places = row_flags(roi[2])
    filled = np.empty(roi[2], np.float32)
    for y in range(roi[3]):
        wanted, kinds, depth = keep[y + 1, 1 : roi[2] + 1], kind[y + 1, 1 : roi[2] + 1], z[y + 1, 1 : roi[2] + 1]
        ray_x = rays[0, roi[1] + y, roi[0] : roi[0] + roi[2]]
        ray_y = rays[1, roi[1] + y, roi[0] : roi[0] + roi[2]]
        for x in range(len(wanted)):
            filled[x] = depth[x] if wanted[x] else np.float32(0)
            flags[x] = (kinds[x] == UNKNOWN) & (wanted[x] == 0)
            n += wanted[x]
        n += _fill(filled, wanted, places, set_places(flags, words, places))
        for x in range(len(wanted)):
            d = np.float64(filled[x])
            px, py = ray_x[x] * d, ray_y[x] * d
            sx, sy, sz = sx + px, sy + py, sz + d
            sxx, sxy, sxz = sxx + px * px, sxy + px * py, sxz + px * d
            syy, syz, szz = syy + py * py, syz + py * d, szz + d * d
    m = max(n, 1)
    mean[0], mean[1], mean[2] = sx / m, sy / m, sz / m
    spread[0, 0], spread[0, 1], spread[0, 2] = sxx / m, sxy / m, sxz / m
    spread[1, 1], spread[1, 2], spread[2, 2] = syy / m, syz / m, szz / m
    for i in range(3):
        for j in range(i, 3):
            spread[i, j] -= mean[i] * mean[j]
            spread[j, i] = spread[i, j]


@njit(cache=True, nogil=True)
def _fill(depth, wanted, places, count):  # type: ignore[no-untyped-def]
    """Sets `depth` at the first `count` of `places` from the nearest wanted pixels of the row at both sides, or at one;
    returns how many have such neighbours."""
    found = 0
    for k in range(count):
        x = places[k]
        before, after = x - 1, x + 1
        if before >= 0 and after < len(wanted) and wanted[before] & wanted[after]:
            depth[x] = np.float32(0.5) * (depth[before] + depth[after])
            found += 1
            continue
        while before >= 0 and before > x - HOLE and not wanted[before]:
            before -= 1
        while after < len(wanted) and after < x + HOLE and not wanted[after]:
            after += 1
        left = before >= 0 and wanted[before] != 0
        right = after < len(wanted) and wanted[after] != 0
        if left and right:
            share = np.float32(x - before) / np.float32(after - before)
            depth[x] = depth[before] + (depth[after] - depth[before]) * share
        elif left or right:
            depth[x] = depth[before] if left else depth[after]
        found += left or right
    return found
