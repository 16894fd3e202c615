# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of trackers: where remembered points are in a new image."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def look_up(pixels, z, owners, count, depth, shape, spans, offsets, rois, tolerance):  # type: ignore[no-untyped-def]
    """What the image shows where the points of `count` tracks must be if they have not moved.

    `pixels` (P, 2) u, v and `z` (P,) m of the points, `owners` (P,) their tracks; `depth` m of the image of `shape`
    H, W, or (0, 0) = none. Returns votes (count, N): points on mask n and at its depth; there (count,): points still
    seen; through (count,): points with something farther behind; hidden (P,) bool: the others, which something nearer
    covers or the image does not show.
    """
    n = len(offsets) - 1
    height, width = shape
    votes = np.zeros((count, n), np.int64)
    there = np.zeros(count, np.int64)
    through = np.zeros(count, np.int64)
    hidden = np.ones(len(z), np.bool_)
    near, of = np.empty(n, np.int64), -1  # the masks near the points of track `of`, the first `some` of them
    some = 0
    for p in range(len(z)):
        if not z[p] > 0.0:
            continue
        x, y = int(np.floor(pixels[p, 0] + 0.5)), int(np.floor(pixels[p, 1] + 0.5))
        if x < 0 or y < 0 or x >= width or y >= height:
            continue
        i = owners[p]
        if i != of:
            of, some = i, _masks_near(pixels, owners, p, rois, near)
        measured = depth[y, x] if depth.size else np.float32(np.nan)
        known = measured > 0.0  # also +inf: farther than the sensor's range
        band = tolerance * max(1.0, z[p] * z[p])  # noise grows with the square of the distance
        if known and measured > z[p] + band:
            through[i] += 1
            hidden[p] = False
            continue
        if measured < z[p] - band and (known or measured == -np.inf):
            continue
        hit = known
        for k in near[:some]:
            if not (0 <= x - rois[k, 0] < rois[k, 2] and 0 <= y - rois[k, 1] < rois[k, 3]):
                continue
            if covers(spans, offsets[k], offsets[k + 1], x, y):
                votes[i, k] += 1
                hit = True
        if hit:
            there[i] += 1
            hidden[p] = False
    return votes, there, through, hidden


@njit(cache=True, nogil=True)
def _masks_near(pixels, owners, first, rois, near):  # type: ignore[no-untyped-def]
    """Writes the masks whose boxes may hold any of the points of one track, from point `first` on, to `near`; returns
    how many there are."""
    left = top = np.inf
    right = bottom = -np.inf
    for p in range(first, len(owners)):
        if owners[p] != owners[first]:
            break
        x, y = pixels[p, 0], pixels[p, 1]  # NaN, behind the camera, is neither less nor more
        left, right = x if x < left else left, x if x > right else right
        top, bottom = y if y < top else top, y if y > bottom else bottom
    some = 0
    for k in range(len(rois)):
        beside = rois[k, 0] > right + 1 or rois[k, 0] + rois[k, 2] < left - 1
        if not (beside or rois[k, 1] > bottom + 1 or rois[k, 1] + rois[k, 3] < top - 1):
            near[some] = k
            some += 1
    return some


@njit(cache=True, nogil=True)
def nearest(points, owners, count, places):  # type: ignore[no-untyped-def]
    """Distance m of each of `places` (N, 3) from the nearest of a track's `points` (P, 3), (count, N); NaN = none."""
    n = len(places)
    squares = np.full((count, n), np.inf)
    xs, ys, zs = places[:, 0].copy(), places[:, 1].copy(), places[:, 2].copy()  # to be read as vectors
    for p in range(len(points)):
        x, y, z, least = points[p, 0], points[p, 1], points[p, 2], squares[owners[p]]
        for k in range(n):
            away = (xs[k] - x) * (xs[k] - x) + (ys[k] - y) * (ys[k] - y) + (zs[k] - z) * (zs[k] - z)
            least[k] = away if away < least[k] else least[k]
    return np.where(squares < np.inf, np.sqrt(squares), np.nan)


@njit(cache=True, nogil=True)
def covers(spans, first, last, x, y):  # type: ignore[no-untyped-def]
    """Whether pixel x, y is in the mask of `spans[first:last]`."""
    low, high = first, last
    while low < high:  # the first span of row y
        middle = (low + high) // 2
        if spans[middle, 0] < y:
            low = middle + 1
        else:
            high = middle
    while low < last and spans[low, 0] == y:
        if spans[low, 1] <= x < spans[low, 2]:
            return True
        low += 1
    return False
