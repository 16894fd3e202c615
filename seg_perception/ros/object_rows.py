# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The objects of a scene, and their grasps, as columns of messages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from seg_perception.msg import Grasp as GraspMsg
from seg_perception.msg import SegmentedObject
from seg_perception.ros.clouds import ObjectClouds, label_order
from seg_perception.ros.poses import quaternions_of
from seg_perception.ros.rows import Rows
from seg_perception.scene import Grasp, GraspKind, Object3D, Scene, Status

OF_OBJECTS = ("id", "time_since_seen", "touches_border", "occluded_ratio", "valid_depth_ratio")  # Object3D's own names
OF_GRASPS = ("retreat_distance", "score", "width", "object_width", "max_force", "clearance", "kind", "collision")
WITHOUT_3D = {"box_pose.orientation": (0.0, 0.0, 0.0, 1.0), "box_size": 0.0, "box_completed": 0.0}  # others: NaN
values_of_object, values_of_grasp = attrgetter(*OF_OBJECTS), attrgetter(*OF_GRASPS)


def object_rows(
    scene: Scene,
    T_header_camera: NDArray | None,
    frame_id: str,
    clouds: ObjectClouds,
    in_workspace: Sequence[bool] | None = None,
    ages: Sequence[int] | None = None,
) -> Rows:
    """`SegmentedObject`s in label order; arguments as in `main_message`."""
    order = np.array(label_order(scene), np.intp)
    objects = [scene.objects[row] for row in order]
    rows = Rows(SegmentedObject, len(objects))
    _set_instances(rows, scene, order)
    rows.set_each(OF_OBJECTS, [values_of_object(obj) for obj in objects])
    rows.set("age", 1 if ages is None else np.asarray(ages)[order])
    rows.set("in_workspace", 1 if in_workspace is None else np.asarray(in_workspace)[order])
    if T_header_camera is not None:
        offsets = np.array(clouds.offsets)
        rows.set("point_offset", offsets[:-1])
        rows.set("point_count", np.diff(offsets))
    _set_3d(rows, objects, T_header_camera, frame_id)
    _set_grasps(rows, objects, T_header_camera)
    return rows


def _set_instances(rows: Rows, scene: Scene, order: NDArray[np.intp]) -> None:
    """Class, 2D box and mask."""
    instances = scene.instances
    masks = instances.masks if (order[1:] > order[:-1]).all() else instances.masks[order]
    rows.set("label", np.arange(1, rows.count + 1))
    rows.set("class_id", instances.class_ids[order])
    rows.texts["class_name"] = [instances.class_names[row] or "object" for row in order]
    rows.set("score", instances.scores[order])
    rows.set("mask_score", instances.mask_scores[order])
    rows.set("box", instances.boxes[order])
    rois = masks.rois
    rows.set("mask.image_width", masks.width)
    rows.set("mask.image_height", masks.height)
    for column, field in enumerate(("x_offset", "y_offset", "width", "height")):
        rows.set(f"mask.roi.{field}", rois[:, column])
    rows.set("mask.area", masks.areas)
    rows.words = masks.all_counts(rois)


def _set_3d(rows: Rows, objects: list[Object3D], T: NDArray | None, frame_id: str) -> None:
    """Statuses of all, and centroid, covariance and box of those that have 3D; NaN for the others."""
    has_3d = [obj.status.has_3d for obj in objects]
    statuses, texts = [obj.status for obj in objects], [obj.status_text for obj in objects]
    if T is None:
        withheld = f"no transform to {frame_id} at this stamp"
        statuses = [Status.NO_TRANSFORM if has else status for has, status in zip(has_3d, statuses, strict=True)]
        texts = [withheld if has else text for has, text in zip(has_3d, texts, strict=True)]
        has_3d = [False] * len(objects)
        T = np.eye(4)
    rows.set("status", np.array(statuses, np.float64))
    rows.texts["status_text"] = texts
    with_3d = [obj for obj, has in zip(objects, has_3d, strict=True) if has]
    R, t = T[:3, :3], T[:3, 3]
    poses = T @ np.array([obj.box.T_camera_box for obj in with_3d]).reshape(-1, 4, 4)
    covariances = R @ np.array([obj.covariance for obj in with_3d]).reshape(-1, 3, 3) @ R.T
    columns = {
        "centroid": np.array([obj.centroid for obj in with_3d]).reshape(-1, 3) @ R.T + t,
        "centroid_covariance": covariances.reshape(-1, 9),
        "box_pose.position": poses[:, :3, 3],
        "box_pose.orientation": quaternions_of(poses[:, :3, :3]),
        "box_size": np.array([obj.box.size for obj in with_3d]).reshape(-1, 3),
        "box_completed": np.array([obj.box_completed for obj in with_3d], np.float64)[:, None],
        "height_above_support": np.array([obj.height_above_support for obj in with_3d], np.float64)[:, None],
    }
    for path, values in columns.items():
        if len(with_3d) < len(objects):
            spread = np.empty((len(objects), values.shape[1]))
            spread[...] = WITHOUT_3D.get(path, np.nan)
            spread[has_3d] = values
            values = spread
        rows.set(path, values)


def _set_grasps(rows: Rows, objects: list[Object3D], T: NDArray | None) -> None:
    """Grasps of all objects; none without a transform."""
    if T is None:
        rows.texts["grasp_text"] = [""] * len(objects)
        return
    rows.set("grasp_status", np.array([obj.grasp_status for obj in objects], np.float64))
    rows.texts["grasp_text"] = [obj.grasp_text for obj in objects]
    counts = [len(obj.grasps) for obj in objects]
    grasps = _grasp_rows([grasp for obj in objects for grasp in obj.grasps], T)
    grasps.set("object_id", np.repeat(np.array([obj.id for obj in objects], np.float64), counts))
    grasps.set("rank", np.array([rank for count in counts for rank in range(count)], np.float64))
    rows.rows = (grasps, [0, *accumulate(counts)])


def _grasp_rows(grasps: list[Grasp], T: NDArray) -> Rows:
    """`Grasp`s in the header frame; whose they are is not set."""
    rows = Rows(GraspMsg, len(grasps))
    if not grasps:
        return rows
    R, t = T[:3, :3], T[:3, 3]
    poses = T @ np.array([g.T_camera_grasp for g in grasps])
    stand_off = np.array([g.pregrasp_distance for g in grasps])[:, None]
    position, quaternions = poses[:, :3, 3], quaternions_of(poses[:, :3, :3])
    contacts = np.array([g.contacts for g in grasps]) @ R.T + t
    normals = np.array([g.normals for g in grasps]) @ R.T
    cups = [g.kind == GraspKind.SUCTION for g in grasps]  # one contact, said twice
    contacts[cups, 1], normals[cups, 1] = contacts[cups, 0], normals[cups, 0]
    rows.texts["planner"], rows.texts["gripper"] = [g.planner for g in grasps], [g.gripper for g in grasps]
    rows.set_each(OF_GRASPS, [values_of_grasp(g) for g in grasps])
    rows.set("pose.position", position)
    rows.set("pose.orientation", quaternions)
    rows.set("pregrasp_pose.position", position - stand_off * poses[:, :3, 2])
    rows.set("pregrasp_pose.orientation", quaternions)
    rows.set("retreat_direction", np.array([g.retreat_direction for g in grasps]) @ R.T)
    rows.set("contacts", contacts)
    rows.set("normals", normals)
    return rows
