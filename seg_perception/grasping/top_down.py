# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The `top_down` planner: parallel jaws straight down along gravity, closing where the object is narrow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import invert, rotation_with_z, smallest_rectangle, transform, transform_points
from seg_perception.grasping import sweep
from seg_perception.grasping.gripper import Gripper, load_jaws
from seg_perception.grasping.planning import thinned, triples
from seg_perception.options import option
from seg_perception.scene import Collision, Grasp, GraspKind, GraspPlan, Object3D, OrientedBox, Plane, unit_vector

MIN_POINTS = 10
MAX_OWN, MAX_FOREIGN = 1500, 3000  # points looked at
NEAR, SAME_ROLL = 0.015, np.radians(25.0)  # m, rad; grasps nearer than both are one
GAPS = (sweep.ROOM, 0.012, 0.006, 0.003)  # m beside the object, widest first: a tight opening lands on what is not seen
LOW = 0.006  # m over the support; lower points are its noise, not obstacles
LEVEL = 0.5  # cosine between up and the support's normal; steeper surfaces carry nothing


@dataclass(frozen=True)
class TopDownConfig:
    """How jaws come from above."""

    gripper: Any = option("robotiq_2f_85", "a shipped name, a path to a file, or a mapping")
    support_clearance: float = option(
        0.003, "least height of the fingertips over the support", unit="m", ge=0, le=0.1, live=True
    )
    rolls: int = option(12, "angles tried, evenly over half a turn from the object's own axes", ge=0, le=180, live=True)
    slices: int = option(3, "places tried at each side of the middle", ge=0, le=20, live=True)
    pregrasp_distance: float = option(0.1, "stand-off before the straight approach", unit="m", ge=0, le=1, live=True)
    retreat_distance: float = option(0.1, "straight lift after closing", unit="m", ge=0, le=1, live=True)
    max_grasps: int = option(10, "distinct grasps returned per object", ge=1, le=100, live=True)


class TopDown:
    """Sweeps a jaw down onto the object over rolls, places and depths, and keeps what fits and hits nothing."""

    Config = TopDownConfig

    def __init__(self, config: TopDownConfig | None = None) -> None:
        self.config = config or TopDownConfig()
        self.gripper: Gripper = load_jaws(self.config.gripper)

    def plan(self, obj: Object3D, scene_points: NDArray, gravity: NDArray, support: Plane | None = None) -> GraspPlan:
        """Grasps of `obj`, best first, or why there is none. Raises ValueError for a zero or NaN gravity."""
        up = -unit_vector("gravity", gravity)
        points, others = triples("points", obj.points).astype(np.float64), triples("scene_points", scene_points)
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) < MIN_POINTS:
            return GraspPlan(reason=f"{len(points)} points, at least {MIN_POINTS} needed")
        return _Task(self.gripper, self.config, points, others, up, support, obj.box).plan()


