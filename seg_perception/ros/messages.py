# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A scene as ROS messages, and back for consumers. Pure functions.

A `Scene` is in the camera's optical frame; `T_header_camera` (4, 4) maps it into `header.frame_id`. Objects of a
message are ordered by descending score: object i has label i + 1, in the label image and in the clouds too.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseArray, Vector3
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from seg_perception.grasping.planning import pick_order
from seg_perception.masks import MAX_LABEL, Masks
from seg_perception.msg import InstanceMask, SegmentedObject, SegmentedObjectArray
from seg_perception.ros.clouds import (
    POINT_STEP,
    ObjectClouds,
    cloud_message,
    label_order,
    scene_cloud_message,
    thin_clouds,
)
from seg_perception.ros.conversions import blank, encode_image, zero_image
from seg_perception.ros.object_rows import object_rows
from seg_perception.ros.poses import set_xyz, transform_message
from seg_perception.ros.rows import Rows
from seg_perception.scene import Scene

__all__ = [
    "ObjectClouds",
    "class_image",
    "cloud_message",
    "encode_image",
    "grasp_poses",
    "label_image",
    "label_message",
    "label_order",
    "main_message",
    "masks_from_message",
    "objects_message",
    "points_of",
    "scene_cloud_message",
    "thin_clouds",
    "transform_message",
]

HEAD = 4  # bytes before a serialized message's body
PROBE, MARK = PointCloud2(width=2**32 - 1), b"\xff" * 4  # tells where in serialized bytes the cloud is
WIDTH_AT = 20  # bytes from the begin of the cloud to its width, without a frame_id
UNKNOWN_CLASS = MAX_LABEL  # pixel value of class-agnostic objects in the class image


