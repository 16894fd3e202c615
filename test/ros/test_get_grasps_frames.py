# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""~/get_grasps in frames of the caller's, through a stand-in of tf2's buffer (see node_with_tf_stand_in.py)."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from numpy.testing import assert_allclose
from rig import HERE, OPTICAL, RED, TOP, NodeProcess, Rig
from seg_perception.srv import GetGrasps

from seg_perception.geometry import invert, transform_points
from seg_perception.ros.conversions import stamp_from_ns
from seg_perception.ros.poses import transform_message

OK = GetGrasps.Response.OK
T_WORLD_CAMERA = np.array([[0.0, -1, 0, 0.4], [-1, 0, 0, 0.1], [0, 0, -1, 0.9], [0, 0, 0, 1]])  # looking down
T_SHELF_CAMERA = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # its y is the camera's z


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig) -> Iterator[NodeProcess]:
    publisher = rig.node.create_publisher(TransformStamped, "stand_in_tf", 100)

    def shoot_with_transforms() -> None:
        stamp = rig.now()
        for frame, T in (("world", T_WORLD_CAMERA), ("shelf", T_SHELF_CAMERA)):
            message = TransformStamped(child_frame_id=OPTICAL, transform=transform_message(T))
            message.header.frame_id, message.header.stamp = frame, stamp_from_ns(stamp)
            publisher.publish(message)
        time.sleep(0.05)
        rig.shoot(stamp)

    program = [str(HERE / "node_with_tf_stand_in.py")]
    process = NodeProcess(RED, "grasping.when:=request", namespace=namespace, program=program)
    try:
        rig.film(lambda: rig.objects, timeout=60.0, what="the first result")
        count = len(rig.objects)
        for _ in range(3):
            shoot_with_transforms()
            time.sleep(0.2)
        rig.wait(lambda: len(rig.objects) > count, what="a result with transforms")
        yield process
    finally:
        assert process.stop() == 0, process.log


def xyz(value: object) -> np.ndarray:
    return np.array([value.x, value.y, value.z])


def approach(grasp: object) -> np.ndarray:
    q = grasp.pose.orientation
    return np.array([2 * (q.x * q.z + q.w * q.y), 2 * (q.y * q.z - q.w * q.x), 1 - 2 * (q.x**2 + q.y**2)])


def test_poses_in_the_frame_that_was_asked_for(node: NodeProcess, rig: Rig) -> None:
    here = rig.call(GetGrasps, "get_grasps", GetGrasps.Request(max_per_object=1))
    there = rig.call(GetGrasps, "get_grasps", GetGrasps.Request(max_per_object=1, target_frame="world"))
    assert (here.status, there.status) == (OK, OK), (here.message, there.message)
    assert (here.header.frame_id, there.header.frame_id) == (OPTICAL, "world")
    (a,), (b,) = here.grasps, there.grasps
    assert_allclose(xyz(b.pose.position), transform_points(T_WORLD_CAMERA, xyz(a.pose.position)), atol=1e-6)
    assert_allclose(approach(b), T_WORLD_CAMERA[:3, :3] @ approach(a), atol=1e-6)
    assert_allclose(xyz(b.contacts[0]), transform_points(T_WORLD_CAMERA, xyz(a.contacts[0])), atol=1e-6)
    assert_allclose(xyz(b.retreat_direction), [0, 0, 1], atol=1e-6)  # up, there
    assert b.pose.position.z == pytest.approx(0.9 - TOP, abs=0.05)


@pytest.mark.parametrize("named", ["world", ""])
def test_an_axis_in_another_frame_or_in_that_of_the_reply(node: NodeProcess, rig: Rig, named: str) -> None:
    """Leaning by 0.6 rad, given in the world: with an empty frame it is the reply's, which is the world too."""
    axis = np.array([np.sin(0.6), 0.0, -np.cos(0.6)])
    request = GetGrasps.Request(target_frame="world", max_per_object=5)
    request.request.approach_axis.header.frame_id = named
    v = request.request.approach_axis.vector
    v.x, v.y, v.z = axis.tolist()
    request.request.max_approach_angle = 0.25
    reply = rig.call(GetGrasps, "get_grasps", request)
    assert reply.status == OK, reply.message
    for grasp in reply.grasps:
        assert approach(grasp) @ axis >= np.cos(0.25) - 1e-3

    in_shelf = T_SHELF_CAMERA[:3, :3] @ invert(T_WORLD_CAMERA)[:3, :3] @ axis
    request.request.approach_axis.header.frame_id = "shelf"
    v.x, v.y, v.z = in_shelf.tolist()
    again = rig.call(GetGrasps, "get_grasps", request)
    assert [g.score for g in again.grasps] == [g.score for g in reply.grasps]
