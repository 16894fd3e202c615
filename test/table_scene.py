# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Boxes, cylinders and balls on a table, ray cast exactly with plain numpy: known truth for tests of 3D."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seg_perception.fusion import fuse
from seg_perception.geometry import invert, ray_table, rotation_with_z, transform
from seg_perception.grasping.surroundings import scene_points
from seg_perception.masks import Masks
from seg_perception.plugins import GraspPlanner
from seg_perception.scene import Frame, Grasp, GraspPlan, Instances, Intrinsics, Plane

VGA = Intrinsics(640, 480, 600.0, 600.0, 319.5, 239.5)
EYE = (0.0, -0.45, 0.60)  # m, world: z up, the table's top is z = 0


@dataclass(frozen=True)
class Solid:
    """A box (`size`), an upright cylinder (`radius`, `height`) or a ball (`radius`), centre at x, y, z m."""

    kind: str
    at: tuple[float, float, float]
    size: tuple[float, float, float] = (0.0, 0.0, 0.0)
    radius: float = 0.0
    height: float = 0.0
    yaw: float = 0.0  # rad

    def hit(self, origin: NDArray, rays: NDArray) -> NDArray[np.float64]:
        """Distance (H, W) along `rays` (H, W, 3) to the nearest surface, inf = missed."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        o, d = (origin - self.at) @ turn, rays @ turn
        if self.kind == "box":
            half = np.array(self.size) / 2
            near, far = (-half - o) / d, (half - o) / d
            enter, leave = np.minimum(near, far).max(axis=-1), np.maximum(near, far).min(axis=-1)
            return np.where((enter <= leave) & (enter > 0), enter, np.inf)
        axes = 3 if self.kind == "ball" else 2
        a, b = (d[..., :axes] ** 2).sum(-1), d[..., :axes] @ o[:axes]
        root = b * b - a * (o[:axes] @ o[:axes] - self.radius**2)
        side = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
        if self.kind == "ball":
            return side
        side = np.where(np.abs(o[2] + side * d[..., 2]) <= self.height / 2, side, np.inf)
        lid = (self.height / 2 - o[2]) / d[..., 2]
        inside = ((o[:2] + lid[..., None] * d[..., :2]) ** 2).sum(-1) <= self.radius**2
        return np.minimum(side, np.where(inside & (lid > 0), lid, np.inf))


def box(size: tuple[float, float, float], x: float = 0.0, y: float = 0.0, yaw: float = 0.0, z: float = 0.0) -> Solid:
    """A box whose underside is `z` m over the table."""
    return Solid("box", (x, y, z + size[2] / 2), size=size, yaw=yaw)


def cylinder(radius: float, height: float, x: float = 0.0, y: float = 0.0) -> Solid:
    return Solid("cylinder", (x, y, height / 2), radius=radius, height=height)


def ball(radius: float, x: float = 0.0, y: float = 0.0) -> Solid:
    return Solid("ball", (x, y, radius), radius=radius)


@dataclass(frozen=True)
class View:
    """What the camera sees: the frame, the true labels (H, W), the table in the camera's frame, and where that is."""

    frame: Frame
    labels: NDArray[np.uint16]
    instances: Instances
    table: Plane
    T_world_camera: NDArray[np.float64]

    def true_points(self, row: int) -> NDArray[np.float64]:
        """Seen surface of solid `row`, exactly, (M, 3) m, camera frame."""
        v, u = np.nonzero(self.labels == row + 1)
        rays = ray_table(self.frame.intrinsics)[v, u].astype(float)
        return np.column_stack([rays, np.ones(len(rays))]) * self.exact[v, u, None]

    exact: NDArray[np.float32]


def look(
    solids: Sequence[Solid],
    eye: ArrayLike = EYE,
    target: ArrayLike = (0.0, 0.0, 0.03),
    noise: float = 0.0,
    intrinsics: Intrinsics = VGA,
) -> View:
    """The table seen from `eye` towards `target`, m, world; `noise` m is the depth's deviation at 1 m."""
    eye, target = np.asarray(eye, float), np.asarray(target, float)
    ahead = target - eye
    x_image = np.cross(ahead, [0.0, 0.0, 1.0]) if np.hypot(*ahead[:2]) > 1e-6 else np.array([1.0, 0.0, 0.0])
    T_world_camera = transform(rotation_with_z(ahead, x_image), eye)
    rays = ray_table(intrinsics).astype(float)
    rays = np.concatenate([rays, np.ones((*rays.shape[:2], 1))], axis=-1) @ T_world_camera[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.where(rays[..., 2] < 0, -eye[2] / rays[..., 2], np.inf)
        labels = np.zeros(depth.shape, np.uint16)
        for i, solid in enumerate(solids, start=1):
            hit = solid.hit(eye, rays)
            nearer = hit < depth
            depth, labels[nearer] = np.where(nearer, hit, depth), i
    exact = depth.astype(np.float32)
    z = exact
    if noise:
        z = (exact + np.random.default_rng(0).normal(0, noise, exact.shape) * exact**2).astype(np.float32)
    color = np.stack([labels * 20 % 256, np.full_like(labels, 90), 200 - labels], axis=-1).astype(np.uint8)
    up = T_world_camera[:3, :3].T @ [0.0, 0.0, 1.0]
    frame = Frame(color, z, intrinsics, gravity=-up)
    instances = Instances.of(Masks.from_label_image(labels, len(solids)))
    table = Plane(np.array([0.0, 0.0, 1.0]), 0.0).transformed(invert(T_world_camera))
    return View(frame, labels, instances, table, T_world_camera, exact)


def plan_on(view: View, row: int, planner: GraspPlanner) -> GraspPlan:
    """The plan for solid `row` of a view, as the pipeline asks for it."""
    obj = fuse(view.frame, view.instances, None, (view.table,))[row]
    others = scene_points(view.frame, view.instances.masks).without(row)
    return planner.plan(obj, others, view.frame.gravity, obj.support)


def in_world(view: View, grasp: Grasp) -> NDArray[np.float64]:
    """T_world_grasp."""
    return view.T_world_camera @ grasp.T_camera_grasp


def heap(rng: np.random.Generator, spread: float) -> list[Solid]:
    """Five solids of random kinds and sizes, up to `spread` m from the middle; they may stand in each other."""
    solids = []
    for _ in range(5):
        x, y = rng.uniform(-spread, spread, 2)
        kind = rng.integers(3)
        if kind == 0:
            solids.append(box(tuple(rng.uniform(0.02, 0.1, 3)), x, y, rng.uniform(0, 3)))
        elif kind == 1:
            solids.append(cylinder(rng.uniform(0.015, 0.045), rng.uniform(0.03, 0.15), x, y))
        else:
            solids.append(ball(rng.uniform(0.02, 0.04), x, y))
    return solids
