# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The launch files, run by the real launch and launch_ros, where these can be imported."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, *words = sys.argv[1:]
arguments = [tuple(word.split(":=", 1)) for word in words]
include = IncludeLaunchDescription(PythonLaunchDescriptionSource(file), launch_arguments=arguments)
service = LaunchService()
service.include_launch_description(LaunchDescription([include]))
sys.exit(service.run())
"""

pytest.importorskip("launch.actions", reason="launch is not installed (ROS 2 from wheels lacks it)")
pytest.importorskip("launch_ros.actions", reason="launch_ros is not installed (ROS 2 from wheels lacks it)")
rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")


@pytest.fixture
def launched(tmp_path):
    """`launched("demo.launch.py", "rate:=10.0")` starts it; all of it is ended after the test."""
    running = []

    def start(file, *words):
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "ROS_LOG_DIR": str(tmp_path)}
        command = [sys.executable, "-c", RUN, str(ROOT / "launch" / file), *words]
        with open(tmp_path / "output.txt", "wb") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        running.append(process)
        return process, tmp_path / "output.txt"

    yield start
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise


@pytest.fixture
def node():
    rclpy.init()
    node = rclpy.create_node("launch_test")
    yield node
    node.destroy_node()
    rclpy.shutdown()


def spin_until(node, condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not condition():
        rclpy.spin_once(node, timeout_sec=0.1)
    return condition()


def test_demo_launch_brings_objects(launched, node):
    from seg_perception.msg import SegmentedObjectArray

    results = []
    node.create_subscription(SegmentedObjectArray, "/left/seg_perception/objects", results.append, 5)
    process, output = launched("demo.launch.py", "namespace:=left", "rate:=5.0", "log_level:=warn")
    assert spin_until(node, lambda: len(results) >= 3, 120), output.read_text()
    assert results[-1].image_frame_id == "camera_color_optical_frame"
    assert len(results[-1].objects) >= 5  # the simulated table holds more
    os.killpg(process.pid, signal.SIGINT)
    process.wait(20)
    assert "Traceback" not in output.read_text()


def test_perception_launch_leaves_the_transitions_to_a_manager(launched, node):
    from lifecycle_msgs.msg import State, Transition
    from lifecycle_msgs.srv import ChangeState, GetState

    _, output = launched(
        "perception.launch.py", "autostart:=false", "name:=eyes", "config:=tabletop", "camera:=realsense"
    )
    get_state = node.create_client(GetState, "/eyes/get_state")
    change_state = node.create_client(ChangeState, "/eyes/change_state")
    assert spin_until(node, get_state.service_is_ready, 60), output.read_text()

    def call(client, request):
        future = client.call_async(request)
        assert spin_until(node, future.done, 60), output.read_text()
        return future.result()

    assert call(get_state, GetState.Request()).current_state.id == State.PRIMARY_STATE_UNCONFIGURED
    for transition, state in (
        (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
        (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED),
    ):
        assert call(change_state, ChangeState.Request(transition=Transition(id=transition))).success, output.read_text()
        assert call(get_state, GetState.Request()).current_state.id == state
    color = "/camera/camera/color/image_raw"  # of config/realsense.yaml, subscribed while active only
    assert node.count_subscribers(color) == 0
