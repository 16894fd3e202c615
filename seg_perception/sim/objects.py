# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Things on the table. Each stands on its own origin, z up, sizes as in a real kitchen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import transform
from seg_perception.scene import OrientedBox
from seg_perception.sim.shapes import Look, Part, arc, box, capsule, ellipsoid, lathe

METAL = Look((196, 198, 202), shine=0.5, gloss=60.0)


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A rigid thing made of parts. `T_world_body` (4, 4); the world's origin is the middle of the table's top, z up."""

    name: str
    parts: tuple[Part, ...]
    T_world_body: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    casts_shadow: bool = True

    @property
    def bounds(self) -> NDArray[np.float64]:
        """Exact minimum and maximum (2, 3) m along the body's own axes."""
        axes = np.concatenate([-np.eye(3), np.eye(3)])
        reach = [p.reach(axes @ p.T_body_part[:3, :3]) + axes @ p.T_body_part[:3, 3] for p in self.parts]
        low, high = np.max(reach, axis=0).reshape(2, 3)
        return np.stack([-low, high])

    @property
    def box(self) -> OrientedBox:
        """The true box, axes along the body's own, placed in the world."""
        low, high = self.bounds
        return OrientedBox(self.T_world_body @ transform(translation=(low + high) / 2), high - low)

    def at(self, x: float, y: float, z: float = 0.0, yaw: float = 0.0, tilt: NDArray[np.float64] | None = None) -> Body:
        """The body standing at x, y, z m, turned by `yaw` degrees; `tilt` (3, 3) lays it down first."""
        c, s = np.cos(np.deg2rad(yaw)), np.sin(np.deg2rad(yaw))
        R = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        T = transform(R if tilt is None else R @ tilt)
        low = replace(self, T_world_body=T).lowest
        return replace(self, T_world_body=transform(translation=[x, y, z - low]) @ T)

    @property
    def lowest(self) -> float:
        """Height m of the lowest point in the world."""
        down = np.array([[0.0, 0.0, -1.0]])
        reach = []
        for p in self.parts:
            T = self.T_world_body @ p.T_body_part
            reach.append(float(p.reach(down @ T[:3, :3])[0]) - T[2, 3])
        return -max(reach)


LYING = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])  # the body's z axis along world -y


def _packet(name: str, size: tuple[float, float, float], side: str, front: str, top: str = "") -> Body:
    looks = [Look(texture=t, shine=0.12, gloss=25.0) for t in (side, side, front, front, top or side, side)]
    return Body(name, (box(size, *looks, centre=(0, 0, size[2] / 2)),))


def parcel() -> Body:
    """A cardboard box wider than the usual gripper."""
    plain, side, top = (Look(texture=t, shine=0.02) for t in ("cardboard", "cardboard_side", "cardboard_top"))
    return Body("parcel", (box((0.20, 0.15, 0.11), plain, plain, side, side, top, plain, centre=(0, 0, 0.055)),))


def crackers() -> Body:
    return _packet("crackers", (0.155, 0.060, 0.205), "crackers_side", "crackers_front")


def tea() -> Body:
    return _packet("tea", (0.085, 0.062, 0.070), "tea_side", "tea_front", "tea_front")


def sponge() -> Body:
    pad = Look((54, 130, 70), shine=0.0)
    foam = Look(texture="sponge_holes", tile=0.06, shine=0.0)
    lower = box((0.105, 0.07, 0.024), foam, centre=(0, 0, 0.012))
    return Body("sponge", (lower, box((0.105, 0.07, 0.009), pad, centre=(0, 0, 0.0285))))


def book() -> Body:
    cover, pages, spine = Look(texture="book_cover"), Look(texture="book_pages", shine=0.02), Look((30, 52, 86))
    return Body("book", (box((0.150, 0.210, 0.026), pages, spine, pages, pages, cover, spine, centre=(0, 0, 0.013)),))


