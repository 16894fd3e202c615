# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A node that does nothing: it subscribes a pair of images as ours does and publishes their stamp.

What it takes is what ROS 2 itself costs on this machine.
"""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from seg_perception.ros.conversions import stamp_ns
from seg_perception.ros.process import run_node

KEPT = 4  # stamps that wait for their partner


class EmptyNode(Node):
    """Answers each complete pair on `empty/result`."""

    def __init__(self) -> None:
        super().__init__("bench_empty")
        qos = QoSProfile(depth=2)
        self._result = self.create_publisher(Header, "empty/result", QoSProfile(depth=5))
        self._waiting: dict[int, str] = {}
        for name, topic in (("color", "color/image_raw"), ("depth", "depth/image_rect")):
            self.create_subscription(Image, topic, lambda message, name=name: self._on_image(name, message), qos)

    def _on_image(self, name: str, message: Image) -> None:
        stamp = stamp_ns(message.header.stamp)
        if self._waiting.setdefault(stamp, name) != name:
            del self._waiting[stamp]
            self._result.publish(message.header)
        while len(self._waiting) > KEPT:
            del self._waiting[next(iter(self._waiting))]


if __name__ == "__main__":
    raise SystemExit(run_node(EmptyNode))
