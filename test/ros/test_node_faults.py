# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, provoked through real publishers: what the user gets, and that the node goes on afterwards."""

from __future__ import annotations

import array
import math
import time
from collections.abc import Iterator

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rig import RED, NodeProcess, Rig, color_picture, is_good
from seg_perception.msg import SegmentedObject as Status
from seg_perception.msg import SegmentedObjectArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from seg_perception.ros.conversions import stamp_ns

WARN, ERROR = DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig) -> Iterator[NodeProcess]:
    process = NodeProcess(RED, namespace=namespace)
    try:
        rig.film(lambda: rig.objects, timeout=40.0, what="the first result")
        yield process
    finally:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log


@pytest.fixture(autouse=True)
def recovers(node: NodeProcess, rig: Rig) -> Iterator[None]:
    """After each fault the next good frames give 3D again, within two seconds."""
    rig.film_good()
    yield
    rig.objects.clear()
    start = time.monotonic()
    rig.film_good()
    assert time.monotonic() - start < 2.0


def statuses_after(rig: Rig, start: int) -> set[int]:
    return {o.status for m in rig.objects if stamp_ns(m.header.stamp) >= start for o in m.objects}


def film_status(rig: Rig, status: int, **camera) -> list:
    """Films spoilt frames until objects say `status`; those objects."""
    rig.objects.clear()
    start = rig.now()

    def objects() -> list:
        new = [m for m in rig.objects if stamp_ns(m.header.stamp) >= start]
        return [o for m in new for o in m.objects if o.status == status]

    found = rig.film(objects, what=f"status {status}", **camera)
    assert all(math.isnan(o.centroid.z) and o.mask.area > 0 for o in found)  # masks without 3D
    return found


def test_unknown_depth_encoding(rig: Rig) -> None:
    def spoil(message: Image) -> None:
        message.encoding = "16SC1"

    (brick, *_) = film_status(rig, Status.NO_DEPTH_IMAGE, depth=spoil)
    assert "16SC1" in brick.status_text
    rig.wait_for_diagnostic("input depth", ERROR, "depth/image_rect", "16SC1", depth=spoil)


def test_unknown_color_encoding(rig: Rig) -> None:
    def spoil(message: Image) -> None:
        message.encoding = "weird9"

    rig.objects.clear()
    start = rig.now()
    rig.wait_for_diagnostic("input color", ERROR, "color/image_raw", "weird9", color=spoil)
    assert statuses_after(rig, start) == set()
    status = rig.wait_for_diagnostic("pipeline", ERROR, "lost", "see input color", color=spoil)
    assert "weird9" not in status.message  # named once
    assert len(rig.diagnostic("input color").message) < 200
    assert any(v.key.startswith("dropped") and int(v.value) > 0 for v in status.values)


def test_depth_without_a_valid_pixel(rig: Rig) -> None:
    def spoil(message: Image) -> None:
        message.data = array.array("B", bytes(len(message.data)))

    rig.wait_for_diagnostic("input depth", WARN, "depth/image_rect", "no valid pixel (all 0)", depth=spoil)


def test_depth_in_other_units_than_its_encoding_says(rig: Rig) -> None:
    def spoil(message: Image) -> None:
        millimetres = np.frombuffer(message.data, np.uint16).astype(np.float32)
        message.encoding, message.step = "32FC1", 4 * message.width
        message.data = array.array("B", millimetres.tobytes())

    words = ("median depth is 800 m", "are the units of this 32FC1 millimetres?", "depth.scale to 0.001")
    rig.wait_for_diagnostic("input depth", WARN, *words, depth=spoil)


def test_short_buffers(rig: Rig) -> None:
    def spoil(message: Image) -> None:
        message.data = array.array("B", bytes(message.data)[:1000])

    film_status(rig, Status.NO_DEPTH_IMAGE, depth=spoil)
    rig.wait_for_diagnostic("input depth", ERROR, "1000 bytes", depth=spoil)
    rig.wait_for_diagnostic("input color", ERROR, "1000 bytes", color=spoil)


def test_an_enormous_header_allocates_nothing(node: NodeProcess, rig: Rig) -> None:
    def spoil(message: Image) -> None:
        message.width = message.height = 100_000
        message.step = 200_000

    film_status(rig, Status.NO_DEPTH_IMAGE, depth=spoil)
    with open(f"/proc/{node.process.pid}/status", encoding="ascii") as file:
        resident = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    assert resident < 1_000_000  # kB


def test_zero_k(rig: Rig) -> None:
    def spoil(message: CameraInfo) -> None:
        message.k = [0.0] * 9
        message.p = [0.0] * 12

    (brick, *_) = film_status(rig, Status.BAD_INTRINSICS, info=spoil)
    assert "uncalibrated" in brick.status_text
    rig.wait_for_diagnostic("input color_info", WARN, "uncalibrated", "fx=0", info=spoil)


def test_camera_info_of_another_size(rig: Rig) -> None:
    def spoil(message: CameraInfo) -> None:
        message.width, message.height = 1280, 720

    (brick, *_) = film_status(rig, Status.BAD_INTRINSICS, info=spoil)
    assert "1280x720" in brick.status_text


def test_depth_of_another_size(rig: Rig) -> None:
    def spoil(message: Image) -> None:
        message.width, message.height, message.step = 160, 120, 320
        message.data = array.array("B", bytes(320 * 120))

    (brick, *_) = film_status(rig, Status.DEPTH_MISALIGNED, depth=spoil)
    assert "160x120" in brick.status_text
    assert "320x240" in brick.status_text
    rig.wait_for_diagnostic("input depth", WARN, "160x120", depth=spoil)


