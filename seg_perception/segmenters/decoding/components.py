# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Connected components of a class image, split where depth jumps: what stands behind is another object."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


def components(
    classes: NDArray[np.int32], depth: NDArray[np.float32] | None, depth_step: float, min_area: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """An (H, W) image of components 1..n (0 = none), and the class of each, (n,).

    `classes` (H, W), -1 = none. Pixels of a class that touch, by an edge or a corner, are one component. With `depth`
    (H, W) m they are so only where depth changes by at most `depth_step` m, with the square of the distance beyond 1 m;
    specks and pixels without depth then go to the component of their class that reaches them first. Components of fewer
    than `min_area` px are left out.
    """
    usable = depth is not None and depth_step > 0
    z = np.ascontiguousarray(depth, np.float32) if usable else np.empty((0, 0), np.float32)
    return _components(np.ascontiguousarray(classes, np.int32), z, depth_step, max(min_area, 1))


@njit(cache=True, nogil=True)
def _components(classes, depth, step, min_area):  # type: ignore[no-untyped-def]
    height, width = classes.shape
    if depth.size:
        labels = _joined(classes, np.zeros((height, width), np.int32), depth, step)
        _drop_small(labels, min_area)
        _spread(classes, labels)
    else:
        labels = np.zeros((height, width), np.int32)
    rest = _joined(classes, labels, np.empty((0, 0), np.float32), step)
    if depth.size:
        _drop_measured(rest, depth)
    most = labels.max() if labels.size else 0
    for y in range(height):
        for x in range(width):
            if labels[y, x] == 0 and rest[y, x] > 0:
                labels[y, x] = rest[y, x] + most
    _drop_small(labels, min_area)
    numbers = np.zeros((labels.max() if labels.size else 0) + 1, np.int32)
    kinds = np.empty(len(numbers), np.int32)
    n = 0
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            if label > 0:
                if numbers[label] == 0:
                    kinds[n] = classes[y, x]
                    n += 1
                    numbers[label] = n
                labels[y, x] = numbers[label]
    return labels, kinds[:n].copy()


@njit(cache=True, nogil=True)
def _joined(classes, taken, depth, step):  # type: ignore[no-untyped-def]
    """Components of the pixels that are not `taken`, by class, and by depth if there is one."""
    height, width = classes.shape
    labels = np.zeros((height, width), np.int32)
    parent = np.zeros(height * width + 1, np.int32)
    count = 0
    for y in range(height):
        for x in range(width):
            if classes[y, x] < 0 or taken[y, x] > 0 or (depth.size and not _measured(depth[y, x])):
                continue
            label = 0
            for k in range(4):
                v, u = (y, x - 1) if k == 0 else (y - 1, x - 2 + k)
                if v < 0 or u < 0 or u >= width or labels[v, u] == 0 or classes[v, u] != classes[y, x]:
                    continue
                if depth.size:
                    near = min(depth[y, x], depth[v, u])
                    if abs(depth[y, x] - depth[v, u]) > step * max(1.0, near * near):
                        continue
                other = _root(parent, labels[v, u])
                if label == 0:
                    label = other
                elif other != label:
                    low, high = min(label, other), max(label, other)
                    parent[high] = low
                    label = low
            if label == 0:
                count += 1
                parent[count] = count
                label = count
            labels[y, x] = label
    for y in range(height):
        for x in range(width):
            if labels[y, x] > 0:
                labels[y, x] = _root(parent, labels[y, x])
    return labels


@njit(cache=True, nogil=True)
def _measured(z):  # type: ignore[no-untyped-def]
    return 0 < z < np.inf


@njit(cache=True, nogil=True)
def _root(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def _drop_small(labels, min_area):  # type: ignore[no-untyped-def]
    height, width = labels.shape
    area = np.zeros((labels.max() if labels.size else 0) + 1, np.int64)
    for y in range(height):
        for x in range(width):
            area[labels[y, x]] += 1
    for y in range(height):
        for x in range(width):
            if area[labels[y, x]] < min_area:
                labels[y, x] = 0


@njit(cache=True, nogil=True)
def _drop_measured(labels, depth):  # type: ignore[no-untyped-def]
    """Leaves only components most of whose pixels have no depth: of the others depth has already judged."""
    height, width = labels.shape
    more = np.zeros((labels.max() if labels.size else 0) + 1, np.int64)
    for y in range(height):
        for x in range(width):
            more[labels[y, x]] += 1 if _measured(depth[y, x]) else -1
    for y in range(height):
        for x in range(width):
            if more[labels[y, x]] > 0:
                labels[y, x] = 0


@njit(cache=True, nogil=True)
def _spread(classes, labels):  # type: ignore[no-untyped-def]
    """Labels grow over the unlabelled pixels of their class, ring by ring."""
    height, width = classes.shape
    queue = np.empty((height * width, 2), np.int32)
    tail = 0
    for y in range(height):
        for x in range(width):
            if labels[y, x] > 0:
                queue[tail, 0] = y
                queue[tail, 1] = x
                tail += 1
    head = 0
    while head < tail:
        y, x = queue[head]
        head += 1
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            v, u = y + dy, x + dx
            if 0 <= v < height and 0 <= u < width and labels[v, u] == 0 and classes[v, u] == classes[y, x]:
                labels[v, u] = labels[y, x]
                queue[tail, 0] = v
                queue[tail, 1] = u
                tail += 1
