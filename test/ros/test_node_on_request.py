# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""run: on_request, where subscriptions exist only while a call waits; and what a call says when there is no image."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from rig import RED, NodeProcess, Rig
from seg_perception.srv import GetGrasps, SegmentOnce

from seg_perception.ros.conversions import stamp_from_ns, stamp_ns


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig) -> Iterator[NodeProcess]:
    process = NodeProcess(RED, "run:=on_request", "segment_once.timeout:=3.0", namespace=namespace)
    try:
        rig.wait(lambda: rig.diagnostic("node").message == "active", 40.0, "active")
        rig.wait(lambda: rig.diagnostic("model").message.startswith("READY"), 40.0, "ready")
        yield process
    finally:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log


def test_a_call_takes_a_frame_stamped_after_it_and_subscribes_only_meanwhile(node: NodeProcess, rig: Rig) -> None:
    for _ in range(10):
        rig.shoot()
        time.sleep(0.03)
    assert rig.color.get_subscription_count() == 0
    assert rig.objects == []
    t0 = rig.now()
    request = SegmentOnce.Request(after=stamp_from_ns(t0), with_points=True, grasps=2)
    reply = rig.call(SegmentOnce, "segment_once", request, film=True)
    assert reply.status == SegmentOnce.Response.OK, reply.message
    assert stamp_ns(reply.result.header.stamp) >= t0
    (brick,) = reply.result.objects
    assert brick.point_count == reply.result.points.width > 1000
    assert len(brick.grasps) == 2
    rig.wait(lambda: rig.color.get_subscription_count() == 0, what="unsubscribed")
    rig.wait(lambda: rig.objects, what="the same result on ~/objects")
    assert rig.objects[-1].objects[0].id == brick.id

    reply = rig.call(GetGrasps, "get_grasps", GetGrasps.Request(object_ids=[brick.id], max_total=1))
    assert reply.status == GetGrasps.Response.OK, reply.message
    assert [g.object_id for g in reply.grasps] == [brick.id]


def test_after_in_the_future_is_waited_for(node: NodeProcess, rig: Rig) -> None:
    after = rig.now() + 700_000_000
    reply = rig.call(SegmentOnce, "segment_once", SegmentOnce.Request(after=stamp_from_ns(after)), film=True)
    assert reply.status == SegmentOnce.Response.OK, reply.message
    assert 0 <= stamp_ns(reply.result.header.stamp) - after < 300_000_000  # the first frame, not any later one


def test_two_calls_at_once(node: NodeProcess, rig: Rig) -> None:
    first = rig.call_async(SegmentOnce, "segment_once", SegmentOnce.Request())
    second = rig.call_async(SegmentOnce, "segment_once", SegmentOnce.Request(frames=3))
    rig.film(lambda: first.done() and second.done(), what="both")
    assert first.result().status == second.result().status == SegmentOnce.Response.OK
    rig.wait(lambda: rig.color.get_subscription_count() == 0, what="unsubscribed")


def test_no_color_within_the_timeout_names_the_topic(node: NodeProcess, rig: Rig) -> None:
    last = rig.shoot()
    start = time.monotonic()
    reply = rig.call(SegmentOnce, "segment_once", SegmentOnce.Request(timeout=0.5))
    assert 0.4 < time.monotonic() - start < 2.5
    assert reply.status == SegmentOnce.Response.TIMEOUT_NO_COLOR
    assert "/color/image_raw" in reply.message
    assert "1 publisher" in reply.message
    assert "last stamp" in reply.message
    assert "\n" not in reply.message
    assert last


def test_no_depth_within_the_timeout_gives_masks(node: NodeProcess, rig: Rig) -> None:
    request = SegmentOnce.Request(timeout=1.0)
    reply = rig.call(SegmentOnce, "segment_once", request, film=True, only=("color", "color_info"))
    assert reply.status == SegmentOnce.Response.TIMEOUT_NO_DEPTH, reply.message
    assert "/depth/image_rect" in reply.message
    (brick,) = reply.result.objects
    assert brick.mask.area > 0
    assert brick.status == 10  # NO_DEPTH_IMAGE


def test_a_frame_that_is_lost_is_followed_by_the_next(node: NodeProcess, rig: Rig) -> None:
    count = 0

    def green_at_first(message) -> None:
        nonlocal count
        count += 1
        if count < 5:
            message.data = b"\x00\xff\x00" * (len(message.data) // 3)

    reply = rig.call(SegmentOnce, "segment_once", film=True, color=green_at_first)
    assert reply.status == SegmentOnce.Response.OK, reply.message
    reply = rig.call(
        SegmentOnce,
        "segment_once",
        SegmentOnce.Request(timeout=1.0),
        film=True,
        color=lambda m: setattr(m, "data", b"\x00\xff\x00" * (len(m.data) // 3)),
    )
    assert reply.status == SegmentOnce.Response.FAILED
    assert "this picture is green" in reply.message


def test_get_grasps_on_a_fresh_frame_times_out_with_a_line(node: NodeProcess, rig: Rig) -> None:
    request = GetGrasps.Request(after=stamp_from_ns(rig.now()), timeout=0.4)
    reply = rig.call(GetGrasps, "get_grasps", request)
    assert reply.status == GetGrasps.Response.TIMEOUT
    assert "/color/image_raw" in reply.message
