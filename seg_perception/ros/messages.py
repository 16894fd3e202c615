# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A scene as ROS messages, and back for consumers. Pure functions.

A `Scene` is in the camera's optical frame; `T_header_camera` (4, 4) maps it into `header.frame_id`. Objects of a
message are ordered by descending score: object i has label i + 1, in the label image and in the clouds too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseArray, Quaternion, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, RegionOfInterest
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
from seg_perception.ros.conversions import blank, encode_image, sequence_of, zero_image
from seg_perception.ros.poses import NAN3, quaternions_of, set_xyz, set_xyzw, transform_message
from seg_perception.scene import Grasp, GraspKind, Object3D, Scene, Status

__all__ = [
    "ObjectClouds",
    "class_image",
    "cloud_message",
    "encode_image",
    "grasp_poses",
    "label_image",
    "label_message",
    "label_order",
    "masks_from_message",
    "objects_message",
    "points_of",
    "scene_cloud_message",
    "thin_clouds",
    "transform_message",
]

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
    msg.objects = objects = [_blank_object() for _ in order]
    _fill_instances(objects, scene, order)
    offsets = clouds.offsets if T is not None else (0,) * len(clouds.offsets)
    for i, (obj, row) in enumerate(zip(objects, order, strict=True)):
        obj._age = 1 if ages is None else int(ages[row])
        obj._in_workspace = True if in_workspace is None else bool(in_workspace[row])
        obj._point_offset, obj._point_count = offsets[i], offsets[i + 1] - offsets[i]
    sources = [scene.objects[row] for row in order]
    _fill_3d(objects, sources, T, header.frame_id)
    _fill_grasps(objects, sources, T)
    msg.points = cloud_message(clouds, header, T) if include_points else PointCloud2()
    return msg


def _blank_object() -> SegmentedObject:
    """An object whose parts are there, and empty of numbers."""
    obj = blank(SegmentedObject)
    obj._mask = mask = blank(InstanceMask)
    mask._roi = blank(RegionOfInterest)
    obj._centroid = blank(Point)
    obj._box_pose = pose = blank(Pose)
    pose._position, pose._orientation = blank(Point), blank(Quaternion)
    obj._box_size = blank(Vector3)
    return obj


def _fill_instances(objects: list[SegmentedObject], scene: Scene, order: list[int]) -> None:
    """Identity, class, 2D box and mask."""
    instances = scene.instances
    masks = instances.masks
    rois = masks.rois
    counts, starts = masks.all_counts(rois)
    runs, starts, rois = sequence_of(counts, "I"), starts.tolist(), rois.tolist()
    height, width, areas = masks.height, masks.width, masks.areas.tolist()
    class_ids, class_names = instances.class_ids.tolist(), instances.class_names
    scores, mask_scores = instances.scores.tolist(), instances.mask_scores.tolist()
    boxes = np.asarray(instances.boxes, np.float32)
    for i, (obj, row) in enumerate(zip(objects, order, strict=True)):
        source = scene.objects[row]
        obj._id, obj._label = int(source.id), i + 1
        obj._time_since_seen = float(source.time_since_seen)
        obj._class_id, obj._class_name = class_ids[row], class_names[row] or "object"
        obj._score, obj._mask_score = scores[row], mask_scores[row]
        obj._box = boxes[row]
        mask = obj._mask
        mask._image_width, mask._image_height, mask._area = width, height, areas[row]
        mask._counts = runs[starts[row] : starts[row + 1]]
        roi = mask._roi
        roi._x_offset, roi._y_offset, roi._width, roi._height = rois[row]
        roi._do_rectify = False


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
        obj._status, obj._status_text = int(source.status), source.status_text
        obj._touches_border = bool(source.touches_border)
        obj._occluded_ratio = float(source.occluded_ratio)
        obj._valid_depth_ratio = float(source.valid_depth_ratio)
        if has_3d:
            set_xyz(obj._centroid, next(centroids))
            obj._centroid_covariance = next(covariances)
            set_xyz(obj._box_pose._position, next(positions))
            set_xyzw(obj._box_pose, next(quaternions))
            set_xyz(obj._box_size, source.box.size.tolist())
            obj._box_completed = bool(source.box_completed)
            obj._height_above_support = float(source.height_above_support)
            continue
        if source.status.has_3d:
            obj._status, obj._status_text = int(Status.NO_TRANSFORM), f"no transform to {frame_id} at this stamp"
        set_xyz(obj._centroid, NAN3)
        obj._centroid_covariance = np.full(9, np.nan)
        set_xyz(obj._box_pose._position, NAN3)
        set_xyzw(obj._box_pose, (0.0, 0.0, 0.0, 1.0))
        set_xyz(obj._box_size, (0.0, 0.0, 0.0))
        obj._box_completed = False
        obj._height_above_support = float("nan")


def _fill_grasps(objects: list[SegmentedObject], sources: list[Object3D], T: NDArray | None) -> None:
    """Grasps of all objects at once: one product instead of one per pose; none without `T`."""
    flat = [] if T is None else [grasp for source in sources for grasp in source.grasps]
    rows = iter(_grasp_rows(flat, np.eye(4) if T is None else T))
    for obj, source in zip(objects, sources, strict=True):
        if T is None:
            obj._grasp_status, obj._grasp_text, obj._grasps = 0, "", []
            continue
        obj._grasp_status, obj._grasp_text = int(source.grasp_status), source.grasp_text
        obj._grasps = [_grasp_message(grasp, obj._id, rank, next(rows)) for rank, grasp in enumerate(source.grasps)]


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
    msg = blank(GraspMsg)
    msg._kind, msg._object_id, msg._rank = int(grasp.kind), object_id, rank
    msg._planner, msg._gripper = grasp.planner, grasp.gripper
    msg._pose = _pose(row[0:3], row[6:10])
    msg._pregrasp_pose = _pose(row[3:6], row[6:10])
    msg._retreat_direction = _xyz(Vector3, row[10:13])
    msg._contacts = [_xyz(Point, row[13:16]), _xyz(Point, row[16:19])]
    msg._normals = [_xyz(Vector3, row[19:22]), _xyz(Vector3, row[22:25])]
    msg._retreat_distance = float(grasp.retreat_distance)
    msg._score, msg._width, msg._object_width = float(grasp.score), float(grasp.width), float(grasp.object_width)
    msg._max_force = float(grasp.max_force)
    msg._collision, msg._clearance = int(grasp.collision), float(grasp.clearance)
    return msg


def _pose(position: list[float], quaternion: list[float]) -> Pose:
    pose = blank(Pose)
    pose._position, pose._orientation = _xyz(Point, position), blank(Quaternion)
    set_xyzw(pose, quaternion)
    return pose


def _xyz(kind: type[Point | Vector3], values: list[float]) -> Any:
    msg = blank(kind)
    set_xyz(msg, values)
    return msg


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
