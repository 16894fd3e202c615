# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A coarse grid of small planes: what the search for large planes works on instead of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

GRID_WIDTH = 80  # cells across the image
FULL = 0.6  # share of a cell that must be measured


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Planes w = w0 + gx (x - x0) + gy (y - y0) over square cells of the image, in ray coordinates x/z, y/z.

    `planes` (R, C, 5) is x0, y0, w0, gx, gy; `rms` (R, C) the residual of the fit in 1/m, inf where too little is
    measured; `size` px and `side` in ray coordinates are a
    cell's.
    """

    planes: NDArray[np.float64]
    rms: NDArray[np.float64]
    size: int
    side: float

    def cell_of(self, ray: NDArray[np.float64]) -> tuple[int, int]:
        """Row and column of the cell nearest to `ray` x/z, y/z."""
        known = np.isfinite(self.rms)
        off = np.where(known, ((self.planes[..., :2] - ray) ** 2).sum(axis=-1), np.inf)
        row, column = np.unravel_index(off.argmin(), off.shape)
        return int(row), int(column)

    def noise(self) -> float:
        """Standard deviation of inverse depth in 1/m, from the flatter half of the cells; NaN without cells."""
        known = self.rms[np.isfinite(self.rms)]
        return float(np.percentile(known, 50)) if len(known) else float("nan")


def fit_cells(w: NDArray[np.float32], rays: NDArray[np.float32]) -> Cells:
    """Cells of inverse depth `w` (H, W) 1/m seen along `rays` (H, W, 2)."""
    size = max(4, round(w.shape[1] / GRID_WIDTH))
    planes, rms = _fit(w, rays, size, 1 if size < 12 else 2)
    middle = w.shape[0] // 2, w.shape[1] // 2
    pitch = float(rays[middle[0], middle[1], 0] - rays[middle[0], middle[1] - 1, 0])
    return Cells(planes, rms, size, size * pitch)


def fit_depth_cells(
    depth: NDArray[np.float32], hidden: NDArray, rays: NDArray[np.float32], straight: bool, near: float, far: float
) -> Cells:
    """Cells of `depth` (H, W) m between `near` and `far` where `hidden` (H, W) is 0, seen along `rays` (2, H, W).

    These are `straight` where x/z depends on the column only and y/z on the row: then few of them are read.
    """
    size = max(4, round(depth.shape[1] / GRID_WIDTH))
    planes, rms = _fit_depth(depth, hidden, rays, straight, np.float32(near), np.float32(far), size, max(1, size // 5))
    middle = depth.shape[0] // 2, depth.shape[1] // 2
    pitch = float(rays[0, middle[0], middle[1]] - rays[0, middle[0], middle[1] - 1])
    return Cells(planes, rms, size, size * pitch)


@njit(cache=True, nogil=True)
def _fit_depth(depth, hidden, rays, straight, near, far, size, stride):  # type: ignore[no-untyped-def]
    """As `_fit`, without a branch per pixel: holes and objects come too unexpectedly for the processor to guess."""
    rows, columns = depth.shape[0] // size, depth.shape[1] // size
    planes = np.zeros((rows, columns, 5))
    rms = np.full((rows, columns), np.inf)
    per_side = (size + stride - 1) // stride
    total = np.empty(10)
    for r in range(rows):
        for c in range(columns):
            x0 = np.float64(rays[0, r * size + size // 2, c * size + size // 2])
            y0 = np.float64(rays[1, r * size + size // 2, c * size + size // 2])
            n = sx = sy = sw = sxx = sxy = syy = sxw = syw = sww = 0.0
            for v in range(r * size, (r + 1) * size, stride):
                for u in range(c * size, (c + 1) * size, stride):
                    z = depth[v, u]
                    good = (z >= near) & (z <= far) & (hidden[v, u] == 0)
                    one = 1.0 if good else 0.0
                    w = 1.0 / (np.float64(z) if good else np.inf)
                    x = one * (rays[0, 0 if straight else v, u] - x0)
                    y = one * (rays[1, v, 0 if straight else u] - y0)
                    n, sx, sy, sw = n + one, sx + x, sy + y, sw + w
                    sxx, sxy, syy = sxx + x * x, sxy + x * y, syy + y * y
                    sxw, syw, sww = sxw + x * w, syw + y * w, sww + w * w
            if n >= FULL * per_side * per_side:
                total[:] = (n, sx, sy, sw, sxx, sxy, syy, sxw, syw, sww)
                rms[r, c] = _plane_of_sums(total, planes[r, c])
                planes[r, c, 0] += x0
                planes[r, c, 1] += y0
    return planes, rms


@njit(cache=True, nogil=True)
def _plane_of_sums(total, plane):  # type: ignore[no-untyped-def]
    """Sets the plane through what was summed up, and returns its residual; inf if it is not determined."""
    n, mx, my, mw = total[0], total[1] / total[0], total[2] / total[0], total[3] / total[0]
    cxx, cxy, cyy = total[4] / n - mx * mx, total[5] / n - mx * my, total[6] / n - my * my
    cxw, cyw, cww = total[7] / n - mx * mw, total[8] / n - my * mw, total[9] / n - mw * mw
    det = cxx * cyy - cxy * cxy
    if det <= 1e-9 * (cxx + cyy) ** 2:
        return np.inf
    gx, gy = (cxw * cyy - cyw * cxy) / det, (cyw * cxx - cxw * cxy) / det
    plane[0], plane[1], plane[2], plane[3], plane[4] = mx, my, mw, gx, gy
    return np.sqrt(max(0.0, cww - gx * cxw - gy * cyw))


@njit(cache=True, nogil=True)
def _fit(w, rays, size, stride):  # type: ignore[no-untyped-def]
    rows, columns = w.shape[0] // size, w.shape[1] // size
    planes = np.zeros((rows, columns, 5))
    rms = np.full((rows, columns), np.inf)
    per_side = (size + stride - 1) // stride
    least = FULL * per_side * per_side
    for r in range(rows):
        for c in range(columns):
            x0 = np.float64(rays[r * size + size // 2, c * size + size // 2, 0])
            y0 = np.float64(rays[r * size + size // 2, c * size + size // 2, 1])
            n = 0
            sx = sy = sw = sxx = sxy = syy = sxw = syw = sww = 0.0
            for v in range(r * size, (r + 1) * size, stride):
                for u in range(c * size, (c + 1) * size, stride):
                    value = np.float64(w[v, u])
                    if value <= 0:
                        continue
                    x, y = rays[v, u, 0] - x0, rays[v, u, 1] - y0
                    n += 1
                    sx += x
                    sy += y
                    sw += value
                    sxx += x * x
                    sxy += x * y
                    syy += y * y
                    sxw += x * value
                    syw += y * value
                    sww += value * value
            if n < least:
                continue
            mx, my, mw = sx / n, sy / n, sw / n
            cxx, cxy, cyy = sxx / n - mx * mx, sxy / n - mx * my, syy / n - my * my
            cxw, cyw, cww = sxw / n - mx * mw, syw / n - my * mw, sww / n - mw * mw
            det = cxx * cyy - cxy * cxy
            if det <= 1e-9 * (cxx + cyy) ** 2:
                continue
            gx = (cxw * cyy - cyw * cxy) / det
            gy = (cyw * cxx - cxw * cxy) / det
            planes[r, c, 0] = x0 + mx
            planes[r, c, 1] = y0 + my
            planes[r, c, 2] = mw
            planes[r, c, 3] = gx
            planes[r, c, 4] = gy
            rms[r, c] = np.sqrt(max(0.0, cww - gx * cxw - gy * cyw))
    return planes, rms
