# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The `suction` planner: a cup along the surface's normal, where its lip lies on the object all around."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import rotation_with_z, transform
from seg_perception.grasping import cups
from seg_perception.grasping.gripper import SuctionCup, load_cup
from seg_perception.grasping.planning import Asked
from seg_perception.grasping.success import logistic
from seg_perception.options import option
from seg_perception.scene import Collision, Grasp, GraspKind, GraspPlan, Object3D, Plane, unit_vector

MAX_PLACES, MAX_POINTS = 100, 3000  # looked at
AROUND = 0.6  # m around the object, where things may be in the way
NEAR = 0.015  # m; grasps nearer than this are one
LOW = 0.004  # m over the support; lower points are its noise, not obstacles
LIP, RISE = 0.1, 0.25  # of the cup's radius: unevenness that the lip evens out, and how far a surface may reach into it
ROUGH = 0.12  # of the cup's radius; a surface rougher than this, beside the depth's noise, does not seal
SLACK = 1.5  # what exceeds these limits by more is not looked at; the score knows the rest
DENSITY, ACCELERATION = 450.0, 14.8  # kg/m^3 of the object's box, m/s^2 with the shaking of a fast robot: a guess
VACUUM = 50e3  # Pa below the air's pressure
HOLDS = {"always": 4.641, "uncovered": -9.725, "rough": -1.657, "uneven": -2.44, "bulge": -1.089, "load": -1.049}
"""A logistic model of what decides whether a cup seals and holds, fitted by `python benchmark/fit_cups.py`."""


@dataclass(frozen=True)
class SuctionConfig:
    """How cups come."""

    gripper: Any = option("suction_16", "a shipped name, a path to a file, or a mapping")
    max_approach_angle: float = option(85.0, "approaches lean from gravity by up to this", unit="deg", ge=0, le=90)
    min_coverage: float = option(0.9, "share of the lip that must be seen to lie on the object", ge=0, le=1)
    min_score: float = option(0.2, "grasps less likely than this are left out", ge=0, le=1)
    pregrasp_distance: float = option(0.1, "stand-off before the straight approach", unit="m", ge=0, le=1)
    retreat_distance: float = option(0.1, "straight lift after sealing", unit="m", ge=0, le=1)
    max_grasps: int = option(10, "distinct grasps returned per object", ge=1, le=100)


