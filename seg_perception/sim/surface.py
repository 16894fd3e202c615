# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a surface is like where a ray met it: its normal, its texture coordinates, its material. Compiled."""

from __future__ import annotations

import math

from numba import njit

from seg_perception.sim.shapes import BOX, ELLIPSOID, LATHE
from seg_perception.sim.vectors import dot, minus, scale, to_local, to_world, unit, vector


@njit(cache=True, nogil=True, error_model="numpy")
def surface_at(part, segments, feature, p, d):  # type: ignore[no-untyped-def]
    """Unit normal towards the ray of direction `d`, u, v, their span in metres, material; at p in the world."""
    local = to_local(part.rotation, minus(p, vector(part.origin)))
    n, u, v, span_u, span_v, look = _local_surface(part, segments, feature, local)
    n = to_world(part.rotation, n)
    if part.kind == BOX and dot(n, d) > 0.0:  # a room is a box seen from inside
        n = scale(n, -1.0)
    return n, u, v, span_u, span_v, look


@njit(cache=True, nogil=True, error_model="numpy")
def _local_surface(part, segments, feature, p):  # type: ignore[no-untyped-def]
    """Normal, texture coordinates with their span in metres, and material where p lies on a part, in its own frame."""
    kind = part.kind
    if kind == BOX:
        hx, hy, hz = vector(part.params)
        material = part.material[feature]
        sign = 1.0 if feature % 2 == 0 else -1.0
        if feature >= 4:
            return (0.0, 0.0, sign), 0.5 + 0.5 * p[0] / hx, 0.5 + 0.5 * p[1] / hy, 2 * hx, 2 * hy, material
        if feature >= 2:
            return (0.0, sign, 0.0), 0.5 - 0.5 * sign * p[0] / hx, 0.5 + 0.5 * p[2] / hz, 2 * hx, 2 * hz, material
        return (sign, 0.0, 0.0), 0.5 + 0.5 * sign * p[1] / hy, 0.5 + 0.5 * p[2] / hz, 2 * hy, 2 * hz, material
    angle = math.atan2(p[1], p[0]) / (2 * math.pi) + 0.5
    if kind == LATHE:
        s = segments[feature]
        radius = max(1e-9, math.hypot(p[0], p[1]))
        along = (p[2] - s[1]) / (s[3] - s[1]) if s[3] != s[1] else (radius - s[0]) / (s[2] - s[0])
        radial, nz = s[4] + along * (s[6] - s[4]), s[5] + along * (s[7] - s[5])
        v = s[8] + along * (s[9] - s[8])
        tall = math.hypot(s[2] - s[0], s[3] - s[1]) / (s[9] - s[8])
        n = unit((radial * p[0] / radius, radial * p[1] / radius, nz))
        return n, angle, v, 2 * math.pi * max(s[0], s[2]), tall, int(s[10])
    if kind == ELLIPSOID:
        rx, ry, rz = vector(part.params)
        v = 0.5 + math.asin(max(-1.0, min(1.0, p[2] / rz))) / math.pi
        n = unit((p[0] / (rx * rx), p[1] / (ry * ry), p[2] / (rz * rz)))
        return n, angle, v, 2 * math.pi * rx, math.pi * rz, part.material[0]
    core = part.params[1]
    n = unit((p[0], p[1], p[2] - max(-core, min(core, p[2]))))
    return n, angle, 0.5, 1.0, 1.0, part.material[0]
