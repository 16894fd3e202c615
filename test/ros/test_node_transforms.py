# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""target_frame, workspace and gravity, through a stand-in of tf2's buffer (see node_with_tf_stand_in.py)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from numpy.testing import assert_allclose
from rig import HERE, OPTICAL, RED, TOP, NodeProcess, Rig, is_good
from rosgraph_msgs.msg import Clock
from seg_perception.msg import SegmentedObject as Status
from seg_perception.srv import GetGrasps, SegmentOnce

from seg_perception.geometry import transform_points
from seg_perception.ros.conversions import stamp_from_ns, stamp_ns
from seg_perception.ros.poses import transform_message

T_BASE_CAMERA = np.array([[0.0, -1, 0, 0.4], [-1, 0, 0, 0.1], [0, 0, -1, 0.9], [0, 0, 0, 1]])  # looking down


@pytest.fixture(scope="module")
def tf(rig: Rig):
    """Publishes T_base_camera at a stamp."""
    publisher = rig.node.create_publisher(TransformStamped, "stand_in_tf", 100)

    def publish(stamp: int, frame: str = "base_link") -> None:
        message = TransformStamped(child_frame_id=OPTICAL, transform=transform_message(T_BASE_CAMERA))
        message.header.frame_id, message.header.stamp = frame, stamp_from_ns(stamp)
        publisher.publish(message)

    return publish


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig, tf) -> Iterator[NodeProcess]:
    program = [str(HERE / "node_with_tf_stand_in.py")]
    process = NodeProcess(RED, "target_frame:=base_link", namespace=namespace, program=program)
    try:
        rig.film(lambda: rig.objects, timeout=40.0, what="the first result")
        yield process
    finally:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log


def answer_to(rig: Rig, stamp: int):
    return rig.wait(lambda: next((m for m in rig.objects if stamp_ns(m.header.stamp) == stamp), None), what="an answer")


def test_without_a_transform_masks_go_out_and_3d_is_withheld(node: NodeProcess, rig: Rig) -> None:
    rig.objects.clear()
    message = answer_to(rig, rig.shoot())
    (brick,) = message.objects
    assert message.header.frame_id == "base_link"
    assert message.image_frame_id == OPTICAL
    assert brick.status == Status.NO_TRANSFORM
    assert "does not exist" in brick.status_text  # tf2's words
    assert brick.mask.area > 0
    assert np.isnan(brick.centroid.x)
    rig.wait_for_diagnostic("transforms", DiagnosticStatus.WARN, "base_link", OPTICAL, "does not exist")


def test_a_transform_that_comes_late_is_waited_for(node: NodeProcess, rig: Rig, tf) -> None:
    assert rig.set_parameters(tf_timeout=2.0).successful
    time.sleep(0.3)
    stamp = rig.shoot()
    timer = threading.Timer(0.5, tf, (stamp,))
    timer.start()
    message = answer_to(rig, stamp)
    assert timer.finished.is_set()
    (brick,) = message.objects
    assert brick.status == Status.OK
    expected = transform_points(T_BASE_CAMERA, [0.0, 0.0, TOP])
    assert_allclose([brick.centroid.x, brick.centroid.y, brick.centroid.z], expected, atol=4e-3)
    t = message.image_to_header.translation
    assert_allclose([t.x, t.y, t.z], T_BASE_CAMERA[:3, 3])
    assert rig.set_parameters(tf_timeout=0.1).successful


def film_with_tf(rig: Rig, tf, condition, what: str):
    def step():
        stamp = rig.now()
        tf(stamp)
        tf(stamp, "world")
        rig.shoot(stamp)
        time.sleep(0.05)
        return condition()

    return rig.wait(step, what=what)


