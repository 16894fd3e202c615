# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of a simulated scene: color, exact depth and exact instance labels, on the CPU alone."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import invert, project, ray_table, transform_points
from seg_perception.scene import Intrinsics
from seg_perception.sim.lighting import average_rows, light_rows
from seg_perception.sim.raycast import PART, trace_rows
from seg_perception.sim.shading import LINEAR, MATERIAL, shade_rows, smooth_edges
from seg_perception.sim.shapes import BOX, LATHE, Look, Part, segment_table
from seg_perception.sim.textures import paint

if TYPE_CHECKING:
    from seg_perception.sim.scene import SimScene

BAND = 32  # rows a worker takes at a time


@dataclass(frozen=True, slots=True, eq=False)
class Rendering:
    """What the ideal camera sees. `color` (H, W, 3) uint8 RGB, `depth` (H, W) float32 m along z, exact at each pixel's
    centre, NaN = nothing there, `instances` (H, W) uint16: 0 = none (table, room), else the body's label 1..N."""

    color: NDArray[np.uint8]
    depth: NDArray[np.float32]
    instances: NDArray[np.uint16]


def render(scene: SimScene, intrinsics: Intrinsics, T_world_camera: NDArray[np.float64], threads: int = 0) -> Rendering:
    """The scene as a camera at `T_world_camera` (4, 4, optical frame) sees it; lens distortion is applied.

    `threads` 0 = one per core.
    """
    parts, segments = _parts(scene)
    materials, texels = _materials(scene.looks)
    R, eye = np.ascontiguousarray(T_world_camera[:3, :3]), np.ascontiguousarray(T_world_camera[:3, 3])
    rays = ray_table(intrinsics)
    surfaces = (parts, segments, materials, texels, scene.lights, scene.ambient)
    view = (rays, R, eye, 1.0 / intrinsics.fx)
    rects = _rects(parts, intrinsics, T_world_camera)
    shape = (intrinsics.height, intrinsics.width)
    depth, part, feature = np.empty(shape), np.empty(shape, np.int32), np.zeros(shape, np.int32)
    sharp, smooth = np.empty((*shape, 3), np.float32), np.empty((*shape, 3), np.float32)
    rough, seen = (np.zeros((*shape, len(scene.lights)), np.float32) for _ in range(2))

    def find(y0: int, y1: int) -> None:
        trace_rows(parts, segments, rects, rays, R, eye, y0, y1, depth, part, feature)
        light_rows(parts, segments, scene.lights, rays, R, eye, y0, y1, depth, part, feature, rough)

    def shade(y0: int, y1: int) -> None:
        average_rows(parts, y0, y1, depth, part, feature, rough, seen)
        shade_rows(surfaces, view, y0, y1, depth, part, feature, seen, sharp)

    def smooth_out(y0: int, y1: int) -> None:
        smooth_edges(surfaces, view, y0, y1, part, feature, seen, sharp, smooth)

    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for work in (find, shade, smooth_out):  # each needs its neighbours' rows of the one before
            list(pool.map(work, *_bands(shape[0])))
    hit = part >= 0
    labels = np.where(hit, parts["label"][part], 0).astype(np.uint16)
    color = (smooth * 255.0 + 0.5).astype(np.uint8)
    return Rendering(color, np.where(hit, depth, np.nan).astype(np.float32), labels)


def _bands(rows: int) -> tuple[range, list[int]]:
    """First and one past the last row of each band."""
    starts = range(0, rows, BAND)
    return starts, [min(rows, y + BAND) for y in starts]


def _parts(scene: SimScene) -> tuple[NDArray[np.void], NDArray[np.float64]]:
    """The scene's primitives in world coordinates, PART records, and their lathe segments."""
    rows: list[tuple[Part, NDArray[np.float64], int, bool]] = []
    for body in scene.furniture:
        rows += [(p, body.T_world_body @ p.T_body_part, 0, body.casts_shadow) for p in body.parts]
    for label, body in enumerate(scene.objects, start=1):
        rows += [(p, body.T_world_body @ p.T_body_part, label, True) for p in body.parts]
    index = {look: i for i, look in enumerate(scene.looks)}
    parts = np.zeros(len(rows), PART)
    tables: list[NDArray[np.float64]] = [np.empty((0, 11))]
    count = 0
    for row, (part, T, label, casts) in zip(parts, rows, strict=True):
        slots = [index[look] for look in part.looks]
        row["kind"], row["params"], row["half"], row["radius"] = part.kind, part.params, part.half, part.radius
        row["rotation"], row["origin"] = T[:3, :3], T[:3, 3]
        row["label"], row["casts"] = label, casts
        row["material"] = slots if part.kind == BOX and len(slots) == 6 else slots[0]
        row["first_segment"] = count
        if part.kind == LATHE:
            table = segment_table(part)
            table[:, 10] = np.array(slots)[table[:, 10].astype(int)]
            tables.append(table)
            count += len(table)
        row["last_segment"] = count
    return parts, np.concatenate(tables)


def _rects(parts: NDArray[np.void], k: Intrinsics, T_world_camera: NDArray[np.float64]) -> NDArray[np.int64]:
    """Pixels x0, y0, x1, y1 outside of which a part cannot be seen, (P, 4), from the corners of its box."""
    signs = (np.arange(8)[:, None] >> np.arange(3) & 1) * 2.0 - 1.0
    whole = np.array([0, 0, k.width, k.height])
    rects = np.empty((len(parts), 4), np.int64)
    for rect, part in zip(rects, parts, strict=True):
        world = (signs * part["half"]) @ part["rotation"].T + part["origin"]
        corners = transform_points(invert(T_world_camera), world)
        if corners[:, 2].max() <= 0:  # behind the camera
            rect[:] = 0
        elif corners[:, 2].min() < 1e-3 or k.is_distorted:
            rect[:] = whole
        else:
            pixels = project(k, corners)
            rect[:2] = np.clip(np.floor(pixels.min(axis=0)), 0, whole[2:])
            rect[2:] = np.clip(np.ceil(pixels.max(axis=0)) + 1, 0, whole[2:])
    return rects


@lru_cache(maxsize=4)
def _materials(looks: tuple[Look, ...]) -> tuple[NDArray[np.void], NDArray[np.uint8]]:
    """MATERIAL records, and the texels (X, 3) sRGB of their textures, painted and halved down to a few texels."""
    materials = np.zeros(len(looks), MATERIAL)
    levels: dict[str, NDArray[np.int64]] = {}
    pixels: list[NDArray[np.uint8]] = [np.zeros((1, 3), np.uint8)]
    offset = 1
    for material, look in zip(materials, looks, strict=True):
        material["color"] = LINEAR[list(look.color)]
        material["tile"], material["shine"], material["gloss"] = look.tile, look.shine, look.gloss
        if look.texture and look.texture not in levels:
            table = np.zeros(MATERIAL["levels"].shape, np.int64)
            picture = paint(look.texture)
            for level in range(len(table)):
                height, width = picture.shape[:2]
                table[level] = offset, width, height
                pixels.append(picture.reshape(-1, 3))
                offset += width * height
                if min(height, width) <= 4:
                    break
                picture = cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
            levels[look.texture] = table
        if look.texture:
            material["levels"] = levels[look.texture]
    return materials, np.concatenate(pixels)
