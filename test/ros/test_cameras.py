# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The cameras without hardware, as processes: what they publish, lock step, and how they end."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")

from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from seg_perception.folder import RgbdFolder  # noqa: E402
from seg_perception.ros.conversions import decode_color, decode_depth  # noqa: E402
from seg_perception.sim import SimCamera, write_folder  # noqa: E402


@pytest.fixture
def camera():
    """`camera("sim_camera", "rate:=10.0")` starts one; it must end cleanly on SIGINT after the test."""
    running = []

    def start(module, *parameters):
        words = [word for parameter in parameters for word in ("-p", parameter)]
        command = [sys.executable, "-m", f"seg_perception.ros.{module}", "--ros-args", *words]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield start
    for process in running:
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
        assert "Traceback" not in stderr, stderr


@pytest.fixture
def node():
    rclpy.init()
    node = rclpy.create_node("cameras_test")
    yield node
    node.destroy_node()
    rclpy.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "frames"
    write_folder(path, SimCamera(160, 120, frames=3, cache=False), 3)
    return path


def collect(node, kind, topic):
    received = []
    node.create_subscription(kind, topic, received.append, 10)
    return received


def spin_until(node, condition, seconds=60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not condition():
        rclpy.spin_once(node, timeout_sec=0.05)
    assert condition()


def test_sim_camera_publishes_what_a_driver_does_and_the_truth(camera, node):
    color = collect(node, Image, "color/image_raw")
    depth = collect(node, Image, "depth/image_rect")
    info = collect(node, CameraInfo, "color/camera_info")
    truth = collect(node, Image, "ground_truth/label_image")
    process = camera("sim_camera", "width:=160", "height:=120", "rate:=10.0", "frame_id:=eye_optical_frame")
    spin_until(node, lambda: min(map(len, (color, depth, info, truth))) >= 3)
    stamps = {(m.header.stamp.sec, m.header.stamp.nanosec) for m in color}
    paired = [m for m in depth if (m.header.stamp.sec, m.header.stamp.nanosec) in stamps]
    assert len(paired) >= 2  # the very same stamp
    assert {m.header.frame_id for m in (*color, *depth, *info)} == {"eye_optical_frame"}
    assert depth[0].encoding == "16UC1"
    metres = decode_depth(depth[0])
    assert 0.5 < np.nanmedian(metres) < 2.0  # the table is about a metre away
    assert decode_color(color[0]).shape == (120, 160, 3)
    assert info[0].k[0] == pytest.approx(615.0 * 120 / 480)
    labels = np.frombuffer(truth[0].data, np.uint16)
    assert len(np.unique(labels)) >= 10  # a table with a dozen things
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_folder_camera_plays_what_was_recorded(camera, node, folder):
    depth = collect(node, Image, "depth/image_rect")
    camera("folder_camera", f"folder:={folder}", "rate:=20.0")
    spin_until(node, lambda: len(depth) >= 3)  # in a loop
    recorded = [record.frame.depth for record in RgbdFolder(folder)]
    for message in depth:  # 32FC1, so nothing is lost
        assert any(np.array_equal(decode_depth(message), r, equal_nan=True) for r in recorded)


def test_folder_camera_ends_after_one_round_if_asked(camera, folder):
    process = camera("folder_camera", f"folder:={folder}", "rate:=20.0", "loop:=false")
    assert process.wait(60) == 0


def test_lock_step_waits_for_each_answer_and_sends_again(camera, node, folder):
    answers = node.create_publisher(Header, "shot/answer", 10)
    color = collect(node, Image, "color/image_raw")
    names = collect(node, Header, "shot")
    collect(node, Image, "depth/image_rect")
    process = camera("folder_camera", f"folder:={folder}", "loop:=false", "lock_step:=true")
    recorded = RgbdFolder(folder).names
    spin_until(node, lambda: len(color) == len(names) == 2)  # nobody answered: again, stamped anew
    assert [n.frame_id for n in names] == [recorded[0], recorded[0]]
    assert color[0].header.stamp != color[1].header.stamp
    assert color[0].data == color[1].data
    for name in recorded:
        spin_until(node, lambda: names[-1].frame_id == name)  # noqa: B023
        answers.publish(names[-1])
    spin_until(node, lambda: process.poll() is not None)
    assert process.returncode == 0
    assert {n.frame_id for n in names} == set(recorded)


@pytest.mark.parametrize(
    ("module", "parameter", "words"),
    [
        ("folder_camera", "folder:=/nowhere", "no such folder"),
        ("folder_camera", "loop:=true", "expected a folder"),
        ("sim_camera", "motion:=flying", "expected one of still, moving"),
        ("sim_camera", "rate:=0.0", "rate: expected"),
        ("sim_camera", "depth_encoding:=8UC1", "expected 16UC1 or 32FC1"),
    ],
)
def test_a_camera_that_cannot_start_says_why_in_one_line(module, parameter, words):
    command = [sys.executable, "-m", f"seg_perception.ros.{module}", "--ros-args", "-p", parameter]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ}, check=False)
    assert result.returncode == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr
