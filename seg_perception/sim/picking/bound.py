# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What no planner can beat: does any grasp pick the thing at all? Found by trying many, with the truth at hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import rotation_with_z, transform
from seg_perception.grasping.gripper import SuctionCup
from seg_perception.scene import Grasp, GraspKind
from seg_perception.sim.picking.seal import check_seal
from seg_perception.sim.picking.things import Piece
from seg_perception.sim.picking.trial import Outcome, Verdict, execute
from seg_perception.sim.picking.world import World

NAME, CUP_NAME = "any grasp", "any cup"
SAMPLES, TRIES = 1600, 32  # poses looked at, and of those without collision how many are carried out
TILTS = (0.0, 20.0, 40.0, 60.0)  # degrees from straight down
OPENINGS = (1.0, 0.6, 0.35)  # of the stroke
LIFT = 0.012  # m, poses are raised by up to this: fingertips reach below the tool centre point
SPOTS = 250  # tried for a cup
WAY = (0.0, 0.01, 0.03, 0.06, 0.1)  # m before the grasp where the gripper must hit nothing


def find_any(world: World, target: int, seed: int) -> tuple[Grasp | None, Verdict]:
    """A grasp that picks thing `target` (`T_camera_grasp` is in world coordinates), or that none was found."""
    rng = np.random.default_rng((seed, target))
    tried, last = 0, Verdict(Outcome.NO_GRASP, other="everything collides")
    world.reset()
    for _ in range(SAMPLES):
        T, opening = _some_grasp(world, target, rng)
        if not _free(world, T, opening):
            continue
        grasp = Grasp(T, opening, float("nan"), GraspKind.PARALLEL_JAW, NAME, world.gripper.name)
        verdict = execute(world, target, T, grasp)
        if verdict.outcome.success:
            return grasp, verdict
        world.reset()
        tried, last = tried + 1, verdict
        if tried == TRIES:
            break
    return None, Verdict(Outcome.NO_GRASP, other=f"{tried} tried, last: {last.outcome.value}")


def find_any_seal(world: World, target: int, cups: Sequence[SuctionCup], seed: int) -> tuple[Grasp | None, Verdict]:
    """A spot where one of the cups, square to the surface, holds thing `target`, or that none was found."""
    rng = np.random.default_rng((seed, target))
    last = Verdict(Outcome.NO_GRASP, other="no surface from above")
    world.reset()
    for _ in range(SPOTS):
        tilt, turn = np.radians(rng.uniform(0.0, TILTS[-1])), rng.uniform(0, 2 * np.pi)
        up = np.array([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)])
        spot = world.meet(_some_point(world, target, rng) + 0.4 * up, -up)
        if spot is None or spot.thing != target or spot.normal[2] < np.cos(np.radians(TILTS[-1])):
            continue
        T = transform(rotation_with_z(-spot.normal), spot.point)
        for cup in cups:
            last = check_seal(world, target, T, cup)
            if last.outcome.success:
                return Grasp(T, 0.0, float("nan"), GraspKind.SUCTION, CUP_NAME), last
    return None, Verdict(Outcome.NO_GRASP, other=f"last: {last.outcome.value} {last.other}")


def _some_point(world: World, target: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(3,) m inside thing `target`."""
    pieces = world.things[target].pieces
    T = world.pose(target)
    return T[:3, :3] @ _inside(pieces[rng.integers(len(pieces))], rng) + T[:3, 3]


def _some_grasp(world: World, target: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    """A pose with its tool centre point inside the thing, and an opening."""
    point = _some_point(world, target, rng) + rng.uniform(0.0, LIFT) * np.array([0.0, 0.0, 1.0])
    tilt, turn = np.radians(TILTS[rng.integers(len(TILTS))]), rng.uniform(0, 2 * np.pi)
    approach = np.array([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), -np.cos(tilt)])
    along = (
        rng.standard_normal(3) if rng.uniform() < 0.5 else world.pose(target)[:3, rng.integers(3)]
    )  # or one of its axes
    return transform(rotation_with_z(approach, along), point), world.gripper.stroke * float(rng.choice(OPENINGS))


def _inside(piece: Piece, rng: np.random.Generator) -> NDArray[np.float64]:
    """A point (3,) m of a piece, in its thing's frame."""
    if piece.kind == "hull":
        return rng.dirichlet(np.full(len(piece.corners), 0.3)) @ piece.corners
    half = {
        "box": lambda s: s,
        "ellipsoid": lambda s: s,
        "sphere": lambda s: np.repeat(s, 3),
        "cylinder": lambda s: np.array([s[0], s[0], s[1]]),
        "capsule": lambda s: np.array([s[0], s[0], s[0] + s[1]]),
    }[piece.kind](np.array(piece.size))
    T = piece.T_thing_piece
    return T[:3, :3] @ (rng.uniform(-0.7, 0.7, 3) * half) + T[:3, 3]


def _free(world: World, T: NDArray[np.float64], opening: float) -> bool:
    """Whether the open gripper hits nothing there and on its way."""
    own = np.isin(np.arange(world.model.ngeom), [*world.fingers, world.palm])
    for back in WAY:
        world.put_hand(T[:3, 3] - back * T[:3, 2], T[:3, :3], opening)
        world.mujoco.mj_kinematics(world.model, world.data)
        world.mujoco.mj_collision(world.model, world.data)
        geoms = world.data.contact.geom
        if len(geoms) and (own[geoms[:, 0]] != own[geoms[:, 1]]).any():
            return False
    return True
