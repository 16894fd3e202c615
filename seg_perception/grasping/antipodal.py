# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The `antipodal` planner: parallel jaws from above and from the camera's side, ranked by how likely they pick."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import invert, rotation_with_z, smallest_rectangle, transform, transform_points
from seg_perception.grasping import evidence, shadow, sweep
from seg_perception.grasping.gripper import Gripper, load_jaws
from seg_perception.grasping.planning import Asked, thinned
from seg_perception.grasping.success import probability
from seg_perception.options import option
from seg_perception.scene import Collision, Grasp, GraspKind, GraspPlan, Object3D, Plane, unit_vector

MIN_POINTS = 10
MAX_OWN, MAX_SEEN, MAX_FOREIGN = 800, 1500, 2500  # points looked at
NEAR, SAME_TURN = 0.015, np.cos(np.radians(25.0))  # m, cosine; grasps nearer than both are one
GAPS = np.array([0.012, 0.006, 0.003])  # m beside the object; tight openings land on what is not seen
LOW = 0.006  # m over the support; lower points are its noise, not obstacles
LEVEL = 0.5  # cosine between up and the support's normal; steeper surfaces carry nothing
STEEPEST_APPROACH = 80.0  # deg from gravity; the sweep needs the support below it
STEEPEST = 1.2  # of the friction, contour slope that is still looked at; the score knows that steep ones slip
CLOSER_LOOK = 48  # candidates of each approach, the best by what is cheap to know
GOOD_ENOUGH = 0.93  # no further approach is tried once a grasp is this likely
UNSEEN = 0.05  # share of the fingers that is hidden from the camera, above which the way is not known to be free


@dataclass(frozen=True)
class AntipodalConfig:
    """How jaws come."""

    gripper: Any = option("robotiq_2f_85", "a shipped name, a path to a file, or a mapping")
    support_clearance: float = option(
        0.003, "least height of the fingertips over the support", unit="m", ge=0, le=0.1, live=True
    )
    max_approach_angle: float = option(
        50.0, "approaches lean from gravity by up to this", unit="deg", ge=0, le=80, live=True
    )
    approach_axis: tuple[float, float, float] = option(
        (0.0, 0.0, 0.0), "lean from this direction of the camera's frame instead; zero = gravity", live=True
    )
    rolls: int = option(12, "angles tried, evenly over half a turn from the object's own axes", ge=0, le=180, live=True)
    slices: int = option(3, "places tried at each side of the middle", ge=0, le=20, live=True)
    min_score: float = option(0.2, "grasps less likely than this are left out", ge=0, le=1, live=True)
    pregrasp_distance: float = option(0.1, "stand-off before the straight approach", unit="m", ge=0, le=1, live=True)
    retreat_distance: float = option(0.1, "straight lift after closing", unit="m", ge=0, le=1, live=True)
    max_grasps: int = option(10, "distinct grasps returned per object", ge=1, le=100, live=True)


