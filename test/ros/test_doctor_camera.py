# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception doctor` and a camera driver's usual faults: each is named in one line, with what helps."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rig import OPTICAL, Rig
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from seg_perception.cli import main
from seg_perception.cli.checks import FAIL, OK, WARN, Check
from seg_perception.config import load_config
from seg_perception.ros.camera import camera_info, depth_image
from seg_perception.ros.camera_check import check_cameras
from seg_perception.ros.conversions import encode_image, stamp_from_ns, stamp_ns
from seg_perception.sim import SimCamera

SECONDS = 2.0


@dataclass
class Driver:
    """A stand-in for a camera driver, in its own thread: a simulated tabletop at 10 Hz, spoilt by `spoil`."""

    rig: Rig
    spoil: Callable[[dict[str, Any]], None] = lambda messages: None
    only: tuple[str, ...] = ("color", "depth", "color_info", "depth_info")
    stop: threading.Event = field(default_factory=threading.Event)

    def film(self, frame: Any) -> None:
        while not self.stop.wait(0.1):
            header = camera_header(self.rig)
            info = camera_info(frame.intrinsics, header)
            messages = {
                "color": encode_image(frame.color, "rgb8", header),
                "depth": depth_image(frame.depth, "16UC1", camera_header(self.rig, header)),
                "color_info": info,
                "depth_info": camera_info(frame.intrinsics, camera_header(self.rig, header)),
            }
            self.spoil(messages)
            for name in self.only:
                getattr(self.rig, name).publish(messages[name])


def camera_header(rig: Rig, like: Any = None) -> Any:
    stamp = rig.node.get_clock().now().to_msg() if like is None else like.stamp
    return Header(stamp=stamp, frame_id=OPTICAL)


@pytest.fixture(scope="module")
def frame() -> Any:
    return SimCamera(640, 480, frames=1).frame(0).frame


@pytest.fixture
def look(rig: Rig, frame: Any, namespace: str) -> Callable[..., dict[str, Check]]:
    """What the doctor finds, by name, while a driver films."""

    def look(seconds: float = SECONDS, config: dict | None = None, **driver: Any) -> dict[str, Check]:
        topics = {
            name: f"{namespace}/{topic}"
            for name, topic in (
                ("color", "color/image_raw"),
                ("color_info", "color/camera_info"),
                ("depth", "depth/image_rect"),
                ("depth_info", "depth/camera_info"),
            )
        }
        filming = Driver(rig, **driver)
        thread = threading.Thread(target=filming.film, args=(frame,), daemon=True)
        thread.start()
        try:
            return {c.name: c for c in check_cameras(load_config({"topics": topics}, config or {}), seconds)}
        finally:
            filming.stop.set()
            thread.join()

    return look


def test_a_good_camera_has_nothing_to_mend(look: Callable) -> None:
    found = look()
    assert {c.status for c in found.values()} == {OK}, found
    assert "rgb8, 640x480, frame 'camera_color_optical_frame'" in found["camera color"].detail
    assert "pairs" in found["camera stamps"].detail
    assert "as it comes" in found["camera registration"].detail
    assert "median 0.9" in found["camera depth range"].detail


def zero_k(messages: dict) -> None:
    for name in ("color_info", "depth_info"):
        messages[name].k = [0.0] * 9
        messages[name].p = [0.0] * 12


def other_frame(messages: dict) -> None:
    messages["depth"].header.frame_id = "camera_depth_optical_frame"


def no_frame(messages: dict) -> None:
    for message in messages.values():
        message.header.frame_id = ""


def millimetres_as_metres(messages: dict) -> None:
    raw = np.frombuffer(messages["depth"].data, np.uint16).reshape(480, 640)
    messages["depth"] = encode_image(raw.astype(np.float32), "32FC1", messages["depth"].header)


def metres_as_millimetres(messages: dict) -> None:
    raw = np.frombuffer(messages["depth"].data, np.uint16).reshape(480, 640)
    messages["depth"] = encode_image(np.rint(raw / 1000).astype(np.uint16), "16UC1", messages["depth"].header)


def unaligned(messages: dict) -> None:
    raw = np.frombuffer(messages["depth"].data, np.uint16).reshape(480, 640)
    messages["depth"] = encode_image(np.roll(raw, 12, axis=1), "16UC1", messages["depth"].header)


def colorized(messages: dict) -> None:
    messages["depth"] = encode_image(np.zeros((480, 640, 3), np.uint8), "rgb8", messages["depth"].header)


