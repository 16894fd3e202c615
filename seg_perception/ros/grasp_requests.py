# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Grasps as a caller asks for them: which planners, which gripper, and which of the grasps are good enough."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from seg_perception.grasping.gripper import SuctionCup, load_grippers
from seg_perception.msg import GraspRequest
from seg_perception.options import ConfigError, Selected, select, to_mapping
from seg_perception.pipeline import Pipeline, gravity_of
from seg_perception.plugins import available
from seg_perception.ros.calls import BadRequestError
from seg_perception.scene import Grasp, GraspKind, GraspStatus, Object3D, Scene

GROUP = "grasp_planners"
PLENTY = 100  # grasps planned per object when some will be sorted out
CONE = 50.0  # deg, half angle around a preferred approach where no planner names one
ROUNDING = 1e-4  # rad; an approach at the very edge of the cone is in it
WORDS = {GraspKind.PARALLEL_JAW: "parallel jaws", GraspKind.SUCTION: "a suction cup"}


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
    chosen = _chosen(pipeline, request)
    fits = Filter(request, _axis(request, rotation_to_camera), chosen)
    count = count or pipeline.config.grasping.max_per_object
    wanted = PLENTY if fits.is_set else min(count, PLENTY)
    planners = [_made_for(c, request, fits, wanted, gravity_of(scene.frame, scene.support)) for c in chosen]
    grasping = replace(pipeline.config.grasping, max_per_object=wanted)
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


