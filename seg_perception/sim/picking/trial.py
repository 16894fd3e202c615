# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One grasp, carried out: pre-grasp, straight approach, close, lift, shake; and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import invert
from seg_perception.scene import Grasp
from seg_perception.sim.picking.world import TABLE, World

TICK = 0.004  # s between looks at contacts
SETTLED = 6  # looks in a row; a contact may flicker
APPROACH, CLOSE, LIFT, SHAKE = 0.8, 0.9, 0.8, 0.6  # s; SHAKE is per direction
LIFTED = 0.15  # m
SWING, CYCLES = 0.012, 2  # m and full swings per direction: up to 5 m/s^2
PUSH = 3.0  # N on the gripper while it approaches: less than this moves a light thing, no more
HELD_UP = 0.6  # share of the lift that the thing must have followed
ALONG = 0.04  # m, something else raised by this was taken too


class Outcome(str, Enum):
    """What came of a grasp, in the order in which it is found out."""

    PICKED = "picked"
    UNSEEN = "no mask"  # the segmenter has no mask for it
    NO_3D = "no 3D"
    NO_GRASP = "no grasp"
    HITS_TARGET = "hits the target"
    HITS_OTHER = "hits another"
    HITS_TABLE = "hits the table"
    MISSED = "missed"  # the jaws closed beside it
    SLIPPED_LIFT = "slipped while lifted"
    SLIPPED_SHAKE = "slipped while shaken"
    TOOK_TWO = "took another too"
    NO_SEAL = "no seal"  # suction
    TOO_HEAVY = "torn off"  # suction

    @property
    def success(self) -> bool:
        return self is Outcome.PICKED


@dataclass(frozen=True, slots=True)
class Verdict:
    """`part` of the gripper that hit, `other` what was hit; `slip` m the thing moved in the hand after closing."""

    outcome: Outcome
    part: str = ""
    other: str = ""
    slip: float = 0.0


def execute(world: World, target: int, T_world_grasp: NDArray[np.float64], grasp: Grasp) -> Verdict:
    """Carries out `grasp` of thing `target` from the settled state; the world is left as it ends."""
    world.reset()
    return _Trial(world, target, T_world_grasp, grasp).run()


