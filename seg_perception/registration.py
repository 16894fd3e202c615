# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Depth of one camera moved into the image of another: what a driver's "align depth to color" does.

Neighbouring depth pixels on the same surface span a cell, and every color pixel inside it gets a depth between theirs:
a color image larger than the depth image has no holes. Where the surface ends, each depth pixel keeps its own
footprint: nothing is stretched across a depth step. Where two surfaces fall on one color pixel, the nearer one hides
the other (z-buffer), and a surface that the color camera would see from behind is left out.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from seg_perception.geometry import ray_table, unproject_pixels
from seg_perception.scene import Intrinsics

GRAZING = 8.0  # pixels' widths that depth may change over one pixel on a surface: 80 degrees along the diagonal
NOISE = 0.005  # share of its depth that depth may change in addition
NEAREST = 0.01  # m in front of the color camera; nearer points are not drawn
WIDEST_ANGLE = np.tan(np.deg2rad(85.0))  # a pinhole's image plane ends before 90 degrees
LENS_STEPS = 4096  # entries of a lens table
MARGIN = 1.2  # a lens table goes this much beyond the image's corners, along the radius
MAX_STRETCH = 16.0  # a cell this many times larger than expected is not drawn
WHOLE, PART = 1, 2  # kinds of cells


def register_depth(
    depth: NDArray[np.float32], depth_camera: Intrinsics, color_camera: Intrinsics, T_color_depth: ArrayLike
) -> NDArray[np.float32]:
    """`depth` (h, w) float32 m along z of one camera, as the other sees it: (H, W) m along its z, NaN = not known.

    `T_color_depth` (4, 4) is the depth camera's pose in the color camera's frame. NaN, infinite, zero and negative
    depth has no place and gives nothing. Raises ValueError when the image does not fit its calibration.
    """
    if depth.shape != (depth_camera.height, depth_camera.width):
        raise ValueError(
            f"depth: expected {depth_camera.width}x{depth_camera.height} as calibrated, "
            f"got {depth.shape[1]}x{depth.shape[0]}"
        )
    T = np.asarray(T_color_depth, np.float32)
    k = color_camera
    lens = (T, np.array([k.fx, k.fy, k.cx, k.cy], np.float32), *_lens(k))
    smooth = np.float32(GRAZING / min(depth_camera.fx, depth_camera.fy) + NOISE)
    enlarged = max(k.fx / depth_camera.fx, k.fy / depth_camera.fy)
    reach = np.float32(MAX_STRETCH * (enlarged + 1.0))
    border = 2.0 * enlarged
    bounds = np.array([-border, k.width + border, -border, k.height + border], np.float32)
    nearness = np.zeros((k.height, k.width), np.float32)
    _draw(np.ascontiguousarray(depth, np.float32), ray_table(depth_camera), lens, smooth, reach, bounds, nearness)
    return _to_depth(nearness)


