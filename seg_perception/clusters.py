# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of fusion: which pixels of a mask hang together in depth, and which of these are the object."""

from __future__ import annotations

import numpy as np
from numba import njit

from seg_perception.points import FOREIGN, height_of, step

BRIDGE = 3  # px, holes in the depth up to this wide do not part an object


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
            t = step(here, steps)
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
                    goes_on = abs(depth[v, u] - here) <= step(here, steps)
                    open_rim[i] += goes_on and not height_of(depth[v, u], rays, v, u, plane) < limit
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
            t = step(z[y, x], steps)
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    if core[y + dy, x + dx] and abs(z[y + dy, x + dx] - z[y, x]) <= t:
                        out[y, x] = True
    return out
