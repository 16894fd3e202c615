# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Projection, rigid transforms `T_target_source`, and oriented boxes. Metres, radians, pixels (REP 103)."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from seg_perception.scene import Intrinsics, OrientedBox


@lru_cache(maxsize=4)
def ray_table(intrinsics: Intrinsics) -> NDArray[np.float32]:
    """Normalised image coordinates x/z, y/z of every pixel's centre, distortion undone, (H, W, 2). Cached, read-only.

    Pixel (u, v) has its centre at (u, v), as in OpenCV and image_geometry.
    """
    k = intrinsics
    u, v = np.meshgrid(np.arange(k.width, dtype=np.float64), np.arange(k.height, dtype=np.float64))
    rays = unproject_pixels(k, np.stack([u, v], axis=-1)).astype(np.float32)
    rays.setflags(write=False)
    return rays


def unproject_pixels(intrinsics: Intrinsics, pixels: ArrayLike) -> NDArray[np.float64]:
    """Normalised coordinates x/z, y/z of `pixels` (..., 2) u, v; distortion undone; (..., 2)."""
    k = intrinsics
    uv = np.asarray(pixels, np.float64)
    if not k.is_distorted:
        return (uv - np.array([k.cx, k.cy])) / np.array([k.fx, k.fy])
    flat = np.ascontiguousarray(uv.reshape(-1, 1, 2))
    coefficients = np.array(k.distortion)
    if len(k.distortion) == 4:
        rays = cv2.fisheye.undistortPoints(flat, k.matrix, coefficients)
    else:
        undistort = getattr(cv2, "undistortPointsIter", cv2.undistortPoints)  # one function since OpenCV 5
        stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-8)
        rays = undistort(flat, k.matrix, coefficients, R=None, P=None, criteria=stop)
    return rays.reshape(uv.shape)


def unproject(intrinsics: Intrinsics, pixels: ArrayLike, depth: ArrayLike) -> NDArray[np.float64]:
    """Points (..., 3) m, camera frame, of `pixels` (..., 2) u, v at `depth` (...) m along z."""
    z = np.asarray(depth, np.float64)[..., None]
    return np.concatenate([unproject_pixels(intrinsics, pixels) * z, z], axis=-1)


def project(intrinsics: Intrinsics, points: ArrayLike) -> NDArray[np.float64]:
    """Pixels (..., 2) u, v of `points` (..., 3) m, camera frame, distortion applied. NaN at z <= 0."""
    k = intrinsics
    xyz = np.asarray(points, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        rays = np.where(xyz[..., 2:] > 0, xyz[..., :2] / xyz[..., 2:], np.nan)
    if not k.is_distorted:
        return rays * np.array([k.fx, k.fy]) + np.array([k.cx, k.cy])
    flat = np.concatenate([rays.reshape(-1, 2), np.ones((rays.size // 2, 1))], axis=1).reshape(-1, 1, 3)
    coefficients = np.array(k.distortion)
    if len(k.distortion) == 4:
        pixels, _ = cv2.fisheye.projectPoints(flat, np.zeros(3), np.zeros(3), k.matrix, coefficients)
    else:
        pixels, _ = cv2.projectPoints(flat, np.zeros(3), np.zeros(3), k.matrix, coefficients)
    return pixels.reshape(rays.shape)


def transform_points(T_target_source: ArrayLike, points: ArrayLike) -> NDArray:
    """`points` (..., 3) m in the source frame, as points of the target frame; keeps float32."""
    T = np.asarray(T_target_source, np.float64)
    xyz = np.asarray(points)
    kind = np.float32 if xyz.dtype == np.float32 else np.float64
    return xyz @ T[:3, :3].T.astype(kind) + T[:3, 3].astype(kind)


def invert(T_target_source: ArrayLike) -> NDArray[np.float64]:
    """T_source_target, (4, 4)."""
    T = np.asarray(T_target_source, np.float64)
    out = np.eye(4)
    out[:3, :3] = T[:3, :3].T
    out[:3, 3] = -T[:3, :3].T @ T[:3, 3]
    return out


def transform(rotation: ArrayLike | None = None, translation: ArrayLike | None = None) -> NDArray[np.float64]:
    """A (4, 4) from a (3, 3) rotation and a (3,) translation m; either may be left out."""
    T = np.eye(4)
    if rotation is not None:
        T[:3, :3] = rotation
    if translation is not None:
        T[:3, 3] = translation
    return T


def quaternion_from_matrix(rotation: ArrayLike) -> NDArray[np.float64]:
    """Unit quaternion x, y, z, w (w >= 0) of a (3, 3) rotation."""
    m = np.asarray(rotation, np.float64)[:3, :3]
    # Bar-Itzhack: the quaternion is the main eigenvector of this matrix, also when m is only nearly a rotation.
    k = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], 0, 0, 0],
            [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], 0, 0],
            [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], 0],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m.trace()],
        ]
    )
    q = np.linalg.eigh(k / 3.0)[1][:, -1]
    return q if q[3] >= 0 else -q