class Suction:
    """Sets a cup down all over what is seen of the object, and keeps the places where it seals and hits nothing."""

    Config = SuctionConfig

    def __init__(self, config: SuctionConfig | None = None) -> None:
        self.config = config or SuctionConfig()
        self.cup: SuctionCup = load_cup(self.config.gripper)

    def plan(self, obj: Object3D, scene_points: NDArray, gravity: NDArray, support: Plane | None = None) -> GraspPlan:
        """Grasps of `obj`, best first, or why there is none. Raises ValueError for a zero or NaN gravity."""
        up = -unit_vector("gravity", gravity)
        asked = Asked.of(obj, scene_points, AROUND, cups.FEWEST)
        if asked.nothing:
            return GraspPlan(reason=asked.nothing)
        points, others, known = asked.points, asked.others, asked.surroundings_known
        if support is not None:
            others = others[support.heights(others) > LOW]
        points = points[:: max(1, -(-len(points) // MAX_POINTS))]
        places = points[:: max(1, -(-len(points) // MAX_PLACES))]
        rows = cups.surfaces(points, places, self.cup.cup_radius)
        rejected: Counter[str] = Counter()
        fits = self._seals(rows, rejected)
        rows = rows[fits]
        scores = logistic(self.signs(rows, obj, up), HOLDS)
        found: list[Grasp] = []
        contacts = rows[:, cups.X : cups.NX]
        alike = np.zeros(len(rows), bool)
        rejected["unlikely to hold"] += int((scores < self.config.min_score).sum())
        for i in np.argsort(-scores, kind="stable"):
            if alike[i] or scores[i] < self.config.min_score:
                continue
            approach = self.approach(rows[i], -up)
            if approach is None:
                rejected["steeper than the approach may lean"] += 1
                continue
            c = self.cup
            shape = np.array([c.cup_radius, c.cup_length, c.body_radius])
            clearance = float(cups.clearance(contacts[i], approach, others, shape, 0.0))
            if clearance <= 0:
                rejected["hits neighbours"] += 1
                continue
            if cups.clearance(contacts[i], approach, points, shape, RISE * c.cup_radius + 0.002) <= 0:
                rejected["hits the object beside the lip"] += 1
                continue
            found.append(
                self._grasp(contacts[i], rows[i, cups.NX : cups.ROUGH], approach, up, scores[i], clearance, known)
            )
            if len(found) == self.config.max_grasps:
                break
            alike |= np.linalg.norm(contacts - contacts[i], axis=1) < NEAR
        rejected = +rejected  # those that were
        reasons = ", ".join(f"{n} {reason}" for reason, n in rejected.most_common())
        return GraspPlan(tuple(found), "" if found else reasons or "no surface under a cup", dict(rejected))

    def _seals(self, rows: NDArray, rejected: Counter[str]) -> NDArray[np.bool_]:
        """Which rows would hold a vacuum; the others are counted in `rejected`, each once."""
        radius = self.cup.cup_radius
        checks = {
            "with too few points under the cup": ~np.isfinite(rows[:, cups.X]),
            "beyond the edge": ~(rows[:, cups.COVERED] >= self.config.min_coverage),
            "too rough": ~(rows[:, cups.ROUGH] <= SLACK * ROUGH * radius),
            "too curved along the lip": ~(rows[:, cups.UNEVEN] <= SLACK * LIP * radius),
            "too curved": ~(np.abs(rows[:, cups.BULGE]) <= SLACK * RISE * radius),
        }
        left = np.ones(len(rows), bool)
        for reason, bad in checks.items():
            if (left & bad).any():
                rejected[reason] += int((left & bad).sum())
            left &= ~bad
        return left

    def signs(self, rows: NDArray, obj: Object3D, up: NDArray) -> dict[str, NDArray[np.float64]]:
        """What decides whether each of `rows` (K, 11) seals and carries the weight, as the model takes it."""
        radius = self.cup.cup_radius
        box = obj.box
        off = rows[:, cups.X : cups.NX] - box.T_camera_box[:3, 3]
        arm = np.linalg.norm(off - np.outer(off @ up, up), axis=1) if box.size.any() else np.zeros(len(rows))
        tips = DENSITY * ACCELERATION * float(np.prod(box.size)) * (arm + radius)
        holds = (self.cup.max_force or VACUUM * np.pi * radius**2) * radius
        return {
            "uncovered": 1.0 - rows[:, cups.COVERED],
            "rough": np.minimum(rows[:, cups.ROUGH] / (ROUGH * radius), 2.0),
            "uneven": np.minimum(rows[:, cups.UNEVEN] / (LIP * radius), 3.0),
            "bulge": np.minimum(np.abs(rows[:, cups.BULGE]) / (RISE * radius), 2.0),
            "load": np.minimum(tips / holds, 6.0),
        }

    def approach(self, row: NDArray, down: NDArray) -> NDArray[np.float64] | None:
        """Against the normal; where that leans too far, as near to it as the cup bends; None beyond."""
        approach = -row[cups.NX : cups.ROUGH]
        most = np.radians(self.config.max_approach_angle)
        angle = float(np.arccos(np.clip(approach @ down, -1, 1)))
        if angle <= most:
            return approach
        if angle - most > self.cup.max_tilt:
            return None
        level = approach - (approach @ down) * down
        return np.cos(most) * down + np.sin(most) * level / np.linalg.norm(level)

    def _grasp(
        self,
        contact: NDArray,
        normal: NDArray,
        approach: NDArray,
        up: NDArray,
        score: float,
        clearance: float,
        known: bool,
    ) -> Grasp:
        c = self.config
        return Grasp(
            T_camera_grasp=transform(rotation_with_z(approach), contact),
            width=0.0,
            score=float(score),
            kind=GraspKind.SUCTION,
            planner="suction",
            gripper=self.cup.name,
            pregrasp_distance=c.pregrasp_distance,
            retreat_direction=up.copy(),
            retreat_distance=c.retreat_distance,
            max_force=self.cup.max_force,
            contacts=np.stack([contact, np.full(3, np.nan)]),
            normals=np.stack([normal, np.full(3, np.nan)]),
            collision=Collision.FREE if known else Collision.UNKNOWN,
            clearance=clearance if np.isfinite(clearance) else float("nan"),
        )
