# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the two cameras without hardware share: publishing shots as an RGB-D driver does, at a rate or in lock step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from builtin_interfaces.msg import Time as TimeMessage
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from seg_perception.ros.conversions import encode_image
from seg_perception.ros.poses import transform_message
from seg_perception.scene import Frame, Intrinsics

DISTORTION_NAMES = {0: "plumb_bob", 4: "equidistant", 5: "plumb_bob", 8: "rational_polynomial"}
ANSWER_TIMEOUT = 4.0  # s, after which a shot that nobody answered is sent again in lock step
SHOT_QOS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)  # names also reach who comes late
MAX_TRIES = 8  # of one shot in lock step, then it is given up


@dataclass(frozen=True)
class Shot:
    """One frame to publish: `labels` (H, W) uint16 ground truth instances, `T_world_camera` (4, 4), or None."""

    name: str
    frame: Frame
    labels: NDArray[np.uint16] | None = None
    T_world_camera: NDArray[np.float64] | None = None


class Camera(Node):
    """Publishes shots on `color/image_raw`, `depth/image_rect`, their `camera_info`, and what is known of the truth.

    Parameter `rate` is in Hz. With `lock_step`, the next shot goes out once a consumer has sent the name of the last
    one (as frame_id) on `shot/answer`, so that a slow machine loses nothing; an unanswered one is sent again,
    with a new stamp.
    """

    def __init__(self, name: str, depth_encoding: str = "16UC1") -> None:
        super().__init__(name)
        self.rate = float(self.declare_parameter("rate", 30.0, ParameterDescriptor(dynamic_typing=True)).value)
        self.frame_id = str(self.declare_parameter("frame_id", "camera_color_optical_frame").value)
        self.depth_encoding = str(self.declare_parameter("depth_encoding", depth_encoding).value)
        lock_step = bool(self.declare_parameter("lock_step", False).value)
        if not 0 < self.rate <= 1000:
            raise ValueError(f"rate: expected 0 to 1000 Hz, got {self.rate}")
        if self.depth_encoding not in ("16UC1", "32FC1"):
            raise ValueError(f"depth_encoding: expected 16UC1 or 32FC1, got '{self.depth_encoding}'")

        qos = QoSProfile(depth=2)  # reliable, as all common drivers offer it
        self._color = self.create_publisher(Image, "color/image_raw", qos)
        self._color_info = self.create_publisher(CameraInfo, "color/camera_info", qos)
        self._depth = self.create_publisher(Image, "depth/image_rect", qos)
        self._depth_info = self.create_publisher(CameraInfo, "depth/camera_info", qos)
        self._name = self.create_publisher(Header, "shot", SHOT_QOS)
        self._truth = None
        self._tf = _transform_broadcaster(self)

        self._shots: Iterator[Shot] = iter(())
        self._pending: Shot | None = None  # sent, not yet answered; only in lock step
        self._tries = 0
        self._sent_at = -math.inf
        self._stamp = Time().to_msg()
        self._lock_step = lock_step
        if lock_step:
            self.create_subscription(Header, "shot/answer", self._on_answer, QoSProfile(depth=100))
        self.done = False

    def play(self, shots: Iterator[Shot], with_truth: bool) -> None:
        """Publishes `shots` from now on; `done` turns true after the last one was sent (and answered)."""
        self._shots = shots
        if with_truth:
            self._truth = self.create_publisher(Image, "ground_truth/label_image", QoSProfile(depth=2))
        period = 1.0 / self.rate
        self._timer = self.create_timer(min(period, 0.01) if self._lock_step else period, self._tick)

    def _has_listeners(self) -> bool:
        images = self._color.get_subscription_count() > 0 and self._depth.get_subscription_count() > 0
        return images and self.count_publishers("shot/answer") > 0

    def _tick(self) -> None:
        if self._lock_step and (not self._has_listeners() or self._wait_for_answer()):
            return
        shot = next(self._shots, None)
        if shot is None:
            self.done = True
            self._timer.cancel()
            return
        self._pending, self._tries = shot, 1
        self._send(shot)

    def _wait_for_answer(self) -> bool:
        waited = time.monotonic() - self._sent_at
        if self._pending is None:
            return waited < 1.0 / self.rate
        if waited > ANSWER_TIMEOUT:
            if self._tries == MAX_TRIES:
                self.get_logger().warning(f"nobody answered shot '{self._pending.name}': given up")
                self._pending = None
                return False
            self._tries += 1
            self._send(self._pending)
        return True

    def _send(self, shot: Shot) -> None:
        self._stamp = self.get_clock().now().to_msg()
        self.publish(shot, self._stamp)

    def _on_answer(self, message: Header) -> None:
        if self._pending is not None and message.frame_id == self._pending.name:
            self._pending = None

    def publish(self, shot: Shot, stamp: TimeMessage) -> None:
        """One shot on all topics, every message with the same stamp."""
        header = Header(stamp=stamp, frame_id=self.frame_id)
        self._sent_at = time.monotonic()
        if self._tf is not None and shot.T_world_camera is not None:
            pose = TransformStamped(header=Header(stamp=stamp, frame_id="world"), child_frame_id=self.frame_id)
            pose.transform = transform_message(shot.T_world_camera)
            self._tf.sendTransform(pose)
        info = camera_info(shot.frame.intrinsics, header)
        self._name.publish(Header(stamp=stamp, frame_id=shot.name))
        self._color_info.publish(info)
        self._depth_info.publish(info)
        self._depth.publish(depth_image(shot.frame.depth, self.depth_encoding, header))
        self._color.publish(encode_image(shot.frame.color, "rgb8", header))
        if self._truth is not None and shot.labels is not None and self._truth.get_subscription_count():
            self._truth.publish(encode_image(shot.labels, "16UC1", header))


def camera_info(intrinsics: Intrinsics, header: Header) -> CameraInfo:
    """The calibration as a driver publishes it."""
    k = intrinsics
    return CameraInfo(
        header=header,
        width=k.width,
        height=k.height,
        distortion_model=DISTORTION_NAMES[len(k.distortion)],
        d=list(k.distortion) or [0.0] * 5,
        k=k.matrix.ravel().tolist(),
        r=np.eye(3).ravel().tolist(),
        p=np.hstack([k.matrix, np.zeros((3, 1))]).ravel().tolist(),
    )


def depth_image(depth: NDArray[np.float32], encoding: str, header: Header) -> Image:
    """Depth as drivers send it: 16UC1 millimetres with 0 = invalid, or 32FC1 metres."""
    if encoding == "32FC1":
        return encode_image(depth, "32FC1", header)
    millimetres = np.nan_to_num(depth * 1000.0, nan=0.0, posinf=0.0, neginf=0.0)
    return encode_image(np.rint(np.clip(millimetres, 0, 65535)).astype(np.uint16), "16UC1", header)


def _transform_broadcaster(node: Node) -> object | None:
    """tf2's broadcaster, or None with one line where tf2_ros is not installed."""
    try:
        from tf2_ros import TransformBroadcaster
    except ImportError:
        node.get_logger().info("tf2_ros is not installed: the camera's pose is not broadcast")
        return None
    return TransformBroadcaster(node)
