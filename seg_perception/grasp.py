# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One way to take an object, and a planner's answer for it. `scene.py` has these names too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import overload

import numpy as np
from numpy.typing import NDArray


class GraspKind(IntEnum):
    """Kind of gripper; numbers as in `Grasp.msg`."""

    PARALLEL_JAW = 1
    SUCTION = 2


class GraspStatus(IntEnum):
    """What became of an object's grasps; numbers as in `SegmentedObject.msg`."""

    NOT_REQUESTED = 0
    FOUND = 1
    NONE = 2
    NO_3D = 3
    BUDGET = 4


class Collision(IntEnum):
    """What the swept gripper meets; numbers as in `Grasp.msg`."""

    UNKNOWN = 0
    FREE = 1
    UNSEEN = 2


@dataclass(frozen=True, slots=True, eq=False)
class Grasp:
    """One way to take one object. Frame: origin at the tool centre point, +z approach, +y closing, x = y cross z.

    `width` m is the jaw opening to approach with and `object_width` m the opening when closed on the object, pad to
    pad; 0 for suction. `score` 0..1, NaN = not calibrated. `pregrasp_distance` m back along the approach;
    `retreat_direction` (3,) unit, camera frame, over `retreat_distance` m, 0 = not checked. `max_force` N to close
    with, 0 = not given. `contacts`, `normals` (2, 3) are the -y and the +y finger's contact point and outward surface
    normal, camera frame. `clearance` m of the swept gripper to anything foreign, NaN = unknown.
    """

    T_camera_grasp: NDArray[np.float64]
    width: float
    score: float
    kind: GraspKind
    planner: str = ""
    gripper: str = ""
    object_width: float = 0.0
    pregrasp_distance: float = 0.1
    retreat_direction: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    retreat_distance: float = 0.0
    max_force: float = 0.0
    contacts: NDArray[np.float64] = field(default_factory=lambda: np.full((2, 3), np.nan))
    normals: NDArray[np.float64] = field(default_factory=lambda: np.full((2, 3), np.nan))
    collision: Collision = Collision.UNKNOWN
    clearance: float = float("nan")

    @property
    def T_camera_pregrasp(self) -> NDArray[np.float64]:
        """The same pose, `pregrasp_distance` back along the approach, (4, 4)."""
        T = self.T_camera_grasp.copy()
        T[:3, 3] -= self.pregrasp_distance * T[:3, 2]
        return T


@dataclass(frozen=True, slots=True, eq=False)
class GraspPlan(Sequence[Grasp]):
    """A planner's answer for one object: grasps best first, and why candidates fell away.

    `reason` is a line where there are none; `rejected` counts candidates by what spoke against them.
    """

    grasps: tuple[Grasp, ...] = ()
    reason: str = ""
    rejected: Mapping[str, int] = field(default_factory=dict)

    @overload
    def __getitem__(self, index: int) -> Grasp: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Grasp]: ...
    def __getitem__(self, index: int | slice) -> Grasp | Sequence[Grasp]:
        return self.grasps[index]

    def __len__(self) -> int:
        return len(self.grasps)
