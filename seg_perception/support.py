# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Support surfaces: the planes that objects stand on, never the floor they do not."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from seg_perception.masks import Masks
from seg_perception.options import option
from seg_perception.scene import Frame, Plane
from seg_perception.surfaces.cells import Cells, fit_cells
from seg_perception.surfaces.depth_cells import fit_depth_cells
from seg_perception.surfaces.pieces import nearest_pair, sees_through
from seg_perception.surfaces.planes import large_planes
from seg_perception.surfaces.surface import Surface

MIN_CELLS = 12  # cells of the 80-wide grid that make a plane
MAX_PLANES = 12
GAP = 0.25  # m, between pieces of one surface
SEEN = 0.05  # share of the best surface's cells; smaller ones are far away and no place to work
BEHIND = 0.015  # share of the distance by which something lies behind a plane
SEEN_THROUGH = 0.3  # share of what is between two pieces that lies behind, if they are two surfaces
SAME = 0.012  # planes closer than this share of their distance are one, bent by the camera
LEVEL = np.cos(np.radians(12.0))  # supports are parallel to each other
LARGE = 0.1  # m^2, smaller planes may be an object's face
NOISE_RANGE = (1e-3, 4e-3)  # 1/m
SQUARE = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class SupportConfig:
    """How support surfaces are found."""

    max_supports: int = option(4, "surfaces looked for", ge=0, le=16, live=True)
    min_depth: float = option(0.2, "nearest depth used", unit="m", ge=0.01, live=True)
    max_depth: float = option(3.0, "farthest depth used", unit="m", ge=0.1, live=True)
    max_height: float = option(
        0.5, "how high objects rise; a surface higher over the next one stands by itself", unit="m", ge=0.01, live=True
    )
    max_size: float = option(0.6, "longest object; a longer surface is no object's top", unit="m", ge=0.01, live=True)
    min_area: float = option(0.04, "smallest surface, unless it is the only one", unit="m^2", ge=0, live=True)
    floor_gap: float = option(
        0.35, "the lowest surface is the floor if the next is this much higher; 0 = keep it", unit="m", ge=0, live=True
    )
    noise: float = option(0.0, "standard deviation of 1/depth; 0 = measured in the image", unit="1/m", ge=0, le=0.1)


@dataclass(frozen=True, slots=True, eq=False)
class Supports:
    """What a search found: `carrying` surfaces, best first; `tops` of objects on them; the `noise` of 1/depth, 1/m."""

    carrying: tuple[Surface, ...]
    tops: tuple[Surface, ...]
    noise: float


def find_supports(frame: Frame, config: SupportConfig, masks: Masks | None = None) -> tuple[Plane, ...]:
    """The surfaces that objects stand on, best first, normals up; empty without depth, calibration or a surface.

    Pixels of `masks` are objects, not surface. Raises ValueError when the masks are not of the frame's size.
    """
    if frame.depth is None or frame.intrinsics is None or config.max_supports == 0:
        return ()
    masks = Masks.empty(frame.height, frame.width) if masks is None else masks
    if len(masks) and (masks.height, masks.width) != frame.depth.shape:
        size = f"{frame.height}x{frame.width}"
        raise ValueError(f"masks: expected {size} like the image, got {masks.height}x{masks.width}")
    cells = fit_depth_cells(frame.depth, frame.intrinsics, masks, frame.ignore, config.min_depth, config.max_depth)
    found = _search(cells, config, frame.gravity)
    return tuple(surface.plane for surface in found.carrying)


def support_under(points: ArrayLike, supports: Sequence[Plane], reach: float = 0.3, sunk: float = 0.02) -> int:
    """The index of the plane that an object of `points` (M, 3) m stands on, -1 = none.

    It is the highest one under the object's lowest points: at most `sunk` m above them, at most `reach` m below, for
    the foot may be hidden.
    """
    xyz = np.asarray(points, np.float64).reshape(-1, 3)
    if not len(xyz):
        return -1
    best, best_gap = -1, reach
    for i, plane in enumerate(supports):
        gap = float(np.percentile(plane.heights(xyz), 2))
        if gap >= -sunk and abs(gap) <= best_gap:
            best, best_gap = i, abs(gap)
    return best


def search_supports(
    w: NDArray[np.float32], rays: NDArray[np.float32], config: SupportConfig, gravity: NDArray[np.float64] | None = None
) -> Supports:
    """Supports in inverse depth `w` (H, W) 1/m, 0 = not measured, seen along `rays` (H, W, 2)."""
    return _search(fit_cells(w, rays), config, gravity)


def _search(cells: Cells, config: SupportConfig, gravity: NDArray[np.float64] | None) -> Supports:
    noise = config.noise or min(max(NOISE_RANGE[0], cells.noise()), NOISE_RANGE[1])  # also NaN
    coefficients, owner = large_planes(cells, noise, MIN_CELLS, MAX_PLANES)
    owner = _unite_slices(cells, coefficients, owner)
    normals = coefficients / -np.sqrt((coefficients * coefficients).sum(axis=1, keepdims=True))
    up = -gravity if gravity is not None else _up(normals, cells, coefficients, owner)
    level = _patches(cells, owner, np.flatnonzero(normals @ up >= LEVEL), noise)
    carrying, tops = _without_tops(level, up, config) if len(level) > 1 else (level, [])
    carrying.sort(key=lambda s: -s.cells)
    if len(carrying) > 1:
        carrying = [s for s in carrying if s.area >= config.min_area] or carrying[:1]
        carrying = [s for s in carrying if s.cells >= SEEN * carrying[0].cells]
        carrying = _without_floor(carrying, up, config)
    return Supports(tuple(carrying[: config.max_supports]), tuple(tops), noise)