def test_depth_in_another_frame(rig: Rig) -> None:
    def spoil(message: Image) -> None:
        message.header.frame_id = "camera_depth_optical_frame"

    (brick, *_) = film_status(rig, Status.DEPTH_MISALIGNED, depth=spoil)
    assert "camera_depth_optical_frame" in brick.status_text
    assert "camera_color_optical_frame" in brick.status_text
    rig.wait_for_diagnostic(
        "input depth", WARN, "is in frame 'camera_depth_optical_frame' but color is in", depth=spoil
    )
    assert "no transform" in brick.status_text or "tf2_ros is not installed" in brick.status_text
    assert "depth.extrinsic" in brick.status_text


def test_no_depth(rig: Rig) -> None:
    film_status(rig, Status.NO_DEPTH_IMAGE, only=("color", "color_info"))
    start = time.monotonic()
    rig.wait_for_diagnostic(
        "input depth", WARN, "/depth/image_rect", "1 publisher", "reliable", "last stamp", only=("color", "color_info")
    )
    assert time.monotonic() - start < 2.0


def test_stamps_that_never_pair(rig: Rig) -> None:
    film_status(rig, Status.NO_DEPTH_IMAGE, depth_shift=5.0)
    status = rig.wait_for_diagnostic("sync", WARN, "never pair", "sync.slop is 0.02", depth_shift=5.0)
    assert "last delta" in status.message


def test_a_publisher_of_another_type_is_named(node: NodeProcess, rig: Rig) -> None:
    other = rclpy.create_node("other_type", namespace=rig.node.get_namespace(), context=rig.context)
    other.create_publisher(CompressedImage, "ignore_mask", 1)
    words = (
        "nothing on",
        "/ignore_mask",
        "published as sensor_msgs/msg/CompressedImage and not as sensor_msgs/msg/Image",
    )
    rig.wait_for_diagnostic("input ignore_mask", WARN, *words)
    other.destroy_node()
    rig.wait_for_diagnostic("input ignore_mask", DiagnosticStatus.OK)


def test_no_color(rig: Rig) -> None:
    rig.wait_for_diagnostic("input color", WARN, "color/image_raw", "1 publisher", only=("depth", "depth_info"))


def test_device_clock_stamps_are_named_and_nothing_is_dropped(rig: Rig) -> None:
    rig.objects.clear()
    stamp = 5_000_000_000

    def film_old() -> bool:
        nonlocal stamp
        stamp += 33_000_000
        rig.shoot(stamp)
        time.sleep(0.03)
        status = rig.diagnostic("input color")
        return status.level == WARN and "camera stamps are not ROS time" in status.message

    rig.wait(film_old, what="stamps named")
    assert any(is_good(m) and m.header.stamp.sec < 100 for m in rig.objects)


def test_frames_older_than_max_age_are_dropped_and_counted(rig: Rig) -> None:
    assert rig.set_parameters(max_age=0.5).successful
    rig.film_good()
    time.sleep(0.5)  # what was under way is done
    rig.objects.clear()
    old = rig.now() - 900_000_000

    def dropped() -> bool:
        nonlocal old
        old += 20_000_000
        rig.shoot(old)
        time.sleep(0.02)
        return any("max_age" in v.key and int(v.value) > 0 for v in rig.diagnostic("pipeline").values)

    rig.wait(dropped, what="a drop that is counted")
    assert rig.set_parameters(max_age=0.0).successful
    assert not [m for m in rig.objects if stamp_ns(m.header.stamp) <= old]


def test_a_plugin_that_raises_loses_that_frame_only(node: NodeProcess, rig: Rig) -> None:
    def green(message: Image) -> None:
        picture = color_picture()
        picture[:] = (0, 255, 0)
        message.data = array.array("B", picture.tobytes())

    rig.shoot(color=green)
    good = rig.film_good()
    assert is_good(good)
    status = rig.wait_for_diagnostic("pipeline", ERROR, "in a row lost", "this picture is green", color=green)
    assert any(v.key == "dropped: segmentation raised" and int(v.value) > 3 for v in status.values)
    assert node.process.poll() is None


def test_a_changed_image_size_goes_through(rig: Rig) -> None:
    def halve_image(message: Image) -> None:
        channels = 3 if message.encoding == "rgb8" else 2
        pixels = np.frombuffer(bytes(message.data), np.uint8).reshape(240, 320, channels)[::2, ::2]
        message.width, message.height, message.step = 160, 120, 160 * channels
        message.data = array.array("B", pixels.tobytes())

    def halve_info(message: CameraInfo) -> None:
        message.width, message.height = 160, 120
        message.k = message.k / 2
        message.p = message.p / 2

    def half() -> object:
        return next((m for m in rig.objects[-5:] if is_good(m) and m.objects[0].mask.image_width == 160), None)

    found = rig.film(half, color=halve_image, depth=halve_image, info=halve_info, what="half the size")
    assert found.camera_info.width == 160


def test_a_crawling_listener_does_not_make_it_grow(node: NodeProcess, rig: Rig) -> None:
    """A reliable subscriber that is never spun; the node publishes on, at its rate."""
    stuck = rclpy.create_node("stuck", namespace=rig.node.get_namespace(), context=rig.context)
    stuck.create_subscription(SegmentedObjectArray, "seg_perception/objects", lambda _: None, 5)
    rig.objects.clear()
    for _ in range(60):
        rig.shoot()
        time.sleep(0.02)
    assert len(rig.objects) > 20
    stuck.destroy_node()
