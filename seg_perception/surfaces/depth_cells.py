# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Cells of a depth image beside its objects, from a few rows of each cell: what waits here is the memory."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.geometry import unproject_pixels
from seg_perception.masks import Masks
from seg_perception.scene import Intrinsics
from seg_perception.surfaces.cells import FULL, GRID_WIDTH, Cells

ROWS = 3  # of each cell that are read
NOTHING_IGNORED = np.empty((0, 0), np.bool_)


def fit_depth_cells(
    depth: NDArray[np.float32],
    intrinsics: Intrinsics,
    masks: Masks,
    ignore: NDArray[np.bool_] | None,
    near: float,
    far: float,
) -> Cells:
    """Cells of `depth` (H, W) m between `near` and `far`, without the pixels of `masks` and of `ignore` (H, W)."""
    size = max(4, round(depth.shape[1] / GRID_WIDTH))
    hidden = NOTHING_IGNORED if ignore is None else ignore
    limits = np.float32(near), np.float32(far)
    planes, rms = _fit_depth(depth, masks.spans, hidden, _cell_rays(intrinsics, size), *limits, size)
    return Cells(planes, rms, size, size / intrinsics.fx)


@lru_cache(maxsize=4)
def _cell_rays(intrinsics: Intrinsics, size: int) -> NDArray[np.float64]:
    """(R, C, 6): rays x/z, y/z of the cells' centres and how they change from pixel to pixel, dx/du, dx/dv, dy/du,
    dy/dv; within a cell no lens bends them."""
    v, u = np.meshgrid(np.arange(intrinsics.height // size), np.arange(intrinsics.width // size), indexing="ij")
    centres = np.stack([u, v], axis=-1) * float(size) + (size - 1) / 2
    steps = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]) * (size / 2)
    middle, right, left, below, above = (unproject_pixels(intrinsics, centres + step) for step in steps)
    across, along = (right - left) / size, (below - above) / size
    return np.concatenate([middle, np.stack([across, along], axis=-1).reshape(*middle.shape[:2], 4)], axis=-1)