# -- which planners ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """A planner that the request allows: `made` as it runs already (None = not configured), `kind` of its grasps (None
    = nobody knows), `gripper` it is to plan for instead of its own (None = its own)."""

    selected: Selected
    made: Any
    kind: GraspKind | None
    gripper: Any = None

    @property
    def options(self) -> frozenset[str]:
        return frozenset(field.name for field in dataclasses.fields(self.selected.config))


def _chosen(pipeline: Pipeline, request: GraspRequest) -> list[Chosen]:
    """The planners the request names, else the configured ones, of its kind, with its gripper."""
    selected = pipeline.config.grasping.planners
    configured = {s.plugin: Chosen(s, made, _kind(s)) for s, made in zip(selected, pipeline.planners, strict=True)}
    listing = f"grasping.planners: {', '.join(configured) or 'none'}"
    if not request.planners and not configured:
        raise BadRequestError("planners: none is configured (grasping.planners is empty)")
    chosen = [configured.get(name) or _unconfigured(name, configured) for name in request.planners or configured]
    if request.kind:
        if request.kind not in list(GraspKind):
            raise BadRequestError(f"kind: expected one of {[0, *map(int, GraspKind)]}, got {request.kind}")
        wanted = GraspKind(request.kind)
        chosen = [c for c in chosen if c.kind in (wanted, None)]
        if not chosen:
            raise BadRequestError(
                f"kind: no planner here grasps with {WORDS[wanted]} ({listing}); name one in planners"
            )
    if request.gripper:
        source = _gripper_source(request.gripper)
        wanted = _kind_of(_checked(source))
        chosen = [replace(c, gripper=source) for c in chosen if c.kind is wanted]
        if not chosen:
            raise BadRequestError(
                f"gripper: no planner here grasps with {WORDS[wanted]} ({listing}); name one in planners"
            )
    return chosen


def _unconfigured(name: str, configured: Mapping[str, Chosen]) -> Chosen:
    """An installed planner with its defaults, for the gripper of a configured one of its kind."""
    if name not in available(GROUP):  # module:Class would let a caller import anything
        known = ", ".join(dict.fromkeys([*configured, *available(GROUP)]))
        raise BadRequestError(f"planners: no planner '{name}' (known: {known})")
    selected = select(GROUP, {"plugin": name}, "planners")
    kind = _kind(selected)
    alike = [c for c in configured.values() if kind is not None and c.kind is kind]
    return Chosen(selected, None, kind, alike[0].selected.config.gripper if alike else None)


def _kind(selected: Selected) -> GraspKind | None:
    gripper = getattr(selected.config, "gripper", None)
    return None if gripper is None else _kind_of(load_grippers(gripper))


def _kind_of(grippers: Sequence[Any]) -> GraspKind:
    return GraspKind.SUCTION if isinstance(grippers[0], SuctionCup) else GraspKind.PARALLEL_JAW


def _gripper_source(text: str) -> Any:
    """A name, a path, several with commas between them, or the mapping that `text` is as YAML."""
    if ":" not in text:
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadRequestError(f"gripper: not valid YAML: {' '.join(str(error).split())}") from error
    return value if isinstance(value, Mapping) else text


def _checked(source: Any) -> Any:
    try:
        return load_grippers(source)
    except (ValueError, OSError) as error:
        text = str(error)
        raise BadRequestError(text if text.startswith("gripper") else f"gripper: {text}") from error


def _made_for(chosen: Chosen, request: GraspRequest, fits: Filter, wanted: int, down: NDArray[np.float64]) -> Any:
    """The planner with the options that the request asks for."""
    config = chosen.selected.config
    wishes = {key: value for key in ("pregrasp_distance", "retreat_distance") if (value := _number(request, key, 1.0))}
    if chosen.gripper is not None:
        wishes["gripper"] = chosen.gripper
    for key in wishes:
        if key not in chosen.options:
            raise BadRequestError(f"{key}: planner '{chosen.selected.plugin}' has no such option")
    if "max_grasps" in chosen.options and wanted > config.max_grasps:
        wishes["max_grasps"] = wanted
    if "min_score" in chosen.options and 0 < fits.min_score < config.min_score:
        wishes["min_score"] = fits.min_score
    wishes |= fits.cone_for(chosen, down)
    wishes = {key: value for key, value in wishes.items() if getattr(config, key) != value}
    if not wishes and chosen.made is not None:
        return chosen.made
    try:
        spec = {"plugin": chosen.selected.plugin, **to_mapping(config), **wishes}
        return select(GROUP, spec, "grasp_request").create()
    except (ConfigError, ValueError, OSError) as error:
        raise BadRequestError(str(error)) from error


# -- which of their grasps ---------------------------------------------------------------------------------------------


class Filter:
    """Which grasps the caller accepts; NaN scores and clearances are not known and stay.

    `axis` (3,) unit, camera frame, is the preferred approach, None = along gravity.
    """

    def __init__(self, request: GraspRequest, axis: NDArray[np.float64] | None, chosen: Sequence[Chosen]) -> None:
        self._kind = request.kind
        self.min_score = _number(request, "min_score", 1.0)
        self._min_clearance = _number(request, "min_clearance", np.inf)
        self._max_angle = _number(request, "max_approach_angle", np.pi + 1e-6)
        self._axis = axis
        if axis is not None and not self._max_angle:
            angles = [getattr(c.selected.config, "max_approach_angle", 0.0) for c in chosen]
            self._max_angle = float(np.radians(max(angles) or CONE))

    @property
    def is_set(self) -> bool:
        return bool(self._kind or self.min_score or self._min_clearance or self._max_angle)

    def cone_for(self, chosen: Chosen, down: NDArray[np.float64]) -> dict[str, Any]:
        """The options that make a planner look where the caller wants it to."""
        if not self._max_angle or "max_approach_angle" not in chosen.options:
            return {}
        (field,) = [f for f in dataclasses.fields(chosen.selected.config) if f.name == "max_approach_angle"]
        most = float(field.metadata["le"])
        angle = float(np.degrees(self._max_angle))
        if self._axis is None:
            return {"max_approach_angle": min(angle, most)}
        if "approach_axis" in chosen.options:
            return {"approach_axis": tuple(self._axis.tolist()), "max_approach_angle": min(angle, most)}
        lean = float(np.degrees(np.arccos(np.clip(self._axis @ down, -1.0, 1.0))))
        return {"max_approach_angle": min(lean + angle, most)}

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
        if self._kind and grasp.kind != self._kind:  # from a planner of which nobody knew
            return "of another kind"
        if grasp.score < self.min_score:
            return "below min_score"
        if grasp.clearance < self._min_clearance:
            return "below min_clearance"
        angle = np.arccos(np.clip(grasp.T_camera_grasp[:3, 2] @ axis, -1.0, 1.0))
        return "outside the approach cone" if self._max_angle and angle > self._max_angle + ROUNDING else ""


def _axis(
    request: GraspRequest, rotation_to_camera: Callable[[str], NDArray[np.float64]]
) -> NDArray[np.float64] | None:
    """The preferred approach, (3,) unit in the camera's frame; None = none."""
    v = request.approach_axis.vector
    axis = np.array([v.x, v.y, v.z])
    length = float(np.linalg.norm(axis))
    if not np.isfinite(length):
        raise BadRequestError(f"approach_axis: expected finite numbers, got {axis.tolist()}")
    if length < 1e-9:
        return None
    turned: NDArray[np.float64] = rotation_to_camera(request.approach_axis.header.frame_id) @ axis / length
    return turned


def _number(request: GraspRequest, key: str, largest: float) -> float:
    """A member that means "as configured" when it is zero or NaN."""
    value = float(getattr(request, key))
    if value < 0 or value > largest:
        raise BadRequestError(f"{key}: expected 0 to {largest:.4g}, got {value:g}")
    return 0.0 if value != value else value