def _unite_slices(cells: Cells, coefficients: NDArray[np.float64], owner: NDArray[np.int16]) -> NDArray[np.int16]:
    """`owner` with planes that are one surface, cut into slices by the camera's bend, under one number."""
    out = owner.copy()
    for i in range(len(coefficients)):
        for j in range(i):
            a, b = coefficients[i], coefficients[j]
            if a @ b < LEVEL * np.linalg.norm(a) * np.linalg.norm(b):
                continue
            rows = cells.planes[owner == i]
            off = np.abs(rows[:, :2] @ b[:2] + b[2] - rows[:, 2]) / rows[:, 2]
            if np.median(off) < SAME:
                out[out == i] = out[np.nonzero(owner == j)][0]
                break
    return out


def _patches(cells: Cells, owner: NDArray[np.int16], numbers: NDArray[np.int64], noise: float) -> list[Surface]:
    """Connected pieces of the planes `numbers`; pieces closer than an object's length are one, seen around it."""
    found, planes = [], cells.planes.reshape(-1, 5)
    for number in numbers:
        mine = (owner == number).view(np.uint8)
        count, labels = cv2.connectedComponents(cv2.dilate(mine, SQUARE))
        pieces = (
            [np.flatnonzero(mine)] if count == 2 else [np.flatnonzero(mine * (labels == k)) for k in range(1, count)]
        )
        for members in _near_each_other([piece for piece in pieces if len(piece) >= MIN_CELLS], cells):
            found.append(Surface.from_cells(planes.take(members, axis=0), noise, cells.side))
    return found


def _near_each_other(pieces: list[NDArray[np.int64]], cells: Cells) -> list[NDArray[np.int64]]:
    """Pieces of one plane, each the places of its cells, united where they are near each other, and not parted by a
    look past the plane onto something behind."""
    groups: list[list[NDArray[np.int64]]] = []
    for piece in pieces:
        touching = [any(_belong(piece, other, cells) for other in group) for group in groups]
        united = [other for group in itertools.compress(groups, touching) for other in group]
        groups = [group for group, near in zip(groups, touching, strict=True) if not near] + [[piece, *united]]
    return [group[0] if len(group) == 1 else np.sort(np.concatenate(group)) for group in groups]


def _belong(a: NDArray[np.int64], b: NDArray[np.int64], cells: Cells) -> bool:
    """Whether two pieces are one surface: at most GAP apart, and what lies between is hidden, not seen through."""
    a, b = (np.ascontiguousarray(piece[:: max(1, len(piece) // 60)]) for piece in (a, b))
    i, j, distance = nearest_pair(cells.planes.reshape(-1, 5), a, b)
    return distance <= GAP and not sees_through(cells.planes, cells.rms, a[i], b[j], SEEN_THROUGH, BEHIND)


def _up(
    normals: NDArray[np.float64], cells: Cells, coefficients: NDArray[np.float64], owner: NDArray[np.int16]
) -> NDArray[np.float64]:
    """Up, (3,) unit, camera frame: the normal that most of the level-looking surface shares, of planes with `normals`
    (P, 3)."""
    if len(normals) < 2:
        return normals[0] if len(normals) else np.array([0.0, -1.0, 0.0])
    votes = (normals @ normals.T >= LEVEL) @ (_sizes(cells, coefficients, owner) * _levelness(normals))
    return normals[votes.argmax()]


def _sizes(cells: Cells, coefficients: NDArray[np.float64], owner: NDArray[np.int16]) -> NDArray[np.float64]:
    """(P,) how much of the picture each plane fills, in cells; those of small faces of objects count less."""
    of_plane = owner.ravel().astype(np.int64) + 1
    w = cells.planes[..., 2].ravel()
    with np.errstate(divide="ignore"):
        spread = 1.0 / (w * w * w)
    areas = np.bincount(of_plane, spread, len(coefficients) + 1)[1:] * np.sqrt((coefficients**2).sum(axis=1))  # rays^2
    counts = np.bincount(of_plane, minlength=len(coefficients) + 1)[1:]
    return counts * np.minimum(1.0, areas * (cells.side**2 / LARGE))


def _levelness(normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P,) how much surfaces look like tables to a camera held upright: their normals (P, 3) lean up in the image.

    Walls lean down or, far ahead, nowhere. A table seen from straight above leans nowhere, and to a camera held upside
    down tables look like walls: such surfaces count too, but less.
    """
    return np.where(normals[:, 1] <= -0.2, 1.0, 0.15)


def _without_tops(
    level: Sequence[Surface], up: NDArray[np.float64], config: SupportConfig
) -> tuple[list[Surface], list[Surface]]:
    """Surfaces that carry, and those that are tops of objects: small, and not high over another surface."""
    carrying, tops = [], []
    for patch in level:
        is_top = False
        if patch.extent < config.max_size:
            for other in level:
                rise = other.plane.heights(patch.origin)
                if other is not patch and other.area > patch.area and 0 < rise <= config.max_height:
                    is_top |= bool(other.is_over(patch.origin[None], 0.05)[0])
        if is_top:
            tops.append(patch)
        else:
            carrying.append(patch)
    return carrying, tops


def _without_floor(carrying: list[Surface], up: NDArray[np.float64], config: SupportConfig) -> list[Surface]:
    """The floor is the lowest surface, when the next one is higher than furniture rises over furniture."""
    if config.floor_gap == 0 or len(carrying) < 2:
        return carrying
    heights = np.array([s.origin @ up for s in carrying])
    floor = heights < heights.min() + 0.1
    if floor.all() or heights[~floor].min() - heights[floor].max() < config.floor_gap:
        return carrying
    return [s for s, low in zip(carrying, floor, strict=True) if not low]
