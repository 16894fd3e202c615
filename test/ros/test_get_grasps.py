# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""~/get_grasps over real DDS: which frame it plans on, for which objects, and why some of them have no grasp."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from rig import OPTICAL, RED, TOP, NodeProcess, Rig
from seg_perception.msg import SegmentedObject
from seg_perception.srv import GetGrasps, SegmentOnce

from seg_perception.ros.conversions import stamp_from_ns, stamp_ns

OK = GetGrasps.Response.OK


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig) -> Iterator[NodeProcess]:
    process = NodeProcess(RED, "grasping.when:=request", "tracker.plugin:=none", namespace=namespace)
    try:
        rig.film(lambda: rig.objects, timeout=60.0, what="the first result")
        yield process
    finally:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log


def get_grasps(rig: Rig, film: bool = False, **members) -> GetGrasps.Response:
    inner = {name: members.pop(name) for name in list(members) if name in ("kind", "gripper", "pregrasp_distance")}
    request = GetGrasps.Request(**members)
    for name, value in inner.items():
        setattr(request.request, name, value)
    return rig.call(GetGrasps, "get_grasps", request, film=film)


@pytest.fixture
def two(node: NodeProcess, rig: Rig):
    """A result with two bricks, that a call returned."""
    request = SegmentOnce.Request(after=stamp_from_ns(rig.now()), timeout=5.0)
    reply = rig.call(SegmentOnce, "segment_once", request, film=True, extra_brick=True)
    assert reply.status == SegmentOnce.Response.OK, reply.message
    assert len(reply.result.objects) == 2
    return reply.result


def test_the_stream_plans_nothing_when_grasps_are_on_request(node: NodeProcess, rig: Rig) -> None:
    (brick,) = rig.film_good().objects
    assert brick.grasp_status == SegmentedObject.GRASPS_NOT_REQUESTED
    assert brick.grasps == []


def test_ids_take_the_result_that_holds_them(two, rig: Rig) -> None:
    left, right = (obj.id for obj in two.objects)
    for _ in range(3):
        rig.shoot()  # newer ones, with other ids and one brick
        time.sleep(0.1)
    reply = get_grasps(rig, object_ids=[right, 4_000_000], max_per_object=2)
    assert reply.status == OK, reply.message
    assert reply.header.stamp == two.header.stamp
    assert [g.object_id for g in reply.grasps] == [right, right]
    assert dict(zip(reply.failed_ids, reply.failed_reasons, strict=True)) == {4_000_000: "no such object in the result"}
    reply = get_grasps(rig, object_ids=[left, right], max_per_object=3, max_total=4)
    assert len(reply.grasps) == 4
    reply = get_grasps(rig, object_ids=[left, right], max_per_object=3, max_total=2)
    (cut,) = reply.failed_ids
    assert {g.object_id for g in reply.grasps} | {cut} == {left, right}
    assert reply.failed_reasons[0] == "beyond max_total (2)"


def test_after_is_served_by_a_kept_result_that_is_young_enough(two, rig: Rig) -> None:
    reply = get_grasps(rig, after=two.header.stamp, object_ids=[two.objects[0].id], timeout=1.0)  # nobody films
    assert reply.status == OK, reply.message
    assert reply.header.stamp == two.header.stamp
    now = stamp_from_ns(rig.now())
    reply = get_grasps(rig, film=True, after=now, timeout=5.0)
    assert reply.status == OK, reply.message
    assert stamp_ns(reply.header.stamp) >= stamp_ns(now)
    reply = get_grasps(rig, after=stamp_from_ns(rig.now()), object_ids=[two.objects[0].id], timeout=0.3)
    assert reply.status == GetGrasps.Response.TIMEOUT
    assert list(reply.failed_ids) == [two.objects[0].id]
    assert "within 0.3 s" in reply.failed_reasons[0]


def test_max_age(two, rig: Rig) -> None:
    assert get_grasps(rig, max_age=60.0).status == OK
    time.sleep(0.3)
    reply = get_grasps(rig, max_age=0.2, object_ids=[two.objects[0].id])
    assert reply.status == GetGrasps.Response.TOO_OLD
    assert "max_age is 0.2 s" in reply.message
    assert list(reply.failed_reasons) == [reply.message]
    reply = get_grasps(rig, max_age=-1.0)
    assert reply.status == GetGrasps.Response.BAD_REQUEST
    assert "max_age: expected at least 0" in reply.message


