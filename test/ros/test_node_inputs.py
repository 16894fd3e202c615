# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Ways in: compressed transports of remapped topics, a latched camera_info, an ignore mask, QoS overrides."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile
from rig import (
    BRICK,
    HEIGHT,
    OPTICAL,
    RED,
    TOP,
    WIDTH,
    NodeProcess,
    Rig,
    camera_info,
    color_picture,
    depth_picture,
    is_good,
)
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from seg_perception.ros.conversions import encode_image


class CompressedCamera:
    """What image_transport's plugins publish, under a driver's own names; camera_info once, latched."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.color = rig.node.create_publisher(CompressedImage, "driver/rgb/compressed", 2)
        self.depth = rig.node.create_publisher(CompressedImage, "driver/depth/compressedDepth", 2)
        self.ignore_mask = rig.node.create_publisher(Image, "ignore_mask", 2)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.info = rig.node.create_publisher(CameraInfo, "driver/camera_info", latched)
        self.info.publish(camera_info(Header(frame_id=OPTICAL)))
        _, jpeg = cv2.imencode(".jpg", color_picture()[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
        _, png = cv2.imencode(".png", depth_picture())
        self._jpeg, self._png = jpeg.tobytes(), struct.pack("<iff", 0, 0.0, 0.0) + png.tobytes()

    def shoot(self) -> None:
        header = Header(stamp=self.rig.node.get_clock().now().to_msg(), frame_id=OPTICAL)
        self.depth.publish(CompressedImage(header=header, format="16UC1; compressedDepth png", data=self._png))
        self.color.publish(CompressedImage(header=header, format="rgb8; jpeg compressed bgr8", data=self._jpeg))

    def film(self, until, what: str):
        def step():
            self.shoot()
            time.sleep(0.03)
            return until()

        return self.rig.wait(step, 30.0, what)


@pytest.fixture(scope="module")
def camera(rig: Rig) -> CompressedCamera:
    return CompressedCamera(rig)


@pytest.fixture(scope="module")
def node(namespace: str, camera: CompressedCamera) -> Iterator[NodeProcess]:
    process = NodeProcess(
        RED,
        "color.transport:=compressed",
        "depth.transport:=compressedDepth",
        "topics.color_info:=driver/camera_info",
        f"qos_overrides.{namespace}/driver/rgb/compressed.subscription.reliability:=best_effort",
        namespace=namespace,
        extra=["--ros-args", "-r", "color/image_raw:=driver/rgb", "-r", "depth/image_rect:=driver/depth"],
    )
    try:
        camera.film(lambda: camera.rig.objects, "the first result")
        yield process
    finally:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log


def test_compressed_images_and_a_camera_info_that_came_once(
    node: NodeProcess, rig: Rig, camera: CompressedCamera
) -> None:
    message = camera.film(lambda: next((m for m in rig.objects[-3:] if is_good(m)), None), "3D")
    (brick,) = message.objects
    assert brick.centroid.z == pytest.approx(TOP, abs=2e-3)
    np.testing.assert_allclose(list(brick.box), BRICK, atol=2)  # jpeg
    rig.wait(lambda: "transient local" in value(rig, "input color_info", "qos"), what="latched")


def test_qos_overrides_are_honoured(node: NodeProcess, rig: Rig, camera: CompressedCamera) -> None:
    rig.wait(lambda: value(rig, "input color", "qos"), what="diagnostics")
    assert value(rig, "input color", "qos").startswith("best effort")  # auto would have taken reliable
    assert value(rig, "input depth", "qos").startswith("reliable")


def test_an_ignore_mask_hides_the_robot(node: NodeProcess, rig: Rig, camera: CompressedCamera) -> None:
    header = Header(stamp=rig.node.get_clock().now().to_msg(), frame_id=OPTICAL)
    hide = np.zeros((HEIGHT, WIDTH), np.uint8)
    hide[BRICK[1] - 5 : BRICK[3] + 5, BRICK[0] - 5 : BRICK[2] + 5] = 255
    camera.ignore_mask.publish(encode_image(hide, "mono8", header))
    camera.film(lambda: not rig.objects[-1].objects, "nothing seen")
    camera.ignore_mask.publish(encode_image(np.zeros_like(hide), "mono8", header))
    camera.film(lambda: rig.objects[-1].objects, "seen again")
    camera.ignore_mask.publish(encode_image(hide[:100], "mono8", header))
    camera.film(lambda: "320x100" in rig.diagnostic("input ignore_mask").message, "the size named")
    assert camera.film(lambda: rig.objects[-1].objects, "the mask is not used")


def value(rig: Rig, part: str, key: str) -> str:
    return next((v.value for v in rig.diagnostic(part).values if v.key == key), "")