class _Trial:
    def __init__(self, world: World, target: int, T_world_grasp: NDArray[np.float64], grasp: Grasp) -> None:
        self.world, self.target, self.grasp = world, target, grasp
        self.T, self.tcp = T_world_grasp, T_world_grasp[:3, 3]
        m = world.model
        self.own = np.zeros(m.ngeom, bool)
        self.own[[*world.fingers, world.palm]] = True
        self.opening = min(grasp.width, world.gripper.stroke)
        world.put_hand(self._pregrasp(), T_world_grasp[:3, :3], self.opening)
        world.mujoco.mj_forward(m, world.data)
        self.heights = world.data.xipos[world.bodies, 2].copy()

    def run(self) -> Verdict:
        start, way = self._pregrasp(), self.tcp - self._pregrasp()
        hit = self._move(APPROACH, lambda t: start + _smooth(t) * way, self.opening, watch=True)
        if hit is not None:
            return hit
        self._move(CLOSE, lambda t: self.tcp, 0.0)
        if not self._holds():
            return Verdict(Outcome.MISSED, other=self._between())
        held = self._in_hand()
        up = self._retreat()
        self._move(LIFT, lambda t: self.tcp + _smooth(t) * LIFTED * up, 0.0)
        rise = self.world.data.xipos[self.world.bodies, 2] - self.heights
        if rise[self.target] < HELD_UP * LIFTED * up[2] or not self._holds():
            return Verdict(Outcome.SLIPPED_LIFT, slip=self._slip(held))
        top = self.tcp + LIFTED * up
        for axis in np.eye(3):
            self._move(SHAKE, lambda t, a=axis: top + SWING * np.sin(2 * np.pi * CYCLES * t) * a, 0.0)
        rise = self.world.data.xipos[self.world.bodies, 2] - self.heights
        slip = self._slip(held)
        if rise[self.target] < HELD_UP * LIFTED * up[2] or not self._holds():
            return Verdict(Outcome.SLIPPED_SHAKE, slip=slip)
        others = np.delete(np.arange(len(rise)), self.target)
        carried = others[rise[others] > ALONG]
        if len(carried):
            return Verdict(Outcome.TOOK_TWO, other=self.world.things[carried[0]].name, slip=slip)
        return Verdict(Outcome.PICKED, slip=slip)

    def _pregrasp(self) -> NDArray[np.float64]:
        return self.tcp - self.grasp.pregrasp_distance * self.T[:3, 2]

    def _retreat(self) -> NDArray[np.float64]:
        """The grasp's retreat direction in the world, up if it has none."""
        direction = self.T[:3, :3] @ self.grasp.T_camera_grasp[:3, :3].T @ self.grasp.retreat_direction
        length = float(np.linalg.norm(direction))
        return direction / length if length > 0 else np.array([0.0, 0.0, 1.0])

    def _move(
        self, seconds: float, path: Callable[[float], NDArray], opening: float, watch: bool = False
    ) -> Verdict | None:
        """Follows `path` (0..1 -> tool centre point); with `watch` it ends at the first push, and says what it was."""
        ticks = round(seconds / TICK)
        for k in range(ticks):
            self.world.drive(path((k + 1) / ticks), opening)
            self.world.step(TICK)
            if watch:
                hit = self._hit()
                if hit is not None:
                    return hit
        return None

    def _contacts(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """Contacts of the gripper: their numbers, the gripper's geoms, the other geoms."""
        geoms = self.world.data.contact.geom
        if not len(geoms):
            none = np.empty(0, np.int32)
            return none.astype(np.int64), none, none
        mine = self.own[geoms]
        which = np.flatnonzero(mine[:, 0] != mine[:, 1])
        first = mine[which, 0]
        return which, np.where(first, *geoms[which].T), np.where(first, *geoms[which].T[::-1])

    def _hit(self) -> Verdict | None:
        which, mine, others = self._contacts()
        if not len(which):
            return None
        force = np.zeros(6)
        worst, at = PUSH, -1
        for k, contact in enumerate(which):
            self.world.mujoco.mj_contactForce(self.world.model, self.world.data, contact, force)
            if force[0] > worst:
                worst, at = force[0], k
        if at < 0:
            return None
        part = "palm" if mine[at] == self.world.palm else "finger"
        thing = int(self.world.thing_of(others[at : at + 1])[0])
        if thing < 0:
            return Verdict(Outcome.HITS_TABLE, part, TABLE)
        name = self.world.things[thing].name
        return Verdict(Outcome.HITS_TARGET if thing == self.target else Outcome.HITS_OTHER, part, name)

    def _holds(self) -> bool:
        """Both fingers touch the target."""
        _, mine, others = self._contacts()
        touching = mine[self.world.thing_of(others) == self.target]
        return bool(np.isin(self.world.fingers, touching).all())

    def _between(self) -> str:
        """Something else that both fingers touch."""
        _, mine, others = self._contacts()
        things = self.world.thing_of(others)
        for i in np.unique(things[things >= 0]):
            if np.isin(self.world.fingers, mine[things == i]).all():
                return self.world.things[i].name
        return ""

    def _in_hand(self) -> NDArray[np.float64]:
        d, hand = self.world.data, self.world.hand
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = d.xmat[hand].reshape(3, 3), d.xpos[hand]
        return (invert(T) @ self.world.pose(self.target))[:3, 3]

    def _slip(self, held: NDArray[np.float64]) -> float:
        return float(np.linalg.norm(self._in_hand() - held))


def _smooth(t: float) -> float:
    """0..1 with no speed at both ends."""
    return 0.5 - 0.5 * float(np.cos(np.pi * t))
