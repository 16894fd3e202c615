# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Images and calibrations that are not what they should be: what is said, what is published, and the way back."""

from __future__ import annotations

import array
import math
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from fault_rows import NOTHING, WITH_3D, Injected, Row, rows_of
from rig import HEIGHT, RED, WIDTH, NodeProcess, Rig
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from seg_perception.ros.conversions import stamp_ns

WARN, ERROR = DiagnosticStatus.WARN, DiagnosticStatus.ERROR
fault = pytest.mark.fault
COLOR, DEPTH, INFO = "color images", "depth images", "camera_info"


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig) -> Iterator[NodeProcess]:
    process = NodeProcess(RED, namespace=namespace)
    try:
        rig.film(lambda: rig.objects, timeout=40.0, what="the first result")
        yield process
    finally:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log
        assert len(process.log.splitlines()) < 3 * len(injected_here()), process.log  # a thousand frames were spoilt


def injected_here() -> list[Row]:
    return list(rows_of(sys.modules[__name__]))


@pytest.fixture(autouse=True)
def good_before(node: NodeProcess, rig: Rig) -> None:
    rig.film_good()


# -- how a frame is spoilt ---------------------------------------------------------------------------------------------


def renamed(encoding: str) -> Callable[[Image], None]:
    def spoil(message: Image) -> None:
        message.encoding = encoding

    return spoil


def truncated(message: Image) -> None:
    message.data = array.array("B", bytes(message.data)[:1000])


def enormous(message: Image) -> None:
    message.width = message.height = 100_000
    message.step = 200_000


def blind(message: Image) -> None:
    message.data = array.array("B", bytes(len(message.data)))


def metric(factor: float) -> Callable[[Image], None]:
    """Depth as 32FC1, `factor` times what 16UC1 said."""

    def spoil(message: Image) -> None:
        pixels = np.frombuffer(message.data, np.uint16) * np.float32(factor)
        message.encoding, message.step = "32FC1", 4 * message.width
        message.data = array.array("B", pixels.tobytes())

    return spoil


def metres_as_millimetres(message: Image) -> None:
    pixels = np.frombuffer(message.data, np.uint16)
    message.data = array.array("B", np.rint(pixels / 1000).astype(np.uint16).tobytes())


def quarter(message: Image) -> None:
    """Every second pixel of every second row."""
    channels = 3 if message.encoding == "rgb8" else 2
    pixels = np.frombuffer(bytes(message.data), np.uint8).reshape(HEIGHT, WIDTH, channels)[::2, ::2]
    message.width, message.height, message.step = WIDTH // 2, HEIGHT // 2, WIDTH // 2 * channels
    message.data = array.array("B", pixels.tobytes())


def in_depth_frame(message: Image) -> None:
    message.header.frame_id = "camera_depth_optical_frame"


def with_k(value: float) -> Callable[[CameraInfo], None]:
    def spoil(message: CameraInfo) -> None:
        message.k, message.p = [value] * 9, [value] * 12

    return spoil


def of_hd(message: CameraInfo) -> None:
    message.width, message.height = 1280, 720


def beside(message: Image) -> None:
    pixels = np.frombuffer(message.data, np.uint16).reshape(HEIGHT, WIDTH)
    message.data = array.array("B", np.roll(pixels, (2, 7), (0, 1)).tobytes())


def halved(message: CameraInfo) -> None:
    message.width, message.height = WIDTH // 2, HEIGHT // 2
    message.k, message.p = message.k / 2, message.p / 2


def as_bgr(message: Image) -> None:
    pixels = np.frombuffer(message.data, np.uint8).reshape(HEIGHT, WIDTH, 3)
    message.encoding = "bgr8"
    message.data = array.array("B", pixels[:, :, ::-1].tobytes())


