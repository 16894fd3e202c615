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
    measured; `size` px and `side` in ray coordinates are a cell's.
    """

    planes: NDArray[np.float64]
    rms: NDArray[np.float64]
    size: int
    side: float

    def noise(self) -> float:
        """Standard deviation of inverse depth in 1/m, from the flatter half of the cells; NaN without cells."""
        known = self.rms[self.rms < np.inf]
        if not len(known):
            return float("nan")
        middle = len(known) // 2
        known.partition(middle)
        return float(known[middle] if len(known) % 2 else (known[:middle].max() + known[middle]) / 2)


def fit_cells(w: NDArray[np.float32], rays: NDArray[np.float32]) -> Cells:
    """Cells of inverse depth `w` (H, W) 1/m seen along `rays` (H, W, 2)."""
    size = max(4, round(w.shape[1] / GRID_WIDTH))
    planes, rms = _fit(w, rays, size, 1 if size < 12 else 2)
    middle = w.shape[0] // 2, w.shape[1] // 2
    pitch = float(rays[middle[0], middle[1], 0] - rays[middle[0], middle[1] - 1, 0])
    return Cells(planes, rms, size, size * pitch)


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
