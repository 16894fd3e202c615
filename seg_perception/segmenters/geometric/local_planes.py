# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A small plane around every foreground pixel, from the neighbours at nearly its depth."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

ARM = 0.009  # m, half the side of the window
NEAR = 0.004  # m in depth, neighbours this near count, however good the camera


def fit_local_planes(
    w: NDArray[np.float32], rays: NDArray[np.float32], mask: NDArray[np.uint8], gate: float, focal: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Per pixel of `mask` (H, W): `planes` (H, W, 3) w, dw/du, dw/dv in 1/m and 1/m/px, and `normals` (H, W, 3).

    Pixels count that are within `gate` 1/m, or NEAR m in depth. Pixels with too few neighbours keep zero slopes and
    the normal (0, 0, 0).
    """
    return _fit(np.where(mask > 0, w, np.float32(0)), rays, np.float32(gate), focal, ARM)


@njit(cache=True, nogil=True, fastmath=True)
def _fit(w, rays, gate, focal, arm):  # type: ignore[no-untyped-def]
    rows, columns = w.shape
    planes = np.zeros((rows, columns, 3), np.float32)
    normals = np.zeros((rows, columns, 3), np.float32)
    for v0 in range(rows):
        for u0 in range(columns):
            centre = w[v0, u0]
            if centre == 0:
                continue
            near = np.float32(max(gate, NEAR * centre * centre))  # 0, no foreground, is always farther off
            radius = min(10, max(3, int(arm * focal * centre + 0.5)))
            stride = 1 if radius <= 4 else (2 if radius <= 8 else 3)
            radius -= radius % stride
            s00 = s10 = s01 = s20 = s11 = s02 = t0 = t1 = t2 = np.float32(0)
            top = v0 - min(radius, v0 // stride * stride)
            left = u0 - min(radius, u0 // stride * stride)
            for v in range(top, min(rows, v0 + radius + 1), stride):
                dv = np.float32(v - v0)
                for u in range(left, min(columns, u0 + radius + 1), stride):
                    off = w[v, u] - centre
                    if abs(off) > near:
                        continue
                    du = np.float32(u - u0)
                    s00 += np.float32(1)
                    s10 += du
                    s01 += dv
                    s20 += du * du
                    s11 += du * dv
                    s02 += dv * dv
                    t0 += off
                    t1 += du * off
                    t2 += dv * off
            planes[v0, u0, 0] = centre
            if s00 < 6:
                continue
            mu, mv, mw = s10 / s00, s01 / s00, t0 / s00
            cuu, cuv, cvv = s20 / s00 - mu * mu, s11 / s00 - mu * mv, s02 / s00 - mv * mv
            det = cuu * cvv - cuv * cuv
            if det < 0.3:
                continue
            cut, cvt = t1 / s00 - mu * mw, t2 / s00 - mv * mw
            gu = (cut * cvv - cvt * cuv) / det
            gv = (cvt * cuu - cut * cuv) / det
            level = centre + mw - gu * mu - gv * mv
            planes[v0, u0, 0] = level
            planes[v0, u0, 1] = gu
            planes[v0, u0, 2] = gv
            x, y = rays[v0, u0, 0], rays[v0, u0, 1]
            u1 = u0 + 1 if u0 + 1 < columns else u0 - 1
            v1 = v0 + 1 if v0 + 1 < rows else v0 - 1
            gx = gu * (u1 - u0) / (rays[v0, u1, 0] - x)
            gy = gv * (v1 - v0) / (rays[v1, u0, 1] - y)
            gz = level - gx * x - gy * y
            length = np.sqrt(gx * gx + gy * gy + gz * gz)
            normals[v0, u0, 0] = -gx / length
            normals[v0, u0, 1] = -gy / length
            normals[v0, u0, 2] = -gz / length
    return planes, normals
