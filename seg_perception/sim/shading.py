# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The color of what a ray meets: mip-mapped textures, two soft area lights, ambient light, highlights. Compiled."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from seg_perception.sim.raycast import NOWHERE, hit_world, trace
from seg_perception.sim.shapes import BOX, ELLIPSOID, LATHE

LIGHT_SAMPLES = 16  # per light, a 4 x 4 stratified grid shifted at random from pixel to pixel
SAMPLE_ORDER = np.array([0, 15, 3, 12, 5, 10, 6, 9, 1, 14, 2, 13, 4, 11, 7, 8])  # the first four span the light
MAX_BLOCKERS = 64


MATERIAL = np.dtype(
    [
        ("color", np.float64, (3,)),  # linear
        ("tile", np.float64),  # m, 0 = the texture is stretched over the face
        ("shine", np.float64),
        ("gloss", np.float64),
        ("levels", np.int64, (12, 3)),  # the texture's mip levels: offset into the texels, width, height; 0 = no more
    ]
)
LIGHT = np.dtype(  # a rectangle that shines to one side
    [
        ("centre", np.float64, (3,)),  # m
        ("edge_u", np.float64, (3,)),  # m, half an edge
        ("edge_v", np.float64, (3,)),
        ("facing", np.float64, (3,)),  # unit, the lit side
        ("power", np.float64, (3,)),  # linear RGB
    ]
)
LINEAR = np.where(np.arange(256) <= 10, np.arange(256) / 255 / 12.92, ((np.arange(256) / 255 + 0.055) / 1.055) ** 2.4)


@njit(cache=True, nogil=True, error_model="numpy")
def shade_rows(parts, segments, materials, texels, lights, ambient, rays, R, eye, pixel, y0, y1, depth, part, feature, out):  # type: ignore[no-untyped-def]
    """Fills `out` (H, W, 3) sRGB 0..1 for rows y0..y1 from what trace_rows found; `pixel` is the size of one at z = 1."""
    blockers = np.empty(MAX_BLOCKERS, np.int64)
    origin = (eye[0], eye[1], eye[2])
    for y in range(y0, y1):
        for x in range(depth.shape[1]):
            if part[y, x] < 0:
                out[y, x] = 0.0
                continue
            d = _world_ray(R, rays[y, x, 0], rays[y, x, 1])
            hit = (depth[y, x], part[y, x], feature[y, x])
            seed = _hash(y * 73856093 ^ x * 19349663)
            out[y, x, 0], out[y, x, 1], out[y, x, 2] = _shade(parts, segments, materials, texels, lights, ambient, origin, d, hit, pixel, seed, blockers)


@njit(cache=True, nogil=True, error_model="numpy")
def smooth_edges(parts, segments, materials, texels, lights, ambient, rays, R, eye, pixel, y0, y1, part, feature, raw, out):  # type: ignore[no-untyped-def]
    """Shades pixels on an edge again from four rays each, so that the picture is not jagged."""
    blockers = np.empty(MAX_BLOCKERS, np.int64)
    origin = (eye[0], eye[1], eye[2])
    height, width = part.shape
    for y in range(max(1, y0), min(height - 1, y1)):
        for x in range(1, width - 1):
            if not _is_edge(part, feature, raw, y, x):
                continue
            red = green = blue = 0.0
            for k in range(4):
                du = (-0.375, 0.125, -0.125, 0.375)[k] * pixel
                dv = (-0.125, -0.375, 0.375, 0.125)[k] * pixel
                d = _world_ray(R, rays[y, x, 0] + du, rays[y, x, 1] + dv)
                hit = trace(parts, segments, origin, d)
                if hit[1] < 0:
                    continue
                seed = _hash(y * 73856093 ^ x * 19349663 ^ k * 83492791)
                r, g, b = _shade(parts, segments, materials, texels, lights, ambient, origin, d, hit, 0.5 * pixel, seed, blockers)
                red, green, blue = red + 0.25 * r, green + 0.25 * g, blue + 0.25 * b
            out[y, x, 0], out[y, x, 1], out[y, x, 2] = red, green, blue


