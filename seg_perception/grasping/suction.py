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
from seg_perception.grasping.gripper import SuctionCup, load_cups
from seg_perception.grasping.planning import Asked, thinned
from seg_perception.grasping.success import logistic
from seg_perception.grasping.weight import columns
from seg_perception.options import option
from seg_perception.scene import Collision, Grasp, GraspKind, GraspPlan, Object3D, Plane, unit_vector

MAX_PLACES, MAX_POINTS = 100, 3000  # looked at
AROUND = 0.6  # m around the object, where things may be in the way
NEAR = 0.015  # m; grasps nearer than this are one
LOW = 0.004  # m over the support; lower points are its noise, not obstacles
LIP, RISE = 0.1, 0.25  # of the cup's radius: unevenness that the lip evens out, and how far a surface may reach into it
ROUGH, NOISE = 0.12, 0.001  # of the cup's radius, and m of the depth's noise: a surface rougher than both does not seal
SLACK = 1.5  # what exceeds these limits by more is not looked at; the score knows the rest
DENSITY, ACCELERATION = 450.0, 14.8  # kg/m^3 of the object's columns, m/s^2 with the shaking of a fast robot: a guess
VACUUM = 50e3  # Pa below the air's pressure
SEALS = {
    "always": 6.209,
    "uncovered": -7.996,
    "rough": -3.181,
    "uneven": -3.102,
    "bulge": -1.455,
    "narrow": -3.128,
}
CARRIES = {"always": -0.527, "load": -3.337}
"""Logistic models of whether a cup seals and whether it then carries, fitted by `python benchmark/fit_cups.py`."""


@dataclass(frozen=True)
class SuctionConfig:
    """How cups come."""

    gripper: Any = option("suction_16", "a shipped name, a path or a mapping; or several to choose from, a list or a,b")
    max_approach_angle: float = option(
        85.0, "approaches lean from gravity by up to this", unit="deg", ge=0, le=90, live=True
    )
    min_coverage: float = option(0.9, "share of the lip that must be seen to lie on the object", ge=0, le=1, live=True)
    min_score: float = option(0.2, "grasps less likely than this are left out", ge=0, le=1, live=True)
    pregrasp_distance: float = option(0.1, "stand-off before the straight approach", unit="m", ge=0, le=1, live=True)
    retreat_distance: float = option(0.1, "straight lift after sealing", unit="m", ge=0, le=1, live=True)
    max_grasps: int = option(10, "distinct grasps returned per object", ge=1, le=100, live=True)