@njit(cache=True, nogil=True, error_model="numpy")
def _fit_depth(depth, spans, ignore, rays, near, far, size):  # type: ignore[no-untyped-def]
    """Planes are fitted in pixels, then turned into rays. What the loops over whole rows add up is all it takes for
    cells that are measured everywhere, and these are most."""
    rows, columns = rays.shape[0], rays.shape[1]
    planes = np.zeros((rows, columns, 5))
    rms = np.full((rows, columns), np.inf)
    hidden = _hidden_rows(spans, ignore, depth.shape, rows, size)
    width = columns * size
    w = np.empty((ROWS, width), np.float32)
    mean, off = np.empty(width, np.float32), np.empty(width, np.float32)
    rise, count = np.empty(width, np.float32), np.empty(width, np.int32)
    ys = np.empty(ROWS, np.float32)
    for i in range(ROWS):
        ys[i] = i * (size - 1) // (ROWS - 1) - (size - 1) / 2
    plane = np.empty(5)
    for r in range(rows):
        for i in range(ROWS):
            _invert(depth[r * size + i * (size - 1) // (ROWS - 1)], hidden[ROWS * r + i], near, far, w[i])
        _add_up(w, ys, mean, off, rise, count)
        for c in range(columns):
            first, last = c * size, (c + 1) * size
            measured = 0
            for u in range(first, last):
                measured += count[u]
            if measured == ROWS * size:
                residual = _whole_plane(mean[first:last], off[first:last], rise[first:last], ys, plane)
            elif measured >= FULL * ROWS * size:
                residual = _part_plane(w[:, first:last], ys, plane)
            else:
                continue
            if residual < np.inf:
                ray = rays[r, c]
                xu, xv, yu, yv = ray[2], ray[3], ray[4], ray[5]
                planes[r, c, 0] = ray[0] + xu * plane[0] + xv * plane[1]
                planes[r, c, 1] = ray[1] + yu * plane[0] + yv * plane[1]
                planes[r, c, 2] = plane[2]
                planes[r, c, 3] = (plane[3] * yv - plane[4] * yu) / (xu * yv - xv * yu)
                planes[r, c, 4] = (plane[4] * xu - plane[3] * xv) / (xu * yv - xv * yu)
                rms[r, c] = residual
    return planes, rms


@njit(cache=True, nogil=True)
def _hidden_rows(spans, ignore, shape, rows, size):  # type: ignore[no-untyped-def]
    """Of the rows that are read, which pixels are no surface, (ROWS * rows, W)."""
    out = np.zeros((ROWS * rows, shape[1]), np.uint8)
    place = np.full(shape[0], -1, np.int64)
    for k in range(ROWS * rows):
        y = k // ROWS * size + k % ROWS * (size - 1) // (ROWS - 1)
        place[y] = k
        if ignore.size:
            for x in range(shape[1]):
                out[k, x] = ignore[y, x]
    for s in range(len(spans)):
        k = place[spans[s, 0]]
        if k >= 0:
            for x in range(spans[s, 1], spans[s, 2]):
                out[k, x] = 1
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _invert(z, hidden, near, far, w):  # type: ignore[no-untyped-def]
    """Sets `w` to 1/z, 0 where it is not to be used."""
    for u in range(len(w)):
        good = (z[u] >= near) & (z[u] <= far) & (hidden[u] == 0)  # false for NaN
        w[u] = np.float32(1.0) / (z[u] if good else np.float32(np.inf))


@njit(cache=True, nogil=True, error_model="numpy")
def _add_up(w, ys, mean, off, rise, count):  # type: ignore[no-untyped-def]
    """Per column of the rows `w`: the mean, the squares of what differs from it, their sum by `ys`, and how many are
    used."""
    for u in range(len(mean)):
        mean[u] = off[u] = rise[u] = 0.0
    for u in range(len(mean)):
        count[u] = 0
    for i in range(ROWS):
        row = w[i]
        for u in range(len(mean)):
            mean[u] += row[u] * np.float32(1.0 / ROWS)
        for u in range(len(mean)):
            count[u] += np.int32(row[u] > 0.0)
    for i in range(ROWS):
        row, y = w[i], ys[i]
        for u in range(len(mean)):
            off[u] += (row[u] - mean[u]) * (row[u] - mean[u])
        for u in range(len(mean)):
            rise[u] += y * (row[u] - mean[u])


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _whole_plane(mean, off, rise, ys, plane):  # type: ignore[no-untyped-def]
    """Sets `plane` to u, v, w there and dw/du, dw/dv; returns the residual."""
    size, start = len(mean), mean[0]
    middle = np.float32((size - 1) / 2)
    s = su = ss = sv = so = np.float32(0.0)
    for k in range(size):
        d = mean[k] - start
        s, su, ss = s + d, su + (np.float32(k) - middle) * d, ss + d * d
        sv, so = sv + rise[k], so + off[k]
    y = yy = 0.0
    for i in range(ROWS):
        y, yy = y + ys[i] / ROWS, yy + ys[i] * ys[i] / ROWS
    cuu, cvv = (size * size - 1) / 12, yy - y * y
    cuw, cvw = su / size, sv / (ROWS * size)
    cww = so / (ROWS * size) + ss / size - (s / size) * (s / size)
    plane[0], plane[1], plane[2], plane[3], plane[4] = 0.0, y, start + s / size, cuw / cuu, cvw / cvv
    return np.sqrt(max(0.0, cww - plane[3] * cuw - plane[4] * cvw))


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _part_plane(w, ys, plane):  # type: ignore[no-untyped-def]
    """The same for a cell with pixels that are not to be used; inf if they do not make a plane."""
    size = w.shape[1]
    n = sx = sy = sw = sxx = sxy = syy = sxw = syw = sww = 0.0
    for i in range(ROWS):
        y = np.float64(ys[i])
        for k in range(size):
            value = np.float64(w[i, k])
            one = 1.0 if value > 0.0 else 0.0
            x = k - (size - 1) / 2
            n, sx, sy, sw = n + one, sx + one * x, sy + one * y, sw + value
            sxx, sxy, syy = sxx + one * x * x, sxy + one * x * y, syy + one * y * y
            sxw, syw, sww = sxw + x * value, syw + y * value, sww + value * value
    mx, my, mw = sx / n, sy / n, sw / n
    cxx, cxy, cyy = sxx / n - mx * mx, sxy / n - mx * my, syy / n - my * my
    cxw, cyw, cww = sxw / n - mx * mw, syw / n - my * mw, sww / n - mw * mw
    det = cxx * cyy - cxy * cxy
    if det <= 1e-9 * (cxx + cyy) * (cxx + cyy):
        return np.inf
    gx, gy = (cxw * cyy - cyw * cxy) / det, (cyw * cxx - cxw * cxy) / det
    plane[0], plane[1], plane[2], plane[3], plane[4] = mx, my, mw, gx, gy
    return np.sqrt(max(0.0, cww - gx * cxw - gy * cyw))
