# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Patches that meet convexly are one object: merged greedily, the surest contact first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.segmenters.geometric.patches import is_step

ARM = 0.009  # m, from the contact to the points on either side
LIMIT = np.radians(30.0)  # one pair of points says no more than this


@dataclass(frozen=True, slots=True, eq=False)
class Contacts:
    """How patches meet, symmetric (P + 1, P + 1): `length` px of common border, `joined` px of it without a depth
    step, `bend` rad summed over the joined border, convex positive; and `front[i, j]` px of border where i is nearer,
    beyond a step. Statistics of patches that unite add up."""

    length: NDArray[np.float32]
    joined: NDArray[np.float32]
    bend: NDArray[np.float32]
    front: NDArray[np.float32]


def find_contacts(
    labels: NDArray[np.int32],
    count: int,
    w: NDArray[np.float32],
    rays: NDArray[np.float32],
    planes: NDArray[np.float32],
    step: float,
    focal: float,
) -> Contacts:
    """The contacts of the patches 1..`count` in `labels` (H, W)."""
    return Contacts(*_contacts(labels, count, w, rays, planes, step, focal, ARM, LIMIT))


def merge_convex(contacts: Contacts, concave: float, joined_share: float) -> NDArray[np.int32]:
    """The segment (P + 1,) of every patch: contacts folding inwards by more than `concave` rad keep apart, and so do
    those of which less than `joined_share` is without a depth step."""
    return _merge(contacts.length.copy(), contacts.joined.copy(), contacts.bend.copy(), concave, joined_share)


@njit(cache=True, nogil=True)
def fold(w, rays, planes, v, u, q, p, v1, u1, v2, u2):  # type: ignore[no-untyped-def]
    """Angle rad by which the surface folds at the contact (v, u), (q, p), seen from a point on either side: positive
    where the contact is the ridge. Positions tell this better than normals, which a near contact blurs."""
    if (v1 == v and u1 == u) or (v2 == q and u2 == p):
        return 0.0
    zc = 0.5 / w[v, u] + 0.5 / w[q, p]
    z1, z2 = 1.0 / planes[v1, u1, 0], 1.0 / planes[v2, u2, 0]
    aa = bb = ab = view = 0.0
    for k in range(3):
        ray = 0.5 * (rays[v, u, k] + rays[q, p, k]) if k < 2 else 1.0
        one = (rays[v1, u1, k] * z1 if k < 2 else z1) - ray * zc
        two = (rays[v2, u2, k] * z2 if k < 2 else z2) - ray * zc
        aa += one * one
        bb += two * two
        ab += one * two
        view += (one + two) * ray
    angle = np.pi - np.arccos(min(1.0, max(-1.0, ab / np.sqrt(aa * bb))))
    return angle if view > 0 else -angle


@njit(cache=True, nogil=True)
def _contacts(labels, count, w, rays, planes, step, focal, arm_length, limit):  # type: ignore[no-untyped-def]
    rows, columns = labels.shape
    length = np.zeros((count + 1, count + 1), np.float32)
    joined = np.zeros((count + 1, count + 1), np.float32)
    bend = np.zeros((count + 1, count + 1), np.float32)
    front = np.zeros((count + 1, count + 1), np.float32)
    for v in range(rows):
        for u in range(columns):
            a = labels[v, u]
            if a == 0:
                continue
            for k in range(2):
                dv, du = k, 1 - k
                q, p = v + dv, u + du
                if q >= rows or p >= columns:
                    continue
                b = labels[q, p]
                if b == 0 or b == a:
                    continue
                length[a, b] += 1
                length[b, a] += 1
                if is_step(w, planes, v, u, q, p, step):
                    if w[v, u] > w[q, p]:
                        front[a, b] += 1
                    else:
                        front[b, a] += 1
                    continue
                arm = min(12, max(2, int(arm_length * focal * w[v, u] + 0.5)))
                back = arm
                while back > 0:
                    i, j = v - back * dv, u - back * du
                    if i >= 0 and j >= 0 and labels[i, j] == a:
                        break
                    back -= 1
                ahead = arm
                while ahead > 0:
                    i, j = q + ahead * dv, p + ahead * du
                    if i < rows and j < columns and labels[i, j] == b:
                        break
                    ahead -= 1
                angle = fold(w, rays, planes, v, u, q, p, v - back * dv, u - back * du, q + ahead * dv, p + ahead * du)
                angle = min(limit, max(-limit, angle))
                joined[a, b] += 1
                joined[b, a] += 1
                bend[a, b] += angle
                bend[b, a] += angle
    return length, joined, bend, front


@njit(cache=True, nogil=True)
def _merge(length, joined, bend, concave, joined_share):  # type: ignore[no-untyped-def]
    n = len(length)
    segment = np.arange(n).astype(np.int32)
    alive = np.ones(n, np.bool_)
    while True:
        best, a, b = 0.0, 0, 0
        for i in range(1, n):
            if not alive[i]:
                continue
            for j in range(i + 1, n):
                if not alive[j] or joined[i, j] < 1 or joined[i, j] < joined_share * length[i, j]:
                    continue
                surplus = bend[i, j] / joined[i, j] + concave
                value = surplus * joined[i, j]
                if surplus > 0 and value > best:
                    best, a, b = value, i, j
        if a == 0:
            return segment
        unite(length, joined, bend, alive, segment, a, b)


@njit(cache=True, nogil=True)
def unite(length, joined, bend, alive, segment, a, b):  # type: ignore[no-untyped-def]
    """Segment `b` becomes part of `a`."""
    for table in (length, joined, bend):
        for k in range(len(table)):
            table[a, k] += table[b, k]
            table[k, a] += table[k, b]
            table[b, k] = 0
            table[k, b] = 0
        table[a, a] = 0
    alive[b] = False
    for k in range(len(segment)):
        if segment[k] == b:
            segment[k] = a