class _Task:
    """One object before one gripper, in level coordinates: x, y level, z up, origin amid the object's points."""

    def __init__(
        self,
        gripper: Gripper,
        config: TopDownConfig,
        points: NDArray,
        others: NDArray,
        up: NDArray,
        support: Plane | None,
        box: OrientedBox,
    ) -> None:
        self.gripper, self.config = gripper, config
        self.T_camera_level = transform(rotation_with_z(up), points.mean(axis=0))
        T_level_camera = invert(self.T_camera_level)
        self.own = own = sweep.local(thinned(points, MAX_OWN), T_level_camera, np.inf)
        plane = Plane(np.array([0.0, 0.0, 1.0]), -own[:, 2].min())  # nothing known: level, where the object ends
        if support is not None and support.normal @ up > LEVEL:
            plane = support.transformed(T_level_camera)
        self.plane = plane
        reach = np.hypot(*np.abs(own[:, :2]).max(axis=0)) + gripper.stroke + max(gripper.palm_size[:2])
        near = sweep.local(others, T_level_camera, reach)
        self.seen = thinned(near, MAX_FOREIGN)
        self.obstacles = thinned(near[plane.heights(near) > LOW], MAX_FOREIGN)
        self.surroundings_known = len(others) > 0
        camera = T_level_camera[:2, 3]
        self.view = -camera / max(float(np.linalg.norm(T_level_camera[:3, 3])), 1e-9)
        centre = transform_points(T_level_camera, box.T_camera_box[:3, 3])
        self.centre = centre if box.size.any() else (own.min(axis=0) + own.max(axis=0)) / 2
        palm_x, palm_y, _ = gripper.palm_size
        fingers = (gripper.stroke, gripper.finger_width, gripper.finger_thickness, gripper.finger_length)
        self.jaw = np.array([*fingers, palm_x, palm_y, gripper.friction])

    def plan(self) -> GraspPlan:
        c = self.config
        deepest = self.gripper.finger_length - sweep.PALM_GAP
        depths = np.array([deepest, 0.5 * deepest, 0.012])
        rows, fallen = sweep.candidates(
            self.own,
            self.seen,
            self._rolls(),
            self.centre,
            self.view,
            self.jaw,
            c.support_clearance,
            self.plane.coefficients,
            depths,
            GAPS[-1],
            c.slices,
        )
        merits = self._scores(rows, rows[:, sweep.GAP])
        centres = _centres(rows)
        alike = np.zeros(len(rows), bool)
        found: list[Grasp] = []
        hits = 0
        for i in np.argsort(-merits, kind="stable"):
            if alike[i]:
                continue
            gap, clearance = self._opening(rows[i])
            if clearance <= 0:
                hits += 1
                continue
            found.append(self._grasp(rows[i], gap, clearance, float(self._scores(rows[i : i + 1], gap)[0])))
            if len(found) == c.max_grasps:
                break
            turn = np.abs(rows[:, sweep.ROLL] - rows[i, sweep.ROLL]) % np.pi
            same_roll = np.minimum(turn, np.pi - turn) < SAME_ROLL
            alike |= same_roll & (np.linalg.norm(centres - centres[i], axis=1) < NEAR)
        found.sort(key=lambda grasp: -grasp.score)
        rejected = {
            "wider than the stroke": int(fallen[sweep.WIDE]),
            "too flat": int(fallen[sweep.FLAT]),
            "would slip": int(fallen[sweep.SLIPS]),
            "no room between its parts": int(fallen[sweep.OWN]),
            "hits neighbours": hits,
        }
        rejected = {reason: n for reason, n in rejected.items() if n}
        return GraspPlan(tuple(found), "" if found else self._reason(rejected, fallen[sweep.NARROWEST]), rejected)

    def _rolls(self) -> NDArray[np.float64]:
        """Closing along the footprint's shorter side, its longer side, then evenly between."""
        angle, (low, high) = smallest_rectangle(self.own[:, :2])
        across = angle if high[0] - low[0] <= high[1] - low[1] else angle + np.pi / 2
        n = self.config.rolls
        between = [across + np.pi * k / n for k in range(1, n) if 2 * k != n]
        return np.array([across, across + np.pi / 2, *between])

    def _opening(self, row: NDArray) -> tuple[float, float]:
        """The widest room beside the object with which nothing is hit, and the clearance then; 0 = all hit."""
        for gap in (row[sweep.GAP], *(g for g in GAPS if g < row[sweep.GAP])):
            clearance = float(sweep.clearance(row, gap, self.obstacles, self.jaw))
            if clearance > 0:
                return float(gap), clearance
        return 0.0, 0.0

    def _scores(self, rows: NDArray, gaps: NDArray | float) -> NDArray[np.float64]:
        """0..1 by what decides success: contours across the jaws, touch, centre, depth, room; less where it tapers."""
        friction = self.gripper.friction
        slope = np.maximum(np.abs(rows[:, sweep.SLOPE_LOW]), np.abs(rows[:, sweep.SLOPE_HIGH])) / friction
        parts = (
            0.35 * (1.0 - np.minimum(1.0, slope))
            + 0.15 * rows[:, sweep.TOUCH]
            + 0.20 * np.exp(-((rows[:, sweep.OFF_CENTRE] / 0.03) ** 2))
            + 0.15 * np.minimum(1.0, (rows[:, sweep.TOP] - rows[:, sweep.TIP]) / 0.03)
            + 0.15 * gaps / GAPS[0]
        )
        return parts * (0.2 + 0.8 * np.maximum(0.0, 1.0 - rows[:, sweep.TAPER] / (2.0 * friction)))

    def _grasp(self, row: NDArray, gap: float, clearance: float, score: float) -> Grasp:
        g, c = self.gripper, self.config
        roll, at, low, high = row[sweep.ROLL], row[sweep.A], row[sweep.LOW], row[sweep.HIGH]
        slopes = row[sweep.SLOPE_LOW], row[sweep.SLOPE_HIGH]
        along, closing = np.array([-np.sin(roll), np.cos(roll), 0.0]), np.array([np.cos(roll), np.sin(roll), 0.0])
        height = row[sweep.TIP] + g.tip_beyond_tcp
        contacts = np.stack([at * along + end * closing for end in (low, high)])
        contacts[:, 2] = height
        normals = np.array([slopes[0] * along - closing, closing - slopes[1] * along])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        R = self.T_camera_level[:3, :3]
        if (R @ closing)[0] < 0:  # a jaw is the same turned by half: y towards the camera's right, always
            along, closing, contacts, normals = -along, -closing, contacts[::-1], normals[::-1]
        T_level_grasp = transform(np.stack([along, closing, [0.0, 0.0, -1.0]], axis=1), contacts.mean(axis=0))
        return Grasp(
            T_camera_grasp=self.T_camera_level @ T_level_grasp,
            width=min(g.stroke, float(high - low + 2 * gap)),
            score=score,
            kind=GraspKind.PARALLEL_JAW,
            planner="top_down",
            gripper=g.name,
            object_width=float(high - low),
            pregrasp_distance=c.pregrasp_distance,
            retreat_direction=R[:, 2].copy(),
            retreat_distance=c.retreat_distance,
            max_force=g.max_force,
            contacts=transform_points(self.T_camera_level, contacts),
            normals=normals @ R.T,
            collision=Collision.FREE if self.surroundings_known else Collision.UNKNOWN,
            clearance=clearance if np.isfinite(clearance) else float("nan"),
        )

    def _reason(self, rejected: Mapping[str, int], narrowest: float) -> str:
        wide = f" ({narrowest * 1e3:.0f} mm and {GAPS[-1] * 1e3:.0f} mm beside it > {self.gripper.stroke * 1e3:.0f} mm)"
        texts = [f"{n} {reason}{wide if reason.startswith('wider') else ''}" for reason, n in rejected.items()]
        return ", ".join(texts) or "nothing between the jaws at any roll"


def _centres(rows: NDArray) -> NDArray[np.float64]:
    """Tool centre points (K, 3), level frame, at the tips' height."""
    c, s, middle = (
        np.cos(rows[:, sweep.ROLL]),
        np.sin(rows[:, sweep.ROLL]),
        (rows[:, sweep.LOW] + rows[:, sweep.HIGH]) / 2,
    )
    a = rows[:, sweep.A]
    return np.stack([-s * a + c * middle, c * a + s * middle, rows[:, sweep.TIP]], axis=1)