@njit(cache=True, nogil=True, error_model="numpy")
def _is_edge(part, feature, raw, y, x):  # type: ignore[no-untyped-def]
    for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        b, a = y + dy, x + dx
        if part[b, a] != part[y, x]:
            return True
        contrast = abs(raw[b, a, 0] - raw[y, x, 0]) + abs(raw[b, a, 1] - raw[y, x, 1]) + abs(raw[b, a, 2] - raw[y, x, 2])
        if contrast > (0.15 if feature[b, a] != feature[y, x] else 0.3):
            return True
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def _shade(parts, segments, materials, texels, lights, ambient, eye, d, hit, pixel, seed, blockers):  # type: ignore[no-untyped-def]
    """sRGB 0..1 of what the ray from `eye` along `d` met: `hit` is t, part and face."""
    t, i, feature = hit
    p = _along(eye, d, t)
    away = _minus(p, _vector(parts[i].origin))
    n, u, v, span_u, span_v, look = _surface(parts[i], segments, feature, _to_local(parts[i].rotation, away))
    n = _to_world(parts[i].rotation, n)
    view = _scale(d, -1.0 / _norm(d))
    facing = _dot(n, view)
    if parts[i].kind == BOX and facing < 0.0:  # a room is a box seen from inside
        n, facing = _scale(n, -1.0), -facing

    material = materials[look]
    albedo = _vector(material.color)
    if material.levels[0, 1] > 0:
        tile = material.tile
        if tile > 0.0:
            u, v, span_u, span_v = u * span_u / tile, v * span_v / tile, tile, tile
        else:  # stretched: the far edge must not bleed in
            v = min(max(v, 1e-6), 1.0 - 1e-6)
            if parts[i].kind == BOX:
                u = min(max(u, 0.003), 0.997)
        albedo = _texel(material.levels, texels, u, v, t * pixel / max(0.35, facing), span_u, span_v)

    up = 0.5 + 0.5 * n[2]
    light = _plus(_scale(_row(ambient, 0), 1.0 - up), _scale(_row(ambient, 1), up))
    highlight = (0.0, 0.0, 0.0)
    for k in range(len(lights)):
        lamp = lights[k]
        to_light = _minus(_vector(lamp.centre), p)
        distance = _norm(to_light)
        toward = _scale(to_light, 1.0 / distance)
        incidence, emission = _dot(n, toward), -_dot(_vector(lamp.facing), toward)
        if incidence <= 0.0 or emission <= 0.0:
            continue
        edge_u, edge_v = _vector(lamp.edge_u), _vector(lamp.edge_v)
        seen = _visibility(parts, segments, p, n, i, to_light, edge_u, edge_v, seed + np.uint32(k), blockers)
        if seen == 0.0:
            continue
        arriving = _scale(_vector(lamp.power), seen * emission / (distance * distance))
        light = _plus(light, _scale(arriving, incidence))
        if material.shine > 0.0:
            half = _plus(toward, view)
            cosine = max(0.0, _dot(half, n)) / _norm(half)
            highlight = _plus(highlight, _scale(arriving, material.shine * cosine ** material.gloss))
    return (
        _display(albedo[0] * light[0] + highlight[0]),
        _display(albedo[1] * light[1] + highlight[1]),
        _display(albedo[2] * light[2] + highlight[2]),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _surface(part, segments, feature, p):  # type: ignore[no-untyped-def]
    """Normal, texture coordinates with their span in metres, and material where p lies on a part, in its own frame."""
    kind = part.kind
    if kind == BOX:
        hx, hy, hz = _vector(part.params)
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
        n = _unit((radial * p[0] / radius, radial * p[1] / radius, nz))
        return n, angle, v, 2 * math.pi * max(s[0], s[2]), tall, int(s[10])
    if kind == ELLIPSOID:
        rx, ry, rz = _vector(part.params)
        v = 0.5 + math.asin(max(-1.0, min(1.0, p[2] / rz))) / math.pi
        n = _unit((p[0] / (rx * rx), p[1] / (ry * ry), p[2] / (rz * rz)))
        return n, angle, v, 2 * math.pi * rx, math.pi * rz, part.material[0]
    core = part.params[1]
    n = _unit((p[0], p[1], p[2] - max(-core, min(core, p[2]))))
    return n, angle, 0.5, 1.0, 1.0, part.material[0]


@njit(cache=True, nogil=True, error_model="numpy")
def _texel(levels, texels, u, v, footprint, span_u, span_v):  # type: ignore[no-untyped-def]
    """Linear RGB at u, v (v up), bilinear in the mip level whose texels are about `footprint` m."""
    level = 0
    size = min(span_u / levels[0, 1], span_v / levels[0, 2])
    while level + 1 < len(levels) and levels[level + 1, 1] > 0 and size * 1.5 < footprint:
        level += 1
        size *= 2.0
    offset, width, height = levels[level, 0], levels[level, 1], levels[level, 2]
    x, y = (u - math.floor(u)) * width - 0.5, (1.0 - (v - math.floor(v))) * height - 0.5
    x0, y0 = math.floor(x), math.floor(y)
    fx, fy = x - x0, y - y0
    r = g = b = 0.0
    for k in range(4):
        ix, iy = (int(x0) + k % 2) % width, min(max(int(y0) + k // 2, 0), height - 1)
        weight = (fx if k % 2 else 1.0 - fx) * (fy if k // 2 else 1.0 - fy)
        at = offset + iy * width + ix
        r += weight * LINEAR[texels[at, 0]]
        g += weight * LINEAR[texels[at, 1]]
        b += weight * LINEAR[texels[at, 2]]
    return r, g, b


@njit(cache=True, nogil=True, error_model="numpy")
def _visibility(parts, segments, p, n, own, to_light, edge_u, edge_v, seed, blockers):  # type: ignore[no-untyped-def]
    """Share of a light that p sees, 0..1."""
    distance2 = _dot(to_light, to_light)
    spread = _norm(edge_u) + _norm(edge_v)
    count = 0
    for i in range(len(parts)):
        part = parts[i]
        if not part.casts or (i == own and part.kind != LATHE) or count == MAX_BLOCKERS:
            continue
        c = _minus(_vector(part.origin), p)
        s = max(0.0, min(1.0, _dot(c, to_light) / distance2))
        reach = part.radius + s * spread
        gap = _along(c, to_light, -s)
        if _dot(gap, gap) < reach * reach and _may_block(part, c, to_light, spread):
            blockers[count] = i
            count += 1
    if count == 0:
        return 1.0
    shift_u, shift_v = (_hash(seed) & 0xFFFF) / 65536.0, (_hash(seed) >> np.uint32(16)) / 65536.0
    start = _along(p, n, 1e-5)
    corner = _minus(to_light, _scale(n, 1e-5))
    seen = 0
    for sample in range(LIGHT_SAMPLES):
        if sample == 4 and (seen == 0 or seen == 4):
            return 0.25 * seen
        cell = SAMPLE_ORDER[sample]
        a = ((cell % 4 + shift_u) / 4.0) * 2.0 - 1.0
        b = ((cell // 4 + shift_v) / 4.0) * 2.0 - 1.0
        target = _along(_along(corner, edge_u, a), edge_v, b)
        free = True
        for j in range(count):
            t, _ = hit_world(parts[blockers[j]], segments, start, target, 1e-6, 1.0)
            if t < NOWHERE:
                free = False
                break
        seen += free
    return seen / LIGHT_SAMPLES


@njit(cache=True, nogil=True, error_model="numpy")
def _may_block(part, c, to_light, spread):  # type: ignore[no-untyped-def]
    """False when a face plane of the part's box parts it from all rays to the light. `c` is the part seen from p."""
    start, end = _to_local(part.rotation, c), _to_local(part.rotation, to_light)
    for axis in range(3):
        h = part.half[axis] - 1e-7
        if (-start[axis] > h and end[axis] - start[axis] - spread > h) or (
            start[axis] > h and start[axis] - end[axis] - spread > h
        ):
            return False
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _display(x):  # type: ignore[no-untyped-def]
    """Linear light to sRGB 0..1 with a soft shoulder (Narkowicz's fit of the ACES curve)."""
    x = min(1.0, max(0.0, x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14)))
    return 12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055


@njit(cache=True, nogil=True, error_model="numpy")
def _hash(n):  # type: ignore[no-untyped-def]
    h = np.uint32(n & 0xFFFFFFFF)
    h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D))
    h = np.uint32((h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(h ^ (h >> np.uint32(16)))


# -- vectors are tuples: arrays would be allocated for each pixel ----------------------------------------------------


@njit(cache=True, nogil=True)
def _vector(a):  # type: ignore[no-untyped-def]
    return a[0], a[1], a[2]


@njit(cache=True, nogil=True)
def _row(a, i):  # type: ignore[no-untyped-def]
    return a[i, 0], a[i, 1], a[i, 2]


@njit(cache=True, nogil=True)
def _dot(a, b):  # type: ignore[no-untyped-def]
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(cache=True, nogil=True)
def _norm(a):  # type: ignore[no-untyped-def]
    return math.sqrt(a[0] * a[0] + a[1] * a[1] + a[2] * a[2])


@njit(cache=True, nogil=True)
def _plus(a, b):  # type: ignore[no-untyped-def]
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@njit(cache=True, nogil=True)
def _minus(a, b):  # type: ignore[no-untyped-def]
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@njit(cache=True, nogil=True)
def _scale(a, s):  # type: ignore[no-untyped-def]
    return a[0] * s, a[1] * s, a[2] * s


@njit(cache=True, nogil=True)
def _unit(a):  # type: ignore[no-untyped-def]
    return _scale(a, 1.0 / _norm(a))


@njit(cache=True, nogil=True)
def _along(p, d, t):  # type: ignore[no-untyped-def]
    return p[0] + t * d[0], p[1] + t * d[1], p[2] + t * d[2]


@njit(cache=True, nogil=True)
def _to_local(R, a):  # type: ignore[no-untyped-def]
    return (
        R[0, 0] * a[0] + R[1, 0] * a[1] + R[2, 0] * a[2],
        R[0, 1] * a[0] + R[1, 1] * a[1] + R[2, 1] * a[2],
        R[0, 2] * a[0] + R[1, 2] * a[1] + R[2, 2] * a[2],
    )


@njit(cache=True, nogil=True)
def _to_world(R, a):  # type: ignore[no-untyped-def]
    return _dot(R[0], a), _dot(R[1], a), _dot(R[2], a)


@njit(cache=True, nogil=True)
def _world_ray(R, u, v):  # type: ignore[no-untyped-def]
    return R[0, 0] * u + R[0, 1] * v + R[0, 2], R[1, 0] * u + R[1, 1] * v + R[1, 2], R[2, 0] * u + R[2, 1] * v + R[2, 2]
