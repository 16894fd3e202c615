# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Scenes from seeds: one thing alone, or a heap of them, what a camera sees of it, and what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from seg_perception.grasping.gripper import Gripper
from seg_perception.sim.picking.things import KINDS, Maker, random_thing
from seg_perception.sim.picking.view import View, random_camera, take_view
from seg_perception.sim.picking.world import PILE, World

SCENES = {"single": (1, 1), "clutter": (6, 10)}  # how many things
SPLITS = {"development": 0, "held_out": 1_000_000}  # first seed; held-out scenes are never looked at while tuning
SEEN, PIXELS = 0.5, 300  # a target shows this share of its outline, and so many pixels
LOADED = 1 / 3  # and carries less than this share of another thing's weight: that one is picked first
TRIES = 8  # a thing alone that rolls away is dropped again


@dataclass(frozen=True, slots=True, eq=False)
class PickScene:
    """A settled world, its picture, and which things are targets: half seen or more, nothing lying on them."""

    world: World
    view: View
    targets: tuple[int, ...]


def make_scene(
    kind: str, seed: int, gripper: Gripper, noise: str = "d435", things: Mapping[str, Maker] = KINDS
) -> PickScene | None:
    """The scene of that seed, of those kinds of things; None if everything rolled away."""
    rng = np.random.default_rng((seed, list(SCENES).index(kind)))
    least, most = SCENES[kind]
    alone = most == 1
    for _ in range(TRIES if alone else 1):
        count = int(rng.integers(least, most + 1))
        world = World([random_thing(rng, things) for _ in range(count)], gripper)
        stayed = world.drop(rng, 0.04 if alone else PILE)
        if stayed.any():
            break
    else:
        return None
    view = take_view(world, random_camera(rng), seed, noise)
    pixels = np.bincount(view.labels.ravel(), minlength=count + 1)[1:]
    seen = np.flatnonzero(stayed & (view.visible >= SEEN) & (pixels >= PIXELS))
    return PickScene(world, view, tuple(int(i) for i in seen if world.carries(i) < LOADED))
