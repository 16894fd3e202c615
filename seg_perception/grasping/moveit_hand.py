# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The `moveit:` section of a gripper file: where the gripper hangs on the robot, and which joints open it how far."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import transform


@dataclass(frozen=True, slots=True)
class MoveItHand:
    """What MoveIt must know of a gripper.

    `parent_link` is the robot's link that the end effector hangs on, `tcp` x y z [m] roll pitch yaw [rad] the pose of
    the grasp frame (+z approach, +y closing) in it. `joints` open the jaws: a row of `opening` is a width in m and the
    joints' positions at it, one for each joint or one for all. Raises ValueError naming what cannot be.
    """

    parent_link: str
    tcp: tuple[float, ...]
    joints: tuple[str, ...] = ()
    opening: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.parent_link, str) or not self.parent_link:
            raise ValueError(f"moveit.parent_link: expected the name of a link, got {self.parent_link!r}")
        object.__setattr__(self, "tcp", _numbers("moveit.tcp", self.tcp, (6,), "x y z roll pitch yaw"))
        joints: Any = self.joints
        if isinstance(joints, str) or not all(isinstance(name, str) and name for name in joints):
            raise ValueError(f"moveit.joints: expected a list of names, got {self.joints!r}")
        object.__setattr__(self, "joints", tuple(joints))
        lengths = (2, 1 + len(self.joints))
        opening: Any = self.opening
        if isinstance(opening, str) or not isinstance(opening, Sequence):
            raise ValueError(f"moveit.opening: expected rows of a width and positions, got {self.opening!r}")
        rows = tuple(_numbers("moveit.opening", row, lengths, "a width and positions") for row in opening)
        if bool(self.joints) != bool(rows) or len({row[0] for row in rows}) != len(rows) or len(rows) == 1:
            raise ValueError(f"moveit.opening: expected two or more rows of different width for joints, got {rows}")
        object.__setattr__(self, "opening", tuple(sorted(rows)))

    @classmethod
    def of(cls, value: Any) -> MoveItHand:
        """From what a file says. Raises ValueError."""
        if isinstance(value, MoveItHand):
            return value
        fields = [f.name for f in dataclasses.fields(cls)]
        if not isinstance(value, Mapping):
            raise ValueError(f"moveit: expected a mapping of {', '.join(fields)}, got {value!r}")
        for key in value:
            if key not in fields:
                raise ValueError(f"moveit: unknown key '{key}'; known: {', '.join(fields)}")
        missing = [name for name in ("parent_link", "tcp") if name not in value]
        if missing:
            raise ValueError(f"moveit: missing {', '.join(missing)}")
        return cls(**value)

    @property
    def T_parent_tcp(self) -> NDArray[np.float64]:
        """The grasp frame in the parent link, (4, 4); roll, pitch, yaw about fixed axes as in URDF."""
        (cr, cp, cy), (sr, sp, sy) = np.cos(self.tcp[3:]), np.sin(self.tcp[3:])
        rotation = np.array(
            [
                [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
                [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
                [-sp, cp * sr, cp * cr],
            ]
        )
        return transform(rotation, self.tcp[:3])

    def positions(self, width: float) -> list[float]:
        """The joints' positions at an opening of `width` m, between the rows straight on, beyond them as at the end."""
        widths = [row[0] for row in self.opening]
        columns = list(zip(*(row[1:] for row in self.opening), strict=True))
        given = [float(np.interp(width, widths, column)) for column in columns]
        return given * len(self.joints) if len(given) == 1 else given


def _numbers(what: str, value: Any, lengths: tuple[int, ...], words: str) -> tuple[float, ...]:
    wrong = isinstance(value, str) or not isinstance(value, Sequence) or len(value) not in lengths
    if wrong or not all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value):
        counts = " or ".join(map(str, dict.fromkeys(lengths)))
        raise ValueError(f"{what}: expected {counts} numbers, {words}, got {value!r}")
    return tuple(float(v) for v in value)
