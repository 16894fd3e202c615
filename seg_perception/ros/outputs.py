# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node's output topics. Only the main one is always computed; the others when somebody listens."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import PoseArray
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from seg_perception import draw
from seg_perception.config import Config
from seg_perception.geometry import project
from seg_perception.msg import SegmentedObjectArray, StageTimings
from seg_perception.pipeline import Stopwatch
from seg_perception.ros.conversions import set_array, stamp_from_ns
from seg_perception.ros.markers import Markers
from seg_perception.ros.messages import (
    MainMessage,
    ObjectClouds,
    class_image,
    cloud_message,
    encode_image,
    grasp_poses,
    label_message,
    main_message,
    scene_cloud_message,
    thin_clouds,
)
from seg_perception.ros.results import Result

JPEG_QUALITY = 85
STAGES = (
    "pair",
    "decode",
    "segment",
    "handover",
    "transform",
    "support",
    "fuse",
    "track",
    "grasp",
    "messages",
    "publish",
)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

TOPICS: dict[str, tuple[Any, int]] = {  # private name -> type, keep last; all reliable and volatile
    "objects": (SegmentedObjectArray, 5),
    "label_image": (Image, 1),
    "class_image": (Image, 1),
    "points": (PointCloud2, 1),
    "scene_points": (PointCloud2, 1),
    "grasps": (PoseArray, 1),
    "markers": (MarkerArray, 1),
    "overlay": (Image, 1),
    "overlay/compressed": (CompressedImage, 1),
    "timings": (StageTimings, 5),
    "debug/depth": (Image, 1),
    "debug/points_used": (Image, 1),
}
MESSAGES = {  # attribute of Messages -> private topic
    **{name: name for name in ("label_image", "class_image", "points", "scene_points", "grasps", "overlay")},
    "overlay_compressed": "overlay/compressed",
    "debug_depth": "debug/depth",
    "debug_points_used": "debug/points_used",
}


class Outputs:
    """The publishers, from configure to cleanup."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._publishers = {
            name: node.create_lifecycle_publisher(kind, f"~/{name}", QoSProfile(depth=depth))
            for name, (kind, depth) in TOPICS.items()
        }
        self._detections = _detections()
        if self._detections is not None:
            self._publishers["label_info"] = node.create_lifecycle_publisher(
                self._detections.LabelInfo, "~/label_info", LATCHED
            )
            for name, kind in self._detections.TOPICS.items():
                self._publishers[name] = node.create_lifecycle_publisher(kind, f"~/{name}", QoSProfile(depth=5))
        self._markers = Markers()
        self._moveit = _moveit()
        self._collision_objects: Any = None
        self._monitor: Any = None
        if self._moveit is not None:
            kind = self._moveit.PlanningScene
            self._collision_objects = self._moveit.CollisionObjects()
            self._publishers["collision_objects"] = node.create_lifecycle_publisher(
                kind, "~/collision_objects", QoSProfile(depth=1)
            )
            self._monitor = node.create_subscription(
                kind, "monitored_planning_scene", self._collision_objects.heard, QoSProfile(depth=10)
            )
        self._as_bytes: bool | None = None  # whether the middleware understands our bytes; None = not known yet
        self.objects_sent = 0.0  # steady s, when the last main message was on its way

    def activate(self) -> None:
        """Clears what an earlier life left in viewers."""
        self._markers.reset()
        if self._collision_objects is not None:
            self._collision_objects.reset()

    def say_labels(self, class_names: Sequence[str]) -> None:
        """What the pixels of ~/class_image mean, for those that come late too."""
        if self._detections is not None:
            header = Header(stamp=self._node.get_clock().now().to_msg())
            self._publishers["label_info"].publish(self._detections.label_info(class_names, header))

    def wants(self, *names: str) -> bool:
        """Whether somebody listens to one of these topics."""
        return any(self._publishers[name].get_subscription_count() for name in names if name in self._publishers)

    def publish(self, result: Result, config: Config) -> dict[str, float]:
        """All that is listened to, the main message first; s that went into making messages and into publishing."""
        clock = Stopwatch()
        self.objects_sent = time.monotonic()
        for topic, message in self._wanted(Messages(result, config), config):
            clock.lap("messages")
            self._publishers[topic].publish(message)
            clock.lap("publish")
            if topic == "objects":
                self.objects_sent = time.monotonic()
        return clock.laps

    def _wanted(self, build: Messages, config: Config) -> Iterator[tuple[str, Any]]:
        """Topics with listeners, and their messages, each made when it is its turn."""
        if self.wants("objects"):
            yield "objects", build.main.serialized() if self._reads(build.main) else build.objects
        for name, topic in MESSAGES.items():
            if self.wants(topic):
                yield topic, getattr(build, name)
        if self.wants("markers"):
            yield "markers", self._markers.update(build.objects, config.grasping.planners)
        if self.wants("collision_objects"):
            yield "collision_objects", self._collision_objects.update(build.objects, config.moveit.padding)
        if self._detections is not None:
            for name in self._detections.TOPICS:
                if self.wants(name):
                    yield name, getattr(self._detections, name)(build.objects)

    def _reads(self, message: MainMessage) -> bool:
        """Whether the middleware reads our bytes: asked once, of the first message that has objects."""
        if self._as_bytes is None and message.objects.count:
            self._as_bytes = message.reads_alike()
            if not self._as_bytes:
                self._node.get_logger().warning("this middleware reads other bytes than ours: ~/objects is slower")
        return bool(self._as_bytes)

    def publish_timings(self, result: Result, laps: Mapping[str, float], latency: float) -> None:
        """How long each stage took, to who listens."""
        if not self.wants("timings"):
            return
        stages = [s for s in STAGES if s in laps] + [s for s in laps if s not in STAGES]
        message = StageTimings(latency=latency, stages=stages, seconds=[laps[stage] for stage in stages])
        message.header.stamp = stamp_from_ns(result.stamp_ns)
        message.header.frame_id = result.scene.frame.frame_id
        self._publishers["timings"].publish(message)

    def rehearse(self, result: Result, config: Config) -> None:
        """Makes every message, and sends none."""
        build = Messages(result, config)
        for name in MESSAGES:
            getattr(build, name)
        self._reads(build.main_with(points=True))
        Markers().update(build.objects, config.grasping.planners)
        if self._detections is not None:
            for name in self._detections.TOPICS:
                getattr(self._detections, name)(build.objects)

    def destroy(self) -> None:
        """At cleanup."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
        if self._monitor is not None:
            self._node.destroy_subscription(self._monitor)
            self._monitor = None


