# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A scene as ROS messages, and back for consumers. Pure functions.

A `Scene` is in the camera's optical frame; `T_header_camera` (4, 4) maps it into `header.frame_id`. Objects of a
message are ordered by descending score: object i has label i + 1, in the label image and in the clouds too.
"""

from __future__ import annotations

import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseArray
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, PointCloud2
from std_msgs.msg import Header

from seg_perception.grasping.planning import pick_order
from seg_perception.masks import MAX_LABEL, Masks
from seg_perception.msg import Grasp as GraspMsg
from seg_perception.msg import InstanceMask, SegmentedObject, SegmentedObjectArray
from seg_perception.ros.clouds import (
    POINT_STEP,
    ObjectClouds,
    cloud_message,
    label_order,
    scene_cloud_message,
    thin_clouds,
)
from seg_perception.ros.conversions import encode_image, set_array
from seg_perception.ros.poses import NAN3, quaternions_of, set_xyz, set_xyzw, transform_message
from seg_perception.scene import Grasp, GraspKind, Object3D, Scene, Status

__all__ = [
    "ObjectClouds",
    "class_image",
    "cloud_message",
    "encode_image",
    "grasp_poses",
    "label_image",
    "label_order",
    "masks_from_message",
    "objects_message",
    "points_of",
    "scene_cloud_message",
    "thin_clouds",
    "transform_message",
]

NO_LIMIT = 2**31  # points of an object
UNKNOWN_CLASS = MAX_LABEL  # pixel value of class-agnostic objects in the class image


# -- the main message ------------------------------------------------------------------------------------------------


def objects_message(
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
) -> SegmentedObjectArray:
    """Everything about one frame, 3D in `header.frame_id`.

    `T_header_camera` None: the transform is not known, all 3D is withheld with status NO_TRANSFORM. `depth_delay` s is
    depth stamp minus color stamp, `wait` s what the pair took to arrive. `clouds` are those that ~/points gets
    (default: all points). `in_workspace` and `ages` (frames each id has been seen) are per row of the scene.
    """
    order = label_order(scene)
    clouds = thin_clouds(scene, NO_LIMIT) if clouds is None else clouds
    T = T_header_camera
    msg = SegmentedObjectArray(header=header, image_frame_id=image_frame_id, image_to_header=transform_message(T))
    if camera_info is not None:
        msg.camera_info = camera_info
    msg.depth_delay = float(depth_delay)
    msg.sequence = int(sequence)
    msg.model = scene.model
    msg.dropped_instances = int(scene.instances.dropped)
    laps = scene.timings
    fusion = sum(laps.get(stage, 0.0) for stage in ("support", "fuse", "track"))
    msg.timings = np.array([wait, laps.get("segment", 0.0), fusion, laps.get("grasp", 0.0)], np.float64)
    if T is not None and scene.support is not None:
        msg.has_support = True
        msg.support = scene.support.transformed(T).coefficients
    if T is not None and scene.frame.gravity is not None:
        set_xyz(msg.gravity, (T[:3, :3] @ scene.frame.gravity).tolist())

    msg.objects = objects = [blank_object() for _ in order]
    _fill_instances(objects, scene, order)
    for i, (obj, row) in enumerate(zip(objects, order, strict=True)):
        obj.age = 1 if ages is None else int(ages[row])
        obj.in_workspace = True if in_workspace is None else bool(in_workspace[row])
        if T is not None:
            obj.point_offset = clouds.offsets[i]
            obj.point_count = clouds.offsets[i + 1] - clouds.offsets[i]
    _fill_3d(objects, [scene.objects[row] for row in order], T, header.frame_id)
    if T is not None:
        _fill_grasps(objects, [scene.objects[row] for row in order], T)
    if include_points:
        msg.points = cloud_message(clouds, header, T)
    return msg


def _copier(proto: Any) -> Callable[[], Any]:
    """A function that returns new messages like `proto`: their constructors take half the time of filling a message."""
    kind, parts = type(proto), [(slot, getattr(proto, slot)) for slot in type(proto).__slots__]
    nested = [(slot, _copier(value)) for slot, value in parts if hasattr(value, "get_fields_and_field_types")]
    sequences = [(slot, value) for slot, value in parts if isinstance(value, list | np.ndarray | array.array)]
    copied = {slot for slot, _ in (*nested, *sequences)}
    fixed = [(slot, value) for slot, value in parts if slot not in copied]
    if any(isinstance(value, np.ndarray) and value.dtype == object for _, value in sequences):
        return kind  # nested messages in an array

    def copy() -> Any:
        msg = kind.__new__(kind)
        for slot, value in fixed:
            setattr(msg, slot, value)
        for slot, make in nested:
            setattr(msg, slot, make())
        for slot, value in sequences:
            setattr(msg, slot, value.copy() if isinstance(value, np.ndarray) else value[:])
        return msg

    return copy


blank_object = _copier(SegmentedObject())


def _fill_instances(objects: list[SegmentedObject], scene: Scene, order: list[int]) -> None:
    """Identity, class, 2D box and mask."""
    instances = scene.instances
    masks = instances.masks
    rois, areas = masks.rois.tolist(), masks.areas.tolist()
    class_ids, scores = instances.class_ids.tolist(), instances.scores.tolist()
    mask_scores = instances.mask_scores.tolist()
    boxes = np.asarray(instances.boxes, np.float32)
    for i, (obj, row) in enumerate(zip(objects, order, strict=True)):
        obj.id = int(scene.objects[row].id)
        obj.time_since_seen = float(scene.objects[row].time_since_seen)
        obj.label = i + 1
        obj.class_id = class_ids[row]
        obj.class_name = instances.class_names[row] or "object"
        obj.score, obj.mask_score = scores[row], mask_scores[row]
        obj.box = boxes[row]
        mask = obj.mask
        mask.image_width, mask.image_height = masks.width, masks.height
        roi = mask.roi
        roi.x_offset, roi.y_offset, roi.width, roi.height = rois[row]
        mask.area = areas[row]
        set_array(mask, "counts", masks.counts(row, rois[row]), "I")


def _fill_3d(objects: list[SegmentedObject], sources: list[Object3D], T: NDArray | None, frame_id: str) -> None:
    """Statuses of all, and centroid, covariance and box of those that have 3D; NaN for the others."""
    known = [T is not None and source.status.has_3d for source in sources]
    with_3d = [source for source, has_3d in zip(sources, known, strict=True) if has_3d]
    T_known = np.eye(4) if T is None else T
    R, t = T_known[:3, :3], T_known[:3, 3]
    centroids = iter((np.array([s.centroid for s in with_3d]).reshape(-1, 3) @ R.T + t).tolist())
    covariances = iter((R @ np.array([s.covariance for s in with_3d]).reshape(-1, 3, 3) @ R.T).reshape(-1, 9))
    poses = T_known @ np.array([s.box.T_camera_box for s in with_3d]).reshape(-1, 4, 4)
    positions, quaternions = iter(poses[:, :3, 3].tolist()), iter(quaternions_of(poses[:, :3, :3]).tolist())
    for obj, source, has_3d in zip(objects, sources, known, strict=True):
        obj.status, obj.status_text = int(source.status), source.status_text
        obj.touches_border = bool(source.touches_border)
        obj.occluded_ratio = float(source.occluded_ratio)
        obj.valid_depth_ratio = float(source.valid_depth_ratio)
        if has_3d:
            set_xyz(obj.centroid, next(centroids))
            obj.centroid_covariance = next(covariances)
            set_xyz(obj.box_pose.position, next(positions))
            set_xyzw(obj.box_pose, next(quaternions))
            set_xyz(obj.box_size, source.box.size.tolist())
            obj.box_completed = bool(source.box_completed)
            obj.height_above_support = float(source.height_above_support)
            continue
        if source.status.has_3d:
            obj.status, obj.status_text = int(Status.NO_TRANSFORM), f"no transform to {frame_id} at this stamp"
        set_xyz(obj.centroid, NAN3)
        obj.centroid_covariance = np.full(9, np.nan)
        set_xyz(obj.box_pose.position, NAN3)
        obj.height_above_support = float("nan")


def _fill_grasps(objects: list[SegmentedObject], sources: list[Object3D], T: NDArray) -> None:
    """Grasps of all objects at once: one product instead of one per pose."""
    flat = [grasp for source in sources for grasp in source.grasps]
    rows = iter(_grasp_rows(flat, T))
    for obj, source in zip(objects, sources, strict=True):
        obj.grasp_status, obj.grasp_text = int(source.grasp_status), source.grasp_text
        obj.grasps = [_grasp_message(grasp, obj.id, rank, next(rows)) for rank, grasp in enumerate(source.grasps)]


def _grasp_rows(grasps: list[Grasp], T: NDArray) -> list[list[float]]:
    """Per grasp 25 numbers in the header frame: position, pregrasp, quaternion, retreat, contacts, normals."""
    if not grasps:
        return []
    R, t = T[:3, :3], T[:3, 3]
    poses = T @ np.array([g.T_camera_grasp for g in grasps])
    stand_off = np.array([g.pregrasp_distance for g in grasps])[:, None]
    position, approach = poses[:, :3, 3], poses[:, :3, 2]
    contacts = np.array([g.contacts for g in grasps]) @ R.T + t
    normals = np.array([g.normals for g in grasps]) @ R.T
    cups = [g.kind == GraspKind.SUCTION for g in grasps]  # one contact, said twice
    contacts[cups, 1], normals[cups, 1] = contacts[cups, 0], normals[cups, 0]
    retreat = np.array([g.retreat_direction for g in grasps]) @ R.T
    n = len(grasps)
    columns = (
        position,
        position - stand_off * approach,
        quaternions_of(poses[:, :3, :3]),
        retreat,
        contacts.reshape(n, 6),
        normals.reshape(n, 6),
    )
    return np.concatenate(columns, axis=1).tolist()


def _grasp_message(grasp: Grasp, object_id: int, rank: int, row: list[float]) -> GraspMsg:
    msg = GraspMsg()
    msg.kind, msg.object_id, msg.rank = int(grasp.kind), object_id, rank
    msg.planner, msg.gripper = grasp.planner, grasp.gripper
    set_xyz(msg.pose.position, row[0:3])
    set_xyz(msg.pregrasp_pose.position, row[3:6])
    set_xyzw(msg.pose, row[6:10])
    set_xyzw(msg.pregrasp_pose, row[6:10])
    set_xyz(msg.retreat_direction, row[10:13])
    set_xyz(msg.contacts[0], row[13:16])
    set_xyz(msg.contacts[1], row[16:19])
    set_xyz(msg.normals[0], row[19:22])
    set_xyz(msg.normals[1], row[22:25])
    msg.retreat_distance = float(grasp.retreat_distance)
    msg.score, msg.width, msg.object_width = float(grasp.score), float(grasp.width), float(grasp.object_width)
    msg.max_force = float(grasp.max_force)
    msg.collision, msg.clearance = int(grasp.collision), float(grasp.clearance)
    return msg


# -- images and grasps ------------------------------------------------------------------------------------------------


def label_image(scene: Scene) -> NDArray[np.uint16]:
    """(H, W) uint16, value = label, 0 = none. Where masks overlap the nearer object owns the pixel, else (equally far,
    or both without 3D) the higher score; an object without 3D lies under those with 3D."""
    order = label_order(scene)
    masks = scene.instances.masks
    if order != sorted(order):
        masks = masks[order]
    depth = [scene.objects[row].centroid[2] if scene.objects[row].status.has_3d else np.inf for row in order]
    nearest_first = np.argsort(depth, kind="stable")  # labels go by score, so equal depths keep that order
    return masks.label_image(nearest_first[::-1])


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
