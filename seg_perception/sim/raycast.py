# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Exact ray intersections with the primitives of `sim.shapes`, compiled; no GL and no GPU.

Rays are `origin + t * direction` with a direction that is not normalised: with z = 1 in the camera frame, t is depth.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from seg_perception.sim.shapes import BOX, CAPSULE, ELLIPSOID

NOWHERE = math.inf


PART = np.dtype(  # one primitive of a scene, as the kernels read it; a record, so that a call hands over one pointer
    [
        ("kind", np.int64),
        ("rotation", np.float64, (3, 3)),  # world from part
        ("origin", np.float64, (3,)),  # m, world
        ("params", np.float64, (3,)),  # m
        ("half", np.float64, (3,)),  # m, half extents of the part's own box
        ("radius", np.float64),  # m, bounding sphere
        ("first_segment", np.int64),  # rows of the segment table, see shapes.segment_table
        ("last_segment", np.int64),
        ("material", np.int64, (6,)),  # by box face; others use the first, a lathe its segments'
        ("casts", np.int64),  # throws shadows
        ("label", np.int64),  # 0 = not an object
    ]
)


@njit(cache=True, nogil=True, error_model="numpy")
def hit_part(part, segments, ox, oy, oz, dx, dy, dz, t_min, t_max):  # type: ignore[no-untyped-def]
    """Nearest t in (t_min, t_max) where the ray, given in the part's own frame, meets its surface; and the face."""
    kind = part.kind
    if kind == BOX:
        return _hit_box(part.params, ox, oy, oz, dx, dy, dz, t_min, t_max)
    if kind == ELLIPSOID:
        return _hit_ellipsoid(part.params, ox, oy, oz, dx, dy, dz, t_min, t_max)
    if kind == CAPSULE:
        return _hit_capsule(part.params, ox, oy, oz, dx, dy, dz, t_min, t_max)
    best, feature = NOWHERE, -1
    if _hit_box(part.half, ox, oy, oz, dx, dy, dz, -NOWHERE, t_max)[1] < 0:
        return best, feature
    for s in range(part.first_segment, part.last_segment):
        t = _hit_segment(segments[s], ox, oy, oz, dx, dy, dz, t_min, t_max)
        if t < t_max:
            best, t_max, feature = t, t, s
    return best, feature


@njit(cache=True, nogil=True, error_model="numpy")
def _hit_box(h, ox, oy, oz, dx, dy, dz, t_min, t_max):  # type: ignore[no-untyped-def]
    near, far = -NOWHERE, NOWHERE
    near_face, far_face = -1, -1
    for axis in range(3):
        o = ox if axis == 0 else (oy if axis == 1 else oz)
        d = dx if axis == 0 else (dy if axis == 1 else dz)
        if d == 0.0:
            if abs(o) > h[axis]:
                return NOWHERE, -1
            continue
        t0, t1 = (-h[axis] - o) / d, (h[axis] - o) / d
        f0, f1 = 2 * axis + 1, 2 * axis
        if t0 > t1:
            t0, t1 = t1, t0
            f0, f1 = f1, f0
        if t0 > near:
            near, near_face = t0, f0
        if t1 < far:
            far, far_face = t1, f1
    if near > far:
        return NOWHERE, -1
    if t_min < near < t_max:
        return near, near_face
    if t_min < far < t_max:
        return far, far_face
    return NOWHERE, -1


@njit(cache=True, nogil=True, error_model="numpy")
def _nearest_root(a, b, c, t_min, t_max):  # type: ignore[no-untyped-def]
    """Smallest root of a t^2 + 2 b t + c in (t_min, t_max)."""
    if a == 0.0:
        return NOWHERE
    discriminant = b * b - a * c
    if discriminant < 0.0:
        return NOWHERE
    root = math.sqrt(discriminant)
    t0, t1 = (-b - root) / a, (-b + root) / a
    if t0 > t1:
        t0, t1 = t1, t0
    if t_min < t0 < t_max:
        return t0
    if t_min < t1 < t_max:
        return t1
    return NOWHERE


@njit(cache=True, nogil=True, error_model="numpy")
def _hit_ellipsoid(r, ox, oy, oz, dx, dy, dz, t_min, t_max):  # type: ignore[no-untyped-def]
    ox, oy, oz = ox / r[0], oy / r[1], oz / r[2]
    dx, dy, dz = dx / r[0], dy / r[1], dz / r[2]
    a = dx * dx + dy * dy + dz * dz
    b = ox * dx + oy * dy + oz * dz
    t = _nearest_root(a, b, ox * ox + oy * oy + oz * oz - 1.0, t_min, t_max)
    return t, (0 if t < NOWHERE else -1)


