# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of smoothing: boxes named alike, and averages with new measurements in them."""

from __future__ import annotations

import numpy as np
from numba import njit

ROUNDS = 6  # to the nearest rotation: each squares what is missing, which is 0.15 at the most


@njit(cache=True, nogil=True, error_model="numpy")
def turn_like(old, boxes, sizes, least):  # type: ignore[no-untyped-def]
    """Turns `boxes` (N, 4, 4) with their `sizes` (N, 3) by the quarters about z that bring them nearest to `old`, in
    place. Returns which are upright as before but still turned by more than an angle of cosine `least`, (N,)."""
    turned = np.zeros(len(boxes), np.bool_)
    for i in range(len(boxes)):
        a, b = old[i], boxes[i]
        xx = xy = yx = yy = zz = 0.0
        for k in range(3):
            xx, xy = xx + a[k, 0] * b[k, 0], xy + a[k, 0] * b[k, 1]
            yx, yy = yx + a[k, 1] * b[k, 0], yy + a[k, 1] * b[k, 1]
            zz += a[k, 2] * b[k, 2]
        quarter = int(np.rint(np.arctan2(yx - xy, xx + yy) / (np.pi / 2))) % 4
        c, s = (1, 0, -1, 0)[quarter], (0, -1, 0, 1)[quarter]
        for k in range(3):
            b[k, 0], b[k, 1] = c * b[k, 0] + s * b[k, 1], c * b[k, 1] - s * b[k, 0]
        if s:
            sizes[i, 0], sizes[i, 1] = sizes[i, 1], sizes[i, 0]
        cosine = (c * xx + s * xy + c * yy - s * yx + zz - 1) / 2
        turned[i] = zz >= least and cosine < least
    return turned


@njit(cache=True, nogil=True, error_model="numpy")
def blend(old, boxes, old_sizes, sizes, old_centroids, centroids, counts, distance, least, most):  # type: ignore[no-untyped-def]
    """Puts the averages `old...` of `counts` (N,) measurements, `most` or fewer, into the new ones, in place, counts
    too. Returns which objects rest, (N,): those within `distance` m and an angle of cosine `least`."""
    rests = np.zeros(len(boxes), np.bool_)
    for i in range(len(boxes)):
        moved = grew = turned = 0.0
        for k in range(3):
            moved += (centroids[i, k] - old_centroids[i, k]) ** 2
            grew = max(grew, abs(sizes[i, k] - old_sizes[i, k]))
            for j in range(3):
                turned += old[i, k, j] * boxes[i, k, j]
        rests[i] = np.sqrt(moved) <= distance and grew <= 2 * distance and (turned - 1) / 2 >= least
        counts[i] = min(counts[i] + 1, most) if rests[i] else 1
        if rests[i]:
            share = 1 / counts[i]
            for k in range(3):
                centroids[i, k] = old_centroids[i, k] + share * (centroids[i, k] - old_centroids[i, k])
                sizes[i, k] = old_sizes[i, k] + share * (sizes[i, k] - old_sizes[i, k])
                for j in range(4):
                    boxes[i, k, j] = old[i, k, j] + share * (boxes[i, k, j] - old[i, k, j])
            _make_rotation(boxes[i])
    return rests


@njit(cache=True, nogil=True)
def _make_rotation(T):  # type: ignore[no-untyped-def]
    """The rotation nearest to the mean of two that are near each other (Newton's iteration of the polar factor)."""
    square, new = np.empty((3, 3)), np.empty((3, 3))
    for _ in range(ROUNDS):
        for i in range(3):
            for j in range(3):
                square[i, j] = T[0, i] * T[0, j] + T[1, i] * T[1, j] + T[2, i] * T[2, j]
        for i in range(3):
            for j in range(3):
                along = T[i, 0] * square[0, j] + T[i, 1] * square[1, j] + T[i, 2] * square[2, j]
                new[i, j] = (3 * T[i, j] - along) / 2
        for i in range(3):
            for j in range(3):
                T[i, j] = new[i, j]
