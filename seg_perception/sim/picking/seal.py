# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a suction cup would hold, by geometry: MuJoCo has no vacuum.

The cup holds when nothing is in its way, its rim lies on the thing all around (a plane up to what the lip gives, no
more tilted than the cup bends), and the weight, shaken, does not tip it over its rim: m (g + a) (d + r) <= F r, with F
the vacuum's force and d the level distance from the cup to the centre of mass. Seal by rim rays as in Mahler et al.,
Dex-Net 3.0 (ICRA 2018) and Cao et al., SuctionNet-1Billion (RA-L 2021).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seg_perception.grasping.gripper import SuctionCup
from seg_perception.sim.picking.trial import Outcome, Verdict
from seg_perception.sim.picking.world import TABLE, World

RIM = 72  # rays
RINGS = (0.0, 0.35, 0.7)  # of the cup's radius, inside the rim
GIVE = 0.1  # of the cup's radius, what the lip evens out to either side of a plane
BULGE = 0.25  # of the cup's radius, how far the thing may rise into the cup
VACUUM = 50e3  # Pa below the air's pressure
BEFORE = 0.5  # m before the contact, whatever is nearer to the cup's way than its body is hit
ACCELERATION = 9.81 + 5.0  # m/s^2, gravity and the shaking of `trial`


def check_seal(world: World, target: int, T_world_grasp: NDArray[np.float64], cup: SuctionCup) -> Verdict:
    """What would come of a suction grasp of thing `target`; the world must be at rest.

    A cup whose `max_force` is 0 holds by its area.
    """
    turn = np.arange(RIM) * 2 * np.pi / RIM
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    inner = np.concatenate([circle[:: RIM // 12] * f for f in RINGS]) * cup.cup_radius
    body = np.concatenate([circle[:: RIM // 24] * f for f in (0.25, 0.5, 0.75, 1.0)]) * cup.body_radius

    height, things = _cast(world, T_world_grasp, body)
    if (height < -cup.cup_length).any():
        return _hit(world, target, things[np.argmin(height)], "body")
    rim = circle * cup.cup_radius
    height, things = _cast(world, T_world_grasp, rim)
    foreign = things != target
    bulge = BULGE * cup.cup_radius
    if (foreign & (height < bulge)).any():
        return _hit(world, target, things[np.argmin(np.where(foreign, height, np.inf))], "cup")
    if foreign.any():
        return Verdict(Outcome.NO_SEAL, "cup", "beyond the edge")
    plane = np.column_stack([rim, np.ones(RIM)])
    slope = np.linalg.lstsq(plane, height, rcond=None)[0]
    uneven = float(np.abs(height - plane @ slope).max())
    if np.arctan(np.hypot(slope[0], slope[1])) > cup.max_tilt:
        return Verdict(Outcome.NO_SEAL, "cup", "tilted")
    if uneven > GIVE * cup.cup_radius:
        return Verdict(Outcome.NO_SEAL, "cup", "uneven rim", uneven)
    height, _ = _cast(world, T_world_grasp, inner)
    if (np.column_stack([inner, np.ones(len(inner))]) @ slope - height > bulge).any():
        return Verdict(Outcome.NO_SEAL, "cup", "bulge")
    force = cup.max_force or VACUUM * np.pi * cup.cup_radius**2
    arm = float(np.linalg.norm((world.com(target) - T_world_grasp[:3, 3])[:2]))
    if world.mass(target) * ACCELERATION * (arm + cup.cup_radius) > force * cup.cup_radius:
        return Verdict(Outcome.TOO_HEAVY, "cup", f"{world.mass(target):.2f} kg, {1000 * arm:.0f} mm off centre")
    return Verdict(Outcome.PICKED)


def _cast(
    world: World, T: NDArray[np.float64], xy: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Along the approach through each of `xy` (N, 2) m of the grasp's frame: how far beyond its origin something is
    met, inf = nothing, and which thing, -1 = the table or nothing."""
    starts = xy @ T[:3, :2].T + T[:3, 3] - BEFORE * T[:3, 2]
    heights, things = np.full(len(xy), np.inf), np.full(len(xy), -1)
    for k, start in enumerate(starts):
        spot = world.meet(start, T[:3, 2].copy())
        if spot is not None:
            heights[k], things[k] = spot.distance - BEFORE, spot.thing
    return heights, things


def _hit(world: World, target: int, thing: int, part: str) -> Verdict:
    if thing < 0:
        return Verdict(Outcome.HITS_TABLE, part, TABLE)
    return Verdict(Outcome.HITS_TARGET if thing == target else Outcome.HITS_OTHER, part, world.things[thing].name)