class Suction:
    """Sets a cup down all over what is seen of the object, and keeps the places where it seals and hits nothing."""

    Config = SuctionConfig

    def __init__(self, config: SuctionConfig | None = None) -> None:
        self.config = config or SuctionConfig()
        self.cups: tuple[SuctionCup, ...] = load_cups(self.config.gripper)

    def plan(self, obj: Object3D, scene_points: NDArray, gravity: NDArray, support: Plane | None = None) -> GraspPlan:
        """Grasps of `obj`, best first, or why there is none. Raises ValueError for a zero or NaN gravity."""
        up = -unit_vector("gravity", gravity)
        asked = Asked.of(obj, scene_points, AROUND, cups.FEWEST)
        if asked.nothing:
            return GraspPlan(reason=asked.nothing)
        points, others, known = asked.points, asked.others, asked.surroundings_known
        if support is not None:
            others = others[support.heights(others) > LOW]
        points = thinned(points, MAX_POINTS)
        places = thinned(points, MAX_PLACES)
        weight = columns(points, up)
        rejected: Counter[str] = Counter()
        found = [self._fitting(cup, points, places, weight, up, rejected) for cup in self.cups]
        which = np.repeat(np.arange(len(found)), [len(rows) for rows, _ in found])
        rows, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        grasps: list[Grasp] = []
        contacts = rows[:, cups.X : cups.NX]
        alike = np.zeros(len(rows), bool)
        rejected["unlikely to hold"] += int((scores < self.config.min_score).sum())
        for i in np.argsort(-scores, kind="stable"):
            if alike[i] or scores[i] < self.config.min_score:
                continue
            cup = self.cups[which[i]]
            approach = self.approach(rows[i], -up, cup)
            if approach is None:
                rejected["steeper than the approach may lean"] += 1
                continue
            shape = np.array([cup.cup_radius, cup.cup_length, cup.body_radius])
            clearance = float(cups.clearance(contacts[i], approach, others, shape, 0.0))
            if clearance <= 0:
                rejected["hits neighbours"] += 1
                continue
            if cups.clearance(contacts[i], approach, points, shape, RISE * cup.cup_radius + 0.002) <= 0:
                rejected["hits the object beside the lip"] += 1
                continue
            normal = rows[i, cups.NX : cups.ROUGH]
            grasps.append(self._grasp(cup, contacts[i], normal, approach, up, scores[i], clearance, known))
            if len(grasps) == self.config.max_grasps:
                break
            alike |= np.linalg.norm(contacts - contacts[i], axis=1) < NEAR
        rejected = +rejected  # those that were
        reasons = ", ".join(f"{n} {reason}" for reason, n in rejected.most_common())
        return GraspPlan(tuple(grasps), "" if grasps else reasons or "no surface under a cup", dict(rejected))

    def _fitting(
        self,
        cup: SuctionCup,
        points: NDArray,
        places: NDArray,
        weight: tuple[float, NDArray],
        up: NDArray,
        rejected: Counter[str],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where a cup might seal, rows (K, 11) and how likely it does and carries (K,); the rest is counted."""
        rows = cups.surfaces(points, places, cup.cup_radius)
        rows = rows[self._seals(cup, rows, rejected)]
        return rows, probability(signs(rows, cup, weight, up))

    def _seals(self, cup: SuctionCup, rows: NDArray, rejected: Counter[str]) -> NDArray[np.bool_]:
        """Which rows would hold a vacuum; the others are counted in `rejected`, each once."""
        radius = cup.cup_radius
        checks = {
            "with too few points under the cup": ~np.isfinite(rows[:, cups.X]),
            "beyond the edge": ~(rows[:, cups.COVERED] >= self.config.min_coverage),
            "too rough": ~(rows[:, cups.ROUGH] <= SLACK * max(ROUGH * radius, NOISE)),
            "too curved along the lip": ~(rows[:, cups.UNEVEN] <= SLACK * LIP * radius),
            "too curved": ~(np.abs(rows[:, cups.BULGE]) <= SLACK * RISE * radius),
        }
        left = np.ones(len(rows), bool)
        for reason, bad in checks.items():
            if (left & bad).any():
                rejected[reason] += int((left & bad).sum())
            left &= ~bad
        return left

    def approach(self, row: NDArray, down: NDArray, cup: SuctionCup) -> NDArray[np.float64] | None:
        """Against the normal; where that leans too far, as near to it as the cup bends; None beyond."""
        approach = -row[cups.NX : cups.ROUGH]
        most = np.radians(self.config.max_approach_angle)
        angle = float(np.arccos(np.clip(approach @ down, -1, 1)))
        if angle <= most:
            return approach
        if angle - most > cup.max_tilt:
            return None
        level = approach - (approach @ down) * down
        return np.cos(most) * down + np.sin(most) * level / np.linalg.norm(level)

    def _grasp(
        self,
        cup: SuctionCup,
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
            gripper=cup.name,
            pregrasp_distance=c.pregrasp_distance,
            retreat_direction=up.copy(),
            retreat_distance=c.retreat_distance,
            max_force=cup.max_force,
            contacts=np.stack([contact, np.full(3, np.nan)]),
            normals=np.stack([normal, np.full(3, np.nan)]),
            collision=Collision.FREE if known else Collision.UNKNOWN,
            clearance=clearance if np.isfinite(clearance) else float("nan"),
        )


def signs(rows: NDArray, cup: SuctionCup, weight: tuple[float, NDArray], up: NDArray) -> dict[str, NDArray[np.float64]]:
    """What decides whether a cup seals on each of `rows` (K, 11) and carries `weight` m^3 amid (3,), as the models
    take it."""
    radius, (volume, middle) = cup.cup_radius, weight
    off = rows[:, cups.X : cups.NX] - middle
    arm = np.linalg.norm(off - np.outer(off @ up, up), axis=1)
    tips = DENSITY * ACCELERATION * volume * (arm + radius)
    holds = (cup.max_force or VACUUM * np.pi * radius**2) * radius
    return {
        "uncovered": 1.0 - rows[:, cups.COVERED],
        "rough": np.minimum(rows[:, cups.ROUGH] / max(ROUGH * radius, NOISE), 2.0),
        "uneven": np.minimum(rows[:, cups.UNEVEN] / (LIP * radius), 3.0),
        "bulge": np.minimum(np.abs(rows[:, cups.BULGE]) / (RISE * radius), 2.0),
        "narrow": rows[:, cups.NARROW],
        "load": np.log(np.clip(tips / holds, 0.02, 50.0)),
    }


def probability(values: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """(K,) that the cup seals and carries."""
    return logistic(values, SEALS) * logistic(values, CARRIES)