class Antipodal:
    """Sweeps jaws onto the object over approaches, rolls, places and depths, and keeps what most likely picks it."""

    Config = AntipodalConfig

    def __init__(self, config: AntipodalConfig | None = None) -> None:
        self.config = config or AntipodalConfig()
        self.gripper: Gripper = load_jaws(self.config.gripper)
        none = np.empty((0, 3))  # compiled now, not in the first crowded frame
        evidence.free(np.empty((0, 12)), np.empty(0, np.int64), np.empty((0, 16)), none, np.zeros(7))

    def plan(self, obj: Object3D, scene_points: NDArray, gravity: NDArray, support: Plane | None = None) -> GraspPlan:
        """Grasps of `obj`, best first, or why there is none. Raises ValueError for a zero or NaN gravity."""
        up = -unit_vector("gravity", gravity)
        task = self.task(obj, scene_points, up, support)
        if task.nothing:
            return GraspPlan(reason=task.nothing)
        found: list[Candidates] = []
        for approach in task.approaches():
            found.append(task.candidates(approach))
            if len(found[-1].scores) and found[-1].scores.max() > GOOD_ENOUGH:
                break
        if not found:
            return GraspPlan(reason=f"every approach leans more than {STEEPEST_APPROACH:g} deg from gravity")
        return task.answer(found)

    def task(self, obj: Object3D, scene_points: NDArray, up: NDArray, support: Plane | None) -> Task:
        margin = self.gripper.stroke + self.gripper.finger_length + max(self.gripper.palm_size)
        asked = Asked.of(obj, scene_points, margin, MIN_POINTS)
        return Task(self.gripper, self.config, asked, up, support, obj)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What was found along one approach: frame `T` (4, 4) into the camera's, z against the approach; `rows` (K, 12) as
    in `sweep`, `known` (K, 16) as in `evidence`, `scores` (K,); and the counts of what fell away."""

    T: NDArray[np.float64]
    rows: NDArray[np.float64]
    known: NDArray[np.float64]
    scores: NDArray[np.float64]
    fallen: NDArray[np.float64]
    hits: NDArray[np.int64]


class Task:
    """One object before one gripper, camera frame."""

    def __init__(
        self,
        gripper: Gripper,
        config: AntipodalConfig,
        asked: Asked,
        up: NDArray[np.float64],
        support: Plane | None,
        obj: Object3D,
    ) -> None:
        self.gripper, self.config, self.up = gripper, config, up
        self.nothing, self.surroundings_known = asked.nothing, asked.surroundings_known
        if asked.nothing:
            return
        points, others, self.middle = asked.points, asked.others, asked.middle
        self.points = thinned(points, MAX_OWN)
        self.ground = Plane(up, -float((points @ up).min()))  # nothing known: level, where the object ends
        if support is not None and support.normal @ up > LEVEL:
            self.ground = support
        self.seen = thinned(others, MAX_SEEN)
        self.all_obstacles = others[self.ground.heights(others) > LOW]
        self.obstacles = thinned(self.all_obstacles, MAX_FOREIGN)
        self.beside = asked.reach + gripper.stroke / 2 + gripper.finger_thickness + max(gripper.palm_size[:2]) / 2
        self.centre = obj.box.T_camera_box[:3, 3] if obj.box.size.any() else self.middle
        self.map = shadow.depth_map(self.points, others)
        fingers = (gripper.stroke, gripper.finger_width, gripper.finger_thickness, gripper.finger_length)
        self.jaw = np.array([*fingers, *gripper.palm_size[:2], STEEPEST * gripper.friction])

    def approaches(self) -> Iterator[NDArray[np.float64]]:
        """Straight down, half way towards the line of sight, along it; and leaning to both sides."""
        down = -self.up
        if any(self.config.approach_axis):
            yield from self._around(unit_vector("approach_axis", self.config.approach_axis), down)
            return
        yield down
        view = self.middle / max(float(np.linalg.norm(self.middle)), 1e-9)
        angle = float(np.arccos(np.clip(view @ down, -1, 1)))
        most = min(angle, np.radians(self.config.max_approach_angle))
        level = view - (view @ down) * down
        length = float(np.linalg.norm(level))
        if length < 0.05 or most <= 0:
            return
        level /= length
        side = np.cross(down, level)
        for lean, direction in ((most / 2, level), (most, level), (most / 2, side), (most / 2, -side)):
            yield np.cos(lean) * down + np.sin(lean) * direction

    def _around(self, axis: NDArray[np.float64], down: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
        """That direction, and leaning from it to four sides; those among them that come from above."""
        half = np.radians(self.config.max_approach_angle) / 2
        frame = rotation_with_z(axis)
        sides = (1, 0), (-1, 0), (0, 1), (0, -1)
        for direction in (axis, *(np.cos(half) * axis + np.sin(half) * frame[:, :2] @ side for side in sides)):
            if direction @ down >= np.cos(np.radians(STEEPEST_APPROACH)):
                yield direction

    def candidates(self, approach: NDArray[np.float64]) -> Candidates:
        """The best of what fits the object and hits nothing along one approach."""
        c = self.config
        T = transform(rotation_with_z(-approach), self.middle)
        T_inverse = invert(T)
        own, seen = sweep.local(self.points, T_inverse, np.inf), sweep.local(self.seen, T_inverse, self.beside)
        obstacles = sweep.local(self.obstacles, T_inverse, self.beside)
        centre = transform_points(T_inverse, self.centre)
        plane = self.ground.transformed(T_inverse).coefficients
        camera = T_inverse[:3, 3]
        view = -camera[:2] / max(float(np.linalg.norm(camera)), 1e-9)
        deepest = self.gripper.finger_length - sweep.PALM_GAP
        depths = np.array([deepest, 0.5 * deepest, 0.012])
        rolls = _rolls(own, c.rolls)
        rows, fallen = sweep.candidates(
            own, seen, rolls, centre, view, self.jaw, c.support_clearance, plane, depths, GAPS[-1], c.slices
        )
        order = np.argsort(-self._promise(rows), kind="stable")
        tilt = float(np.arccos(np.clip(-approach @ self.up, -1, 1)))
        known, which, hits = evidence.judge(
            rows,
            order,
            CLOSER_LOOK,
            own,
            obstacles,
            centre,
            self.jaw,
            GAPS,
            c.support_clearance,
            T,
            tilt,
            plane,
            *self.map,
        )
        if len(self.obstacles) < len(self.all_obstacles):  # what was left out for speed counts in the end
            everything = sweep.local(self.all_obstacles, T_inverse, self.beside)
            free = evidence.free(rows, which, known, everything, self.jaw)
            hits[0] += np.count_nonzero(~free)
            which, known = which[free], known[free]
        return Candidates(T, rows[which], known, probability(known, self.gripper.friction), fallen, hits)

    def _promise(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is worth a closer look: contours across the jaws, touch, centre, depth, room; not where it tapers."""
        friction = self.gripper.friction
        slope = np.maximum(np.abs(rows[:, sweep.SLOPE_LOW]), np.abs(rows[:, sweep.SLOPE_HIGH])) / friction
        parts = (
            0.30 * (1.0 - np.minimum(1.0, slope))
            + 0.20 * rows[:, sweep.TOUCH]
            + 0.20 * np.exp(-((rows[:, sweep.OFF_CENTRE] / 0.03) ** 2))
            + 0.15 * np.minimum(1.0, (rows[:, sweep.TOP] - rows[:, sweep.TIP]) / 0.03)
            + 0.15 * rows[:, sweep.GAP] / sweep.ROOM
        )
        return parts * (0.2 + 0.8 * np.maximum(0.0, 1.0 - rows[:, sweep.TAPER] / (2.0 * friction)))

    def answer(self, found: list[Candidates]) -> GraspPlan:
        """Distinct grasps, best first, or what all candidates fell for."""
        fallen = np.sum([f.fallen for f in found], axis=0)
        hits = np.sum([f.hits for f in found], axis=0)
        counts = {
            "wider than the stroke": int(fallen[sweep.WIDE]),
            "too flat": int(fallen[sweep.FLAT]),
            "would slip": int(fallen[sweep.SLIPS] + hits[2]),
            "no room between its parts": int(fallen[sweep.OWN]),
            "hits neighbours": int(hits[0]),
            "hits the support": int(hits[1]),
            "unlikely to hold": int(sum((f.scores < self.config.min_score).sum() for f in found)),
        }
        rejected = {reason: n for reason, n in counts.items() if n}
        grasps = self._distinct(found)
        narrowest = min(float(f.fallen[sweep.NARROWEST]) for f in found)
        return GraspPlan(grasps, "" if grasps else self._reason(rejected, narrowest), rejected)

    def _distinct(self, found: list[Candidates]) -> tuple[Grasp, ...]:
        places = [
            (k, i) for k, f in enumerate(found) for i in range(len(f.scores)) if f.scores[i] >= self.config.min_score
        ]
        if not places:
            return ()
        scores = np.array([found[k].scores[i] for k, i in places])
        poses = np.stack([self.pose(found[k].T, found[k].rows[i]) for k, i in places])
        alike = np.zeros(len(places), bool)
        grasps: list[Grasp] = []
        for n in np.argsort(-scores, kind="stable"):
            if alike[n]:
                continue
            k, i = places[n]
            grasps.append(self.grasp(found[k], i, poses[n]))
            if len(grasps) == self.config.max_grasps:
                break
            near = np.linalg.norm(poses[:, :3, 3] - poses[n, :3, 3], axis=1) < NEAR
            turned = np.abs(poses[:, :3, 1] @ poses[n, :3, 1]) > SAME_TURN
            alike |= near & turned & (poses[:, :3, 2] @ poses[n, :3, 2] > SAME_TURN)
        return tuple(grasps)

    def pose(self, T: NDArray[np.float64], row: NDArray[np.float64]) -> NDArray[np.float64]:
        """T_camera_grasp (4, 4); a jaw is the same turned by half: y lies towards the camera's right, always."""
        c, s = np.cos(row[sweep.ROLL]), np.sin(row[sweep.ROLL])
        along, closing = np.array([-s, c, 0.0]), np.array([c, s, 0.0])
        at = row[sweep.A] * along + 0.5 * (row[sweep.LOW] + row[sweep.HIGH]) * closing
        at[2] = row[sweep.TIP] + self.gripper.tip_beyond_tcp
        if T[0, :3] @ closing < 0:
            along, closing = -along, -closing
        return T @ transform(np.stack([along, closing, [0.0, 0.0, -1.0]], axis=1), at)

    def grasp(self, found: Candidates, i: int, pose: NDArray[np.float64]) -> Grasp:
        """Candidate `i` with every field filled in."""
        row, g, c = found.rows[i], self.gripper, self.config
        width = float(row[sweep.HIGH] - row[sweep.LOW])
        same_way = pose[:3, 1] @ found.T[:3, :2] @ [np.cos(row[sweep.ROLL]), np.sin(row[sweep.ROLL])] > 0
        slopes = (
            (row[sweep.SLOPE_LOW], row[sweep.SLOPE_HIGH]) if same_way else (row[sweep.SLOPE_HIGH], row[sweep.SLOPE_LOW])
        )
        x, y = pose[:3, 0], pose[:3, 1]
        normals = np.stack([slopes[0] * x - y, y - slopes[1] * x])
        clearance = float(found.known[i, evidence.CLEARANCE])
        unseen = found.known[i, evidence.OWN_HIDDEN] + found.known[i, evidence.FOREIGN_HIDDEN] > UNSEEN
        free = Collision.UNSEEN if unseen else Collision.FREE
        return Grasp(
            T_camera_grasp=pose,
            width=min(g.stroke, width + 2 * float(found.known[i, evidence.GAP])),
            score=float(found.scores[i]),
            kind=GraspKind.PARALLEL_JAW,
            planner="antipodal",
            gripper=g.name,
            object_width=width,
            pregrasp_distance=c.pregrasp_distance,
            retreat_direction=self.up.copy(),
            retreat_distance=c.retreat_distance,
            max_force=g.max_force,
            contacts=pose[:3, 3] + np.array([[-0.5], [0.5]]) * width * y,
            normals=normals / np.linalg.norm(normals, axis=1, keepdims=True),
            collision=free if self.surroundings_known else Collision.UNKNOWN,
            clearance=clearance if np.isfinite(clearance) else float("nan"),
        )

    def _reason(self, rejected: dict[str, int], narrowest: float) -> str:
        wide = f" ({narrowest * 1e3:.0f} mm and {GAPS[-1] * 1e3:.0f} mm beside it > {self.gripper.stroke * 1e3:.0f} mm)"
        texts = [f"{n} {reason}{wide if reason.startswith('wider') else ''}" for reason, n in rejected.items()]
        return ", ".join(texts) or "nothing between the jaws at any roll"


def _rolls(own: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Closing along the footprint's shorter side, its longer side, then evenly between."""
    angle, (low, high) = smallest_rectangle(own[:, :2])
    across = angle if high[0] - low[0] <= high[1] - low[1] else angle + np.pi / 2
    between = [across + np.pi * k / count for k in range(1, count) if 2 * k != count]
    return np.array([across, across + np.pi / 2, *between])
