# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A gripper without an arm in a world that is never set back: what a pick leaves behind is what the next one finds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import transform
from seg_perception.sim.picking.world import AWAY, PARKED, World

TICK = 0.004  # s between two set points
SPEED = 0.15  # m/s along a straight line
CLOSING = 0.9  # s
SETTLING = 0.6  # s, for what lost its neighbour
FLICKER = 6  # looks in a row; a contact may flicker


class Hand:
    """Goes to where it is told, in straight lines, with the stiffness of a robot's arm."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._at, self._opening = PARKED, 0.0

    def appear(self, T_world_tcp: NDArray[np.float64], opening: float) -> None:
        """At that pose (4, 4), open by so many m: the way there is not simulated."""
        self._at = T_world_tcp[:3, 3].copy()
        self._opening = min(opening, self._world.gripper.stroke)
        self._world.put_hand(self._at, T_world_tcp[:3, :3], self._opening)
        self._world.mujoco.mj_forward(self._world.model, self._world.data)

    def move(self, to: NDArray[np.float64]) -> None:
        """Straight to the point (3,) m."""
        start = self._at
        ticks = max(1, round(float(np.linalg.norm(to - start)) / SPEED / TICK))
        for k in range(1, ticks + 1):
            self._world.drive(start + k / ticks * (to - start), self._opening)
            self._world.step(TICK)
        self._at = np.array(to)

    def close(self) -> None:
        """With the world's grip force."""
        self._opening = 0.0
        self._world.drive(self._at, 0.0)
        self._world.step(CLOSING)

    def held(self) -> int | None:
        """Which thing both fingers touch."""
        world = self._world
        for _ in range(FLICKER):
            geoms = world.data.contact.geom[: world.data.ncon]
            touched = [world.thing_of(geoms[(geoms == finger).any(axis=1)].ravel()) for finger in world.fingers]
            both = set(touched[0].tolist()) & set(touched[1].tolist()) - {-1}
            if both:
                return min(both)
            world.step(TICK)
        return None

    def park(self, taken: int | None = None) -> None:
        """Out of the camera's sight, with thing `taken`; what is left comes to rest."""
        world = self._world
        if taken is not None:
            world.place(taken, transform(translation=[AWAY + taken, 0.0, 0.3]))
        self.appear(transform(translation=PARKED), 0.0)
        world.step(SETTLING)
        world.rest = world.state()