def _can(name: str, label: str, radius: float, height: float) -> Body:
    paper = Look(texture=label, shine=0.3, gloss=50.0)
    r, h = radius, height
    rim = [(r - 0.002, h), (r - 0.004, h), (r - 0.004, h - 0.003), (0, h - 0.003)]
    profile = [(0, 0), (r - 0.003, 0), (r, 0.003), (r, h - 0.004), *rim]
    return Body(name, (lathe(profile, METAL, METAL, paper, METAL, METAL, METAL, METAL),))


def soup_can() -> Body:
    return _can("soup_can", "soup_label", 0.034, 0.102)


def soda_can() -> Body:
    return _can("soda_can", "soda_label", 0.033, 0.115)


def bottle() -> Body:
    juice = Look((226, 120, 34), shine=0.6, gloss=80.0)
    label, cap = Look(texture="bottle_label", shine=0.2), Look((34, 116, 62), shine=0.3)
    shoulder = arc((0.012, 0.125), 0.0225, 0, 80, 8)
    profile = [(0, 0), (0.030, 0), (0.0345, 0.006), (0.0345, 0.035), (0.0350, 0.035), (0.0350, 0.105)]
    profile += [
        (0.0345, 0.105),
        *shoulder,
        (0.0130, 0.158),
        (0.0130, 0.175),
        (0.0160, 0.175),
        (0.0160, 0.195),
        (0, 0.195),
    ]
    looks = [juice] * 4 + [label] + [juice] * (len(shoulder) + 3) + [cap] * 3
    return Body("bottle", (lathe(profile, *looks),))


def mug() -> Body:
    """A hollow mug with a handle along +x."""
    r, h, wall = 0.0375, 0.092, 0.004
    out, glaze = Look(texture="mug_stripes", shine=0.45, gloss=70.0), Look((238, 232, 220), shine=0.45, gloss=70.0)
    rim = arc((r - wall / 2, h - wall / 2), wall / 2, 0, 180, 6)
    profile = [(0, 0), (r - 0.004, 0), (r, 0.004), *rim, (r - wall, 0.012), (r - wall - 0.006, 0.006), (0, 0.006)]
    cup = lathe(profile, glaze, glaze, out, *[glaze] * (len(profile) - 4))
    ring = [(r - 0.001 + 0.026 * np.sin(a), 0.0, 0.047 + 0.029 * np.cos(a)) for a in np.deg2rad(np.linspace(0, 180, 9))]
    handle = [capsule(p, q, 0.0052, glaze) for p, q in pairwise(ring)]
    return Body("mug", (cup, *handle))


def bowl() -> Body:
    """A hollow bowl, wider than the usual gripper; its rim can be gripped."""
    out, inside = Look(texture="bowl_rim", shine=0.4, gloss=70.0), Look((232, 236, 238), shine=0.4, gloss=70.0)
    outer = arc((0.0, 0.074), 0.074, -62, 0, 12)
    inner = arc((0.0, 0.074), 0.0695, 0, -90, 16)
    base = outer[0]
    profile = [(0, 0.004), (base[0] - 0.004, 0.004), (base[0] - 0.003, 0.0), (base[0], 0.0), *outer]
    profile += [(0.0735, 0.0755), (0.0715, 0.0765), (0.0700, 0.0755), *inner]
    profile[-1] = (0.0, profile[-1][1])
    looks = [inside] * 4 + [out] * 12 + [inside] * (len(profile) - 17)
    return Body("bowl", (lathe(profile, *looks),))


def ball() -> Body:
    """A ball; its origin is its centre's foot point."""
    skin = Look(texture="ball_stripes", shine=0.35, gloss=50.0)
    return Body("ball", (ellipsoid((0.034, 0.034, 0.034), skin, centre=(0, 0, 0.034)),))


def lemon() -> Body:
    """Lies along x."""
    skin = Look(texture="lemon_skin", shine=0.25, gloss=20.0)
    return Body("lemon", (ellipsoid((0.037, 0.027, 0.027), skin, centre=(0, 0, 0.027)),))


CATALOGUE: tuple[Callable[[], Body], ...] = (
    parcel, crackers, tea, sponge, book, soup_can, soda_can, bottle, mug, bowl, ball, lemon,
)  # fmt: skip
