# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A bounded, nearly flat surface: its plane, its outline in the plane, and how the camera bends it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import rotation_with_z
from seg_perception.rectangles import hull
from seg_perception.scene import Plane

ROUNDS = 4
TRIM = 3.0  # cells farther off than this many times the noise are not the surface
CURVED = 100  # cells that it takes to see how the camera bends a plane
STIFFNESS = 0.01  # keeps the bend small where there are no cells


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """A piece of a plane.

    `curve` (6,): w = c0 + c1 x + c2 y + c3 x^2 + c4 x y + c5 y^2 in ray coordinates, 1/m. `outline` (K, 2) m: convex,
    in the plane, along `axes` (2, 3) from `origin` (3,) m. `cells` counts the grid cells seen of it.
    """

    plane: Plane
    curve: NDArray[np.float64]
    origin: NDArray[np.float64]
    axes: NDArray[np.float64]
    outline: NDArray[np.float64]
    cells: int

    @classmethod
    def from_cells(cls, cells: NDArray[np.float64], noise: float, side: float) -> Surface:
        """The surface through `cells` (n, 5), rows as in `Cells.planes`; `side` of a cell in ray coordinates.

        Raises ValueError with fewer than 3 cells.
        """
        if len(cells) < 3:
            raise ValueError(f"surface: expected at least 3 cells, got {len(cells)}")
        rays, w = cells[:, :2], cells[:, 2]
        curve = _fit_curve(rays, w, noise)
        flat = curve[:3] + _flattened(rays, curve)
        distance = 1.0 / np.linalg.norm(flat)
        normal = -distance * np.array([flat[1], flat[2], flat[0]])
        plane = Plane(normal, distance)
        axes = rotation_with_z(plane.normal)[:, :2].T
        origin = _on_plane(rays, flat).mean(axis=0)
        edge = hull(rays[:, 0], rays[:, 1])  # a plane's picture keeps what is convex
        corners = np.concatenate([edge + side / 2 * np.array(sign) for sign in ((-1, -1), (-1, 1), (1, -1), (1, 1))])
        across, along = axes @ (_on_plane(corners, flat) - origin).T
        outline = hull(across, along)
        return cls(plane, curve, origin, axes, outline, len(cells))

    @property
    def area(self) -> float:
        """m^2 inside the outline."""
        return float(cv2.contourArea(self.outline.astype(np.float32)))

    @property
    def extent(self) -> float:
        """m, the longest side of the smallest rectangle around the outline."""
        return float(max(cv2.minAreaRect(self.outline.astype(np.float32))[1]))

    def is_over(self, points: NDArray[np.float64], margin: float = 0.0) -> NDArray[np.bool_]:
        """Which `points` (M, 3) m lie above or below the outline widened by `margin` m, (M,)."""
        feet = ((points - self.origin) @ self.axes.T).astype(np.float32)
        shape = self.outline.astype(np.float32)
        return np.array([cv2.pointPolygonTest(shape, (float(u), float(v)), True) >= -margin for u, v in feet], bool)

    @property
    def footprint(self) -> NDArray[np.float64]:
        """(K, 3) m, the outline in the camera frame."""
        return self.origin + self.outline @ self.axes


def _on_plane(rays: NDArray[np.float64], flat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, 3) m of the plane w = flat @ (1, x, y) along `rays` (n, 2)."""
    points = np.ones((len(rays), 3))
    points[:, :2] = rays
    points /= (rays @ flat[1:] + flat[0])[:, None]
    return points


def _basis(rays: NDArray[np.float64]) -> NDArray[np.float64]:
    """(6, n)"""
    x, y = np.ascontiguousarray(rays.T)
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])


def _fit_curve(rays: NDArray[np.float64], w: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    terms = 6 if len(w) >= CURVED else 3
    basis = _basis(rays)[:terms]
    ridge = np.diag([0.0, 0.0, 0.0, 1.0, 1.0, 1.0][:terms]) * STIFFNESS * STIFFNESS * len(w)
    used = np.ones(len(w), bool)
    curve = np.zeros(6)
    for _ in range(ROUNDS):
        a = basis * used
        curve[:terms] = np.linalg.lstsq(a @ basis.T + ridge, a @ w, rcond=None)[0]
        off = np.abs(curve[:terms] @ basis - w)
        limit = max(TRIM * noise, 2.5 * float(np.median(off)))
        near = off <= limit
        if near.sum() < max(3, terms) or (near == used).all():
            break
        used = near
    return curve


def _flattened(rays: NDArray[np.float64], curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """The plane nearest to the bend alone, as c0, c1, c2."""
    if not curve[3:].any():
        return np.zeros(3)
    basis = _basis(rays)
    a = basis[:3]
    return np.linalg.lstsq(a @ a.T, a @ (curve[3:] @ basis[3:]), rcond=None)[0]
