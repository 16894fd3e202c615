# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How much of each area light a point sees: soft shadows, compiled.

A pixel sends two rays to a light, to other places than its neighbours: sixteen pixels together cover a grid of 8 x 4.
Averaging over those that lie on the same surface then gives a smooth penumbra.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from seg_perception.sim.raycast import NOWHERE, hit_world
from seg_perception.sim.shapes import BOX, LATHE
from seg_perception.sim.surface import surface_at
from seg_perception.sim.vectors import along, dot, minus, norm, plus, scale, to_local, vector, world_ray

TILE = 16  # px; parts that cannot shade a tile are passed over at once
LIGHT = np.dtype(  # a rectangle that shines to one side
    [
        ("centre", np.float64, (3,)),  # m
        ("edge_u", np.float64, (3,)),  # m, half an edge
        ("edge_v", np.float64, (3,)),
        ("facing", np.float64, (3,)),  # unit, the lit side
        ("power", np.float64, (3,)),  # linear RGB
    ]
)


@njit(cache=True, nogil=True, error_model="numpy")
def light_rows(parts, segments, lights, rays, R, eye, y0, y1, depth, part, feature, seen):  # type: ignore[no-untyped-def]
    """Fills `seen` (H, W, L) with the share of each light that two rays from each pixel of rows y0..y1 reach."""
    near, blockers = np.empty(len(parts), np.int64), np.empty(len(parts), np.int64)
    origin = vector(eye)
    points = np.empty((TILE * TILE, 3))
    for tile_y in range(y0, y1, TILE):
        for tile_x in range(0, depth.shape[1], TILE):
            stop_y, stop_x = min(y1, tile_y + TILE), min(depth.shape[1], tile_x + TILE)
            count = 0
            for y in range(tile_y, stop_y):
                for x in range(tile_x, stop_x):
                    if part[y, x] >= 0:
                        d = world_ray(R, rays[y, x, 0], rays[y, x, 1])
                        points[count] = along(origin, d, depth[y, x])
                        count += 1
            if count == 0:
                continue
            middle, radius = _sphere(points, count)
            for k in range(len(lights)):
                found = _between(parts, lights[k], middle, radius, near)
                at = 0
                for y in range(tile_y, stop_y):
                    for x in range(tile_x, stop_x):
                        i = part[y, x]
                        if i < 0:
                            continue
                        p = vector(points[at])
                        at += 1
                        d = world_ray(R, rays[y, x, 0], rays[y, x, 1])
                        n = surface_at(parts[i], segments, feature[y, x], p, d)[0]
                        pattern = 4 * ((y + 2 * x) % 4) + (x + 2 * y) % 4  # all sixteen in any 4 x 4 pixels
                        seen[y, x, k] = _visibility(parts, segments, lights[k], p, n, i, pattern, near, found, blockers)


@njit(cache=True, nogil=True, error_model="numpy")
def _sphere(points, count):  # type: ignore[no-untyped-def]
    """A sphere around the first `count` points: middle and radius."""
    low, high = vector(points[0]), vector(points[0])
    for k in range(1, count):
        x, y, z = vector(points[k])
        low = (min(low[0], x), min(low[1], y), min(low[2], z))
        high = (max(high[0], x), max(high[1], y), max(high[2], z))
    return scale(plus(low, high), 0.5), 0.5 * norm(minus(high, low))


@njit(cache=True, nogil=True, error_model="numpy")
def _between(parts, light, middle, radius, out):  # type: ignore[no-untyped-def]
    """Writes to `out` the parts that may stand between a sphere and the light; their count."""
    to_light = minus(vector(light.centre), middle)
    spread = norm(vector(light.edge_u)) + norm(vector(light.edge_v))
    distance2 = dot(to_light, to_light)
    count = 0
    for i in range(len(parts)):
        if parts[i].casts:
            c = minus(vector(parts[i].origin), middle)
            s = max(0.0, min(1.0, dot(c, to_light) / distance2))
            reach = parts[i].radius + radius + s * spread
            gap = along(c, to_light, -s)
            if dot(gap, gap) < reach * reach:
                out[count] = i
                count += 1
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def average_rows(parts, y0, y1, depth, part, feature, seen, out):  # type: ignore[no-untyped-def]
    """Averages `seen` over the 4 x 4 pixels around each pixel that lie on the same surface."""
    height, width, lights = seen.shape
    for y in range(y0, y1):
        for x in range(width):
            i = part[y, x]
            count = 0
            for k in range(lights):
                out[y, x, k] = 0.0
            for b in range(max(0, y - 1), min(height, y + 3)):
                for a in range(max(0, x - 1), min(width, x + 3)):
                    if part[b, a] != i or abs(depth[b, a] - depth[y, x]) > 0.01 * depth[y, x]:
                        continue
                    if i >= 0 and parts[i].kind == BOX and feature[b, a] != feature[y, x]:
                        continue
                    count += 1
                    for k in range(lights):
                        out[y, x, k] += seen[b, a, k]
            for k in range(lights):
                out[y, x, k] /= max(1, count)


@njit(cache=True, nogil=True, error_model="numpy")
def _visibility(parts, segments, light, p, n, own, pattern, near, found, blockers):  # type: ignore[no-untyped-def]
    """Share of a light that two rays from p on part `own` reach past the first `found` parts of `near`, 0..1."""
    to_light = minus(vector(light.centre), p)
    if dot(n, to_light) <= 0.0 or dot(vector(light.facing), to_light) >= 0.0:
        return 0.0
    edge_u, edge_v = vector(light.edge_u), vector(light.edge_v)
    spread = norm(edge_u) + norm(edge_v)
    distance2 = dot(to_light, to_light)
    count = 0
    for j in range(found):
        part = parts[near[j]]
        if near[j] == own and part.kind != LATHE:
            continue
        c = minus(vector(part.origin), p)
        s = max(0.0, min(1.0, dot(c, to_light) / distance2))
        reach = part.radius + s * spread
        gap = along(c, to_light, -s)
        if dot(gap, gap) < reach * reach and _may_block(part, c, to_light, spread):
            blockers[count] = near[j]
            count += 1
    if count == 0:
        return 1.0
    start = along(p, n, 1e-5)
    corner = minus(to_light, scale(n, 1e-5))
    seen = 0
    for sample in range(2):
        a = sample + (pattern % 4 + 0.5) / 4.0 - 1.0
        b = (pattern // 4 + 0.25 + 0.5 * sample) / 2.0 - 1.0
        target = along(along(corner, edge_u, a), edge_v, b)
        free = True
        for j in range(count):
            t, _ = hit_world(parts[blockers[j]], segments, start, target, 1e-6, 1.0)
            if t < NOWHERE:
                free = False
                break
        seen += free
    return 0.5 * seen


@njit(cache=True, nogil=True, error_model="numpy")
def _may_block(part, c, to_light, spread):  # type: ignore[no-untyped-def]
    """False when a face plane of the part's box parts it from all rays to the light. `c` is the part seen from p."""
    start, end = to_local(part.rotation, c), to_local(part.rotation, to_light)
    for axis in range(3):
        h = part.half[axis] - 1e-7
        if (-start[axis] > h and end[axis] - start[axis] - spread > h) or (
            start[axis] > h and start[axis] - end[axis] - spread > h
        ):
            return False
    return True
