# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What simulated bodies are made of: boxes, ellipsoids, capsules and lathed profiles, each with a look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seg_perception.geometry import transform

BOX, LATHE, ELLIPSOID, CAPSULE = range(4)
SMOOTH_CREASE = np.deg2rad(38.0)  # profile edges flatter than this are shaded as one curved surface


@dataclass(frozen=True, slots=True)
class Look:
    """How a surface looks. `texture` names a painter of `sim.textures` and takes the place of `color` (sRGB 0..255).

    `tile` m: size of one texture repeat; 0 = the texture is stretched once over the face (or around the lathe).
    """

    color: tuple[int, int, int] = (200, 200, 200)
    texture: str = ""
    tile: float = 0.0
    shine: float = 0.15  # strength of the highlight, 0..1
    gloss: float = 30.0  # Phong exponent


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One primitive, centred on its own origin; `T_body_part` (4, 4) puts it into its body.

    `params`: BOX half extents, ELLIPSOID radii, CAPSULE radius and half length of its core (along z), LATHE unused.
    `profile` (S + 1, 2) m: r, z of a LATHE turned around z. `looks`: BOX one or six (+x -x +y -y +z -z), LATHE one
    per profile segment or one, others one.
    """

    kind: int
    params: tuple[float, float, float]
    looks: tuple[Look, ...]
    T_body_part: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    profile: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))

    @property
    def half(self) -> NDArray[np.float64]:
        """Half extents (3,) m of the part's own axis-aligned box."""
        if self.kind == LATHE:
            radius, z = self.profile[:, 0].max(), np.abs(self.profile[:, 1]).max()
            return np.array([radius, radius, z])
        if self.kind == CAPSULE:
            radius, core = self.params[:2]
            return np.array([radius, radius, core + radius])
        return np.array(self.params)

    @property
    def radius(self) -> float:
        """Radius m of the smallest sphere around the part's origin that holds it."""
        if self.kind == LATHE:
            return float(np.hypot(*self.profile.T).max())
        return float(np.linalg.norm(self.half) if self.kind == BOX else self.half.max())

    def reach(self, directions: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far the part reaches from its origin along unit `directions` (N, 3) of its own frame, exactly, (N,) m."""
        d = np.asarray(directions, np.float64)
        if self.kind == BOX:
            return np.abs(d) @ np.array(self.params)
        if self.kind == ELLIPSOID:
            return np.asarray(np.linalg.norm(d * self.params, axis=1))
        if self.kind == CAPSULE:
            return self.params[0] + np.abs(d[:, 2]) * self.params[1]
        side = np.hypot(d[:, 0], d[:, 1])
        return (side[:, None] * self.profile[:, 0] + d[:, 2:] * self.profile[:, 1]).max(axis=1)

    def moved(self, T: NDArray[np.float64]) -> Part:
        return replace(self, T_body_part=T @ self.T_body_part)


def box(size: ArrayLike, *looks: Look, centre: ArrayLike = (0, 0, 0)) -> Part:
    """A box of full extents `size` (3,) m."""
    x, y, z = np.asarray(size, np.float64) / 2
    return Part(BOX, (float(x), float(y), float(z)), looks, transform(translation=centre))


def ellipsoid(radii: ArrayLike, look: Look, centre: ArrayLike = (0, 0, 0)) -> Part:
    x, y, z = np.asarray(radii, np.float64)
    return Part(ELLIPSOID, (float(x), float(y), float(z)), (look,), transform(translation=centre))


def capsule(start: ArrayLike, end: ArrayLike, radius: float, look: Look) -> Part:
    """A round rod of `radius` m from `start` to `end` (3,) m."""
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    length = float(np.linalg.norm(b - a))
    z = (b - a) / length
    x = np.cross(z, np.eye(3)[np.argmin(np.abs(z))])
    x /= np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z], axis=1)
    return Part(CAPSULE, (radius, length / 2, 0.0), (look,), transform(R, (a + b) / 2))


def lathe(profile: Sequence[Sequence[float]], *looks: Look) -> Part:
    """The surface that `profile` (S + 1, 2) r, z m sweeps around z; z as in the body, from its base up.

    A segment whose look has a texture shares it with its neighbours of the same look: v runs along the profile.
    """
    outline = np.asarray(profile, np.float64)
    middle = (outline[:, 1].min() + outline[:, 1].max()) / 2
    return Part(LATHE, (0.0, 0.0, 0.0), looks, transform(translation=[0, 0, middle]), outline - [0, middle])


def arc(centre: Sequence[float], radius: float, start: float, end: float, count: int) -> list[tuple[float, float]]:
    """`count` + 1 points of a circle's arc in the profile plane, angles in degrees from +r towards +z."""
    angles = np.deg2rad(np.linspace(start, end, count + 1))
    return [(centre[0] + radius * float(np.cos(a)), centre[1] + radius * float(np.sin(a))) for a in angles]


def segment_table(part: Part) -> NDArray[np.float64]:
    """A LATHE's segments for the kernels, (S, 11): r0 z0 r1 z1, nr nz twice, v twice, index of the look."""
    p0, p1 = part.profile[:-1], part.profile[1:]
    along = p1 - p0
    length = np.linalg.norm(along, axis=1)
    facet = np.stack([along[:, 1], -along[:, 0]], axis=1) / length[:, None]
    count = len(p0)
    slots = np.zeros(count, int) if len(part.looks) == 1 else np.arange(count)
    looks = [part.looks[i] for i in slots]
    start_normal, end_normal = facet.copy(), facet.copy()
    for i in range(count - 1):
        turn = np.arccos(np.clip(facet[i] @ facet[i + 1], -1, 1))
        if turn < SMOOTH_CREASE:
            shared = facet[i] + facet[i + 1]
            end_normal[i] = start_normal[i + 1] = shared / np.linalg.norm(shared)
    v = np.zeros((count, 2))
    first = 0
    for last in range(count):
        if last + 1 == count or looks[last + 1] != looks[first]:
            run = np.concatenate([[0.0], np.cumsum(length[first : last + 1])])
            v[first : last + 1, 0], v[first : last + 1, 1] = run[:-1] / run[-1], run[1:] / run[-1]
            first = last + 1
    return np.column_stack([p0, p1, start_normal, end_normal, v, slots])
