# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Three numbers as tuples inside compiled code: arrays would be allocated for each pixel."""

import math

from numba import njit


@njit(cache=True, nogil=True)
def vector(a):  # type: ignore[no-untyped-def]
    return a[0], a[1], a[2]


@njit(cache=True, nogil=True)
def row(a, i):  # type: ignore[no-untyped-def]
    return a[i, 0], a[i, 1], a[i, 2]


@njit(cache=True, nogil=True)
def dot(a, b):  # type: ignore[no-untyped-def]
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(cache=True, nogil=True)
def norm(a):  # type: ignore[no-untyped-def]
    return math.sqrt(a[0] * a[0] + a[1] * a[1] + a[2] * a[2])


@njit(cache=True, nogil=True)
def plus(a, b):  # type: ignore[no-untyped-def]
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@njit(cache=True, nogil=True)
def minus(a, b):  # type: ignore[no-untyped-def]
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@njit(cache=True, nogil=True)
def scale(a, s):  # type: ignore[no-untyped-def]
    return a[0] * s, a[1] * s, a[2] * s


@njit(cache=True, nogil=True)
def unit(a):  # type: ignore[no-untyped-def]
    return scale(a, 1.0 / norm(a))


@njit(cache=True, nogil=True)
def along(p, d, t):  # type: ignore[no-untyped-def]
    return p[0] + t * d[0], p[1] + t * d[1], p[2] + t * d[2]


@njit(cache=True, nogil=True)
def to_local(R, a):  # type: ignore[no-untyped-def]
    return (
        R[0, 0] * a[0] + R[1, 0] * a[1] + R[2, 0] * a[2],
        R[0, 1] * a[0] + R[1, 1] * a[1] + R[2, 1] * a[2],
        R[0, 2] * a[0] + R[1, 2] * a[1] + R[2, 2] * a[2],
    )


@njit(cache=True, nogil=True)
def to_world(R, a):  # type: ignore[no-untyped-def]
    return dot(R[0], a), dot(R[1], a), dot(R[2], a)


@njit(cache=True, nogil=True)
def world_ray(R, u, v):  # type: ignore[no-untyped-def]
    return R[0, 0] * u + R[0, 1] * v + R[0, 2], R[1, 0] * u + R[1, 1] * v + R[1, 2], R[2, 0] * u + R[2, 1] * v + R[2, 2]
