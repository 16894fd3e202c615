# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Smooth patches: foreground between bends and depth steps."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

BEND_ARM = 0.009  # m, between the bend and each of the two normals compared
SMALL_STEP = 0.002  # m, smaller ones are none, however good the camera
GRAZING = 4  # px, of even depth change that is a face and no edge
MIN_SEED = 12  # px, smaller patches are grown over
MIN_REST = 6  # px, smaller pieces between steps are left out


def split_patches(
    w: NDArray[np.float32],
    planes: NDArray[np.float32],
    normals: NDArray[np.float32],
    mask: NDArray[np.uint8],
    step: float,
    bend: float,
    focal: float,
) -> tuple[NDArray[np.int32], int]:
    """Labels (H, W), 0 = none, of patches that bend less than `bend` rad and hold no step over `step` 1/m."""
    edges = _bends(w, planes, normals, mask, step, np.cos(bend), focal, BEND_ARM)
    labels, count = _components(w, planes, mask, edges, step, MIN_SEED)
    return _grow(w, planes, mask, labels, count, step, MIN_REST)


@njit(cache=True, nogil=True, inline="always")
def is_step(w, planes, v, u, q, p, step):  # type: ignore[no-untyped-def]
    """Whether between the neighbours (v, u) and (q, p) depth jumps by more than either one's plane explains."""
    dv, du = q - v, p - u
    step = max(step, SMALL_STEP * w[v, u] * w[v, u])
    ahead = planes[v, u, 0] + planes[v, u, 1] * du + planes[v, u, 2] * dv - w[q, p]
    if abs(ahead) <= step:
        return False
    back = planes[q, p, 0] - planes[q, p, 1] * du - planes[q, p, 2] * dv - w[v, u]
    return abs(back) > step and not (goes_on(w, v, u, q, p) or goes_on(w, q, p, v, u))


@njit(cache=True, nogil=True)
def goes_on(w, v, u, q, p):  # type: ignore[no-untyped-def]
    """Whether depth goes on beyond (q, p) as from (v, u) to (q, p): a face seen at a grazing angle, too steep for a
    plane of its own. Blurred edges between two surfaces are shorter and never as even."""
    dv, du = q - v, p - u
    jump = w[q, p] - w[v, u]
    for k in range(1, GRAZING):
        i, j = q + k * dv, p + k * du
        if i < 0 or j < 0 or i >= w.shape[0] or j >= w.shape[1] or w[i, j] == 0:
            return False
        if abs(w[i, j] - w[i - dv, j - du] - jump) > 0.3 * abs(jump):
            return False
    return True


@njit(cache=True, nogil=True)
def _bends(w, planes, normals, mask, step, flat, focal, arm_length):  # type: ignore[no-untyped-def]
    rows, columns = w.shape
    edges = np.zeros((rows, columns), np.uint8)
    for v in range(rows):
        for u in range(columns):
            if mask[v, u] == 0:
                continue
            arm = min(12, max(2, int(arm_length * focal * w[v, u] + 0.5)))
            slant = max(2, int(0.7 * arm + 0.5))
            for k in range(4):
                if k == 0:
                    dv, du = 0, arm
                elif k == 1:
                    dv, du = arm, 0
                elif k == 2:
                    dv, du = slant, slant
                else:
                    dv, du = slant, -slant
                v1, u1, v2, u2 = v - dv, u - du, v + dv, u + du
                if v1 < 0 or v2 >= rows or u1 < 0 or u2 < 0 or u1 >= columns or u2 >= columns:
                    continue
                if mask[v1, u1] == 0 or mask[v2, u2] == 0:
                    continue
                dot = (
                    normals[v1, u1, 0] * normals[v2, u2, 0]
                    + normals[v1, u1, 1] * normals[v2, u2, 1]
                    + normals[v1, u1, 2] * normals[v2, u2, 2]
                )
                if dot >= flat:
                    continue
                here = w[v, u]
                allowed = 1.5 * max(step, SMALL_STEP * here * here)
                one = planes[v1, u1, 0] + planes[v1, u1, 1] * du + planes[v1, u1, 2] * dv - here
                two = planes[v2, u2, 0] - planes[v2, u2, 1] * du - planes[v2, u2, 2] * dv - here
                if abs(one) <= allowed and abs(two) <= allowed:
                    edges[v, u] = 1
                    break
    return edges


@njit(cache=True, nogil=True)
def _components(w, planes, mask, edges, step, least):  # type: ignore[no-untyped-def]
    rows, columns = w.shape
    labels = np.zeros((rows, columns), np.int32)
    queue = np.empty(rows * columns, np.int32)
    count = 0
    for v0 in range(rows):
        for u0 in range(columns):
            if mask[v0, u0] == 0 or edges[v0, u0] or labels[v0, u0] != 0:
                continue
            count += 1
            labels[v0, u0] = count
            queue[0] = v0 * columns + u0
            head, tail = 0, 1
            while head < tail:
                v, u = queue[head] // columns, queue[head] % columns
                head += 1
                for dv, du in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                    q, p = v + dv, u + du
                    if q < 0 or p < 0 or q >= rows or p >= columns:
                        continue
                    if mask[q, p] == 0 or edges[q, p] or labels[q, p] != 0 or is_step(w, planes, v, u, q, p, step):
                        continue
                    labels[q, p] = count
                    queue[tail] = q * columns + p
                    tail += 1
            if tail < least:
                for k in range(tail):
                    labels[queue[k] // columns, queue[k] % columns] = -1
                count -= 1
    return labels, count


@njit(cache=True, nogil=True)
def _grow(w, planes, mask, labels, count, step, least):  # type: ignore[no-untyped-def]
    """Patches grown breadth-first over what they left, never over a step; what stays becomes patches of its own, crumbs
    of fewer than `least` px excepted."""
    rows, columns = w.shape
    queue = np.empty(rows * columns, np.int32)
    tail = 0
    for v in range(rows):
        for u in range(columns):
            if labels[v, u] > 0:
                queue[tail] = v * columns + u
                tail += 1
            else:
                labels[v, u] = 0
    head = 0
    while head < tail:
        v, u = queue[head] // columns, queue[head] % columns
        head += 1
        for dv, du in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            q, p = v + dv, u + du
            if q < 0 or p < 0 or q >= rows or p >= columns or mask[q, p] == 0 or labels[q, p] != 0:
                continue
            if is_step(w, planes, v, u, q, p, step):
                continue
            labels[q, p] = labels[v, u]
            queue[tail] = q * columns + p
            tail += 1
    for v0 in range(rows):
        for u0 in range(columns):
            if mask[v0, u0] == 0 or labels[v0, u0] != 0:
                continue
            count += 1
            labels[v0, u0] = count
            queue[0] = v0 * columns + u0
            head, tail = 0, 1
            while head < tail:
                v, u = queue[head] // columns, queue[head] % columns
                head += 1
                for dv, du in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                    q, p = v + dv, u + du
                    if 0 <= q < rows and 0 <= p < columns and mask[q, p] and labels[q, p] == 0:
                        labels[q, p] = count
                        queue[tail] = q * columns + p
                        tail += 1
            if tail < least:
                for k in range(tail):
                    labels[queue[k] // columns, queue[k] % columns] = -1
                count -= 1
    for v in range(rows):
        for u in range(columns):
            labels[v, u] = max(labels[v, u], 0)
    return labels, count
