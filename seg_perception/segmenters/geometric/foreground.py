# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which pixels stand on a support: above its bent plane, over its outline, not higher than objects rise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.surfaces.surface import Surface

CELL = 0.01  # m, raster of the outlines
BELOW = 0.02  # m, how far under a support things are still its own
PERHAPS, SURELY, BEYOND = 1, 2, 3  # grades of a pixel; 0 = not measured, or the support itself


@dataclass(frozen=True, slots=True, eq=False)
class Foreground:
    """`mask` (H, W) uint8: 1 = on a support; `height` (H, W) float32 m over that support; `support` (H, W) int8 its
    index, -1 = none; `over` (H, W) bool: right over its outline, not just over the margin;
    `beyond` (H, W) bool: measured, but over no support or higher than objects rise."""

    mask: NDArray[np.uint8]
    height: NDArray[np.float32]
    support: NDArray[np.int8]
    over: NDArray[np.bool_]
    beyond: NDArray[np.bool_]


def find_foreground(
    w: NDArray[np.float32],
    rays: NDArray[np.float32],
    surfaces: Sequence[Surface],
    low: float,
    high: float,
    min_height: float,
    max_height: float,
    margin: float,
) -> Foreground:
    """Pixels over `surfaces`: `low`, `high` are thresholds of w over the surface in 1/m, with hysteresis."""
    n = len(surfaces)
    curves = np.array([s.curve for s in surfaces]).reshape(n, 6)
    planes = np.array([s.plane.coefficients for s in surfaces]).reshape(n, 4)
    frames = np.zeros((n, 3, 3))  # e1, e2 and the raster's corner
    rasters = [_raster(s, margin) for s in surfaces]
    size = np.max([(1, 1), *(raster.shape for raster, _ in rasters)], axis=0)
    stack = np.zeros((n, *size), np.uint8)
    for k, (s, (raster, corner)) in enumerate(zip(surfaces, rasters, strict=True)):
        stack[k, : raster.shape[0], : raster.shape[1]] = raster
        frames[k, :2] = s.axes
        frames[k, 2, :2] = s.axes @ s.origin + corner
    thresholds = np.array([low, high, min_height, max_height])
    grade, height, support, over = _grade(w, rays, curves, planes, frames, stack, thresholds, CELL)
    return Foreground(_hysteresis(grade), height, support, over, grade == BEYOND)


def _raster(surface: Surface, margin: float) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    corner = surface.outline.min(axis=0) - margin - CELL
    size = np.ceil((surface.outline.max(axis=0) + margin + CELL - corner) / CELL).astype(int) + 1
    raster = np.zeros((int(size[1]), int(size[0])), np.uint8)
    cv2.fillConvexPoly(raster, np.round((surface.outline - corner) / CELL).astype(np.int32), 1)
    side = 2 * round(margin / CELL) + 1
    wide = cv2.dilate(raster, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    return wide + raster, corner  # 1 in the margin, 2 inside


@njit(cache=True, nogil=True)
def _grade(w, rays, curves, planes, frames, rasters, thresholds, cell):  # type: ignore[no-untyped-def]
    low, high, min_height, max_height = thresholds
    rows, columns = w.shape
    grade = np.zeros((rows, columns), np.uint8)
    heights = np.zeros((rows, columns), np.float32)
    support = np.full((rows, columns), -1, np.int8)
    inside = np.zeros((rows, columns), np.bool_)
    for v in range(rows):
        for u in range(columns):
            value = np.float64(w[v, u])
            if value <= 0:
                continue
            x, y = np.float64(rays[v, u, 0]), np.float64(rays[v, u, 1])
            z = 1.0 / value
            grade[v, u] = BEYOND
            best = 1e9
            for k in range(len(curves)):
                c, p, f = curves[k], planes[k], frames[k]
                over = value - (c[0] + (c[1] + c[3] * x + c[4] * y) * x + (c[2] + c[5] * y) * y)
                height = p[3] * over * z
                if height < -BELOW or abs(height) >= best:
                    continue
                px, py = x * z, y * z
                i = int((f[0, 0] * px + f[0, 1] * py + f[0, 2] * z - f[2, 0]) / cell + 0.5)
                j = int((f[1, 0] * px + f[1, 1] * py + f[1, 2] * z - f[2, 1]) / cell + 0.5)
                if i < 0 or j < 0 or j >= rasters.shape[1] or i >= rasters.shape[2] or rasters[k, j, i] == 0:
                    continue
                best = abs(height)
                support[v, u] = k
                heights[v, u] = height
                inside[v, u] = rasters[k, j, i] == 2
                if height > max_height:
                    grade[v, u] = BEYOND
                elif over > high and height > min_height:
                    grade[v, u] = SURELY
                elif over > low and height > 0.5 * min_height:
                    grade[v, u] = PERHAPS
                else:
                    grade[v, u] = 0
    return grade, heights, support, inside


@njit(cache=True, nogil=True)
def _hysteresis(grade):  # type: ignore[no-untyped-def]
    """1 where a pixel surely is an object, or perhaps and connected to such."""
    rows, columns = grade.shape
    mask = np.zeros((rows, columns), np.uint8)
    stack = np.empty(rows * columns, np.int32)
    n = 0
    for v in range(rows):
        for u in range(columns):
            if grade[v, u] == SURELY:
                mask[v, u] = 1
                stack[n] = v * columns + u
                n += 1
    while n > 0:
        n -= 1
        v, u = stack[n] // columns, stack[n] % columns
        for dv, du in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            q, p = v + dv, u + du
            if 0 <= q < rows and 0 <= p < columns and mask[q, p] == 0 and grade[q, p] == PERHAPS:
                mask[q, p] = 1
                stack[n] = q * columns + p
                n += 1
    return mask