@njit(cache=True, nogil=True, error_model="numpy")
def _hit_capsule(r, ox, oy, oz, dx, dy, dz, t_min, t_max):  # type: ignore[no-untyped-def]
    radius, core = r[0], r[1]
    best = NOWHERE
    a, b = dx * dx + dy * dy, ox * dx + oy * dy
    t = _nearest_root(a, b, ox * ox + oy * oy - radius * radius, t_min, t_max)
    if t < NOWHERE and abs(oz + t * dz) <= core:
        best = t
    for side in (-core, core):
        z = oz - side
        t = _nearest_root(a + dz * dz, b + z * dz, ox * ox + oy * oy + z * z - radius * radius, t_min, min(t_max, best))
        if t < best and (oz + t * dz) * side >= core * core:
            best = t
    return best, (0 if best < NOWHERE else -1)


@njit(cache=True, nogil=True, error_model="numpy")
def _hit_segment(s, ox, oy, oz, dx, dy, dz, t_min, t_max):  # type: ignore[no-untyped-def]
    """A cone's frustum, or a ring when both ends are at the same height."""
    r0, z0, r1, z1 = s[0], s[1], s[2], s[3]
    if z0 == z1:
        t = (z0 - oz) / dz
        if not t_min < t < t_max:
            return NOWHERE
        x, y = ox + t * dx, oy + t * dy
        rr = x * x + y * y
        low, high = min(r0, r1), max(r0, r1)
        return t if low * low <= rr <= high * high else NOWHERE
    k = (r1 - r0) / (z1 - z0)
    w, dw = r0 + k * (oz - z0), k * dz
    a = dx * dx + dy * dy - dw * dw
    b = ox * dx + oy * dy - w * dw
    c = ox * ox + oy * oy - w * w
    low, high = min(z0, z1), max(z0, z1)
    t = _nearest_root(a, b, c, t_min, t_max)
    if t == NOWHERE:
        return NOWHERE
    z = oz + t * dz
    if low <= z <= high and r0 + k * (z - z0) >= 0.0:
        return t
    t = _nearest_root(a, b, c, t, t_max)
    if t == NOWHERE:
        return NOWHERE
    z = oz + t * dz
    return t if low <= z <= high and r0 + k * (z - z0) >= 0.0 else NOWHERE


@njit(cache=True, nogil=True, error_model="numpy")
def hit_world(part, segments, o, d, t_min, t_max):  # type: ignore[no-untyped-def]
    """As hit_part for a ray in world coordinates; a part far from the ray is passed over by its sphere."""
    cx, cy, cz = o[0] - part.origin[0], o[1] - part.origin[1], o[2] - part.origin[2]
    dd = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    along = -(cx * d[0] + cy * d[1] + cz * d[2]) / dd
    x, y, z = cx + along * d[0], cy + along * d[1], cz + along * d[2]
    if x * x + y * y + z * z > part.radius * part.radius:
        return NOWHERE, -1
    R = part.rotation
    return hit_part(
        part,
        segments,
        R[0, 0] * cx + R[1, 0] * cy + R[2, 0] * cz,
        R[0, 1] * cx + R[1, 1] * cy + R[2, 1] * cz,
        R[0, 2] * cx + R[1, 2] * cy + R[2, 2] * cz,
        R[0, 0] * d[0] + R[1, 0] * d[1] + R[2, 0] * d[2],
        R[0, 1] * d[0] + R[1, 1] * d[1] + R[2, 1] * d[2],
        R[0, 2] * d[0] + R[1, 2] * d[1] + R[2, 2] * d[2],
        t_min,
        t_max,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def trace_rows(parts, segments, rects, rays, R, eye, y0, y1, depth, part, feature):  # type: ignore[no-untyped-def]
    """Depth along z, part and face of every pixel in rows y0..y1; `rects` (P, 4) bounds each part in the image."""
    depth[y0:y1] = NOWHERE
    part[y0:y1] = -1
    A, o = np.empty((3, 3)), np.empty(3)
    for i in range(len(parts)):
        p = parts[i]
        for k in range(3):
            o[k] = 0.0
            for j in range(3):
                o[k] += p.rotation[j, k] * (eye[j] - p.origin[j])
                A[k, j] = p.rotation[0, k] * R[0, j] + p.rotation[1, k] * R[1, j] + p.rotation[2, k] * R[2, j]
        for y in range(max(y0, rects[i, 1]), min(y1, rects[i, 3])):
            for x in range(rects[i, 0], rects[i, 2]):
                u, v = rays[y, x, 0], rays[y, x, 1]
                dx = A[0, 0] * u + A[0, 1] * v + A[0, 2]
                dy = A[1, 0] * u + A[1, 1] * v + A[1, 2]
                dz = A[2, 0] * u + A[2, 1] * v + A[2, 2]
                t, f = hit_part(p, segments, o[0], o[1], o[2], dx, dy, dz, 1e-6, depth[y, x])
                if t < depth[y, x]:
                    depth[y, x] = t
                    part[y, x] = i
                    feature[y, x] = f