# -- the main message ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class MainMessage:
    """Everything about one frame, in parts: `frame` is the message without objects and cloud."""

    frame: SegmentedObjectArray
    objects: Rows
    points: PointCloud2

    def message(self) -> SegmentedObjectArray:
        """The Python object, to look into or to change."""
        msg = copy(self.frame)
        msg.objects, msg.points = self.objects.messages(), self.points
        return msg

    def serialized(self) -> bytes:
        """The bytes that serialize_message makes of the message, but for padding, in a fraction of the time.

        All but the objects is rclpy's work; what the objects' bytes are is said in `rows`.
        """
        probe = copy(self.frame)
        probe.objects, probe.points = [], PROBE
        blob = serialize_message(probe)
        timings = self.frame.timings.view(np.uint8)
        begin = blob.rfind(MARK, 0, -len(timings)) - WIDTH_AT - HEAD  # of the cloud, after the number of objects
        if begin < 4 or begin % 4:
            raise RuntimeError(f"{type(probe).__name__}: its {len(blob)} bytes are not the CDR that was expected")
        cloud = np.frombuffer(serialize_message(self.points), np.uint8)[HEAD:]
        out = np.zeros((begin + self.objects.size + len(cloud) + len(timings) + 16) // 8 * 8, np.uint8)
        out[: begin - 4] = np.frombuffer(blob, np.uint8)[HEAD : HEAD + begin - 4]
        at = _aligned(self.objects.write(out, begin - 4), 4)
        out[at : at + len(cloud)] = cloud
        at = _aligned(at + len(cloud), 8)
        out[at : at + len(timings)] = timings
        return blob[:HEAD] + out[: at + len(timings)].tobytes()

    def reads_alike(self) -> bool:
        """Whether this middleware reads the bytes as it reads its own."""
        try:
            ours = deserialize_message(self.serialized(), SegmentedObjectArray)
        except RuntimeError:  # what rclpy makes of what its middleware says
            return False
        own = deserialize_message(serialize_message(self.message()), SegmentedObjectArray)
        return repr(ours) == repr(own)  # as text, where NaN is NaN


def _aligned(position: int, size: int) -> int:
    return -(-position // size) * size


def objects_message(*args: Any, **options: Any) -> SegmentedObjectArray:
    """The `main_message` of a scene as a Python object."""
    return main_message(*args, **options).message()


def main_message(
    scene: Scene,
    header: Header,
    image_frame_id: str,
    T_header_camera: NDArray | None,
    camera_info: CameraInfo | None = None,
    *,
    depth_delay: float = float("nan"),
    sequence: int = 0,
    clouds: ObjectClouds | None = None,
    include_points: bool = False,
    in_workspace: Sequence[bool] | None = None,
    ages: Sequence[int] | None = None,
    wait: float = 0.0,
) -> MainMessage:
    """The main message of a scene, 3D in `header.frame_id`.

    `T_header_camera` None: the transform is not known, all 3D is withheld with status NO_TRANSFORM. `depth_delay` s is
    depth stamp minus color stamp, `wait` s what the pair took to arrive. `clouds` are those that ~/points gets
    (default: all points). `in_workspace` and `ages` (frames each id has been seen) are per row of the scene.
    """
    clouds = thin_clouds(scene) if clouds is None else clouds
    T = T_header_camera
    msg = blank(SegmentedObjectArray)
    msg.header, msg.image_frame_id, msg.image_to_header = header, image_frame_id, transform_message(T)
    msg.camera_info = CameraInfo() if camera_info is None else camera_info
    msg.depth_delay = float(depth_delay)
    msg.sequence = int(sequence)
    msg.model = scene.model
    msg.dropped_instances = int(scene.instances.dropped)
    laps = scene.timings
    fusion = sum(laps.get(stage, 0.0) for stage in ("support", "fuse", "track"))
    msg.timings = np.array([wait, laps.get("segment", 0.0), fusion, laps.get("grasp", 0.0)], np.float64)
    support, gravity = (None, None) if T is None else (scene.support, scene.frame.gravity)
    msg.has_support = support is not None
    msg.support = np.zeros(4) if support is None else support.transformed(T).coefficients
    msg.gravity = Vector3()
    if gravity is not None:
        set_xyz(msg.gravity, (T[:3, :3] @ gravity).tolist())
    objects = object_rows(scene, T, header.frame_id, clouds, in_workspace, ages)
    return MainMessage(msg, objects, cloud_message(clouds, header, T) if include_points else PointCloud2())


# -- images and grasps ------------------------------------------------------------------------------------------------


def label_message(scene: Scene, header: Header) -> Image:
    """The label image as a message, 16UC1."""
    msg, pixels = zero_image(scene.frame.height, scene.frame.width, "16UC1", header)
    label_image(scene, pixels)
    return msg


def label_image(scene: Scene, out: NDArray[np.uint16] | None = None) -> NDArray[np.uint16]:
    """(H, W) uint16, value = label, 0 = none; painted on `out` (zeros) where it is given. Where masks overlap the
    nearer object owns the pixel, else (equally far, or both without 3D) the higher score; an object without 3D lies
    under those with 3D."""
    order = label_order(scene)
    masks = scene.instances.masks
    if order != sorted(order):
        masks = masks[order]
    depth = [scene.objects[row].centroid[2] if scene.objects[row].status.has_3d else np.inf for row in order]
    nearest_first = np.argsort(depth, kind="stable")  # labels go by score, so equal depths keep that order
    return masks.label_image(nearest_first[::-1], out)


def class_image(scene: Scene, labels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """(H, W) uint16 from a label image: class id + 1, 0 = none, 65535 = class-agnostic."""
    of_label = np.zeros(len(scene) + 1, np.uint16)
    class_ids = scene.instances.class_ids[label_order(scene)]
    of_label[1:] = np.where(class_ids < 0, UNKNOWN_CLASS, class_ids + 1)
    return np.take(of_label, labels)


def grasp_poses(msg: SegmentedObjectArray, scene: Scene) -> PoseArray:
    """The best grasp of each object that has one, in pick order; `msg` is the message of this scene."""
    index_of = {row: index for index, row in enumerate(label_order(scene))}
    objects = (msg.objects[index_of[row]] for row in pick_order(scene))
    return PoseArray(header=msg.header, poses=[obj.grasps[0].pose for obj in objects if obj.grasps])


# -- for consumers ---------------------------------------------------------------------------------------------------


def masks_from_message(msg: SegmentedObjectArray) -> Masks:
    """The objects' masks, in the message's order. Raises ValueError for run lengths that do not add up."""
    if not msg.objects:
        return Masks.empty(msg.camera_info.height, msg.camera_info.width)
    masks: list[InstanceMask] = [obj.mask for obj in msg.objects]
    rois = [(m.roi.x_offset, m.roi.y_offset, m.roi.width, m.roi.height) for m in masks]
    return Masks.from_counts(masks[0].image_height, masks[0].image_width, rois, [np.asarray(m.counts) for m in masks])


def points_of(msg: SegmentedObjectArray, obj: SegmentedObject, cloud: PointCloud2 | None = None) -> NDArray[np.float32]:
    """One object's points (M, 3) m in `msg.header.frame_id`, from the message or from the ~/points `cloud` of the same
    stamp. Raises ValueError where they are not in it."""
    source = msg.points if cloud is None else cloud
    if cloud is not None and cloud.header.stamp != msg.header.stamp:
        raise ValueError(f"points of object {obj.id}: the cloud's stamp {cloud.header.stamp} is not the message's")
    end = obj.point_offset + obj.point_count
    if len(source.data) < end * POINT_STEP:
        raise ValueError(
            f"points of object {obj.id}: expected {end} points in the cloud, got {source.width} "
            "(set objects.include_points, or pass the ~/points cloud)"
        )
    table = np.frombuffer(source.data, np.float32).reshape(-1, POINT_STEP // 4)
    return table[obj.point_offset : end, :3]
