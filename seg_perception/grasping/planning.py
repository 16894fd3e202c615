# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Asking planners about objects: in which order, and what becomes of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seg_perception.grasping.surroundings import around
from seg_perception.plugins import GraspPlanner
from seg_perception.scene import Grasp, GraspStatus, Object3D, Scene

SAME_HEIGHT = 0.02  # m
FARTHEST = 1e3  # m
COVERED = 0.2  # share of the outline beside something nearer


def pick_order(scene: Scene) -> list[int]:
    """Rows in the order to pick them: what nothing lies on or before first, then the highest top, then the nearest.

    Heights within 2 cm count as equal. Objects without 3D come last.
    """

    def key(row: int) -> tuple[bool, bool, int, float]:
        obj = scene.objects[row]
        if not obj.status.has_3d:
            return True, False, 0, 0.0
        height = obj.height_above_support
        level = round(height / SAME_HEIGHT) if np.isfinite(height) else 0
        return False, obj.occluded_ratio > COVERED, -level, float(np.linalg.norm(obj.centroid))

    return sorted(range(len(scene.objects)), key=key)


def plan_object(
    obj: Object3D, planners: Sequence[GraspPlanner], scene_points: NDArray, gravity: NDArray, max_grasps: int
) -> Object3D:
    """The object with its best grasps over all planners, or with the reasons why there is none."""
    if not obj.status.has_3d:
        return replace(obj, grasp_status=GraspStatus.NO_3D, grasp_text=f"no 3D: {obj.status.name}")
    plans = [planner.plan(obj, scene_points, gravity, obj.support) for planner in planners]
    grasps: list[Grasp] = sorted((g for plan in plans for g in plan), key=_badness)[:max_grasps]
    reasons = "; ".join(plan.reason for plan in plans if plan.reason)
    if not grasps:
        return replace(obj, grasps=(), grasp_status=GraspStatus.NONE, grasp_text=reasons or "no planner found any")
    return replace(obj, grasps=tuple(grasps), grasp_status=GraspStatus.FOUND, grasp_text="")


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What a planner starts from, camera frame: the object's finite points, its middle and reach around that; the
    scene's points near enough to matter, and whether any are known; `nothing` says why there is nothing to plan."""

    points: NDArray[np.float64]
    middle: NDArray[np.float64]
    reach: float
    others: NDArray[np.float64]
    surroundings_known: bool
    nothing: str = ""

    @classmethod
    def of(cls, obj: Object3D, scene_points: NDArray, margin: float, fewest: int) -> Asked:
        """Foreign points count up to `margin` m beyond the object; fewer than `fewest` of its own are nothing."""
        points = around(triples("points", obj.points), np.zeros(3), FARTHEST)
        if len(points) < fewest:
            none = np.empty((0, 3))
            return cls(none, np.zeros(3), 0.0, none, False, f"{len(points)} points, at least {fewest} needed")
        middle = points.mean(axis=0)
        reach = float(np.sqrt(((points - middle) ** 2).sum(axis=1).max()))
        others = around(triples("scene_points", scene_points), middle, reach + margin)
        return cls(points, middle, reach, others, len(scene_points) > 0)


def triples(name: str, points: ArrayLike) -> NDArray[np.floating]:
    """`points` as (P, 3); what is empty may have any shape. Raises ValueError."""
    array = np.asarray(points)
    if array.size and (array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu"):
        raise ValueError(f"{name}: expected (P, 3) m, got {array.shape} {array.dtype}")
    return array.reshape(-1, 3) if array.size else np.empty((0, 3))


def thinned(points: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """At most `most` of `points` (P, 3), evenly by their order."""
    return np.ascontiguousarray(points[:: max(1, -(-len(points) // most))])


def _badness(grasp: Grasp) -> float:
    return -grasp.score if np.isfinite(grasp.score) else 0.0
