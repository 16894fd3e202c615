# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Poses and transforms as messages, and back. Assigning to members is several times faster than keywords."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Point, Pose, Transform, Vector3
from numba import njit
from numpy.typing import NDArray

from seg_perception.geometry import matrix_from_quaternion, transform

NAN3 = (float("nan"),) * 3


def pose_from_matrix(T: NDArray) -> Pose:
    """The pose of a (4, 4) transform."""
    pose = Pose()
    set_xyz(pose.position, T[:3, 3].tolist())
    set_xyzw(pose, quaternions_of(T[None, :3, :3])[0].tolist())
    return pose


def matrix_from_pose(pose: Pose) -> NDArray[np.float64]:
    """The transform (4, 4) of a pose. Raises ValueError for a quaternion of length 0."""
    p, q = pose.position, pose.orientation
    return transform(matrix_from_quaternion((q.x, q.y, q.z, q.w)), (p.x, p.y, p.z))


def transform_message(T: NDArray | None) -> Transform:
    """The message of a (4, 4) transform; None (not known) has a NaN translation."""
    msg = Transform()
    if T is None:
        set_xyz(msg.translation, NAN3)
        return msg
    set_xyz(msg.translation, T[:3, 3].tolist())
    q = msg.rotation
    q.x, q.y, q.z, q.w = quaternions_of(T[None, :3, :3])[0].tolist()
    return msg


def matrix_from_transform(message: Transform) -> NDArray[np.float64]:
    """The transform (4, 4) of a message. Raises ValueError for a quaternion of length 0."""
    t, q = message.translation, message.rotation
    return transform(matrix_from_quaternion((q.x, q.y, q.z, q.w)), (t.x, t.y, t.z))


def quaternions_of(rotations: NDArray) -> NDArray[np.float64]:
    """Unit quaternions x, y, z, w (w >= 0), (N, 4), of rotations (N, 3, 3): Shepperd's method."""
    return _quaternions(np.ascontiguousarray(rotations, np.float64))


@njit(cache=True, nogil=True)
def _quaternions(rotations):  # type: ignore[no-untyped-def]
    quaternions = np.empty((len(rotations), 4))
    outer = np.empty((4, 4))  # 4 q q^T; its row with the largest diagonal is best conditioned
    for i in range(len(rotations)):
        m = rotations[i]
        xx, yy, zz = m[0, 0], m[1, 1], m[2, 2]
        outer[0, 0], outer[1, 1] = 1 + xx - yy - zz, 1 - xx + yy - zz
        outer[2, 2], outer[3, 3] = 1 - xx - yy + zz, 1 + xx + yy + zz
        outer[0, 1] = outer[1, 0] = m[0, 1] + m[1, 0]
        outer[0, 2] = outer[2, 0] = m[0, 2] + m[2, 0]
        outer[1, 2] = outer[2, 1] = m[1, 2] + m[2, 1]
        outer[0, 3] = outer[3, 0] = m[2, 1] - m[1, 2]
        outer[1, 3] = outer[3, 1] = m[0, 2] - m[2, 0]
        outer[2, 3] = outer[3, 2] = m[1, 0] - m[0, 1]
        best = 0
        for k in range(1, 4):
            if outer[k, k] > outer[best, best]:
                best = k
        x, y, z, w = outer[best]
        length = math.sqrt(x * x + y * y + z * z + w * w)
        quaternions[i] = outer[best] * ((-1.0 if w < 0 else 1.0) / length)
    return quaternions


def set_xyz(target: Point | Vector3, values: Sequence[float]) -> None:
    """Three numbers, m or a direction."""
    target._x, target._y, target._z = values


def set_xyzw(pose: Pose, values: Sequence[float]) -> None:
    """The orientation, a unit quaternion."""
    q = pose._orientation
    q._x, q._y, q._z, q._w = values
