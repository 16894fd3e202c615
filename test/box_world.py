# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Exact depth and labels of scenes made of boxes, by intersecting every pixel's ray with every box."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import invert, ray_table, transform
from seg_perception.scene import Frame, Intrinsics

VGA = Intrinsics(640, 480, 570.0, 570.0, 319.5, 239.5)


@dataclass(frozen=True)
class Box:
    """A box of `size` m whose centre of the bottom is at `foot` m, turned by `yaw` degrees; label 0 = furniture."""

    foot: tuple[float, float, float]
    size: tuple[float, float, float]
    label: int = 0
    yaw: float = 0.0

    @property
    def T_world_box(self) -> NDArray[np.float64]:
        c, s = np.cos(np.radians(self.yaw)), np.sin(np.radians(self.yaw))
        x, y, z = self.foot
        return transform([[c, -s, 0], [s, c, 0], [0, 0, 1]], [x, y, z + self.size[2] / 2])


def table(height: float = 0.0, size: tuple[float, float] = (1.2, 0.9), at: tuple[float, float] = (0.0, 0.0)) -> Box:
    """A slab whose top is at `height` m."""
    return Box((*at, height - 0.03), (*size, 0.03))


ROOM = (Box((0, 0, -0.75 - 0.1), (8, 8, 0.1)), Box((0, 1.6, -0.75), (8, 0.1, 3.0)))  # a floor and a wall


def camera(
    eye: tuple[float, float, float] = (0.0, -0.75, 0.55),
    target: tuple[float, float, float] = (0.0, 0.05, 0.0),
    roll: float = 0.0,
) -> NDArray[np.float64]:
    """T_world_camera of a camera at `eye` m that looks at `target` m, turned about its axis by `roll` degrees."""
    z = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    x = np.cross(z, [0.0, 0.0, 1.0])
    x = x / np.linalg.norm(x) if np.linalg.norm(x) > 1e-6 else np.array([1.0, 0.0, 0.0])
    c, s = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    return transform(np.stack([x, np.cross(z, x), z], axis=1) @ [[c, -s, 0], [s, c, 0], [0, 0, 1]], eye)


def look(
    boxes: tuple[Box, ...], T_world_camera: NDArray[np.float64], intrinsics: Intrinsics = VGA, noise: float = 0.0
) -> tuple[Frame, NDArray[np.int32]]:
    """A frame with exact depth, or with normal `noise` of inverse depth in 1/m; and the labels (H, W)."""
    rays = ray_table(intrinsics).astype(np.float64)
    directions = np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1)
    depth = np.full(rays.shape[:2], np.inf)
    labels = np.zeros(rays.shape[:2], np.int32)
    for box in boxes:
        T_box_camera = invert(box.T_world_box) @ T_world_camera
        start, along = T_box_camera[:3, 3], directions @ T_box_camera[:3, :3].T
        half = np.array(box.size) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            sides = np.stack([(-half - start) / along, (half - start) / along])
        near, far = sides.min(axis=0).max(axis=-1), sides.max(axis=0).min(axis=-1)
        hit = (near > 0) & (near < far) & (near < depth)
        depth[hit], labels[hit] = near[hit], box.label
    if noise:
        depth = 1 / (1 / depth + np.random.default_rng(0).normal(0, noise, depth.shape))
    color = np.zeros((*depth.shape, 3), np.uint8)
    return Frame(color, np.where(np.isfinite(depth), depth, np.nan).astype(np.float32), intrinsics), labels


def seen(frame: Frame, **changes: object) -> Frame:
    """The frame with some of its fields changed."""
    return replace(frame, **changes)  # type: ignore[arg-type]