# -- what the user gets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("camera", "part", "level", "words", "published"),
    [
        pytest.param(
            {"color": renamed("weird9")}, "input color", ERROR, ("color/image_raw", "weird9"), NOTHING,
            marks=fault(COLOR, "of an unknown encoding"), id="unknown color encoding",
        ),
        pytest.param(
            {"color": truncated}, "input color", ERROR, ("color/image_raw", "1000 bytes"), NOTHING,
            marks=fault(COLOR, "buffer shorter than height * step"), id="short color",
        ),
        pytest.param(
            {"color": enormous}, "input color", ERROR, ("100000x100000",), NOTHING,
            marks=fault(COLOR, "header of 100 000 x 100 000 with a small buffer"), id="enormous color",
        ),
        pytest.param(
            {"depth": renamed("16SC1")}, "input depth", ERROR, ("depth/image_rect", "16SC1"), "masks, NO_DEPTH_IMAGE",
            marks=fault(DEPTH, "of an unknown encoding"), id="unknown depth encoding",
        ),
        pytest.param(
            {"depth": truncated}, "input depth", ERROR, ("depth/image_rect", "1000 bytes"), "masks, NO_DEPTH_IMAGE",
            marks=fault(DEPTH, "buffer shorter than height * step"), id="short depth",
        ),
        pytest.param(
            {"depth": enormous}, "input depth", ERROR, ("100000x100000",), "masks, NO_DEPTH_IMAGE",
            marks=fault(DEPTH, "header of 100 000 x 100 000 with a small buffer"), id="enormous depth",
        ),
        pytest.param(
            {"depth": blind}, "input depth", WARN, ("depth/image_rect", "no valid pixel (all 0)"),
            "masks, NO_VALID_DEPTH", marks=fault(DEPTH, "all 0"), id="depth of zeros",
        ),
        pytest.param(
            {"depth": metric(1.0)}, "input depth", WARN,
            ("median depth is 800 m", "are the units of this 32FC1 millimetres?", "depth.scale to 0.001"),
            "masks, TOO_FAR", marks=fault(DEPTH, "units swapped: millimetres as 32FC1"), id="millimetres as metres",
        ),
        pytest.param(
            {"depth": metres_as_millimetres}, "input depth", WARN,
            ("are the units of this 16UC1 metres?", "depth.scale to 1"),
            "masks, TOO_NEAR", marks=fault(DEPTH, "units swapped: metres as 16UC1"), id="metres as millimetres",
        ),
        pytest.param(
            {"depth": quarter}, "input depth", WARN, ("160x120", "320x240"), "masks, DEPTH_MISALIGNED",
            marks=fault(DEPTH, "of another size than color, no transform"), id="depth of another size",
        ),
        pytest.param(
            {"depth": in_depth_frame}, "input depth", WARN,
            ("is in frame 'camera_depth_optical_frame' but color is in 'camera_color_optical_frame'",
             "depth.extrinsic"),
            "masks, DEPTH_MISALIGNED",
            marks=fault(DEPTH, "in another frame than color, no transform"), id="depth in another frame",
        ),
        pytest.param(
            {"depth": beside}, "alignment", WARN, ("depth lies 7 px beside color", "check the driver's registration"),
            WITH_3D, marks=fault(DEPTH, "unaligned: called registered, but 7 px beside color"), id="unaligned",
        ),
        pytest.param(
            {"info": with_k(0.0)}, "input color_info", WARN, ("uncalibrated", "fx=0"), "masks, BAD_INTRINSICS",
            marks=fault(INFO, "K of zeros"), id="zero K",
        ),
        pytest.param(
            {"info": with_k(math.nan)}, "input color_info", WARN, ("fx=nan",), "masks, BAD_INTRINSICS",
            marks=fault(INFO, "K of NaN"), id="K of NaN",
        ),
        pytest.param(
            {"info": of_hd}, "input color_info", WARN, ("no camera_info of 320x240", "1280x720"),
            "masks, BAD_INTRINSICS", marks=fault(INFO, "of another size than the images"), id="info of another size",
        ),
    ],
)  # fmt: skip
def test_spoilt(
    injected: Injected, camera: dict, part: str, level: bytes, words: tuple[str, ...], published: str
) -> None:
    injected.says(part, level, *words, **camera)
    injected.publishes(published, **camera)
    injected.recovers()


@pytest.mark.parametrize(
    ("camera", "width"),
    [
        pytest.param(
            {"color": quarter, "depth": quarter, "info": halved}, WIDTH // 2,
            marks=fault(COLOR, "size changes, of depth and camera_info too"), id="size",
        ),
        pytest.param(
            {"color": as_bgr, "depth": metric(0.001)}, WIDTH,
            marks=fault(COLOR, "encoding changes to bgr8, of depth to 32FC1"), id="encoding",
        ),
    ],
)  # fmt: skip
def test_a_camera_that_changes_is_followed(injected: Injected, rig: Rig, camera: dict, width: int) -> None:
    before = rig.film_good().objects[0]
    injected.publishes(WITH_3D, **camera)
    brick = rig.objects[-1].objects[0]
    assert brick.mask.image_width == width
    assert brick.centroid.z == pytest.approx(before.centroid.z, abs=1e-3)
    injected.heard("nothing is wrong")
    injected.recovers(afterwards="goes on")


# -- more than the table says ------------------------------------------------------------------------------------------


def test_objects_say_it_too(rig: Rig) -> None:
    """Masks go out without 3D, each object with its reason."""
    for spoil, words in (
        ({"depth": renamed("16SC1")}, ("16SC1",)),
        ({"info": with_k(0.0)}, ("uncalibrated",)),
        ({"info": of_hd}, ("1280x720",)),
        ({"depth": quarter}, ("160x120", "320x240")),
        ({"depth": in_depth_frame}, ("camera_depth_optical_frame", "depth.extrinsic")),
    ):
        start = rig.now()

        def objects(start: int = start) -> list:
            return [o for m in rig.objects if stamp_ns(m.header.stamp) >= start for o in m.objects if o.status >= 10]

        for brick in rig.film(objects, what=str(words), **spoil):
            assert all(word in brick.status_text for word in words), brick.status_text
            assert math.isnan(brick.centroid.z)
            assert brick.mask.area > 0


def test_a_cause_is_named_once(rig: Rig) -> None:
    spoil = renamed("weird9")
    rig.wait_for_diagnostic("input color", ERROR, "weird9", color=spoil)
    status = rig.wait_for_diagnostic("pipeline", ERROR, "lost", "see input color", color=spoil)
    assert "weird9" not in status.message
    assert len(rig.diagnostic("input color").message) < 200
    assert any(v.key.startswith("dropped") and int(v.value) > 0 for v in status.values)


def test_an_enormous_header_allocates_nothing(node: NodeProcess, rig: Rig) -> None:
    for _ in range(10):
        rig.shoot(color=enormous, depth=enormous)
        time.sleep(0.02)
    rig.film_good()
    with open(f"/proc/{node.process.pid}/status", encoding="ascii") as file:
        resident = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    assert resident < 1_000_000  # kB


def test_a_publisher_of_another_type_is_named(rig: Rig) -> None:
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
