# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Grasps as a caller asks for them: which planners, which gripper, and which of the grasps are good enough."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.msg import GraspRequest
from seg_perception.options import ConfigError, Selected, select, to_mapping
from seg_perception.pipeline import Pipeline, gravity_of
from seg_perception.scene import Grasp, GraspKind, GraspStatus, Object3D, Scene

PLENTY = 100  # grasps planned per object when some will be sorted out


class BadRequestError(ValueError):
    """A request that makes no sense; one line naming the field."""


def plan(
    scene: Scene,
    pipeline: Pipeline,
    rows: Sequence[int],
    count: int,
    request: GraspRequest,
    rotation_to_camera: Callable[[str], NDArray[np.float64]],
) -> Scene:
    """The scene with at most `count` grasps (0 = as configured) on each object of `rows` and none on the others.

    `rotation_to_camera(frame)` (3, 3) turns directions of a frame into the camera's. Raises BadRequestError.
    """
    fits = Filter(request, rotation_to_camera)
    count = count or pipeline.config.grasping.max_per_object
    planners = _planners(pipeline, request)
    grasping = replace(pipeline.config.grasping, max_per_object=PLENTY if fits.is_set else count)
    asking = Pipeline(pipeline.segmenter, pipeline.tracker, planners, replace(pipeline.config, grasping=grasping))
    planned = asking.plan(without_grasps(scene), rows)
    objects = list(planned.objects)
    for row in rows:
        down = gravity_of(scene.frame, objects[row].support or scene.support)
        objects[row] = fits.applied(objects[row], down, count)
    return replace(planned, objects=tuple(objects))


def without_grasps(scene: Scene) -> Scene:
    """The scene as if nobody had asked for grasps."""
    bare = [replace(o, grasps=(), grasp_status=GraspStatus.NOT_REQUESTED, grasp_text="") for o in scene.objects]
    return replace(scene, objects=tuple(bare))


def _planners(pipeline: Pipeline, request: GraspRequest) -> tuple[Any, ...]:
    """The configured planners that the request allows, made for its gripper and distances."""
    configured = {
        chosen.plugin: (chosen, made)
        for chosen, made in zip(pipeline.config.grasping.planners, pipeline.planners, strict=True)
    }
    names = list(request.planners) or list(configured)
    for name in names:
        if name not in configured:
            raise BadRequestError(
                f"planners: '{name}' is not configured (grasping.planners: {', '.join(configured) or 'none'})"
            )
    if not names:
        raise BadRequestError("planners: none is configured (grasping.planners is empty)")
    wishes = {
        key: value for key in ("gripper", "pregrasp_distance", "retreat_distance") if (value := _wish(request, key))
    }
    return tuple(_made_for(*configured[name], wishes) for name in names)


def _wish(request: GraspRequest, key: str) -> Any:
    """A member of the request, None where it says "as configured"."""
    value = getattr(request, key)
    return value if value and value == value else None


def _made_for(chosen: Selected, made: Any, wishes: dict[str, Any]) -> Any:
    known = {field.name for field in dataclasses.fields(chosen.config)}
    for key in wishes:
        if key not in known:
            raise BadRequestError(f"{key}: planner '{chosen.plugin}' has no such option")
    if not wishes:
        return made
    try:
        return select(
            chosen.group, {"plugin": chosen.plugin, **to_mapping(chosen.config), **wishes}, "grasp_request"
        ).create()
    except (ConfigError, ValueError, OSError) as error:
        raise BadRequestError(str(error)) from error


class Filter:
    """Which grasps the caller accepts; NaN scores and clearances are not known and stay."""

    def __init__(self, request: GraspRequest, rotation_to_camera: Callable[[str], NDArray[np.float64]]) -> None:
        kinds = [0, *(int(kind) for kind in GraspKind)]
        if request.kind not in kinds:
            raise BadRequestError(f"kind: expected one of {kinds}, got {request.kind}")
        self._kind = request.kind
        self._min_score = _number(request, "min_score", 1.0)
        self._min_clearance = _number(request, "min_clearance", np.inf)
        self._max_angle = _number(request, "max_approach_angle", np.pi + 1e-6)
        a = request.approach_axis.vector
        axis = np.array([a.x, a.y, a.z])
        length = float(np.linalg.norm(axis))
        if not np.isfinite(length):
            raise BadRequestError(f"approach_axis: expected finite numbers, got {axis.tolist()}")
        self._axis = (
            rotation_to_camera(request.approach_axis.header.frame_id) @ axis / length if length > 1e-9 else None
        )

    @property
    def is_set(self) -> bool:
        return bool(self._kind or self._min_score or self._min_clearance or self._max_angle)

    def applied(self, obj: Object3D, down: NDArray[np.float64], count: int) -> Object3D:
        """The object with the best `count` of the grasps that fit, or with what kept them out."""
        reasons: Counter[str] = Counter()
        kept = []
        for grasp in obj.grasps:
            reason = self._refusal(grasp, self._axis if self._axis is not None else down)
            if reason:
                reasons[reason] += 1
            else:
                kept.append(grasp)
        if kept or not obj.grasps:
            return replace(obj, grasps=tuple(kept[:count]))
        text = "none fits the request: " + ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
        return replace(obj, grasps=(), grasp_status=GraspStatus.NONE, grasp_text=text)

    def _refusal(self, grasp: Grasp, axis: NDArray[np.float64]) -> str:
        if self._kind and grasp.kind != self._kind:
            return "of another kind"
        if grasp.score < self._min_score:
            return "below min_score"
        if grasp.clearance < self._min_clearance:
            return "below min_clearance"
        angle = np.arccos(np.clip(grasp.T_camera_grasp[:3, 2] @ axis, -1.0, 1.0))
        return "outside the approach cone" if self._max_angle and angle > self._max_angle else ""


def _number(request: GraspRequest, key: str, largest: float) -> float:
    """A member that means "as configured" when it is zero or NaN."""
    value = float(getattr(request, key))
    if value < 0 or value > largest:
        raise BadRequestError(f"{key}: expected 0 to {largest:.4g}, got {value:g}")
    return 0.0 if value != value else value
