# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Projection, rigid transforms `T_target_source`, and oriented boxes. Metres, radians, pixels (REP 103)."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from seg_perception import rectangles
from seg_perception.scene import Intrinsics, OrientedBox


@lru_cache(maxsize=4)
def ray_planes(intrinsics: Intrinsics) -> NDArray[np.float32]:
    """`ray_table` with x/z of all pixels first, then y/z of all, (2, H, W): rows that kernels read as vectors."""
    planes = np.moveaxis(ray_table(intrinsics), -1, 0).copy()
    planes[~np.isfinite(planes)] = 0  # the lens' coefficients send these nowhere: fusion leaves them out
    planes.setflags(write=False)
    return planes


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
    if not k.is_distorted or not uv.size:  # OpenCV would return None
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
    hint = np.array([1.0, 0.0, 0.0]) if x_hint is None else np.asarray(x_hint, np.float64)
    return rectangles.axes_with_z(np.ascontiguousarray(z, np.float64), hint)


def smallest_rectangle(points: ArrayLike) -> tuple[float, NDArray[np.float64]]:
    """Angle rad in [0, pi/2) and bounds (2, 2) [min, max] along the turned axes of the smallest rectangle around
    `points` (M, 2), M >= 1; of more than 128 points its sides may be a hundredth too short (`rectangles.hull`)."""
    xy = np.asarray(points, np.float64)
    angle, bounds = rectangles.smallest_rectangle(rectangles.hull(xy[:, 0], xy[:, 1]))
    return float(angle), bounds


def oriented_box(points: ArrayLike, up: ArrayLike | None = None, outliers: float = 0.0) -> OrientedBox:
    """The smallest box around `points` (M, 3) m, M >= 1, whose z axis is `up` (3,); x is the longer side of its
    footprint. Without `up`, the smallest of the boxes standing on one of the principal axes, z towards the camera.

    `outliers` is the share of points that may stay outside at each end of each axis.
    """
    xyz = np.asarray(points)
    xyz = np.ascontiguousarray(xyz.T, np.float32 if xyz.dtype == np.float32 else np.float64)
    if up is not None:
        return _box_on(xyz, rotation_with_z(up), outliers)
    spread = np.cov(xyz) if xyz.shape[1] > 1 else np.eye(3)
    axes = np.linalg.eigh(spread)[1].T
    boxes = [_box_on(xyz, rotation_with_z(-a if a[2] > 0 else a), outliers) for a in axes]
    return min(boxes, key=lambda box: float(np.prod(box.size + 1e-4)))  # as flat boxes all have volume 0


def _box_on(xyz: NDArray, frame: NDArray[np.float64], outliers: float) -> OrientedBox:
    low, high = np.empty(3), np.empty(3)
    angle = rectangles.turned_bounds(xyz[0], xyz[1], xyz[2], frame, outliers, low, high)
    c, s = np.cos(angle), np.sin(angle)
    R = frame @ np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    return OrientedBox(transform(R, R @ ((low + high) / 2)), high - low)