def test_classes(two, rig: Rig) -> None:
    assert len({g.object_id for g in get_grasps(rig, classes=["brick"], object_ids=[]).grasps}) in (1, 2)
    reply = get_grasps(rig, classes=["bolt"], object_ids=[two.objects[0].id])
    assert reply.status == GetGrasps.Response.NO_SUCH_OBJECT
    assert list(reply.failed_reasons) == ["of another class"]
    reply = get_grasps(rig, classes=["brik"])
    assert reply.status == GetGrasps.Response.BAD_REQUEST
    assert "did you mean 'brick'" in reply.message


def test_what_the_caller_grasps_with(two, rig: Rig) -> None:
    ids = [two.objects[0].id]
    reply = get_grasps(rig, object_ids=ids, gripper="onrobot_rg2", pregrasp_distance=0.2)
    best = reply.grasps[0]
    assert best.gripper == "onrobot_rg2"
    assert best.pregrasp_pose.position.z == pytest.approx(best.pose.position.z - 0.2, abs=0.02)  # it looks down
    assert best.pose.position.z == pytest.approx(TOP, abs=0.06)
    reply = get_grasps(rig, object_ids=ids, kind=2)
    assert reply.status == GetGrasps.Response.BAD_REQUEST
    assert "a suction cup" in reply.message
    assert list(reply.failed_ids) == ids
    small = "{name: tiny, stroke: 0.015, finger_width: 0.01, finger_thickness: 0.01, finger_length: 0.05, "
    reply = get_grasps(rig, object_ids=ids, gripper=small + "tip_beyond_tcp: 0.0, palm_size: [0.04, 0.05, 0.05]}")
    assert reply.status == GetGrasps.Response.NO_GRASP
    assert "wider than the stroke" in reply.failed_reasons[0]


def test_another_frame_needs_a_transform(two, rig: Rig) -> None:
    assert get_grasps(rig, target_frame=OPTICAL, object_ids=[two.objects[0].id]).status == OK
    reply = get_grasps(rig, target_frame="base_link", object_ids=[two.objects[0].id])
    assert reply.status == GetGrasps.Response.NO_TRANSFORM
    assert reply.header.frame_id == "base_link"
    assert list(reply.failed_ids) == [two.objects[0].id]
    request = GetGrasps.Request(object_ids=[two.objects[0].id])
    request.request.approach_axis.header.frame_id = "tool"
    request.request.approach_axis.vector.z = 1.0
    reply = rig.call(GetGrasps, "get_grasps", request)
    assert reply.status == GetGrasps.Response.BAD_REQUEST
    assert "approach_axis: no transform" in reply.message or "approach_axis: tf2_ros" in reply.message
    request.request.approach_axis.header.frame_id = OPTICAL
    request.request.max_approach_angle = 0.2
    reply = rig.call(GetGrasps, "get_grasps", request)
    assert reply.status == OK, reply.message
    for grasp in reply.grasps:
        q = grasp.pose.orientation
        assert 1 - 2 * (q.x**2 + q.y**2) >= np.cos(0.2) - 1e-3  # the approach's z


def test_a_stream_over_its_budget_says_so(node: NodeProcess, rig: Rig) -> None:
    assert rig.set_parameters(grasping__when="stream", grasping__budget=1e-6).successful
    late = SegmentedObject.GRASPS_BUDGET
    reached = rig.film(
        lambda: next((m for m in rig.objects[-3:] if any(o.grasp_status == late for o in m.objects)), None),
        what="an object over the budget",
        extra_brick=True,
    )
    over = [o for o in reached.objects if o.grasp_status == late]
    assert {o.grasp_text for o in over} == {"over the frame's budget"}
    assert not any(o.grasps for o in over)
    reply = get_grasps(rig, object_ids=[over[0].id])  # a call has no budget
    assert reply.status == OK, reply.message
    assert rig.set_parameters(grasping__when="request", grasping__budget=0.05).successful


def test_options_of_the_planner_change_while_it_runs(node: NodeProcess, rig: Rig) -> None:
    assert rig.set_parameters(grasping__antipodal__pregrasp_distance=0.07).successful
    fresh = rig.film(lambda: rig.objects[-1], what="a result")
    reply = get_grasps(rig, after=fresh.header.stamp)
    assert reply.status == OK, reply.message
    for grasp in reply.grasps:
        at, before = grasp.pose.position, grasp.pregrasp_pose.position
        assert np.hypot(np.hypot(at.x - before.x, at.y - before.y), at.z - before.z) == pytest.approx(0.07, abs=1e-6)
    refused = rig.set_parameters(grasping__antipodal__gripper="franka_hand")
    assert "grasping.antipodal.gripper: cannot change while the node is configured" in refused.reason
    assert rig.set_parameters(grasping__antipodal__pregrasp_distance=0.1).successful
