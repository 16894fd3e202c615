# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A simulated cell for `pick_example`: things on a table, a camera over it, a gripper that really lifts them (MuJoCo).

Camera and images are a driver's. The gripper has no arm: it appears at the pre-grasp, and from there on everything is
physics. While it is in the camera's sight, no images are sent.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from seg_perception.grasping.gripper import load_jaws
from seg_perception.ros.camera import Camera, Shot
from seg_perception.sim.motion import look_at
from seg_perception.sim.picking.hand import Hand
from seg_perception.sim.picking.things import random_thing
from seg_perception.sim.picking.view import take_view
from seg_perception.sim.picking.world import World

EYE, MIDDLE = (0.0, -0.45, 0.62), (0.0, 0.0, 0.02)  # m, world: z up, origin on the table
SPREAD = 0.17  # m, things are dropped this near the middle


class PickCell(Camera):
    """Parameters: `things` how many, `seed` which ones, `gripper` a name or a file, `noise` of the depth sensor."""

    def __init__(self) -> None:
        super().__init__("pick_cell")
        declare = self.declare_parameter
        count, self._seed = int(declare("things", 6).value), int(declare("seed", 0).value)
        self._noise = str(declare("noise", "d435").value)
        if not 1 <= count <= 20:
            raise ValueError(f"things: expected 1 to 20, got {count}")
        self.gripper = load_jaws(str(declare("gripper", "robotiq_2f_85").value))
        rng = np.random.default_rng(self._seed)
        self._world = World([random_thing(rng) for _ in range(count)], self.gripper)
        self._left = {int(i) for i in np.flatnonzero(self._world.drop(rng, SPREAD))}
        self.T_world_camera: NDArray[np.float64] = look_at(EYE, MIDDLE)
        self.hand = Hand(self._world)
        self._shot: Shot | None = None
        self._looks = 0
        self.look()
        self.play(self._shots_forever(), with_truth=True)

    def look(self) -> None:
        """A new picture of the table as it is now, sent from now on; the gripper must be out of sight."""
        self._looks += 1
        view = take_view(self._world, self.T_world_camera, 1000 * self._seed + self._looks, self._noise)
        self._shot = Shot(f"{self._looks:03d}", view.frame, view.labels, self.T_world_camera)

    def blind(self) -> None:
        """Nothing is sent any more, until the next look."""
        self._shot = None

    def take_away(self, thing: int | None) -> None:
        """What the gripper holds goes into the bin, the gripper out of sight."""
        self._left.discard(-1 if thing is None else thing)
        self.hand.park(thing)

    @property
    def left(self) -> int:
        """How many things are on the table, in truth."""
        return len(self._left)

    def name_of(self, thing: int) -> str:
        """What kind of thing that is, in truth."""
        return self._world.things[thing].name

    def _tick(self) -> None:
        if self._shot is not None:
            super()._tick()

    def _shots_forever(self) -> Iterator[Shot]:
        while True:
            shot = self._shot
            if shot is not None:
                yield shot