class Messages:
    """A result as messages, each made at most once."""

    def __init__(self, result: Result, config: Config) -> None:
        self._result = result
        self._config = config
        scene = result.scene
        stamp = stamp_from_ns(scene.frame.stamp_ns)
        self.header = Header(stamp=stamp, frame_id=result.frame_id)
        self._image_header = Header(stamp=stamp, frame_id=scene.frame.frame_id)
        self._T = result.T_header_image

    @cached_property
    def clouds(self) -> ObjectClouds:
        return thin_clouds(self._result.scene, self._config.points)

    @cached_property
    def main(self) -> MainMessage:
        return self.main_with(self._config.objects.include_points)

    @cached_property
    def objects(self) -> SegmentedObjectArray:
        return self.main.message()

    def main_with(self, points: bool, clouds: ObjectClouds | None = None) -> MainMessage:
        """The main message, with the cloud or without."""
        result = self._result
        return main_message(
            result.scene,
            self.header,
            result.scene.frame.frame_id,
            self._T,
            result.camera_info,
            depth_delay=result.depth_delay,
            sequence=result.sequence,
            clouds=self.clouds if clouds is None else clouds,
            include_points=points,
            in_workspace=result.in_workspace,
            ages=result.ages,
            wait=result.waited,
        )

    @cached_property
    def label_image(self) -> Image:
        return label_message(self._result.scene, self._image_header)

    @property
    def labels(self) -> NDArray[np.uint16]:
        """(H, W), of the message."""
        return np.frombuffer(self.label_image.data, np.uint16).reshape(self.label_image.height, -1)

    @property
    def class_image(self) -> Image:
        return encode_image(class_image(self._result.scene, self.labels), "16UC1", self._image_header)

    @property
    def points(self) -> PointCloud2:
        return cloud_message(self.clouds, self.header, self._T)

    @property
    def scene_points(self) -> PointCloud2:
        return scene_cloud_message(self._result.scene.frame, self.labels, self.header, self._T)

    @property
    def grasps(self) -> PoseArray:
        return grasp_poses(self.objects, self._result.scene)

    @cached_property
    def _picture(self) -> NDArray[np.uint8]:
        """(H, W, 3) BGR."""
        scene = self._result.scene
        return cv2.cvtColor(draw.overlay(scene.frame.color, scene), cv2.COLOR_RGB2BGR)

    @property
    def overlay(self) -> Image:
        return encode_image(self._picture, "bgr8", self._image_header)

    @property
    def overlay_compressed(self) -> CompressedImage:
        _, jpeg = cv2.imencode(".jpg", self._picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        message = CompressedImage(header=self._image_header, format="bgr8; jpeg compressed bgr8")
        set_array(message, "data", jpeg, "B")
        return message

    @property
    def debug_depth(self) -> Image:
        """As the pipeline had it: decoded, registered; all NaN where there was none."""
        frame = self._result.scene.frame
        depth = np.full((frame.height, frame.width), np.nan, np.float32) if frame.depth is None else frame.depth
        return encode_image(depth, "32FC1", self._image_header)

    @property
    def debug_points_used(self) -> Image:
        """255 = the pixel gave a point, 128 = in a mask and not trusted, 0 = no object."""
        scene = self._result.scene
        picture = np.where(self.labels > 0, np.uint8(128), np.uint8(0))
        points = scene.points
        if scene.frame.intrinsics is not None and len(points):
            column, row = np.rint(project(scene.frame.intrinsics, points)).astype(np.intp).T
            picture[row.clip(0, scene.frame.height - 1), column.clip(0, scene.frame.width - 1)] = 255
        return encode_image(picture, "mono8", self._image_header)


def _detections() -> Any:
    """The vision_msgs module of ours, or None where vision_msgs is not installed."""
    try:
        import vision_msgs.msg  # noqa: F401
    except ImportError:
        return None
    from seg_perception.ros import detections

    return detections


def _moveit() -> Any:
    """The MoveIt module of ours, or None where moveit_msgs is not installed."""
    try:
        import moveit_msgs.msg  # noqa: F401
    except ImportError:
        return None
    from seg_perception.ros import moveit

    return moveit
