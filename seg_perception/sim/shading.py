# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The color of what a ray meets: mip-mapped textures under area lights, ambient light, highlights. Compiled."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.sim.raycast import NOWHERE, hit_world
from seg_perception.sim.shapes import BOX
from seg_perception.sim.surface import surface_at
from seg_perception.sim.vectors import along, dot, minus, norm, plus, row, scale, vector, world_ray

MATERIAL = np.dtype(
    [
        ("color", np.float64, (3,)),  # linear
        ("tile", np.float64),  # m, 0 = the texture is stretched over the face
        ("shine", np.float64),
        ("gloss", np.float64),
        ("levels", np.int64, (12, 3)),  # the texture's mip levels: offset into the texels, width, height; 0 = no more
    ]
)
LINEAR = np.where(np.arange(256) <= 10, np.arange(256) / 255 / 12.92, ((np.arange(256) / 255 + 0.055) / 1.055) ** 2.4)

AROUND = np.array([[0, 0], [0, 1], [1, 0], [0, -1], [-1, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]])
DISPLAY_STEP = 1 / 512


def _display_table() -> NDArray[np.float64]:
    """Linear light in steps of DISPLAY_STEP to sRGB 0..1, with a soft shoulder (Narkowicz's fit of the ACES curve)."""
    x = np.arange(2049) * DISPLAY_STEP
    x = np.clip(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 0.0, 1.0)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


DISPLAY = _display_table()


@njit(cache=True, nogil=True, error_model="numpy")
def shade_rows(scene, view, y0, y1, depth, part, feature, seen, out):  # type: ignore[no-untyped-def]
    """Fills `out` (H, W, 3) sRGB 0..1 for rows y0..y1 from what trace_rows and average_rows found.

    `scene` is parts, segments, materials, texels, lights, ambient; `view` is rays, R, eye, and a pixel's size at z = 1.
    """
    rays, R, eye, pixel = view
    origin = vector(eye)
    for y in range(y0, y1):
        for x in range(depth.shape[1]):
            if part[y, x] < 0:
                out[y, x] = 0.0
                continue
            d = world_ray(R, rays[y, x, 0], rays[y, x, 1])
            hit = (depth[y, x], part[y, x], feature[y, x])
            out[y, x, 0], out[y, x, 1], out[y, x, 2] = _shade(scene, origin, d, hit, pixel, seen[y, x])


@njit(cache=True, nogil=True, error_model="numpy")
def smooth_edges(scene, view, y0, y1, part, feature, seen, sharp, out):  # type: ignore[no-untyped-def]
    """Shades pixels on an edge of `sharp` again into `out`, from four rays each, so that the picture is not jagged."""
    rays, R, eye, pixel = view
    parts, segments = scene[0], scene[1]
    origin = vector(eye)
    height, width = part.shape
    for y in range(y0, y1):
        for x in range(width):
            if not _is_edge(part, feature, sharp, y, x):
                out[y, x] = sharp[y, x]
                continue
            out[y, x] = 0.0
            for k in range(4):
                du = (-0.375, 0.125, -0.125, 0.375)[k] * pixel
                dv = (-0.125, -0.375, 0.375, 0.125)[k] * pixel
                d = world_ray(R, rays[y, x, 0] + du, rays[y, x, 1] + dv)
                best, i, face, at_y, at_x = NOWHERE, -1, -1, y, x
                for j in range(9):  # what such a ray meets, a pixel around has met, and knows its light
                    b, a = min(max(y + AROUND[j, 0], 0), height - 1), min(max(x + AROUND[j, 1], 0), width - 1)
                    if part[b, a] == i and feature[b, a] == face:
                        if feature[at_y, at_x] != face:
                            at_y, at_x = b, a
                    elif part[b, a] >= 0 and part[b, a] != i:
                        t, f = hit_world(parts[part[b, a]], segments, origin, d, 1e-6, best)
                        if t < best:
                            best, i, face, at_y, at_x = t, part[b, a], f, b, a
                if i >= 0:
                    color = _shade(scene, origin, d, (best, i, face), 0.5 * pixel, seen[at_y, at_x])
                    for c in range(3):
                        out[y, x, c] += 0.25 * color[c]


@njit(cache=True, nogil=True, error_model="numpy")
def _is_edge(part, feature, raw, y, x):  # type: ignore[no-untyped-def]
    for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        b, a = min(max(y + dy, 0), part.shape[0] - 1), min(max(x + dx, 0), part.shape[1] - 1)
        if part[b, a] != part[y, x]:
            return True
        contrast = 0.0
        for c in range(3):
            contrast += abs(raw[b, a, c] - raw[y, x, c])
        if contrast > (0.15 if feature[b, a] != feature[y, x] else 0.45):
            return True
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def _shade(scene, eye, d, hit, pixel, seen):  # type: ignore[no-untyped-def]
    """sRGB 0..1 of what the ray from `eye` along `d` met: `hit` is t, part and face; `seen` the share of each light."""
    parts, segments, materials, texels, lights, ambient = scene
    t, i, feature = hit
    p = along(eye, d, t)
    n, u, v, span_u, span_v, look = surface_at(parts[i], segments, feature, p, d)
    to_eye = scale(d, -1.0 / norm(d))

    material = materials[look]
    albedo = vector(material.color)
    if material.levels[0, 1] > 0:
        tile = material.tile
        if tile > 0.0:
            u, v, span_u, span_v = u * span_u / tile, v * span_v / tile, tile, tile
        else:  # stretched: the far edge must not bleed in
            v = min(max(v, 1e-6), 1.0 - 1e-6)
            if parts[i].kind == BOX:
                u = min(max(u, 0.003), 0.997)
        albedo = _texel(material.levels, texels, u, v, t * pixel / max(0.35, dot(n, to_eye)), span_u, span_v)

    up = 0.5 + 0.5 * n[2]
    light = plus(scale(row(ambient, 0), 1.0 - up), scale(row(ambient, 1), up))
    highlight = (0.0, 0.0, 0.0)
    for k in range(len(lights)):
        if seen[k] == 0.0:
            continue
        to_light = minus(vector(lights[k].centre), p)
        distance = norm(to_light)
        toward = scale(to_light, 1.0 / distance)
        emission = max(0.0, -dot(vector(lights[k].facing), toward))
        arriving = scale(vector(lights[k].power), seen[k] * emission / (distance * distance))
        light = plus(light, scale(arriving, max(0.0, dot(n, toward))))
        if material.shine > 0.0:
            half = plus(toward, to_eye)
            cosine = max(0.0, dot(half, n)) / norm(half)
            if cosine > 0.7:  # below, its power is nothing to see
                highlight = plus(highlight, scale(arriving, material.shine * cosine**material.gloss))
    return (
        _display(albedo[0] * light[0] + highlight[0]),
        _display(albedo[1] * light[1] + highlight[1]),
        _display(albedo[2] * light[2] + highlight[2]),
    )


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
def _display(x):  # type: ignore[no-untyped-def]
    """sRGB 0..1 of linear light, from the table."""
    at = min(x / DISPLAY_STEP, len(DISPLAY) - 1.001)
    k = int(at)
    return DISPLAY[k] + (at - k) * (DISPLAY[k + 1] - DISPLAY[k])
