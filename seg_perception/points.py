# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of fusion: from the depth under one mask to points, and what is on the support.

All kernels of fusion work on a grid: the mask's tight box `roi` (x, y, width, height) with a margin of one pixel, so
that neighbours need no bounds checks. Depth `z` on it is metres; NaN = no usable depth, or not in the mask. `seen`
is what the camera measured, whatever the mask. Sets of pixels are uint8 grids, 1 = in the set. `rays` (2, M) are x/z
and y/z of all pixels of the grid. Loops go along a whole grid without a branch, rows beside each other as `rows_of`
has them, so that they become vector instructions; what is rare is collected first (`set_places`).
"""

from __future__ import annotations

import numpy as np
from numba import njit

FOREIGN, UNKNOWN, USABLE = 0, 1, 2  # pixels of a grid: not in the mask; in it without usable depth; with
NAN, NEAR, FAR, IGNORED, TOTAL = 0, 1, 2, 3, 4  # what `depth_under_mask` counts


@njit(cache=True, nogil=True)
def depth_under_mask(depth, spans, roi, ignore, near, far, counts):  # type: ignore[no-untyped-def]
    """Grids of usable depth, of pixel kinds, and of depth as seen: beyond the image that of its last pixel, inf where
    something else is not measured; adds to the `counts` (NAN, NEAR, FAR, IGNORED, TOTAL)."""
    x0, y0, w, h = roi[0], roi[1], roi[2], roi[3]
    seen = np.empty((h + 2, w + 2), np.float32)
    for y in range(h + 2):
        row, to = depth[min(max(y0 + y - 1, 0), depth.shape[0] - 1)], seen[y]
        inside = row[x0 : x0 + w]
        for x in range(w):
            to[x + 1] = inside[x]
        to[0], to[w + 1] = row[max(x0 - 1, 0)], row[min(x0 + w, depth.shape[1] - 1)]
    kind = np.zeros((h + 2, w + 2), np.uint8)
    for k in range(len(spans)):
        y, start, stop = spans[k, 0], spans[k, 1], spans[k, 2]
        kind[y - y0 + 1, start - x0 + 1 : stop - x0 + 1] = UNKNOWN
        counts[TOTAL] += stop - start
        if ignore.size > 0:
            for x in range(start, stop):
                if ignore[y, x]:
                    kind[y - y0 + 1, x - x0 + 1] = FOREIGN
                    counts[IGNORED] += 1
    z = np.empty((h + 2, w + 2), np.float32)
    near, far = np.float32(near), np.float32(far)
    kinds, values, depths = kind.reshape(kind.size), z.reshape(z.size), seen.reshape(seen.size)
    good_ones = nearer = farther = 0
    for k in range(len(kinds)):
        mine, here = kinds[k] != 0, depths[k]
        good = mine & (here >= near) & (here <= far)
        values[k] = here if good else np.float32(np.nan)
        depths[k] = here if mine | (here > 0) else np.float32(np.inf)
        kinds[k] = np.uint8(mine) + np.uint8(good)  # FOREIGN, UNKNOWN or USABLE
        good_ones += good
        farther += mine & (here > far)
        nearer += mine & ((here == -np.inf) | ((here > 0) & (here < near)))
    counts[TOTAL] -= counts[IGNORED]
    counts[NEAR] += nearer
    counts[FAR] += farther
    counts[NAN] += counts[TOTAL] - good_ones - nearer - farther
    return z, kind, seen


@njit(cache=True, nogil=True)
def rays_under_mask(rays, straight, roi):  # type: ignore[no-untyped-def]
    """Grids of the image's `rays` (2, H, W), as rows (2, .). They are `straight` where x/z depends on the column only
    and y/z on the row: then few of them are read."""
    x0, y0, w, h = roi[0], roi[1], roi[2], roi[3]
    out = np.empty((2, h + 2, w + 2), np.float32)
    for y in range(h + 2):
        xs, ys = out[0, y], out[1, y]
        v = min(max(y0 + y - 1, 0), rays.shape[1] - 1)
        row = rays[0, 0 if straight else v, x0 : x0 + w]
        for x in range(w):
            xs[x + 1] = row[x]
        if straight:
            ys[:] = rays[1, v, 0]
        else:
            row = rays[1, v, x0 : x0 + w]
            for x in range(w):
                ys[x + 1] = row[x]
        xs[0] = xs[w + 1] = ys[0] = ys[w + 1] = 0
    return out.reshape((2, (h + 2) * (w + 2)))


@njit(cache=True, nogil=True)
def rows_of(grid):  # type: ignore[no-untyped-def]
    """A grid as one row, from its first, its second, and its third row on: entry k + 1 of the second is a pixel, and
    entries k, k + 1, k + 2 of the three are its neighbours and itself."""
    flat, columns = grid.reshape(grid.size), grid.shape[1]
    return flat, flat[columns:], flat[2 * columns :]


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
def number_set(grid):  # type: ignore[no-untyped-def]
    """How many pixels are in the set. One loop that also counts is slower than two: a count has eight bytes."""
    flags = grid.reshape(grid.size)
    count = 0
    for k in range(len(flags)):
        count += flags[k]
    return count


@njit(cache=True, nogil=True)
def empty_flags(count):  # type: ignore[no-untyped-def]
    """As many flags, not set, the same bytes as words, and room for the places of those that are set."""
    words = np.zeros((count + 8) // 8, np.uint64)
    return words.view(np.uint8), words, np.empty(8 * len(words) + 8, np.int32)


@njit(cache=True, nogil=True)
def agreement(z, steps):  # type: ignore[no-untyped-def]
    """How many of each pixel's 8 neighbours have its depth to within a step, uint8 grid.

    A pixel that flies between two surfaces agrees with few; the corner of a surface still agrees with 3.
    """
    out = np.zeros(z.shape, np.uint8)
    above, row, below = rows_of(z)
    agree = rows_of(out)[1]
    for k in range(len(below) - 2):
        here = row[k + 1]
        t = step(here, steps)
        n = np.uint8(abs(above[k] - here) <= t) + np.uint8(abs(above[k + 1] - here) <= t)
        n += np.uint8(abs(above[k + 2] - here) <= t) + np.uint8(abs(row[k] - here) <= t)
        n += np.uint8(abs(row[k + 2] - here) <= t) + np.uint8(abs(below[k] - here) <= t)
        n += np.uint8(abs(below[k + 1] - here) <= t) + np.uint8(abs(below[k + 2] - here) <= t)
        agree[k + 1] = n
    return out


@njit(cache=True, nogil=True)
def smoothed(z, agreeing):  # type: ignore[no-untyped-def]
    """Depth, where all 8 neighbours agree the mean of them and itself. Of a stereo camera's noise, which neighbours
    share, a third is gone; a ball of 20 mm radius shrinks by 0.02 mm."""
    out = z.copy()
    above, row, below = rows_of(z)
    agree, new = rows_of(agreeing)[1], rows_of(out)[1]
    for k in range(len(below) - 2):
        total = above[k] + above[k + 1] + above[k + 2] + row[k] + row[k + 1]
        total += row[k + 2] + below[k] + below[k + 1] + below[k + 2]
        new[k + 1] = total * np.float32(1 / 9) if agree[k + 1] == 8 else row[k + 1]
    return out


@njit(cache=True, nogil=True)
def agreeing_pixels(grid, value, agreeing, least):  # type: ignore[no-untyped-def]
    """The pixels where `grid` is at least `value` and that at least `least` neighbours agree with, and their number."""
    out = np.zeros(grid.shape, np.uint8)
    old, agree, new = grid.reshape(grid.size), agreeing.reshape(agreeing.size), out.reshape(out.size)
    for k in range(len(new)):
        new[k] = (old[k] >= value) & (agree[k] >= least)
    return out, number_set(out)


@njit(cache=True, nogil=True)
def above_support(z, keep, rays, plane, limit):  # type: ignore[no-untyped-def]
    """The pixels of `keep` at least `limit` m above the support, their number, and that of those at twice that."""
    out, over = np.empty(keep.shape, np.uint8), np.empty(keep.shape, np.uint8)
    a, b, c, d = np.float32(plane[0]), np.float32(plane[1]), np.float32(plane[2]), np.float32(plane[3])
    low, twice = np.float32(limit), np.float32(2.0 * limit)
    wanted, depth, ray_x, ray_y = keep.reshape(keep.size), z.reshape(z.size), rays[0], rays[1]
    above, high = out.reshape(out.size), over.reshape(over.size)
    for k in range(len(wanted)):
        height = (a * ray_x[k] + b * ray_y[k] + c) * depth[k] + d
        above[k] = wanted[k] & (height >= low)
        high[k] = wanted[k] & (height > twice)
    return out, number_set(out), number_set(over)


@njit(cache=True, nogil=True)
def height_of(z, rays, straight, v, u, plane):  # type: ignore[no-untyped-def]
    """Height m over `plane` (4,) of depth z at pixel u, v."""
    x, y = rays[0, 0 if straight else v, u], rays[1, v, 0 if straight else u]
    return (plane[0] * x + plane[1] * y + plane[2]) * z + plane[3]


@njit(cache=True, nogil=True)
def sample_of(keep, z, rays, every, out):  # type: ignore[no-untyped-def]
    """Writes the points of about every `every`-th pixel of `keep` to `out` (3, M) float32 m, and returns how many.

    They lie on a lattice slanted to the rows, so that none of an object's edges falls between its lines.
    """
    rows, columns = z.shape
    wanted, depth, ray_x, ray_y = keep.reshape(keep.size), z.reshape(z.size), rays[0], rays[1]
    xs, ys, zs = out[0], out[1], out[2]
    n = first = 0
    slant = (int(0.618 * every) | 1) % every
    for y in range(1, rows - 1):
        if n + columns // every + 1 > len(xs):
            break
        for k in range(y * columns + 1 + first, (y + 1) * columns - 1, every):
            d = depth[k]
            xs[n], ys[n], zs[n] = ray_x[k] * d, ray_y[k] * d, d
            n += wanted[k] != 0
        first += slant
        first -= every if first >= every else 0
    return n


@njit(cache=True, nogil=True)
def add_ends(keep, z, rays, out, n):  # type: ignore[no-untyped-def]
    """Writes the points of the outermost pixels of `keep` in each row and column to `out` (3, M) from n on, as far as
    there is room; returns how many there are then."""
    rows, columns = keep.shape
    depth = z.reshape(z.size)
    top = np.zeros(columns, np.int32)
    bottom = np.zeros(columns, np.int32)
    for y in range(1, rows - 1):
        wanted = keep[y]
        for x in range(columns):
            bottom[x] = y if wanted[x] else bottom[x]
            top[x] = y if wanted[x] and top[x] == 0 else top[x]
        left, right = 1, columns - 2
        while left < columns - 1 and not wanted[left]:
            left += 1
        while right > left and not wanted[right]:
            right -= 1
        if left < columns - 1 and n + 2 <= out.shape[1]:
            for x in (left, right):
                _put(depth, rays, y * columns + x, out, n)
                n += 1
    for x in range(1, columns - 1):
        if top[x] > 0 and n + 2 <= out.shape[1]:
            for y in (top[x], bottom[x]):
                _put(depth, rays, y * columns + x, out, n)
                n += 1
    return n


@njit(cache=True, nogil=True)
def _put(depth, rays, k, out, n):  # type: ignore[no-untyped-def]
    out[0, n], out[1, n], out[2, n] = rays[0, k] * depth[k], rays[1, k] * depth[k], depth[k]


@njit(cache=True, nogil=True)
def points_of(keep, z, rays, color, roi, points, colors):  # type: ignore[no-untyped-def]
    """Writes points (M, 3) float32 m and colors (M, 3) of the pixels in `keep`, row by row; returns M."""
    columns = z.shape[1]
    wanted, depth, ray_x, ray_y = keep.reshape(keep.size), z.reshape(z.size), rays[0], rays[1]
    flags, words, places = empty_flags(len(wanted))
    after = wanted[1:]
    for k in range(len(after)):
        flags[k] = wanted[k] ^ after[k]  # the pixel before a run, and the last one of it
    last = set_places(flags, words, places)
    xyz = np.empty(3 * len(wanted), np.float32)
    for k in range(len(wanted)):
        d = depth[k]
        xyz[3 * k], xyz[3 * k + 1], xyz[3 * k + 2] = ray_x[k] * d, ray_y[k] * d, d
    pixels = color.reshape(color.size)
    flat_points, flat_colors = points.reshape(points.size), colors.reshape(colors.size)
    n = 0
    for i in range(0, last, 2):
        start, count = places[i] + 1, 3 * (places[i + 1] - places[i])
        y = start // columns
        pixel = (roi[1] + y - 1) * color.shape[1] + roi[0] + start - y * columns - 1
        _copy(xyz, 3 * start, count, flat_points, n)
        _copy(pixels, 3 * pixel, count, flat_colors, n)
        n += count
    return n // 3


@njit(cache=True, nogil=True)
def _copy(source, start, count, target, at):  # type: ignore[no-untyped-def]
    """Copies `count` values of `source` from `start` on to `target` from `at` on. Indices that cannot be negative make
    one move of it; a slice would do so too, but is counted in and out."""
    s, t = np.uintp(start), np.uintp(at)
    for k in range(np.uintp(count)):
        target[t + np.uintp(k)] = source[s + np.uintp(k)]
