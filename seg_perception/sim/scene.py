# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Simulated scenes: a table with things on it, in a room with a floor and walls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seg_perception.sim import objects as things
from seg_perception.sim.lighting import LIGHT
from seg_perception.sim.objects import CATALOGUE, LYING, Body
from seg_perception.sim.shapes import Look, box

TABLE_SIZE = (1.16, 0.80)  # m
TABLE_HEIGHT = 0.74  # m over the floor
ROLLING = ("soup_can", "soda_can", "bottle")  # also lie on their side
FLAT_TOPS = ("parcel", "book")
STACKABLE = ("tea", "soup_can", "mug")
GRAVITY_WORLD = np.array([0.0, 0.0, -1.0])


def area_light(centre: ArrayLike, edge_u: ArrayLike, edge_v: ArrayLike, power: ArrayLike) -> NDArray[np.void]:
    """A LIGHT record: `centre` and half edges (3,) m; it shines along edge_u x edge_v; `power` (3,) linear RGB."""
    light = np.zeros(1, LIGHT)
    light["centre"], light["edge_u"], light["edge_v"], light["power"] = centre, edge_u, edge_v, power
    facing = np.cross(edge_u, edge_v)
    light["facing"] = facing / np.linalg.norm(facing)
    return light


def room_lights() -> NDArray[np.void]:
    """A window to the left in front, a large lamp over the table."""
    window = area_light([-1.35, -0.75, 1.35], [-0.14, 0.25, 0.0], [-0.15, -0.08, 0.26], [6.6, 6.3, 5.7])
    lamp = area_light([0.25, 0.35, 1.60], [0.45, 0.0, 0.0], [0.0, -0.45, 0.0], [1.9, 1.95, 2.05])
    return np.concatenate([window, lamp])


ROOM_AMBIENT = np.array([[0.10, 0.09, 0.08], [0.20, 0.21, 0.225]])


@dataclass(frozen=True, slots=True, eq=False)
class SimScene:
    """`objects` carry the labels 1..N in this order; `furniture` is label 0. World: z up, origin on the support."""

    objects: tuple[Body, ...]
    furniture: tuple[Body, ...] = ()
    lights: NDArray[np.void] = field(default_factory=room_lights)  # (L,) LIGHT
    ambient: NDArray[np.float64] = field(default_factory=ROOM_AMBIENT.copy)  # (2, 3) linear RGB from below, above

    @property
    def looks(self) -> tuple[Look, ...]:
        """All different looks."""
        parts = (p for body in (*self.furniture, *self.objects) for p in body.parts)
        return tuple(dict.fromkeys(look for p in parts for look in p.looks))

    @property
    def description(self) -> str:
        """Everything that decides the pictures, as text; equal scenes have equal descriptions."""
        lines = [str(len(self.objects)), str(self.lights.tolist()), str(self.ambient.tolist())]
        for body in (*self.furniture, *self.objects):
            lines.append(f"{body.name} {body.T_world_body.tolist()} {body.casts_shadow}")
            for p in body.parts:
                lines.append(f"{p.kind} {p.params} {p.looks} {p.T_body_part.tolist()} {p.profile.tolist()}")
        return "\n".join(lines)

    def moved(self, poses: Mapping[str, NDArray[np.float64]]) -> SimScene:
        """The scene with the named objects at new `T_world_body` (4, 4)."""
        return replace(
            self, objects=tuple(replace(b, T_world_body=poses.get(b.name, b.T_world_body)) for b in self.objects)
        )

    def label(self, name: str) -> int:
        """The label of the object of that name. Raises KeyError."""
        names = [b.name for b in self.objects]
        if name not in names:
            raise KeyError(f"no object {name!r} in the scene; there are {', '.join(names)}")
        return names.index(name) + 1