@lru_cache(maxsize=4)
def _lens(k: Intrinsics) -> tuple[NDArray[np.float32], NDArray[np.float32], np.float32]:
    """The radial gain by squared radius, (N,) with its step, and p1, p2: all three lens models in one form.

    A normalised point (x, y) goes to (x, y) * gain, plus the tangential part. Beyond the last entry nothing is drawn:
    far out a polynomial may come back into view. Where it folds before, it shows the scene mirrored, as from behind,
    and that is not drawn either. A perfect lens has an empty table.
    """
    if not k.is_distorted:
        return np.empty(0, np.float32), np.zeros(2, np.float32), np.float32(1.0)
    u, v = np.linspace(0, k.width - 1, 33), np.linspace(0, k.height - 1, 33)
    border = np.concatenate([np.stack(np.broadcast_arrays(u, y), -1) for y in (0.0, k.height - 1.0)])
    border = np.concatenate([border, *(np.stack(np.broadcast_arrays(x, v), -1) for x in (0.0, k.width - 1.0))])
    radius = np.hypot(*unproject_pixels(k, border).T)
    radius = radius[np.isfinite(radius) & (radius < WIDEST_ANGLE)]
    widest = min(MARGIN * float(radius.max()), WIDEST_ANGLE) if radius.size else WIDEST_ANGLE
    r2 = np.linspace(0.0, widest**2, LENS_STEPS)
    d = k.distortion
    if len(d) == 4:
        r = np.sqrt(np.maximum(r2, 1e-12))
        theta = np.arctan(r)
        t2 = theta**2
        gain = theta * (1 + t2 * (d[0] + t2 * (d[1] + t2 * (d[2] + t2 * d[3])))) / r
        tangential = (0.0, 0.0)
    else:
        k4, k5, k6 = d[5:8] if len(d) == 8 else (0.0, 0.0, 0.0)
        gain = (1 + r2 * (d[0] + r2 * (d[1] + r2 * d[4]))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        tangential = (d[2], d[3])
    return gain.astype(np.float32), np.array(tangential, np.float32), np.float32(r2[1])


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _draw(depth, rays, lens, smooth, reach, bounds, nearness):  # type: ignore[no-untyped-def]
    """Draws all cells into `nearness` (H, W), 1/m, 0 = nothing yet. Two rows of projected pixels are held at a time."""
    height, width = depth.shape
    above = np.empty((4, width), np.float32)  # u, v px, 1/z in the color camera, z in the depth camera
    below = np.empty((4, width), np.float32)
    kinds = np.zeros(width, np.uint8)
    quarter = np.empty((4, 2), np.float32), np.empty(4, np.float32), np.empty((4, 4), np.float32)
    for y in range(height):
        _project_row(depth[y], rays[y], lens, below)
        if y == 0:
            above, below = below, above
            continue
        _find_cells(above, below, smooth, bounds, kinds)
        ua, va, wa = above[0], above[1], above[2]
        ud, vd, wd = below[0], below[1], below[2]
        for x in range(width - 1):
            if kinds[x] == WHOLE:
                _fill(
                    nearness, reach,
                    ua[x], va[x], wa[x], ua[x + 1], va[x + 1], wa[x + 1],
                    ud[x + 1], vd[x + 1], wd[x + 1], ud[x], vd[x], wd[x],
                )  # fmt: skip
            elif kinds[x] == PART:
                _fill_quarters(x, y, above[3], below[3], rays, lens, smooth, reach, nearness, quarter)
        above, below = below, above


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _project_row(depth, rays, lens, out):  # type: ignore[no-untyped-def]
    """Pixels of one row in the color camera: u, v px, 1/z 1/m, and the depth, (4, w); NaN where nothing is seen."""
    T, pinhole, gain, tangential, step = lens
    nan = np.float32(np.nan)
    u, v, w, z = out[0], out[1], out[2], out[3]
    for x in range(depth.size):
        d = depth[x]
        d = d if (d > np.float32(0.0)) & (d < np.float32(1e4)) else nan
        a, b = rays[x, 0], rays[x, 1]
        depth_there = d * (T[2, 0] * a + T[2, 1] * b + T[2, 2]) + T[2, 3]
        near = np.float32(1.0) / depth_there if depth_there > np.float32(NEAREST) else nan
        u[x] = (d * (T[0, 0] * a + T[0, 1] * b + T[0, 2]) + T[0, 3]) * near
        v[x] = (d * (T[1, 0] * a + T[1, 1] * b + T[1, 2]) + T[1, 3]) * near
        w[x] = near
        z[x] = d
    if gain.size:
        for x in range(depth.size):
            u[x], v[x] = _distort(u[x], v[x], gain, tangential, step)
    for x in range(depth.size):
        u[x] = pinhole[0] * u[x] + pinhole[2]
        v[x] = pinhole[1] * v[x] + pinhole[3]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _distort(a, b, gain, tangential, step):  # type: ignore[no-untyped-def]
    r2 = a * a + b * b
    at = r2 / step
    if not at < gain.size - 1:
        return np.float32(np.nan), np.float32(np.nan)
    i = int(at)
    g = gain[i] + (at - np.float32(i)) * (gain[i + 1] - gain[i])
    p1, p2, ab = tangential[0], tangential[1], np.float32(2.0) * a * b
    return (
        a * g + p1 * ab + p2 * (r2 + np.float32(2.0) * a * a),
        b * g + p2 * ab + p1 * (r2 + np.float32(2.0) * b * b),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _find_cells(above, below, smooth, bounds, kinds):  # type: ignore[no-untyped-def]
    """What is between two rows: whole cells of one surface, parts, or nothing that the color image could show."""
    ua, va, za = above[0], above[1], above[3]
    ub, vb, zb = below[0], below[1], below[3]
    left, right, top, bottom = bounds
    for x in range(kinds.size - 1):
        z0, z1, z2, z3 = za[x], za[x + 1], zb[x + 1], zb[x]
        low = _lower(_lower(z0, z1), _lower(z2, z3))
        high = -_lower(_lower(-z0, -z1), _lower(-z2, -z3))
        known = z0 + z1 + z2 + z3 > 0
        u0, u1, u2, u3 = ua[x], ua[x + 1], ub[x + 1], ub[x]
        v0, v1, v2, v3 = va[x], va[x + 1], vb[x + 1], vb[x]
        inside = (  # of each border at least one corner that is known
            ((u0 >= left) | (u1 >= left) | (u2 >= left) | (u3 >= left))
            & ((u0 <= right) | (u1 <= right) | (u2 <= right) | (u3 <= right))
            & ((v0 >= top) | (v1 >= top) | (v2 >= top) | (v3 >= top))
            & ((v0 <= bottom) | (v1 <= bottom) | (v2 <= bottom) | (v3 <= bottom))
        )
        whole = known & (high - low <= smooth * low)
        kinds[x] = np.uint8(0) if not inside else (np.uint8(WHOLE) if whole else np.uint8(PART))


@njit(cache=True, nogil=True)
def _lower(a, b):  # type: ignore[no-untyped-def]
    return a if a < b else b


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _fill_quarters(x, y, above, below, rays, lens, smooth, reach, nearness, quarter):  # type: ignore[no-untyped-def]
    """A cell that a surface ends in, its lower right corner at x + 1, y: every corner fills the quarter next to it,
    level with those neighbours that are on its surface. `above`, `below` (w,) m: depth in the two rows."""
    z = (above[x], above[x + 1], below[x + 1], below[x])  # clockwise, as all corners here
    a = (rays[y - 1, x, 0], rays[y - 1, x + 1, 0], rays[y, x + 1, 0], rays[y, x, 0])
    b = (rays[y - 1, x, 1], rays[y - 1, x + 1, 1], rays[y, x + 1, 1], rays[y, x, 1])
    half = np.float32(0.5)
    spots, depths, out = quarter
    for i in range(4):
        own = z[i]
        if not own > 0:
            continue
        following, before = (i + 1) & 3, (i + 3) & 3
        total, count = np.float32(0.0), np.float32(0.0)
        for j in range(4):
            if abs(z[j] - own) <= smooth * own:
                total += z[j]
                count += np.float32(1.0)
        depths[i] = own
        depths[following] = half * (own + z[following]) if abs(z[following] - own) <= smooth * own else own
        depths[before] = half * (own + z[before]) if abs(z[before] - own) <= smooth * own else own
        depths[(i + 2) & 3] = total / count
        spots[i, 0], spots[i, 1] = a[i], b[i]
        spots[following, 0], spots[following, 1] = half * (a[i] + a[following]), half * (b[i] + b[following])
        spots[before, 0], spots[before, 1] = half * (a[i] + a[before]), half * (b[i] + b[before])
        spots[(i + 2) & 3, 0] = half * half * (a[0] + a[1] + a[2] + a[3])
        spots[(i + 2) & 3, 1] = half * half * (b[0] + b[1] + b[2] + b[3])
        _project_row(depths, spots, lens, out)
        u, v, w = out[0], out[1], out[2]
        _fill(nearness, reach, u[0], v[0], w[0], u[1], v[1], w[1], u[2], v[2], w[2], u[3], v[3], w[3])


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _fill(nearness, reach, ua, va, wa, ub, vb, wb, uc, vc, wc, ud, vd, wd):  # type: ignore[no-untyped-def]
    """Fills the pixel centres in a quadrilateral, corners clockwise in the image, with 1/z, which is
    linear in the image on a plane; what is nearer stays."""
    left, right = _lower(_lower(ua, ub), _lower(uc, ud)), -_lower(_lower(-ua, -ub), _lower(-uc, -ud))
    top, bottom = _lower(_lower(va, vb), _lower(vc, vd)), -_lower(_lower(-va, -vb), _lower(-vc, -vd))
    height, width = nearness.shape
    if not (right >= 0 and left <= width - 1 and bottom >= 0 and top <= height - 1):
        return
    if not (right - left < reach and bottom - top < reach):
        return
    touch = np.float32(1e-3)  # px; a pixel centre on an edge belongs to both sides
    x0, x1 = max(0, int(np.ceil(left - touch))), min(width - 1, int(np.floor(right + touch)))
    y0, y1 = max(0, int(np.ceil(top - touch))), min(height - 1, int(np.floor(bottom + touch)))
    if x0 > x1 or y0 > y1:
        return
    quarter = np.float32(0.25)
    su, sv, sw = quarter * (ub + uc - ua - ud), quarter * (vb + vc - va - vd), quarter * (wb + wc - wa - wd)
    tu, tv, tw = quarter * (uc + ud - ua - ub), quarter * (vc + vd - va - vb), quarter * (wc + wd - wa - wb)
    area = su * tv - sv * tu
    if not area > np.float32(1e-6):
        return  # seen from behind, or edge on, or not known
    part = np.float32(1.0) / area
    twist = quarter * (wa - wb + wc - wd)
    um, vm, wm = quarter * (ua + ub + uc + ud), quarter * (va + vb + vc + vd), quarter * (wa + wb + wc + wd)
    low, high = _lower(_lower(wa, wb), _lower(wc, wd)), -_lower(_lower(-wa, -wb), _lower(-wc, -wd))
    abu, abv, bcu, bcv = ub - ua, vb - va, uc - ub, vc - vb
    cdu, cdv, dau, dav = ud - uc, vd - vc, ua - ud, va - vd
    for y in range(y0, y1 + 1):
        fy = np.float32(y)
        for x in range(x0, x1 + 1):
            fx = np.float32(x)
            inside = (
                (abu * (fy - va) - abv * (fx - ua) >= -touch)
                & (bcu * (fy - vb) - bcv * (fx - ub) >= -touch)
                & (cdu * (fy - vc) - cdv * (fx - uc) >= -touch)
                & (dau * (fy - vd) - dav * (fx - ud) >= -touch)
            )
            if inside:
                du, dv = fx - um, fy - vm
                s, t = (du * tv - dv * tu) * part, (su * dv - sv * du) * part  # -1 to 1 across the cell
                w = wm + s * sw + t * tw + s * t * twist
                w = low if w < low else high if w > high else w
                if w > nearness[y, x]:
                    nearness[y, x] = w


@njit(cache=True, nogil=True, error_model="numpy")
def _to_depth(nearness):  # type: ignore[no-untyped-def]
    out = np.empty(nearness.shape, np.float32)
    for y in range(nearness.shape[0]):
        for x in range(nearness.shape[1]):
            w = nearness[y, x]
            out[y, x] = np.float32(1.0) / w if w > 0 else np.float32(np.nan)
    return out
