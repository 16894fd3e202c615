# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The surface of a gripper as planners take it to be: boxes of fingers and palm, or a lip, bellows and mount.

Triangles (T, 3, 3) m in the grasp frame (+z approach, +y closing), each wound counterclockwise seen from outside.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seg_perception.grasping.gripper import Gripper, SuctionCup

SIDES = 16  # of what is round
STEM = 0.06  # m of the mount that is drawn
QUADS = ((0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5))  # bit 0 of a corner is +x


def gripper_triangles(gripper: Gripper | SuctionCup, width: float = 0.0) -> NDArray[np.float64]:
    """The whole gripper; jaws `width` m apart, which a cup does not heed."""
    if isinstance(gripper, SuctionCup):
        return _cup(gripper)
    g = gripper
    tip, palm = g.tip_beyond_tcp, g.tip_beyond_tcp - g.finger_length
    inner, outer, half = width / 2, width / 2 + g.finger_thickness, g.finger_width / 2
    x, y, z = np.array(g.palm_size) / 2
    return np.concatenate(
        [
            _box((-half, inner, palm), (half, outer, tip)),
            _box((-half, -outer, palm), (half, -inner, tip)),
            _box((-x, -y, palm - 2 * z), (x, y, palm)),
        ]
    )


def _box(low: ArrayLike, high: ArrayLike) -> NDArray[np.float64]:
    """(12, 3, 3) of a box between two corners."""
    bits = np.arange(8)[:, None] >> np.arange(3) & 1
    corners = np.where(bits, np.asarray(high, np.float64), np.asarray(low, np.float64))
    return np.concatenate([[corners[[a, b, c]], corners[[a, c, d]]] for a, b, c, d in QUADS])


def _cup(cup: SuctionCup) -> NDArray[np.float64]:
    """A cone from the lip at z = 0 back to the mount, and the mount."""
    rings = [
        (0.0, 0.0),
        (cup.cup_radius, 0.0),
        (min(cup.cup_radius, cup.body_radius), -cup.cup_length),
        (cup.body_radius, -cup.cup_length),
        (cup.body_radius, -cup.cup_length - STEM),
        (0.0, -cup.cup_length - STEM),
    ]
    turn = np.arange(SIDES + 1) * 2 * np.pi / SIDES
    points = np.array([[[r * np.cos(t), r * np.sin(t), z] for t in turn] for r, z in rings])
    faces = []
    for near, far in itertools.pairwise(points):  # from the lip to the end
        a, b, c, d = near[:-1], near[1:], far[1:], far[:-1]
        faces += [np.stack([a, c, b], axis=1), np.stack([a, d, c], axis=1)]
    triangles = np.concatenate(faces)
    sides = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    return triangles[np.linalg.norm(sides, axis=1) > 1e-12]  # the ends are fans: half of their faces have no area