def room(table: tuple[float, float] = TABLE_SIZE, table_look: Look | None = None) -> tuple[Body, ...]:
    """A room of 5 x 5.4 m around a wooden table whose top is at z = 0."""
    wall = Look(texture="plaster", tile=1.5, shine=0.0)
    floor = Look(texture="floor_tiles", tile=1.6, shine=0.12, gloss=20.0)
    plain = Look((225, 225, 222), shine=0.0)
    top = table_look or Look(texture="wood", tile=0.62, shine=0.12, gloss=24.0)
    dark = Look(texture="wood_dark", tile=0.62, shine=0.1)
    height, width, depth = 2.6, 5.0, 5.4
    shell = Body(
        "room",
        (box((width, depth, height), wall, wall, wall, wall, plain, floor, centre=(0, 0, height / 2 - TABLE_HEIGHT)),),
        casts_shadow=False,
    )
    board = box((width, 0.02, 0.1), plain, centre=(0, depth / 2 - 0.01, 0.05 - TABLE_HEIGHT))
    x, y, thick, leg = table[0] / 2, table[1] / 2, 0.032, 0.055
    slab = box((*table, thick), dark, dark, dark, dark, top, dark, centre=(0, 0, -thick / 2))
    long = TABLE_HEIGHT - thick
    feet = [
        box((leg, leg, long), dark, centre=(sx * (x - 0.06), sy * (y - 0.06), -thick - long / 2))
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    return shell, Body("skirting", (board,), casts_shadow=False), Body("table", (slab, *feet))


def demo_scene() -> SimScene:
    """The scene a newcomer sees first: twelve things, one pair stacked, one pair close together, one on its side."""
    parcel = things.parcel().at(0.285, 0.165, yaw=-18)
    objects = (
        things.crackers().at(-0.285, 0.175, yaw=22),
        things.bottle().at(-0.085, 0.215, yaw=-8),
        parcel,
        things.tea().at(0.275, 0.175, 0.11, yaw=12),
        things.soup_can().at(0.055, 0.185, yaw=6),
        things.mug().at(-0.165, 0.010, yaw=-35),
        things.bowl().at(0.105, -0.035),
        things.book().at(-0.285, -0.145, yaw=22),
        things.ball().at(-0.075, -0.135),
        things.soda_can().at(0.270, -0.085, yaw=62, tilt=LYING),
        things.sponge().at(0.165, -0.205, yaw=-20),
        things.lemon().at(0.062, -0.193, yaw=-20),
    )
    return SimScene(objects, room())


def random_scene(
    seed: int,
    objects: int = 10,
    stacked: int = 0,
    gap: float = 0.012,
    area: tuple[float, float] = (0.36, 0.26),
    names: Sequence[str] = (),
) -> SimScene:
    """Things strewn over the table, at least `gap` m apart, in the ellipse of half axes `area` m around its middle.

    `stacked` of the `objects` stand on others. `names` chooses among the catalogue (default all, repeated as needed; a
    repeated name gets _2, _3 ...). Raises ValueError when they do not fit.
    """
    rng = np.random.default_rng(seed)
    chosen = [make() for make in CATALOGUE if not names or make.__name__ in names]
    if not chosen:
        raise ValueError(f"names: none of {list(names)}; there are {', '.join(make.__name__ for make in CATALOGUE)}")
    bodies = [chosen[i] for _ in range(objects) for i in rng.permutation(len(chosen))][: objects - stacked]
    placed: list[Body] = []
    for body in bodies:
        placed.append(_somewhere(body, placed, gap, area, rng))
    tops = [b for b in placed if b.name in FLAT_TOPS]
    if stacked > len(tops):
        raise ValueError(f"stacked: {stacked}, but only {len(tops)} of the things have a flat top; choose another seed")
    for below in tops[:stacked]:
        small = [b for b in chosen if b.name in STACKABLE] or [
            make() for make in CATALOGUE if make.__name__ in STACKABLE
        ]
        body = small[rng.integers(len(small))]
        x, y, _ = below.box.T_camera_box[:3, 3]
        placed.append(body.at(x, y, below.box.corners[:, 2].max(), yaw=rng.uniform(0, 360)))
    return SimScene(_with_own_names(placed), room())


def _somewhere(
    body: Body, placed: Sequence[Body], gap: float, area: tuple[float, float], rng: np.random.Generator
) -> Body:
    """The body at a random place where it keeps its distance."""
    outlines = [other.box.corners[:, :2] for other in placed]
    for _ in range(400):
        r, turn, yaw = np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi), rng.uniform(0, 360)
        lying = LYING if body.name in ROLLING and rng.uniform() < 0.3 else None
        candidate = body.at(area[0] * r * np.cos(turn), area[1] * r * np.sin(turn), yaw=yaw, tilt=lying)
        if all(_apart(candidate.box.corners[:, :2], other) >= gap for other in outlines):
            return candidate
    raise ValueError(f"objects: only {len(placed)} fit in {area[0]} x {area[1]} m with gaps of {gap} m; give more area")


def _with_own_names(bodies: Sequence[Body]) -> tuple[Body, ...]:
    """The bodies, the second of a name called name_2."""
    seen: Counter[str] = Counter()
    out = []
    for body in bodies:
        seen[body.name] += 1
        out.append(body if seen[body.name] == 1 else replace(body, name=f"{body.name}_{seen[body.name]}"))
    return tuple(out)


def _apart(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Distance m between two convex outlines along the best separating axis; negative where they overlap."""
    axes = []
    for corners in (a, b):
        edges = corners[[1, 2, 4]] - corners[0]
        axes += [e[::-1] * [1, -1] / np.linalg.norm(e) for e in edges if np.linalg.norm(e) > 1e-9]
    gaps = [max((a @ n).min() - (b @ n).max(), (b @ n).min() - (a @ n).max()) for n in axes]
    return float(max(gaps))
