# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a depth camera sees of a world: rays cast at the very geometry that physics works with, then sensor noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import ray_table, transform
from seg_perception.scene import Frame, Intrinsics
from seg_perception.sim.camera import COLOR_NOISE, color_intrinsics
from seg_perception.sim.motion import look_at
from seg_perception.sim.noise import sensor_depth
from seg_perception.sim.picking.world import AWAY, World

LIGHTS = np.array([[0.35, -0.45, 0.82], [-0.7, 0.3, 0.65]])  # directions towards them, world
STRENGTH = (0.55, 0.25)
AMBIENT = 0.3
DEPTH_LIMIT = 3.0  # m
CLOSE, FAR = 0.55, 0.80  # m, from the camera to the middle of the table
STEEP = (42.0, 72.0)  # degrees between the line of sight and the table


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A frame with noise, and the truth: `labels` (H, W) uint16, i + 1 where thing i is, 0 = none; `visible` (N,) the
    share of each thing's outline that nothing else covers, 0 = not wholly in the picture."""

    frame: Frame
    labels: NDArray[np.uint16]
    visible: NDArray[np.float64]
    T_world_camera: NDArray[np.float64]


def random_camera(rng: np.random.Generator) -> NDArray[np.float64]:
    """T_world_camera (4, 4) of a camera that looks at the middle of the table from any side."""
    distance, tilt, turn = rng.uniform(CLOSE, FAR), np.radians(rng.uniform(*STEEP)), rng.uniform(0, 2 * np.pi)
    side = distance * np.cos(tilt)
    return look_at([side * np.cos(turn), side * np.sin(turn), distance * np.sin(tilt)], [0.0, 0.0, 0.02])


def take_view(
    world: World,
    T_world_camera: NDArray[np.float64],
    seed: int,
    noise: str = "d435",
    size: tuple[int, int] = (640, 480),
) -> View:
    """The world as it is now, seen from there, with the noise of that sensor (`sim.noise`)."""
    intrinsics = color_intrinsics(*size)
    depth, geoms, normals = cast(world, intrinsics, T_world_camera)
    labels = (world.thing_of(geoms) + 1).astype(np.uint16)
    color = _shaded(world, geoms, normals, np.random.default_rng((seed, 1)))
    measured = sensor_depth(depth, intrinsics, (seed, 2), noise)
    gravity = T_world_camera[:3, :3].T @ np.array([0.0, 0.0, -1.0])
    frame = Frame(color, measured, intrinsics, gravity=gravity)
    return View(frame, labels, _visible(world, intrinsics, T_world_camera, labels), T_world_camera)


def cast(
    world: World, k: Intrinsics, T_world_camera: NDArray[np.float64], every: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float64]]:
    """Exact depth (H, W) m, NaN = nothing, the geom met (-1 = none) and its normal, of every `every`-th pixel."""
    rays = ray_table(k)[::every, ::every].astype(np.float64)
    shape = rays.shape[:2]
    directions = np.concatenate([rays, np.ones((*shape, 1))], axis=2)
    length = np.linalg.norm(directions, axis=2)
    directions = (directions / length[..., None]) @ T_world_camera[:3, :3].T
    count = length.size
    geoms, distance, normals = np.empty(count, np.int32), np.empty(count), np.empty(3 * count)
    world.mujoco.mj_multiRay(
        world.model,
        world.data,
        np.ascontiguousarray(T_world_camera[:3, 3]),
        np.ascontiguousarray(directions).ravel(),
        None,
        1,
        -1,
        geoms,
        distance,
        normals,
        count,
        DEPTH_LIMIT,
    )
    distance = distance.reshape(shape)
    depth = np.where(distance >= 0, distance / length, np.nan).astype(np.float32)
    return depth, geoms.reshape(shape), normals.reshape(*shape, 3)


def _shaded(
    world: World, geoms: NDArray[np.int32], normals: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A color picture: two lights, no shadows, grain."""
    palette = np.concatenate([world.model.geom_rgba[:, :3], np.full((1, 3), 0.1)])
    light = np.full(geoms.shape, AMBIENT)
    for direction, strength in zip(LIGHTS, STRENGTH, strict=True):
        light += strength * np.maximum(0.0, normals @ (direction / np.linalg.norm(direction)))
    color = 255.0 * palette[geoms] * light[..., None]
    color += COLOR_NOISE * rng.standard_normal(color.shape, np.float32)
    return np.clip(color + 0.5, 0, 255).astype(np.uint8)


def _visible(
    world: World, k: Intrinsics, T_world_camera: NDArray[np.float64], labels: NDArray[np.uint16]
) -> NDArray[np.float64]:
    """Each thing's pixels over those it would have alone on the table, from every second pixel; 0 if it is cut off by
    the picture's edge."""
    seen = np.bincount(labels[::2, ::2].ravel(), minlength=len(world.things) + 1)[1:]
    poses = [world.pose(i) for i in range(len(world.things))]
    out = np.zeros(len(poses))
    for i in np.flatnonzero(seen):
        for j in range(len(poses)):
            world.place(j, poses[i] if j == i else transform(translation=[AWAY + j, 0, AWAY]))
        world.mujoco.mj_kinematics(world.model, world.data)
        _, geoms, _ = cast(world, k, T_world_camera, 2)
        alone = world.thing_of(geoms) == i
        cut = alone[[0, -1]].any() or alone[:, [0, -1]].any()
        out[i] = 0.0 if cut else seen[i] / max(1, np.count_nonzero(alone))
    world.reset()
    return out
