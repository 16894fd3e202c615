# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The same objects for consumers of vision_msgs (4.x: Humble and later). Import this only where that is installed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from std_msgs.msg import Header
from vision_msgs.msg import (
    Detection2D,
    Detection2DArray,
    Detection3D,
    Detection3DArray,
    LabelInfo,
    ObjectHypothesisWithPose,
    VisionClass,
)

from seg_perception.msg import SegmentedObject, SegmentedObjectArray
from seg_perception.ros.messages import UNKNOWN_CLASS

TOPICS = {"detections": Detection3DArray, "detections_2d": Detection2DArray}  # made by the function of that name
UNKNOWN_VARIANCE = 1e6  # of what is not measured: the box's orientation


def detections(msg: SegmentedObjectArray, class_id: str = "name") -> Detection3DArray:
    """Objects with 3D as detections; `class_id` "name" or "index" is what the hypothesis carries."""
    array = Detection3DArray(header=msg.header)
    for obj in msg.objects:
        if obj.status >= SegmentedObject.NO_DEPTH_IMAGE:
            continue
        detection = Detection3D(header=msg.header, id=str(obj.id), results=[_hypothesis(obj, class_id)])
        detection.bbox.center = obj.box_pose
        detection.bbox.size = obj.box_size
        result = detection.results[0].pose
        result.pose = obj.box_pose
        covariance = np.diag(np.full(6, UNKNOWN_VARIANCE))
        covariance[:3, :3] = np.reshape(obj.centroid_covariance, (3, 3))
        result.covariance = covariance.reshape(-1)
        array.detections.append(detection)
    return array


def detections_2d(msg: SegmentedObjectArray, class_id: str = "name") -> Detection2DArray:
    """All objects as 2D detections, in the frame of the color image."""
    header = Header(stamp=msg.header.stamp, frame_id=msg.image_frame_id)
    array = Detection2DArray(header=header)
    for obj in msg.objects:
        detection = Detection2D(header=header, id=str(obj.id), results=[_hypothesis(obj, class_id)])
        x_min, y_min, x_max, y_max = (float(v) for v in obj.box)
        detection.bbox.center.position.x = (x_min + x_max) / 2
        detection.bbox.center.position.y = (y_min + y_max) / 2
        detection.bbox.size_x, detection.bbox.size_y = x_max - x_min, y_max - y_min
        array.detections.append(detection)
    return array


def label_info(class_names: Sequence[str], header: Header, threshold: float = 0.0) -> LabelInfo:
    """What the pixels of ~/class_image mean: class id + 1, and 65535 for an object without a class."""
    classes = [VisionClass(class_id=i + 1, class_name=name) for i, name in enumerate(class_names)]
    classes.append(VisionClass(class_id=UNKNOWN_CLASS, class_name="object"))
    return LabelInfo(header=header, class_map=classes, threshold=float(threshold))


def _hypothesis(obj: SegmentedObject, class_id: str) -> ObjectHypothesisWithPose:
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id = obj.class_name if class_id == "name" else str(obj.class_id)
    result.hypothesis.score = float(obj.score)
    return result
