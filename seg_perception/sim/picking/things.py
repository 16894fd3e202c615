# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Things to pick, made of convex pieces that camera and physics share: what is seen is what is touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seg_perception.geometry import rotation_with_z, transform

SIDES = 20  # of what is round and hollow
FINEST = 0.0005  # m, corners of hulls nearer than this are one


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A convex solid in its thing's frame: a MuJoCo geom type, its `size` m as MuJoCo takes it, or a hull's `corners`
    (K, 3) m."""

    kind: str  # box, cylinder, sphere, ellipsoid, capsule, hull
    size: tuple[float, ...] = ()
    T_thing_piece: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    corners: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 3)))


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """A rigid thing. `density` kg/m^3 of its pieces, `friction` of its surface on the table and other things,
    `color` sRGB 0..1. `name` is its kind; z is up when it stands, as it is set down if `stands` (upside down a bowl is
    wider than any usual gripper)."""

    name: str
    pieces: tuple[Piece, ...]
    density: float = 450.0
    friction: float = 0.5
    color: tuple[float, float, float] = (0.7, 0.7, 0.7)
    stands: bool = False


def box(size: ArrayLike, centre: ArrayLike = (0, 0, 0)) -> Piece:
    """Full extents `size` (3,) m."""
    x, y, z = np.asarray(size, np.float64) / 2
    return Piece("box", (x, y, z), transform(translation=centre))


def cylinder(radius: float, height: float, z: float = 0.0) -> Piece:
    """Upright, its middle at `z`."""
    return Piece("cylinder", (radius, height / 2), transform(translation=(0, 0, z)))


def rod(start: ArrayLike, end: ArrayLike, radius: float) -> Piece:
    """A capsule between two points (3,) m."""
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    length = float(np.linalg.norm(b - a))
    return Piece("capsule", (radius, length / 2), transform(rotation_with_z((b - a) / length), (a + b) / 2))


def hull(corners: ArrayLike) -> Piece:
    """The convex hull of `corners` (K, 3) m."""
    points = np.asarray(corners, np.float64)
    _, kept = np.unique(np.round(points / FINEST), axis=0, return_index=True)
    return Piece("hull", corners=points[np.sort(kept)])


def turned(profile: Sequence[tuple[float, float]]) -> Piece:
    """A solid of revolution around z through `profile` r, z m; its hull if the profile is not convex."""
    angles = np.arange(SIDES) * 2 * np.pi / SIDES
    return hull([(r * np.cos(a), r * np.sin(a), z) for r, z in profile for a in angles])


def wall(outer: Sequence[tuple[float, float]], thickness: float) -> list[Piece]:
    """A hollow body of revolution: panels `thickness` m strong inside the outline `outer` r, z m, from below up."""
    angles = np.arange(SIDES + 1) * 2 * np.pi / SIDES
    panels = []
    for (r0, z0), (r1, z1) in pairwise(outer):
        ring = ((r0, z0), (r1, z1), (r1 - thickness, z1), (r0 - thickness, z0))
        for a, b in pairwise(angles):
            panels.append(hull([(r * np.cos(t), r * np.sin(t), z) for r, z in ring for t in (a, b)]))
    return panels


# -- kinds; each takes a random generator ----------------------------------------------------------------------------


def _box(rng: np.random.Generator) -> Thing:
    """Two of its sides fit between usual jaws, so that it can be taken whatever it lies on."""
    return Thing("box", (box((rng.uniform(0.025, 0.07), rng.uniform(0.03, 0.07), rng.uniform(0.03, 0.14))),))


def _plate(rng: np.random.Generator) -> Thing:
    return Thing("plate", (box((rng.uniform(0.04, 0.075), rng.uniform(0.06, 0.15), rng.uniform(0.009, 0.02))),))


def _can(rng: np.random.Generator) -> Thing:
    return Thing("can", (cylinder(rng.uniform(0.016, 0.037), rng.uniform(0.04, 0.13)),))


def _ball(rng: np.random.Generator) -> Thing:
    return Thing("ball", (Piece("sphere", (rng.uniform(0.017, 0.037),)),))


def _egg(rng: np.random.Generator) -> Thing:
    a = rng.uniform(0.016, 0.034)
    return Thing("egg", (Piece("ellipsoid", (a * rng.uniform(1.0, 1.8), a * rng.uniform(0.85, 1.0), a)),))


def _pen(rng: np.random.Generator) -> Thing:
    half = rng.uniform(0.045, 0.08)
    return Thing("pen", (rod((-half, 0, 0), (half, 0, 0), rng.uniform(0.007, 0.014)),))


def _bottle(rng: np.random.Generator) -> Thing:
    r, body, neck = rng.uniform(0.022, 0.036), rng.uniform(0.06, 0.12), rng.uniform(0.010, 0.015)
    shoulder, top = rng.uniform(0.015, 0.035), rng.uniform(0.015, 0.04)
    z = body + shoulder
    cap = cylinder(neck, top, z + top / 2 - body / 2)
    cone = turned([(r, body / 2), (neck, z - body / 2)])
    return Thing("bottle", (cylinder(r, body), cone, cap))


def _tumbler(rng: np.random.Generator) -> Thing:
    """A hollow cup without a handle, wider above."""
    low, high, h = rng.uniform(0.024, 0.032), rng.uniform(0.033, 0.044), rng.uniform(0.07, 0.11)
    floor = turned([(low, 0), (low, 0.005)])
    return Thing("tumbler", (floor, *wall([(low, 0.0), (high, h)], rng.uniform(0.0035, 0.006))), density=900.0)


def _mug(rng: np.random.Generator) -> Thing:
    r, h, thick = rng.uniform(0.032, 0.046), rng.uniform(0.07, 0.105), rng.uniform(0.004, 0.006)
    out, half, grip = rng.uniform(0.022, 0.032), rng.uniform(0.5, 0.65) * h / 2, rng.uniform(0.004, 0.006)
    corners = [(r - 0.002, half), (r + out, 0.75 * half), (r + out, -0.75 * half), (r - 0.002, -half)]
    points = [np.array([x, 0.0, h / 2 + z]) for x, z in corners]
    handle = [rod(a, b, grip) for a, b in pairwise(points)]
    floor = turned([(r - 0.001, 0), (r - 0.001, 0.006)])
    return Thing("mug", (floor, *wall([(r, 0.0), (r, h)], thick), *handle), density=900.0)


def _bowl(rng: np.random.Generator) -> Thing:
    r, h, thick = rng.uniform(0.05, 0.08), rng.uniform(0.035, 0.06), rng.uniform(0.004, 0.006)
    outline = [(0.45 * r, 0.0), (0.8 * r, 0.3 * h), (r, h)]
    floor = turned([(0.45 * r, 0), (0.45 * r, 0.005)])
    return Thing("bowl", (floor, *wall(outline, thick)), density=900.0, stands=True)


def _wedge(rng: np.random.Generator) -> Thing:
    length, width, h = rng.uniform(0.06, 0.11), rng.uniform(0.035, 0.07), rng.uniform(0.03, 0.06)
    ridge = rng.uniform(0.0, 1.0) * length
    sides = [(0, 0), (length, 0), (ridge, h)]
    return Thing("wedge", (hull([(x - length / 2, y, z - h / 3) for x, z in sides for y in (-width / 2, width / 2)]),))


def _bracket(rng: np.random.Generator) -> Thing:
    """An L."""
    a, b = rng.uniform(0.06, 0.12), rng.uniform(0.05, 0.1)
    leg, high = rng.uniform(0.02, 0.035), rng.uniform(0.025, 0.06)
    return Thing("bracket", (box((a, leg, high), (a / 2, 0, 0)), box((leg, b, high), (leg / 2, leg / 2 + b / 2, 0))))


def _cross(rng: np.random.Generator) -> Thing:
    """A T or a +."""
    a, b = rng.uniform(0.07, 0.12), rng.uniform(0.06, 0.11)
    leg, high, shift = rng.uniform(0.018, 0.03), rng.uniform(0.02, 0.05), rng.uniform(0.0, 1.0)
    return Thing("cross", (box((a, leg, high)), box((leg, b, high), (0, shift * (b / 2 - leg / 2), 0))))


def _nut(rng: np.random.Generator) -> Thing:
    """A prism of five to eight sides."""
    r, h, n = rng.uniform(0.022, 0.038), rng.uniform(0.025, 0.07), int(rng.integers(5, 9))
    angles = np.arange(n) * 2 * np.pi / n
    return Thing("nut", (hull([(r * np.cos(a), r * np.sin(a), z) for a in angles for z in (-h / 2, h / 2)]),))


def _stone(rng: np.random.Generator) -> Thing:
    """The hull of random points on an ellipsoid."""
    points = rng.standard_normal((24, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return Thing("stone", (hull(points * rng.uniform(0.02, 0.042, 3)),))


def _banana(rng: np.random.Generator) -> Thing:
    bend, r = rng.uniform(0.06, 0.12), rng.uniform(0.012, 0.018)
    half = rng.uniform(0.045, 0.075) / bend
    points = [bend * np.array([np.sin(a), np.cos(a) - 1, 0.0]) for a in np.linspace(-half, half, 6)]
    radii = r * np.array([0.75, 1.0, 1.05, 1.0, 0.75])
    links = [rod(p, q, float(s)) for p, q, s in zip(points[:-1], points[1:], radii, strict=True)]
    return Thing("banana", tuple(links))


def _hammer(rng: np.random.Generator) -> Thing:
    long, grip = rng.uniform(0.10, 0.17), rng.uniform(0.009, 0.014)
    head = box((rng.uniform(0.025, 0.035), rng.uniform(0.06, 0.09), rng.uniform(0.022, 0.032)), (long, 0, 0))
    return Thing("hammer", (rod((0, 0, 0), (long, 0, 0), grip), head))


def _pear(rng: np.random.Generator) -> Thing:
    r = rng.uniform(0.025, 0.036)
    top = r * rng.uniform(0.5, 0.7)
    lower = Piece("sphere", (r,))
    neck = turned([(0.92 * r, 0.4 * r), (0.95 * top, 1.3 * r), (0.5 * top, 1.3 * r + 0.85 * top)])
    return Thing("pear", (lower, neck))


Maker = Callable[[np.random.Generator], Thing]
KINDS: dict[str, Maker] = {
    f.__name__[1:]: f
    for f in (
        _box, _plate, _can, _ball, _egg, _pen, _bottle, _tumbler, _mug, _bowl, _wedge, _bracket, _cross, _nut, _stone,
        _banana, _hammer, _pear,
    )
}  # fmt: skip


def random_thing(rng: np.random.Generator, kinds: Mapping[str, Maker] = KINDS) -> Thing:
    """One of `kinds` in random size, weight, friction and color."""
    thing = kinds[list(kinds)[rng.integers(len(kinds))]](rng)
    density = thing.density * float(rng.uniform(0.6, 1.5))
    color = tuple(float(c) for c in rng.uniform(0.2, 0.95, 3))
    return replace(thing, density=density, friction=float(rng.uniform(0.3, 0.7)), color=color)


def chosen_kinds(names: Sequence[str]) -> dict[str, Maker]:
    """The kinds of those names, all if there are none. Raises ValueError naming one that does not exist."""
    for name in names:
        if name not in KINDS:
            raise ValueError(f"things: expected some of {', '.join(KINDS)}, got '{name}'")
    return {name: KINDS[name] for name in names or KINDS}
