# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Point clouds out: one PointCloud2 of all objects in label order, and one of the whole scene."""

from __future__ import annotations

import array
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numba import njit
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from seg_perception.config import PointsConfig
from seg_perception.geometry import ray_table
from seg_perception.ros.conversions import set_array, set_sequence
from seg_perception.ros.thinning import evenly, fair_share, one_per_cell
from seg_perception.scene import Frame, Scene

POINT_STEP = 20  # bytes: x y z float32 m, rgb packed into a float32, label uint32
FIELDS = (
    ("x", 0, PointField.FLOAT32),
    ("y", 4, PointField.FLOAT32),
    ("z", 8, PointField.FLOAT32),
    ("rgb", 12, PointField.FLOAT32),
    ("label", 16, PointField.UINT32),
)


@dataclass(frozen=True, slots=True, eq=False)
class ObjectClouds:
    """The objects' points and how many of them are published: thinned once, so that every message about a frame agrees.

    Entry i belongs to label i + 1: `points[i]` (M_i, 3) float32 m, camera frame, `colors[i]` (M_i, 3) uint8 RGB.
    `offsets` (N + 1,): object i owns points `offsets[i]` to `offsets[i + 1]` of the published cloud; where those are
    fewer than M_i, `cloud_message` takes them evenly over the image, of which `focal` px, of x and y, tells the rays.
    """

    points: tuple[NDArray[np.float32], ...]
    colors: tuple[NDArray[np.uint8], ...]
    offsets: tuple[int, ...]
    focal: tuple[float, float]


def label_order(scene: Scene) -> list[int]:
    """Rows of the scene by descending score: entry i has label i + 1 and becomes object i of a message."""
    return np.argsort(-scene.instances.scores, kind="stable").tolist()


def thin_clouds(scene: Scene, limits: PointsConfig | None = None) -> ObjectClouds:
    """The objects' clouds in label order, thinned to `limits` (default: all points)."""
    objects = [scene.objects[row] for row in label_order(scene)]
    points, colors = tuple(obj.points for obj in objects), tuple(obj.colors for obj in objects)
    counts = [len(p) for p in points]
    if limits is not None:
        if limits.voxel > 0:
            cells = [one_per_cell(p, limits.voxel) for p in points]
            points = tuple(p[chosen] for p, chosen in zip(points, cells, strict=True))
            colors = tuple(c[chosen] for c, chosen in zip(colors, cells, strict=True))
            counts = [len(p) for p in points]
        most = min(limits.max_per_object, fair_share(counts, limits.max_total))
        counts = [min(count, most) for count in counts]
    camera = scene.frame.intrinsics
    focal = (1.0, 1.0) if camera is None else (float(camera.fx), float(camera.fy))
    return ObjectClouds(points, colors, (0, *accumulate(counts)), focal)


def cloud_message(clouds: ObjectClouds, header: Header, T_header_camera: NDArray | None) -> PointCloud2:
    """All objects' points in `header.frame_id`, ordered by label; empty where the transform is not known (None)."""
    if T_header_camera is None:
        return _cloud(header, np.empty((0, 5), np.uint32))
    T = np.ascontiguousarray(T_header_camera[:3], np.float32)
    data, packed = _room(clouds.offsets[-1])
    for i, (points, colors) in enumerate(zip(clouds.points, clouds.colors, strict=True)):
        start, stop = clouds.offsets[i : i + 2]
        if start < stop:
            _pack_points(points, colors, i + 1, T, *clouds.focal, packed[start:stop])
    msg = _cloud(header, packed[:0])
    msg.width, msg.row_step = len(packed), POINT_STEP * len(packed)
    set_sequence(msg, "data", data)
    return msg


def _room(count: int) -> tuple[array.array[int], NDArray[np.uint32]]:
    """The bytes of so many points, and the same as (count, 5), to be packed in place: a cloud is large."""
    data = array.array("B", b"\0") * (POINT_STEP * count)
    return data, np.frombuffer(data, np.uint32).reshape(-1, POINT_STEP // 4)


def scene_cloud_message(
    frame: Frame, labels: NDArray[np.uint16], header: Header, T_header_camera: NDArray | None, stride: int = 1
) -> PointCloud2:
    """Every measured pixel of the frame (each `stride`-th of a row and column) as a point; label 0 = no object."""
    if T_header_camera is None or frame.no_3d is not None or frame.depth is None or frame.intrinsics is None:
        return _cloud(header, np.empty((0, 5), np.uint32))
    step = (slice(None, None, stride),) * 2
    depth, rays, color, label = (
        np.ascontiguousarray(image[step]) for image in (frame.depth, ray_table(frame.intrinsics), frame.color, labels)
    )
    return _cloud(header, _pack_scene(depth, rays, color, label, *_float32(T_header_camera)))


def _float32(T: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.ascontiguousarray(T[:3, :3], np.float32), np.ascontiguousarray(T[:3, 3], np.float32)


def _cloud(header: Header, packed: NDArray[np.uint32]) -> PointCloud2:
    msg = PointCloud2(header=header, height=1, width=len(packed), point_step=POINT_STEP, is_dense=True)
    msg.fields = [PointField(name=name, offset=offset, datatype=kind, count=1) for name, offset, kind in FIELDS]
    msg.row_step = POINT_STEP * len(packed)
    set_array(msg, "data", packed, "B")
    return msg


@njit(cache=True, nogil=True)
def _pack_points(points, colors, label, T, fx, fy, out):  # type: ignore[no-untyped-def]
    chosen = evenly(points, len(out), fx, fy)
    metres = out.view(np.float32)
    xx, xy, xz, x0 = T[0, 0], T[0, 1], T[0, 2], T[0, 3]  # once: `out` might change them
    yx, yy, yz, y0 = T[1, 0], T[1, 1], T[1, 2], T[1, 3]
    zx, zy, zz, z0 = T[2, 0], T[2, 1], T[2, 2], T[2, 3]
    for i in range(len(chosen)):
        k = chosen[i]
        x, y, z = points[k, 0], points[k, 1], points[k, 2]
        metres[i, 0] = xx * x + xy * y + xz * z + x0
        metres[i, 1] = yx * x + yy * y + yz * z + y0
        metres[i, 2] = zx * x + zy * y + zz * z + z0
        out[i, 3] = np.uint32(colors[k, 0]) << 16 | np.uint32(colors[k, 1]) << 8 | np.uint32(colors[k, 2])
        out[i, 4] = label


@njit(cache=True, nogil=True)
def _pack_scene(depth, rays, color, labels, rotation, translation):  # type: ignore[no-untyped-def]
    count = 0
    for y in range(depth.shape[0]):
        for x in range(depth.shape[1]):
            count += 0 < depth[y, x] < np.inf
    out = np.empty((count, 5), np.uint32)
    metres = out.view(np.float32)
    i = 0
    for y in range(depth.shape[0]):
        for x in range(depth.shape[1]):
            z = depth[y, x]
            if not 0 < z < np.inf:
                continue
            px, py = rays[y, x, 0] * z, rays[y, x, 1] * z
            for k in range(3):
                metres[i, k] = rotation[k, 0] * px + rotation[k, 1] * py + rotation[k, 2] * z + translation[k]
            out[i, 3] = np.uint32(color[y, x, 0]) << 16 | np.uint32(color[y, x, 1]) << 8 | np.uint32(color[y, x, 2])
            out[i, 4] = labels[y, x]
            i += 1
    return out
