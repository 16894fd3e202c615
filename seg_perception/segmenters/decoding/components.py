# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Connected components of a class image, split where depth jumps: what stands behind is another object."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.segmenters.decoding.enlarged import grown


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
    labels = np.zeros((height, width), np.int32)
    most = 0
    if depth.size:
        most = _label_joined(classes, labels, depth, step, True, min_area, 0)
        _spread(classes, labels)
    most = _label_joined(classes, labels, depth, step, False, min_area, most)
    numbers = np.zeros(most + 1, np.int32)
    kinds = np.empty(most, np.int32)
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
def _label_joined(classes, labels, depth, step, by_depth, min_area, most):  # type: ignore[no-untyped-def]
    """Gives the components of the pixels that have no label yet the labels `most + 1`...; returns the last one.

    By class, and with `by_depth` of measured pixels only, by depth. Without it a component most of whose pixels have
    depth is left out, since depth has judged it already. So are those of fewer than `min_area` px.
    """
    runs, first = _runs(classes, labels, depth, step, by_depth)
    parent = np.arange(len(runs))
    for y in range(1, len(first) - 1):
        above = first[y - 1]
        for i in range(first[y], first[y + 1]):
            while above < first[y] and runs[above, 2] < runs[i, 1]:  # they touch by a corner at the least
                above += 1
            j = above
            while j < first[y] and runs[j, 1] <= runs[i, 2]:
                if runs[i, 3] == runs[j, 3]:
                    a, b = _root(parent, i), _root(parent, j)
                    if a != b and (not by_depth or _continue(depth, step, y, runs[i], runs[j])):
                        parent[max(a, b)] = min(a, b)
                j += 1
    area = np.zeros(len(runs), np.int64)
    measured = np.zeros(len(runs), np.int64)
    for i in range(len(runs)):
        root = _root(parent, i)
        area[root] += runs[i, 2] - runs[i, 1]
        if depth.size and not by_depth:
            for x in range(runs[i, 1], runs[i, 2]):
                measured[root] += 1 if _measured(depth[runs[i, 0], x]) else -1
    numbers = np.zeros(len(runs), np.int32)
    for i in range(len(runs)):
        root = _root(parent, i)
        if area[root] < min_area or measured[root] > 0:
            continue
        if numbers[root] == 0:
            most += 1
            numbers[root] = most
        labels[runs[i, 0], runs[i, 1] : runs[i, 2]] = numbers[root]
    return most


@njit(cache=True, nogil=True)
def _runs(classes, labels, depth, step, by_depth):  # type: ignore[no-untyped-def]
    """Rows `y, x_start, x_stop, class` of pixels that go on without a break; and where each row of pixels begins."""
    height, width = classes.shape
    runs = np.empty((4 * height + 64, 4), np.int32)
    first = np.zeros(height + 1, np.int64)
    n = 0
    for y in range(height):
        first[y] = n
        if n + width > len(runs):
            runs = grown(runs, n, width)
        inside = False
        for x in range(width):
            kind = classes[y, x]
            if kind < 0 or labels[y, x] > 0 or (by_depth and not _measured(depth[y, x])):
                if inside:
                    runs[n - 1, 2] = x
                    inside = False
                continue
            if inside:
                if kind == runs[n - 1, 3] and not (by_depth and _jumps(depth[y, x], depth[y, x - 1], step)):
                    continue
                runs[n - 1, 2] = x
            runs[n, 0] = y
            runs[n, 1] = x
            runs[n, 3] = kind
            n += 1
            inside = True
        if inside:
            runs[n - 1, 2] = width
    first[height] = n
    return runs[:n], first


@njit(cache=True, nogil=True)
def _continue(depth, step, y, run, above):  # type: ignore[no-untyped-def]
    """Whether a pixel of `run` in row y touches one of `above`, in the row before, without a jump of depth."""
    for x in range(max(run[1], above[1] - 1), min(run[2], above[2] + 1)):
        for u in range(max(x - 1, above[1]), min(x + 2, above[2])):
            if not _jumps(depth[y, x], depth[y - 1, u], step):
                return True
    return False


@njit(cache=True, nogil=True)
def _jumps(a, b, step):  # type: ignore[no-untyped-def]
    near = min(a, b)
    return abs(a - b) > step * max(1.0, near * near)


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
def _spread(classes, labels):  # type: ignore[no-untyped-def]
    """Labels grow over the unlabelled pixels of their class, ring by ring."""
    height, width = classes.shape
    edge = np.zeros((height, width), np.bool_)  # labelled pixels beside unlabelled ones
    count = 0
    for y in range(height):
        for x in range(width):
            if labels[y, x] == 0 and classes[y, x] >= 0:
                count += 1
                for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                    v, u = y + dy, x + dx
                    if 0 <= v < height and 0 <= u < width and labels[v, u] > 0 and classes[v, u] == classes[y, x]:
                        edge[v, u] = True
    if count == 0:
        return
    queue = np.empty((edge.sum() + count, 2), np.int32)
    tail = 0
    for y in range(height):
        for x in range(width):
            if edge[y, x]:
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
