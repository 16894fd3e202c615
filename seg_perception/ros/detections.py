# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The same objects for consumers of vision_msgs (4.x: Humble and later), where that package is installed.

vision_msgs is imported where it is used: `vision_msgs_missing()` says why it cannot be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from std_msgs.msg import Header

from seg_perception.msg import SegmentedObject, SegmentedObjectArray
from seg_perception.ros.messages import UNKNOWN_CLASS

if TYPE_CHECKING:
    from vision_msgs.msg import Detection2DArray, Detection3DArray, LabelInfo

UNKNOWN_VARIANCE = 1e6  # of what is not measured: the box's orientation


def vision_msgs_missing() -> str:
    """Why vision_msgs cannot be used, in a line; empty when it can."""
    try:
        import vision_msgs.msg
    except ImportError as error:
        return f"vision_msgs is not installed ({error})"
    return "" if hasattr(vision_msgs.msg, "LabelInfo") else "vision_msgs is older than 4.0 (no LabelInfo)"


def detections_3d(msg: SegmentedObjectArray, class_id: str = "name") -> Detection3DArray:
    """Objects with 3D as detections; `class_id` "name" or "index" is what the hypothesis carries."""
    from vision_msgs.msg import Detection3D, Detection3DArray

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
    from vision_msgs.msg import Detection2D, Detection2DArray

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
    from vision_msgs.msg import LabelInfo, VisionClass

    classes = [VisionClass(class_id=i + 1, class_name=name) for i, name in enumerate(class_names)]
    classes.append(VisionClass(class_id=UNKNOWN_CLASS, class_name="object"))
    return LabelInfo(header=header, class_map=classes, threshold=float(threshold))


def _hypothesis(obj: SegmentedObject, class_id: str):  # type: ignore[no-untyped-def]
    from vision_msgs.msg import ObjectHypothesisWithPose

    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id = obj.class_name if class_id == "name" else str(obj.class_id)
    result.hypothesis.score = float(obj.score)
    return result
