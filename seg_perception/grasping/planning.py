# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Asking planners about objects: in which order, and what becomes of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from seg_perception.plugins import GraspPlanner
from seg_perception.scene import Grasp, GraspStatus, Object3D, Scene


def pick_order(scene: Scene) -> list[int]:
    """Rows in the order to pick them: nearest to the camera first, those without 3D last."""
    distance = [float(np.linalg.norm(o.centroid)) if o.status.has_3d else np.inf for o in scene.objects]
    return np.argsort(distance, kind="stable").tolist()


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


def _badness(grasp: Grasp) -> float:
    return -grasp.score if np.isfinite(grasp.score) else 0.0