def stalled_depth(messages: dict) -> None:
    messages["depth"].header = Header(stamp=stamp_from_ns(10**9 * (stamp_ns(messages["color"].header.stamp) // 10**9)))
    messages["depth"].header.frame_id = OPTICAL
    messages["color"].header.stamp.nanosec = messages["color"].header.stamp.nanosec % 500_000_000 + 300_000_000


def device_clock(messages: dict) -> None:
    for message in messages.values():
        message.header.stamp.sec -= 1_000_000_000


def other_size(messages: dict) -> None:
    messages["color_info"].width = messages["depth_info"].width = 1280


@pytest.mark.parametrize(
    ("spoil", "name", "status", "words", "fix"),
    [
        (zero_k, "camera color_info", FAIL, "K has fx=0", "calibrate"),
        (other_frame, "camera depth", FAIL, "depth is in frame 'camera_depth_optical_frame'", "align_depth"),
        (no_frame, "camera color", FAIL, "name no frame", "frame_id"),
        (millimetres_as_metres, "camera depth", FAIL, "units of this 32FC1 millimetres?", "depth.scale"),
        (metres_as_millimetres, "camera depth", FAIL, "units of this 16UC1 metres?", "depth.scale"),
        (unaligned, "camera registration", FAIL, "depth", "align_depth"),
        (colorized, "camera depth", FAIL, "colorizer", "16UC1"),
        (stalled_depth, "camera stamps", FAIL, "last delta -0.", "sync.slop"),
        (device_clock, "camera stamps", WARN, "not ROS time", "global_time"),
        (other_size, "camera color_info", FAIL, "no camera_info of 640x480", "camera_info"),
    ],
)
def test_a_fault_is_named_with_what_helps(
    look: Callable, spoil: Callable, name: str, status: str, words: str, fix: str
) -> None:
    found = look(spoil=spoil)
    assert found[name].status == status, found
    assert words in found[name].detail
    assert fix in found[name].fix
    assert "\n" not in found[name].detail


def test_what_is_missing_is_named(look: Callable, rig: Rig, namespace: str) -> None:
    found = look(0.5, only=())
    assert found["camera color"].status == FAIL
    assert f"nothing on '{namespace}/color/image_raw': 1 publisher" in found["camera color"].detail
    found = look(0.5, only=("color", "color_info"))
    assert found["camera color"].status == OK
    assert (found["camera depth"].status, found["camera stamps"].status) == (FAIL, FAIL)
    nobody = {"topics": {"color": "/nobody/color", "color_info": "/nobody/info", "depth": "/nobody/depth"}}
    found = look(0.5, nobody)
    assert found["camera"].status == WARN
    assert "nothing on '/nobody/color': no publisher" in found["camera"].detail
    assert f"{namespace}/color/image_raw" in found["camera"].detail  # what there is
    assert "--remap" in found["camera"].fix


def test_a_topic_of_another_type_is_named(look: Callable, rig: Rig) -> None:
    publisher = rig.node.create_publisher(CompressedImage, "squeezed", 2)
    found = look(0.5, {"topics": {"color": f"{rig.node.get_namespace()}/squeezed"}})
    assert "published as sensor_msgs/msg/CompressedImage" in found["camera color"].detail
    assert found["camera color"].fix == "set color.transport to compressed"
    rig.node.destroy_publisher(publisher)


def test_incompatible_qos_names_the_policy(look: Callable, rig: Rig) -> None:
    qos = QoSProfile(depth=2, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = rig.node.create_publisher(Image, "lossy", qos)
    config = {"topics": {"color": f"{rig.node.get_namespace()}/lossy"}, "input_reliability": "reliable"}
    found = look(1.0, config)
    assert found["camera color"].status == FAIL
    assert "RELIABILITY" in found["camera color"].detail
    assert "input_reliability" in found["camera color"].fix
    rig.node.destroy_publisher(publisher)


def test_transforms_that_cannot_be_had_are_named(look: Callable) -> None:
    found = look(0.5, {"target_frame": "base_link"})
    assert found["transform to target_frame"].status == FAIL
    assert (
        "tf2" in found["transform to target_frame"].detail or "base_link" in found["transform to target_frame"].detail
    )


def test_the_command_says_it_and_exits_with_it(rig: Rig, namespace: str, capsys: pytest.CaptureFixture) -> None:
    arguments = ["doctor", "--camera", "0.3", "--json"]
    assert main([*arguments, "--remap", "color/image_raw:=/nobody/color", "--remap", "depth/image_rect:=/nobody/depth",
                 "--remap", "color/camera_info:=/nobody/info"]) == 0  # fmt: skip
    checks = {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["camera"]["status"] == WARN
    assert "/nobody/color" in checks["camera"]["detail"]
    code = main([*arguments, "--remap", f"color/image_raw:={namespace}/color/image_raw"])  # there, and silent
    assert code == 1
