# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of trackers: where remembered points are in a new image, and what agrees with them."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def place(points, T, fx, fy, cx, cy):  # type: ignore[no-untyped-def]
    """Pixels u, v (P, 2) and z (P,) m of `points` (P, 3) seen from a camera at `T` (4, 4); NaN at z <= 0. No lens."""
    pixels, depth = np.empty((len(points), 2)), np.empty(len(points))
    for p in range(len(points)):
        a, b, c = points[p, 0] - T[0, 3], points[p, 1] - T[1, 3], points[p, 2] - T[2, 3]
        x = T[0, 0] * a + T[1, 0] * b + T[2, 0] * c
        y = T[0, 1] * a + T[1, 1] * b + T[2, 1] * c
        z = T[0, 2] * a + T[1, 2] * b + T[2, 2] * c
        scale = 1.0 / z if z > 0.0 else np.nan
        pixels[p, 0], pixels[p, 1], depth[p] = fx * x * scale + cx, fy * y * scale + cy, z
    return pixels, depth


@njit(cache=True, nogil=True)
def look_up(pixels, z, starts, depth, shape, spans, offsets, rois, tolerance):  # type: ignore[no-untyped-def]
    """What the image shows where the points of tracks must be if they have not moved.

    `pixels` (P, 2) u, v and `z` (P,) m of the points; track i has those from `starts[i]` to `starts[i + 1]`; `depth` m
    of the image of `shape` H, W, or (0, 0) = none. Returns votes (M, N): points on mask n and at its depth; there (M,):
    points still seen; through (M,): points with something farther behind; hidden (P,) bool: the others, which something
    nearer covers or the image does not show.
    """
    count, n = len(starts) - 1, len(offsets) - 1
    votes = np.zeros((count, n), np.int64)
    there = np.zeros(count, np.int64)
    through = np.zeros(count, np.int64)
    hidden = np.ones(len(z), np.bool_)
    columns, rows, measured = _read(pixels, z, depth, shape)
    near = np.empty(n, np.int64)
    for i in range(count):
        some = _masks_near(pixels, starts[i], starts[i + 1], rois, near)
        for p in range(starts[i], starts[i + 1]):
            x, y, seen = columns[p], rows[p], measured[p]
            if x < 0:
                continue
            known = seen > 0.0  # also +inf: farther than the sensor's range
            band = tolerance * max(1.0, z[p] * z[p])  # noise grows with the square of the distance
            if known and seen > z[p] + band:
                through[i] += 1
                hidden[p] = False
                continue
            if seen < z[p] - band and (known or seen == -np.inf):
                continue
            hit = known
            for k in near[:some]:
                if not (0 <= x - rois[k, 0] < rois[k, 2] and 0 <= y - rois[k, 1] < rois[k, 3]):
                    continue
                if covers(spans, offsets[k], offsets[k + 1], rois[k, 1], x, y):
                    votes[i, k] += 1
                    hit = True
            if hit:
                there[i] += 1
                hidden[p] = False
    return votes, there, through, hidden


@njit(cache=True, nogil=True)
def _read(pixels, z, depth, shape):  # type: ignore[no-untyped-def]
    """Column and row of each point's pixel, -1 = not in the image, and the depth there. All depth is read at once:
    then memory does not make each point wait."""
    height, width = shape
    columns, rows = np.zeros(len(z), np.int64), np.zeros(len(z), np.int64)
    measured = np.empty(len(z), np.float32)
    for p in range(len(z)):
        u, v = np.floor(pixels[p, 0] + 0.5), np.floor(pixels[p, 1] + 0.5)
        inside = z[p] > 0.0 and u >= 0.0 and v >= 0.0 and u < width and v < height
        columns[p], rows[p] = int(u if inside else -1.0), int(v if inside else -1.0)
    for p in range(len(z)):
        measured[p] = depth[rows[p], columns[p]] if depth.size and columns[p] >= 0 else np.float32(np.nan)
    return columns, rows, measured


@njit(cache=True, nogil=True)
def _masks_near(pixels, first, last, rois, near):  # type: ignore[no-untyped-def]
    """Writes the masks whose boxes may hold any of the points from `first` to `last` to `near`; returns how many."""
    left = top = np.inf
    right = bottom = -np.inf
    for p in range(first, last):
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
def covers(spans, first, last, top, x, y):  # type: ignore[no-untyped-def]
    """Whether pixel x, y, from row `top` on, is in the mask of `spans[first:last]`."""
    low, high = first, last
    guess = first + y - top  # the place of row y, if each row before has one span
    if guess < last and spans[guess, 0] == y and (guess == first or spans[guess - 1, 0] < y):
        low = guess
    else:
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


