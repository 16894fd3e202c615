# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A bounded, nearly flat surface: its plane, its outline in the plane, and how the camera bends it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.scene import Plane
from seg_perception.surfaces.curves import fit_curve, fit_outline

CURVED = 100  # cells that it takes to see how the camera bends a plane


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
        curve, flat = fit_curve(cells, noise, CURVED)
        distance = 1.0 / math.sqrt(flat @ flat)
        plane = Plane(np.array([flat[1], flat[2], flat[0]]) * -distance, distance)
        origin, axes, outline = fit_outline(cells, flat, plane.normal, side)
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
