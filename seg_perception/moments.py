# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of fusion: mean and covariance of the points under a mask, on grids as in `points`."""

from __future__ import annotations

import numpy as np
from numba import njit

from seg_perception.points import UNKNOWN, empty_flags, set_places

HOLE = 10  # px, how far a pixel without depth may take that of its row
SUMMED = 4096  # pixels that float32 sums up


@njit(cache=True, nogil=True)
def moments(keep, kind, z, rays, mean, spread):  # type: ignore[no-untyped-def]
    """Sets mean (3,) m and covariance (3, 3) m^2 of the points of the pixels in `keep`.

    A pixel of the mask whose depth was not measured counts too, at the depth beside it in its row, up to 10 px away: a
    sensor loses whole faces that it sees at a slant, and the mean would shift away from them.
    """
    wanted, kinds, depth = keep.reshape(keep.size), kind.reshape(kind.size), z.reshape(z.size)
    filled = np.empty(len(wanted), np.float32)
    flags, words, places = empty_flags(len(wanted))
    for k in range(len(wanted)):
        filled[k] = depth[k] if wanted[k] else np.float32(0)
        flags[k] = (kinds[k] == UNKNOWN) & (wanted[k] == 0)
    _fill(filled, wanted, places, set_places(flags, words, places), keep.shape[1])
    # about a point near the mean: float32 is exact enough for what is small
    middle = (keep.shape[0] // 2) * keep.shape[1] + keep.shape[1] // 2
    x0, y0, z0 = rays[0, middle], rays[1, middle], _some(filled, middle)
    total, part = np.zeros(10), np.empty(10, np.float32)
    for start in range(0, len(filled), SUMMED):
        stop = min(start + SUMMED, len(filled))
        _sums(rays[0, start:stop], rays[1, start:stop], filled[start:stop], x0, y0, z0, part)
        total += part
    finish(total, x0, y0, z0, mean, spread)


@njit(cache=True, nogil=True)
def _some(depth, near):  # type: ignore[no-untyped-def]
    """A depth that is known, at `near` or after it; else 0."""
    for k in range(len(depth)):
        here = depth[(near + k) % len(depth)]
        if here > 0:
            return here
    return np.float32(0)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _sums(ray_x, ray_y, depth, x0, y0, z0, out):  # type: ignore[no-untyped-def]
    """Sets `out` (10,) to the number of pixels with a depth, and to the sums and sums of products of a, b, c: their x
    and y beside the ray x0, y0, and their depth beyond z0."""
    zero = np.float32(0)
    n = a = b = c = aa = ab = ac = bb = bc = cc = zero
    for k in range(len(depth)):
        d = depth[k]
        p, q = (ray_x[k] - x0) * d, (ray_y[k] - y0) * d
        r = d - z0 if d > zero else zero
        n += np.float32(1) if d > zero else zero
        a, b, c = a + p, b + q, c + r
        aa, ab, ac = aa + p * p, ab + p * q, ac + p * r
        bb, bc, cc = bb + q * q, bc + q * r, cc + r * r
    out[0], out[1], out[2], out[3], out[4] = n, a, b, c, aa
    out[5], out[6], out[7], out[8], out[9] = ab, ac, bb, bc, cc


@njit(cache=True, nogil=True)
def _fill(depth, wanted, places, count, columns):  # type: ignore[no-untyped-def]
    """Sets `depth` at the first `count` of `places` from the nearest wanted pixels of the row at both sides, or at
    one."""
    for i in range(count):
        k = places[i]
        before, after = k - 1, k + 1  # there is a margin
        if wanted[before] & wanted[after]:
            depth[k] = np.float32(0.5) * (depth[before] + depth[after])
            continue
        first = k - k % columns
        while before > first and before > k - HOLE and not wanted[before]:
            before -= 1
        while after < first + columns - 1 and after < k + HOLE and not wanted[after]:
            after += 1
        left, right = wanted[before] != 0, wanted[after] != 0
        if left and right:
            share = np.float32(k - before) / np.float32(after - before)
            depth[k] = depth[before] + (depth[after] - depth[before]) * share
        elif left or right:
            depth[k] = depth[before] if left else depth[after]


@njit(cache=True, nogil=True)
def finish(total, x0, y0, z0, mean, spread):  # type: ignore[no-untyped-def]
    """Mean and covariance from the sums about the ray (x0, y0) at z0."""
    n = total[0]
    if n == 0:
        return
    a, b, c = total[1] / n, total[2] / n, total[3] / n
    aa, ab, ac = total[4] / n - a * a, total[5] / n - a * b, total[6] / n - a * c
    bb, bc, cc = total[7] / n - b * b, total[8] / n - b * c, total[9] / n - c * c
    mean[2] = c + z0
    mean[0], mean[1] = a + x0 * mean[2], b + y0 * mean[2]
    spread[0, 0], spread[1, 1], spread[2, 2] = aa + x0 * (2 * ac + x0 * cc), bb + y0 * (2 * bc + y0 * cc), cc
    spread[0, 1] = spread[1, 0] = ab + y0 * ac + x0 * (bc + y0 * cc)
    spread[0, 2] = spread[2, 0] = ac + x0 * cc
    spread[1, 2] = spread[2, 1] = bc + y0 * cc
