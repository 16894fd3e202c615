# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Grasps for people who bring their own mask: depth and a mask in, a plan out, no pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seg_perception.fusion import fuse
from seg_perception.grasping.antipodal import Antipodal
from seg_perception.grasping.gripper import Gripper, SuctionCup
from seg_perception.grasping.suction import Suction
from seg_perception.grasping.surroundings import scene_points
from seg_perception.masks import Masks
from seg_perception.plugins import GraspPlanner
from seg_perception.scene import Frame, GraspPlan, Instances, Intrinsics, unit_vector
from seg_perception.support import SupportConfig, find_supports

JAWS = "robotiq_2f_85"
KINDS = ("parallel", "suction")


def plan_grasps(
    depth_m: ArrayLike,
    mask: ArrayLike,
    intrinsics: Intrinsics,
    gravity: ArrayLike,
    gripper: str | Path | Mapping[str, Any] | Gripper | SuctionCup = JAWS,
    kind: str = "parallel",
) -> GraspPlan:
    """Grasps, best first, of the object under `mask` (H, W), nonzero = object, camera frame, or why there is none.

    `depth_m` (H, W) m along z, NaN or 0 = unknown; `gravity` (3,) points down in the camera's frame. `gripper` is a
    name, a path, or a mapping, of cups also several to choose from; for `kind` "suction" the jaws named by default
    stand for the default cup. Raises ValueError when sizes differ, gravity has no direction, or the gripper is of
    another kind.
    """
    given: Any = intrinsics  # people bring a matrix
    if not isinstance(given, Intrinsics):
        what = type(given).__name__
        raise ValueError(f"intrinsics: expected Intrinsics(width, height, fx, fy, cx, cy), got {what}")
    depth, inside = np.asarray(depth_m, np.float32), np.nan_to_num(mask) != 0
    if depth.ndim != 2:
        raise ValueError(f"depth_m: expected (H, W) m, got {depth.shape}")
    if inside.shape != depth.shape:
        raise ValueError(f"mask: expected {depth.shape} like depth_m, got {inside.shape}")
    if kind not in KINDS:
        raise ValueError(f"kind: expected {' or '.join(KINDS)}, got {kind!r}")
    down = unit_vector("gravity", gravity)
    planner = _planner(kind, gripper)
    depth = np.where(depth > 0, depth, np.float32(np.nan))  # NaN > 0 is False: it stays NaN
    frame = Frame(_black(depth.shape), depth, intrinsics, gravity=down)
    masks = Masks.from_dense(inside[None])
    instances = Instances.of(masks)
    (obj,) = fuse(frame, instances, None, find_supports(frame, SupportConfig(), masks))
    if not obj.status.has_3d:
        return GraspPlan(reason=f"no 3D: {obj.status.name}: {obj.status_text}")
    return planner.plan(obj, scene_points(frame, masks).without(0), down, obj.support)


def _planner(kind: str, gripper: Any) -> GraspPlanner:
    if kind == "parallel":
        return Antipodal(Antipodal.Config(gripper=gripper))
    return Suction() if gripper == JAWS else Suction(Suction.Config(gripper=gripper))


@lru_cache(maxsize=2)
def _black(shape: tuple[int, int]) -> NDArray[np.uint8]:
    return np.zeros((*shape, 3), np.uint8)
