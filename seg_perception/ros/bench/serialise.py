# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A scene as the bytes that go on the wire: main message, label image, object cloud."""

from __future__ import annotations

import numpy as np
from rclpy.serialization import serialize_message
from std_msgs.msg import Header

from seg_perception.config import PointsConfig
from seg_perception.ros.conversions import stamp_from_ns
from seg_perception.ros.messages import cloud_message, label_message, main_message, thin_clouds
from seg_perception.scene import Scene


def serialise(scene: Scene) -> dict[str, bytes]:
    """Topic -> message; 3D stays in the camera's frame."""
    header = Header(stamp=stamp_from_ns(scene.frame.stamp_ns), frame_id=scene.frame.frame_id)
    clouds = thin_clouds(scene, PointsConfig())
    messages = {
        "label_image": label_message(scene, header),
        "points": cloud_message(clouds, header, np.eye(4)),
    }
    objects = main_message(scene, header, scene.frame.frame_id, np.eye(4), clouds=clouds).serialized()
    return {"objects": objects} | {topic: serialize_message(message) for topic, message in messages.items()}