def matrix_from_quaternion(quaternion: ArrayLike) -> NDArray[np.float64]:
    """(3, 3) rotation of the quaternion x, y, z, w. Raises ValueError when its length is 0 or not finite."""
    q = np.asarray(quaternion, np.float64)
    length = float(np.linalg.norm(q))
    if not np.isfinite(length) or length < 1e-9:
        raise ValueError(f"quaternion: expected a length > 0, got {q.tolist()}")
    x, y, z, w = q / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def rotation_with_z(z: ArrayLike, x_hint: ArrayLike | None = None) -> NDArray[np.float64]:
    """(3, 3) rotation whose third column is `z`; its first lies towards `x_hint` as far as it can."""
    axis = np.asarray(z, np.float64) / np.linalg.norm(z)
    x = np.array([1.0, 0.0, 0.0]) if x_hint is None else np.asarray(x_hint, np.float64)
    x = x - axis * (axis @ x)
    if np.linalg.norm(x) < 1e-6:
        x = np.eye(3)[np.argmin(np.abs(axis))]
        x = x - axis * (axis @ x)
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(axis, x), axis], axis=1)


def smallest_rectangle(points: ArrayLike) -> tuple[float, NDArray[np.float64]]:
    """Angle rad in [0, pi/2) and bounds (2, 2) [min, max] along the turned axes of the smallest rectangle around
    `points` (M, 2), M >= 1."""
    angle, bounds = _smallest_rectangle(_hull(np.ascontiguousarray(points, np.float64)))
    return float(angle), bounds


def oriented_box(points: ArrayLike, up: ArrayLike | None = None, outliers: float = 0.0) -> OrientedBox:
    """The smallest box around `points` (M, 3) m, M >= 1, whose z axis is `up` (3,); x is the longer side of its
    footprint. Without `up`, the smallest of the boxes standing on one of the principal axes, z towards the camera.

    `outliers` is the share of points that may stay outside at each end of each axis.
    """
    xyz = np.ascontiguousarray(points, np.float64)
    if up is not None:
        return _box_on(xyz, rotation_with_z(up), outliers)
    spread = np.cov((xyz - xyz.mean(axis=0)).T) if len(xyz) > 1 else np.eye(3)
    axes = np.linalg.eigh(spread)[1].T
    boxes = [_box_on(xyz, rotation_with_z(-a if a[2] > 0 else a), outliers) for a in axes]
    return min(boxes, key=lambda box: float(np.prod(box.size + 1e-4)))  # as flat boxes all have volume 0


def _box_on(xyz: NDArray[np.float64], frame: NDArray[np.float64], outliers: float) -> OrientedBox:
    angle, low, high = _turned_bounds(xyz, frame, outliers)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0.0], [np.sin(angle), np.cos(angle), 0.0], [0.0, 0.0, 1.0]])
    R = frame @ turn
    return OrientedBox(transform(R, R @ ((low + high) / 2)), high - low)