@njit(cache=True, nogil=True, error_model="numpy")
def nearness(points, starts, centroids, places, reach):  # type: ignore[no-untyped-def]
    """How near `places` (N, 3) are to tracks, (M, N): 1 at the track's centroid or surface, 0 `reach` m away from its
    centroid, half as far from its surface: what comes out behind an occluder first is not its middle. 0 for NaN, which
    is no 3D."""
    count, n = len(starts) - 1, len(places)
    near = np.zeros((count, n))
    low, high = np.empty(3), np.empty(3)
    for i in range(count):
        for k in range(3):
            low[k], high[k] = np.inf, -np.inf
        for p in range(starts[i], starts[i + 1]):
            for k in range(3):
                low[k], high[k] = min(low[k], points[p, k] - reach / 2), max(high[k], points[p, k] + reach / 2)
        for j in range(n):
            x, y, z = places[j, 0], places[j, 1], places[j, 2]
            a, b, c = x - centroids[i, 0], y - centroids[i, 1], z - centroids[i, 2]
            away = np.sqrt(a * a + b * b + c * c)
            if low[0] < x < high[0] and low[1] < y < high[1] and low[2] < z < high[2]:
                least = np.inf
                for p in range(starts[i], starts[i + 1]):
                    a, b, c = x - points[p, 0], y - points[p, 1], z - points[p, 2]
                    least = min(least, a * a + b * b + c * c)
                surface = 2 * np.sqrt(least)
                away = away if away < surface else surface  # also if the centroid is not known
            if away < reach:
                near[i, j] = 1 - away / reach
    return near


@njit(cache=True, nogil=True)
def grown(points, starts, hidden, kept, seen, seen_starts, T, before, rests, most):  # type: ignore[no-untyped-def]
    """The surfaces of the next frame: those of the tracks `kept`, as they are, then those `seen` (Q, 3) now, object j
    from `seen_starts[j]` on, moved by `T` (4, 4).

    An object that is track `before[j]` (-1 = none), which `rests` (M,), keeps what is hidden of its surface, and all of
    it where nothing is seen; at most `most` points in all. Returns points, starts and hidden, False for what is new.
    """
    out = np.empty((len(points) + len(seen), 3))
    out_hidden = np.zeros(len(out), np.bool_)
    out_starts = np.zeros(len(kept) + len(before) + 1, np.int64)
    n = 0
    for i in range(len(kept)):
        for p in range(starts[kept[i]], starts[kept[i] + 1]):
            out_hidden[n] = hidden[p]
            for k in range(3):
                out[n, k] = points[p, k]
            n += 1
        out_starts[i + 1] = n
    for j in range(len(before)):
        count, i, free = seen_starts[j + 1] - seen_starts[j], before[j], most
        if i >= 0 and rests[i]:
            waiting = 0
            for p in range(starts[i], starts[i + 1]):
                waiting += hidden[p] or count == 0
            limit = most * 3 // 4 if count else max(1, waiting)
            step = max(1, -(-waiting // limit))
            place = 0
            for p in range(starts[i], starts[i + 1]):
                if hidden[p] or count == 0:
                    if place % step == 0:
                        for k in range(3):
                            out[n, k] = points[p, k]
                        n, free = n + 1, free - 1
                    place += 1
        if count:
            for p in range(seen_starts[j], seen_starts[j + 1], -(-count // free)):
                x, y, z = np.float64(seen[p, 0]), np.float64(seen[p, 1]), np.float64(seen[p, 2])
                for k in range(3):
                    out[n, k] = T[k, 0] * x + T[k, 1] * y + T[k, 2] * z + T[k, 3]
                n += 1
        out_starts[len(kept) + j + 1] = n
    return out[:n], out_starts, out_hidden[:n]


@njit(cache=True, nogil=True)
def agreement(overlap, near, classes, others, least, same_thing):  # type: ignore[no-untyped-def]
    """How well tracks of `classes` (M,) agree with objects of `others` (N,), and which pairs may match, (M, N) both:
    those with an `overlap` of `least` or that are `near`, of one class, or that overlap by `same_thing`."""
    affinity = np.empty(overlap.shape)
    allowed = np.zeros(overlap.shape, np.bool_)
    for i in range(len(classes)):
        for j in range(len(others)):
            same = classes[i] == others[j]
            affinity[i, j] = overlap[i, j] + near[i, j] + same
            allowed[i, j] = (overlap[i, j] >= least or near[i, j] > 0.0) and (same or overlap[i, j] >= same_thing)
    return affinity, allowed