def test_workspace_in_a_named_frame(node: NodeProcess, rig: Rig, tf) -> None:
    near = {"workspace__min": [0.3, 0.0, 0.0], "workspace__max": [0.5, 0.2, 0.5]}
    assert rig.set_parameters(workspace__frame="world", **near).successful
    film_with_tf(rig, tf, lambda: is_good(rig.objects[-1]) and rig.objects[-1].objects[0].in_workspace, "inside")
    assert rig.set_parameters(workspace__max=[0.5, 0.05, 0.5]).successful
    film_with_tf(rig, tf, lambda: is_good(rig.objects[-1]) and not rig.objects[-1].objects[0].in_workspace, "outside")
    assert rig.set_parameters(workspace__min=[0.0, 0.0, 0.0], workspace__max=[0.0, 0.0, 0.0]).successful


def test_calls_answer_in_the_frame_they_ask_for(node: NodeProcess, rig: Rig, tf) -> None:
    future = rig.call_async(SegmentOnce, "segment_once", SegmentOnce.Request(target_frame="world", grasps=1))
    film_with_tf(rig, tf, future.done, "an answer")
    reply = future.result()
    assert reply.status == SegmentOnce.Response.OK, reply.message
    assert reply.result.header.frame_id == "world"
    (brick,) = reply.result.objects
    q = brick.grasps[0].pose.orientation
    approach = [2 * (q.x * q.z + q.w * q.y), 2 * (q.y * q.z - q.w * q.x), 1 - 2 * (q.x**2 + q.y**2)]
    assert_allclose(approach, [0, 0, -1], atol=0.02)  # down in the world
    request = GetGrasps.Request(object_ids=[brick.id], target_frame="nowhere")
    reply = rig.call(GetGrasps, "get_grasps", request)
    assert reply.status == GetGrasps.Response.NO_TRANSFORM
    assert "nowhere" in reply.message
    request = GetGrasps.Request(object_ids=[brick.id])
    request.request.approach_axis.header.frame_id = "base_link"
    request.request.approach_axis.vector.z = -1.0
    request.request.max_approach_angle = 0.2
    reply = rig.call(GetGrasps, "get_grasps", request)
    assert reply.status == GetGrasps.Response.OK, reply.message
    assert reply.header.frame_id == "base_link"


def test_another_target_frame_begins_new_tracks(node: NodeProcess, rig: Rig, tf) -> None:
    film_with_tf(rig, tf, lambda: is_good(rig.objects[-1]) and rig.objects[-1].header.frame_id == "base_link", "3D")
    before = rig.objects[-1].objects[0].id
    film_with_tf(rig, tf, lambda: len(rig.objects) > 3, "more")
    assert rig.objects[-1].objects[0].id == before  # iou3d keeps it
    assert rig.set_parameters(target_frame="world").successful
    film_with_tf(rig, tf, lambda: is_good(rig.objects[-1]) and rig.objects[-1].header.frame_id == "world", "the world")
    assert rig.objects[-1].objects[0].id > before
    assert rig.set_parameters(target_frame="base_link").successful


def test_a_clock_that_jumps_back_starts_everything_anew(node: NodeProcess, rig: Rig, tf) -> None:
    clock = rig.node.create_publisher(Clock, "/clock", 10)
    assert rig.set_parameters(use_sim_time=True).successful
    now = 1_000_000_000_000

    def play(until, what: str):
        def step():
            nonlocal now
            now += 50_000_000
            clock.publish(Clock(clock=stamp_from_ns(now)))
            tf(now)
            rig.shoot(now)
            time.sleep(0.05)
            return until()

        return rig.wait(step, what=what)

    try:
        play(lambda: rig.objects[-1].header.stamp.sec // 10 == 100 and rig.objects[-1].sequence > 5, "sim time")
        before = next(m for m in reversed(rig.objects) if is_good(m))
        now = 500_000_000_000  # the bag begins again
        rig.objects.clear()
        good = play(
            lambda: next((m for m in rig.objects if is_good(m) and m.header.stamp.sec < 600), None), "after the jump"
        )
        assert good.sequence < before.sequence
        assert good.objects[0].id > before.objects[0].id
        assert "set back" in node.log
    finally:
        rig.set_parameters(use_sim_time=False)
