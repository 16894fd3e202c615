# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The usual baseline: straight down onto the middle of the points, closing across their longer principal axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import rotation_with_z, transform
from seg_perception.grasping.gripper import Gripper, load_jaws
from seg_perception.options import option
from seg_perception.scene import Grasp, GraspKind, GraspPlan, Object3D, Plane, unit_vector

DEEPEST, FLOOR, ROOM = 0.03, 0.005, 0.018  # m below the top, over the support, beside the object


@dataclass(frozen=True)
class PcaConfig:
    gripper: Any = option("robotiq_2f_85", "a shipped name, a path to a file, or a mapping")


class Pca:
    """Looks at nothing but the object's points: no neighbours, no shape, no score."""

    Config = PcaConfig

    def __init__(self, config: PcaConfig | None = None) -> None:
        self.gripper: Gripper = load_jaws((config or PcaConfig()).gripper)

    def plan(self, obj: Object3D, scene_points: NDArray, gravity: NDArray, support: Plane | None = None) -> GraspPlan:
        """One grasp, or that the object is wider than the stroke."""
        g, up = self.gripper, -unit_vector("gravity", gravity)
        points = np.asarray(obj.points, np.float64)
        R = rotation_with_z(up)
        level = points @ R
        middle = level.mean(axis=0)
        _, axes = np.linalg.eigh(np.cov((level - middle)[:, :2].T))
        closing = np.array([*axes[:, 0], 0.0])
        across = (level - middle) @ closing
        width = float(np.ptp(across))
        if width > g.stroke:
            return GraspPlan(reason=f"{width * 1e3:.0f} mm wide > {g.stroke * 1e3:.0f} mm")
        ground = float(level[:, 2].min()) if support is None else -support.d
        at = middle + (across.max() + across.min()) / 2 * closing
        at[2] = max(level[:, 2].max() - DEEPEST, ground + FLOOR) + g.tip_beyond_tcp
        down = np.array([0.0, 0.0, -1.0])
        T_level_grasp = transform(np.stack([np.cross(closing, down), closing, down], axis=1), at)
        T = transform(R) @ T_level_grasp
        opening = min(g.stroke, width + 2 * ROOM)
        return GraspPlan((Grasp(T, opening, float("nan"), GraspKind.PARALLEL_JAW, "pca", g.name, object_width=width),))