def geometric_median(points: ArrayLike) -> NDArray[np.float64]:
    """The point (3,) m with the least sum of distances to `points` (M, 3) m, M >= 1: a median that turns with them.

    Found on at most 1000 of them, evenly taken (Weiszfeld's iteration).
    """
    xyz = np.asarray(points)
    return _geometric_median(xyz[:: max(1, len(xyz) // 1000)].astype(np.float64))


# -- kernels -----------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _geometric_median(xyz):  # type: ignore[no-untyped-def]
    centre = np.array([xyz[:, 0].mean(), xyz[:, 1].mean(), xyz[:, 2].mean()])
    for _ in range(30):
        total = np.zeros(3)
        weights = 0.0
        for i in range(len(xyz)):
            d = np.sqrt((xyz[i, 0] - centre[0]) ** 2 + (xyz[i, 1] - centre[1]) ** 2 + (xyz[i, 2] - centre[2]) ** 2)
            w = 1.0 / max(d, 1e-6)
            weights += w
            for k in range(3):
                total[k] += w * xyz[i, k]
        moved = 0.0
        for k in range(3):
            moved += (total[k] / weights - centre[k]) ** 2
            centre[k] = total[k] / weights
        if moved < 1e-10:  # 0.01 mm
            break
    return centre


@njit(cache=True, nogil=True)
def _turned_bounds(xyz, frame, outliers):  # type: ignore[no-untyped-def]
    """Angle of the footprint's longer side in `frame`, and bounds (3,), (3,) along the turned axes."""
    local = xyz @ frame
    angle, _ = _smallest_rectangle(_hull(local[:, :2]))
    c, s = np.cos(angle), np.sin(angle)
    for i in range(len(local)):
        x, y = local[i, 0], local[i, 1]
        local[i, 0] = c * x + s * y
        local[i, 1] = c * y - s * x
    low, high = np.empty(3), np.empty(3)
    for k in range(3):
        low[k], high[k] = _trimmed(local[:, k], outliers)
    if high[1] - low[1] > high[0] - low[0]:  # x is the longer side
        angle += np.pi / 2
        low[0], low[1], high[0], high[1] = low[1], -high[0], high[1], -low[0]
    return angle, low, high


@njit(cache=True, nogil=True)
def _trimmed(values, outliers):  # type: ignore[no-untyped-def]
    """The range of `values` less the share `outliers` at each end, to 1/1024 of the range."""
    low, high = values[0], values[0]
    for v in values:
        low = min(low, v)
        high = max(high, v)
    left_out = int(outliers * len(values))
    if left_out < 1 or high <= low:
        return low, high
    counts = np.zeros(1025, np.int64)
    scale = 1024.0 / (high - low)
    for v in values:
        counts[int((v - low) * scale)] += 1
    first, last = 0, 1024
    outside = counts[0]
    while outside <= left_out:
        first += 1
        outside += counts[first]
    outside = counts[1024]
    while outside <= left_out:
        last -= 1
        outside += counts[last]
    return low + first / scale, min(high, low + (last + 1) / scale)


@njit(cache=True, nogil=True)
def _hull(points):  # type: ignore[no-untyped-def]
    """Corners (K, 2) of the convex hull, counterclockwise (Andrew's monotone chain).

    Of many points only the lowest and highest in each of 1024 columns are looked at: that moves a corner by at most
    1/1024 of the width.
    """
    if len(points) > 2048:
        points = _column_ends(points)
    order = np.argsort(points[:, 1], kind="mergesort")
    order = order[np.argsort(points[order, 0], kind="mergesort")]
    hull = np.empty((2 * len(points) + 1, 2))
    n = 0
    for side in range(2):
        start = n
        for k in range(len(order)):
            p = points[order[k] if side == 0 else order[len(order) - 1 - k]]
            while n >= start + 2:
                a, b = hull[n - 2], hull[n - 1]
                if (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]) > 0.0:
                    break
                n -= 1
            hull[n] = p
            n += 1
        n -= 1  # the end of this side begins the next
    return hull[: max(n, 1)].copy()


@njit(cache=True, nogil=True)
def _column_ends(points):  # type: ignore[no-untyped-def]
    low, high = points[0, 0], points[0, 0]
    for i in range(len(points)):
        low = min(low, points[i, 0])
        high = max(high, points[i, 0])
    scale = 1023.0 / max(high - low, 1e-12)
    ends = np.full((1024, 2), -1, np.int64)
    for i in range(len(points)):
        k = int((points[i, 0] - low) * scale)
        if ends[k, 0] < 0 or points[i, 1] < points[ends[k, 0], 1]:
            ends[k, 0] = i
        if ends[k, 1] < 0 or points[i, 1] > points[ends[k, 1], 1]:
            ends[k, 1] = i
    out = np.empty((2048, 2))
    n = 0
    for k in range(1024):
        if ends[k, 0] >= 0:
            out[n] = points[ends[k, 0]]
            out[n + 1] = points[ends[k, 1]]
            n += 2
    return out[:n]


@njit(cache=True, nogil=True)
def _smallest_rectangle(hull):  # type: ignore[no-untyped-def]
    """Angle and bounds of the smallest rectangle; one of its sides lies on an edge of the hull (rotating calipers)."""
    n = len(hull)
    best_angle = 0.0
    best = np.empty((2, 2))
    best_area = np.inf
    right = up = left = 0  # corners farthest along the edge, away from it, and against it: they only move forward
    for i in range(n):
        j = (i + 1) % n
        angle = np.arctan2(hull[j, 1] - hull[i, 1], hull[j, 0] - hull[i, 0])
        c, s = np.cos(angle), np.sin(angle)
        right = _farthest(hull, max(right, i), c, s)
        up = _farthest(hull, max(up, right), -s, c)
        left = _farthest(hull, max(left, up), -c, -s)
        x_high = c * hull[right % n, 0] + s * hull[right % n, 1]
        x_low = c * hull[left % n, 0] + s * hull[left % n, 1]
        y_high = c * hull[up % n, 1] - s * hull[up % n, 0]
        y_low = c * hull[i, 1] - s * hull[i, 0]
        area = (x_high - x_low) * (y_high - y_low)
        if area < best_area:
            best_area, best_angle = area, angle
            best[0, 0], best[0, 1], best[1, 0], best[1, 1] = x_low, y_low, x_high, y_high
    turns = int(np.floor(best_angle / (np.pi / 2)))  # into [0, pi/2): each turn back swaps the axes
    for _ in range(turns % 4):
        x_low, x_high, y_low, y_high = best[0, 0], best[1, 0], best[0, 1], best[1, 1]
        best[0, 0], best[1, 0], best[0, 1], best[1, 1] = -y_high, -y_low, x_low, x_high
    return best_angle - turns * np.pi / 2, best


@njit(cache=True, nogil=True)
def _farthest(hull, k, dx, dy):  # type: ignore[no-untyped-def]
    """The corner at or after `k` where the way along (dx, dy) ends; not reduced to the number of corners."""
    n = len(hull)
    for _ in range(n):
        a, b = hull[k % n], hull[(k + 1) % n]
        if (b[0] - a[0]) * dx + (b[1] - a[1]) * dy < 0:
            break
        k += 1
    return k
