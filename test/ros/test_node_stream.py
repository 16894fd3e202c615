# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node in its own process, streaming: what it publishes, and how live parameters and calls act on it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import PoseArray
from numpy.testing import assert_allclose
from rig import BRICK, FOCAL, HEIGHT, OPTICAL, RED, TOP, WIDTH, NodeProcess, Rig
from seg_perception.msg import ModelStatus
from seg_perception.srv import GetGrasps, SegmentOnce, SetModel
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import Marker, MarkerArray

from seg_perception.ros.conversions import stamp_from_ns, stamp_ns
from seg_perception.ros.messages import points_of

SIZE = np.array([BRICK[2] - BRICK[0], BRICK[3] - BRICK[1]]) * TOP / FOCAL  # m
MIDDLE = (np.array([BRICK[0] + BRICK[2], BRICK[1] + BRICK[3]]) / 2 - 0.5 - [WIDTH / 2, HEIGHT / 2]) * TOP / FOCAL


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("models")
    for name in ("first", "second", "broken"):
        (folder / f"{name}.txt").write_text(f"{name}\n")
    return folder


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig, models) -> Iterator[NodeProcess]:
    process = NodeProcess(RED, f"segmenter.model:={models}/first.txt", "history:=5", namespace=namespace)
    try:
        rig.film(lambda: rig.objects, timeout=40.0, what="the first result")
        yield process
    finally:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log


def test_every_pair_that_was_taken_is_answered_with_its_stamp_and_frame(node: NodeProcess, rig: Rig) -> None:
    rig.film_good()
    time.sleep(1.5)
    before = int(_value(rig, "pipeline", "results"))
    rig.objects.clear()
    rig.sent.clear()
    for _ in range(40):
        rig.shoot()
        time.sleep(0.05)
    rig.wait(lambda: rig.objects and stamp_ns(rig.objects[-1].header.stamp) == rig.sent[-1], what="the last frame")
    time.sleep(1.2)
    assert int(_value(rig, "pipeline", "results")) - before == len(rig.objects)  # all that were taken came out
    stamps = [stamp_ns(m.header.stamp) for m in rig.objects]
    assert set(stamps) <= set(rig.sent)
    assert stamps == sorted(stamps)
    sequences = [m.sequence for m in rig.objects]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    assert {m.image_frame_id for m in rig.objects} == {m.header.frame_id for m in rig.objects} == {OPTICAL}
    assert rig.objects[-1].depth_delay == 0.0
    assert rig.objects[-1].camera_info.k[0] == FOCAL


def test_the_brick_is_where_it_is(node: NodeProcess, rig: Rig) -> None:
    (brick,) = rig.film_good().objects
    c = brick.centroid
    assert_allclose([c.x, c.y, c.z], [*MIDDLE, TOP], atol=3e-3)
    assert brick.class_name == "brick"
    assert_allclose(list(brick.box), BRICK)
    assert brick.mask.area == (BRICK[2] - BRICK[0]) * (BRICK[3] - BRICK[1])
    assert_allclose(sorted([brick.box_size.x, brick.box_size.y]), sorted(SIZE), atol=4e-3)


def test_side_outputs_come_when_listened_to(node: NodeProcess, rig: Rig) -> None:
    topics = {
        "label_image": Image,
        "class_image": Image,
        "points": PointCloud2,
        "scene_points": PointCloud2,
        "grasps": PoseArray,
        "markers": MarkerArray,
        "overlay": Image,
        "overlay/compressed": CompressedImage,
    }
    heard: dict[str, list] = {name: [] for name in topics}
    subscriptions = [rig.listen(kind, f"seg_perception/{name}", heard[name]) for name, kind in topics.items()]
    rig.film(lambda: all(heard.values()), what=f"{[n for n, m in heard.items() if not m]}")
    for subscription in subscriptions:
        rig.node.destroy_subscription(subscription)
    labels = np.frombuffer(heard["label_image"][-1].data, np.uint16).reshape(HEIGHT, WIDTH)
    expected = np.zeros((HEIGHT, WIDTH), np.uint16)
    expected[BRICK[1] : BRICK[3], BRICK[0] : BRICK[2]] = 1
    np.testing.assert_array_equal(labels, expected)
    assert heard["label_image"][-1].header.frame_id == OPTICAL
    classes = np.frombuffer(heard["class_image"][-1].data, np.uint16).reshape(HEIGHT, WIDTH)
    np.testing.assert_array_equal(classes, expected)  # class 0 is 1 here
    assert heard["scene_points"][-1].width == WIDTH * HEIGHT
    stamp = heard["points"][-1].header.stamp
    message = next(m for m in rig.objects if m.header.stamp == stamp)
    points = points_of(message, message.objects[0], heard["points"][-1])
    assert len(points) == message.objects[0].point_count > 1000
    assert_allclose(points[:, 2], TOP, atol=2e-3)
    assert len(heard["grasps"][-1].poses) == 1
    assert heard["markers"][0].markers[0].action == Marker.DELETEALL  # the first since it was activated
    jpeg = cv2.imdecode(np.frombuffer(heard["overlay/compressed"][-1].data, np.uint8), cv2.IMREAD_COLOR)
    assert jpeg.shape == (HEIGHT, WIDTH, 3)
    assert heard["overlay"][-1].encoding == "bgr8"


def test_live_options_act_on_the_next_frames_all_or_none(node: NodeProcess, rig: Rig) -> None:
    assert rig.film_good().objects[0].in_workspace
    outside = {"workspace__min": [0.5, 0.0, 0.0], "workspace__max": [1.0, 1.0, 1.0]}
    refused = rig.set_parameters(**outside, fusion__max_depth=-1.0)
    assert not refused.successful
    assert "fusion.max_depth: expected" in refused.reason
    assert rig.film_good().objects[0].in_workspace
    assert rig.set_parameters(**outside).successful
    rig.film(lambda: not rig.objects[-1].objects[0].in_workspace, what="outside of the workspace")
    assert rig.set_parameters(workspace__mode="drop").successful
    rig.film(lambda: not rig.objects[-1].objects, what="dropped")
    assert rig.set_parameters(workspace__min=[0, 0, 0], workspace__max=[0, 0, 0], workspace__mode="flag").successful
    assert rig.set_parameters(segmenter__threshold=255).successful  # nothing is that red
    rig.film(lambda: not rig.objects[-1].objects, what="no red object")
    assert rig.set_parameters(segmenter__threshold=150).successful
    rig.film_good()


def test_options_that_are_not_live_are_refused_while_configured(node: NodeProcess, rig: Rig) -> None:
    result = rig.set_parameters(topics__color="elsewhere")
    assert not result.successful
    assert "topics.color" in result.reason
    assert "needs cleanup first" in result.reason
    result = rig.set_parameters(sync__slop=2.0)
    assert not result.successful
    assert "sync.slop" in result.reason


def test_what_a_pick_controller_does(node: NodeProcess, rig: Rig) -> None:
    """The robot stops, takes a fresh frame, chooses, asks for diverse grasps on the same result, then looks again."""
    rig.film_good()
    t0 = rig.now()
    request = SegmentOnce.Request(after=stamp_from_ns(t0), timeout=5.0, with_points=True, grasps=3)
    reply = rig.call(SegmentOnce, "segment_once", request, film=True, extra_brick=True)
    assert reply.status == SegmentOnce.Response.OK, reply.message
    result = reply.result
    assert stamp_ns(result.header.stamp) >= t0
    assert len(result.objects) == 2
    for brick in result.objects:
        points = points_of(result, brick)
        assert_allclose(points[:, 2], TOP, atol=2e-3)
        assert 1 <= len(brick.grasps) <= 3, brick.grasp_text
        assert brick.grasps[0].object_id == brick.id

    for _ in range(10):  # the stream goes on and would push the result out of the history
        rig.shoot()
        time.sleep(0.05)
    chosen = min(result.objects, key=lambda o: o.box[0])  # the one that the stream sees no more
    request = GetGrasps.Request(object_ids=[chosen.id], max_per_object=10, timeout=2.0)
    request.request.max_approach_angle = 0.5  # rad, around gravity
    reply = rig.call(GetGrasps, "get_grasps", request)
    assert reply.status == GetGrasps.Response.OK, reply.message
    assert reply.header.stamp == result.header.stamp
    assert {g.object_id for g in reply.grasps} == {chosen.id}
    assert len(reply.grasps) > 1
    nearest = min(
        np.hypot(g.pose.position.x - chosen.centroid.x, g.pose.position.y - chosen.centroid.y) for g in reply.grasps
    )
    assert nearest < 0.02

    request.request.approach_axis.vector.z = -1.0  # from below, through the table
    reply = rig.call(GetGrasps, "get_grasps", request)
    assert reply.status == GetGrasps.Response.NO_GRASP
    assert "every approach leans more than 80 deg from gravity" in reply.failed_reasons[0]
    assert list(reply.failed_ids) == [chosen.id]

    later = GetGrasps.Request(after=stamp_from_ns(rig.now()), timeout=5.0)
    reply = rig.call(GetGrasps, "get_grasps", later, film=True)
    assert reply.status == GetGrasps.Response.OK, reply.message
    assert stamp_ns(reply.header.stamp) >= stamp_ns(later.after)


def test_calls_that_cannot_be_served_say_why(node: NodeProcess, rig: Rig) -> None:
    rig.film_good()
    once, grasps = SegmentOnce.Response, GetGrasps.Response
    for request, words in (
        (SegmentOnce.Request(classes=["brik"]), "did you mean 'brick'"),
        (SegmentOnce.Request(prompt="a mug"), "takes no prompt"),
        (SegmentOnce.Request(timeout=-1.0), "timeout: expected"),
        (SegmentOnce.Request(roi=[9.0, 9.0, 1.0, 1.0]), "roi: expected"),
        (SegmentOnce.Request(frames=1000), "frames: expected at most"),
    ):
        reply = rig.call(SegmentOnce, "segment_once", request)
        assert (reply.status, words in reply.message) == (once.BAD_REQUEST, True), reply.message
    reply = rig.call(GetGrasps, "get_grasps", GetGrasps.Request(object_ids=[4_000_000]))
    assert reply.status == grasps.NO_SUCH_OBJECT
    assert list(reply.failed_ids) == [4_000_000]
    request = GetGrasps.Request()
    request.request.planners = ["antipodl"]
    reply = rig.call(GetGrasps, "get_grasps", request)
    assert reply.status == grasps.BAD_REQUEST
    assert "antipodl" in reply.message
    time.sleep(0.3)
    reply = rig.call(GetGrasps, "get_grasps", GetGrasps.Request(max_age=0.1))
    assert reply.status == grasps.TOO_OLD
    reply = rig.call(SegmentOnce, "segment_once", SegmentOnce.Request(target_frame="base_link"), film=True)
    assert reply.status == once.NO_TRANSFORM, reply.message
    assert reply.result.header.frame_id == "base_link"
    assert [o.status for o in reply.result.objects] == [17]


def test_a_call_keeps_to_what_it_was_asked_for(node: NodeProcess, rig: Rig) -> None:
    request = SegmentOnce.Request(roi=[0.0, 0.0, 110.0, 240.0], with_points=True)
    reply = rig.call(SegmentOnce, "segment_once", request, film=True, extra_brick=True)
    (left,) = reply.result.objects
    assert left.box[0] == BRICK[0] - 100
    assert left.grasps == []
    assert reply.result.points.width == left.point_count
    reply = rig.call(SegmentOnce, "segment_once", SegmentOnce.Request(classes=["bolt"]), film=True)
    assert reply.status == SegmentOnce.Response.OK
    assert reply.result.objects == []


def test_several_frames_are_fused_by_median_depth(node: NodeProcess, rig: Rig) -> None:
    noise = iter([20, -20, 0, 20, -20] * 40)  # mm; the median of any five in a row is 0

    def shifted(message: Image) -> None:
        depth = np.frombuffer(message.data, np.uint16).astype(np.int32) + next(noise)
        message.data = depth.astype(np.uint16).tobytes()

    request = SegmentOnce.Request(frames=5, after=stamp_from_ns(rig.now()))
    reply = rig.call(SegmentOnce, "segment_once", request, film=True, depth=shifted, rate=10.0)
    assert reply.status == SegmentOnce.Response.OK, reply.message
    assert reply.result.objects[0].centroid.z == pytest.approx(TOP, abs=1e-3)


def test_stream_off_leaves_calls_working_and_unsubscribes(node: NodeProcess, rig: Rig) -> None:
    assert rig.call(SetBool, "enable", SetBool.Request(data=False)).success
    rig.wait(lambda: rig.color.get_subscription_count() == 0, what="unsubscribed")
    reply = rig.call(SegmentOnce, "segment_once", film=True)
    assert reply.status == SegmentOnce.Response.OK, reply.message
    rig.wait(lambda: rig.color.get_subscription_count() == 0, what="unsubscribed again")
    assert rig.call(SetBool, "enable", SetBool.Request(data=True)).success
    rig.film_good()


def test_ids_are_never_used_twice(node: NodeProcess, rig: Rig) -> None:
    before = rig.film_good().objects[0].id
    assert rig.call(Trigger, "reset_tracks").success
    rig.objects.clear()
    assert rig.film_good().objects[0].id > before


def test_another_model_takes_over_and_a_broken_one_does_not(node: NodeProcess, rig: Rig, models) -> None:
    kind = SetModel.Response
    statuses: list[ModelStatus] = []
    rig.node.create_subscription(ModelStatus, "seg_perception/model_status", statuses.append, _latched())
    rig.wait(lambda: statuses, what="the latched model status")
    assert (statuses[-1].state, statuses[-1].model) == (ModelStatus.READY, "segmenters_for_tests:RedThings:first")
    assert list(statuses[-1].class_names) == ["brick", "bolt"]

    reply = rig.call(SetModel, "set_model", SetModel.Request(model="broken.txt", wait=True), film=True)
    assert reply.status == kind.INVALID
    assert "found the word broken" in reply.message
    assert reply.model.endswith(":first")
    reply = rig.call(SetModel, "set_model", SetModel.Request(model="/etc/hostname", wait=True))
    assert reply.status == kind.UNTRUSTED
    reply = rig.call(SetModel, "set_model", SetModel.Request(model="nowhere", wait=True))
    assert reply.status == kind.NOT_FOUND
    reply = rig.call(SetModel, "set_model", SetModel.Request(options="treshold: 3", wait=True))
    assert reply.status == kind.INVALID
    assert "did you mean 'threshold'" in reply.message
    reply = rig.call(SetModel, "set_model", SetModel.Request(model="second.txt", wait=True), film=True)
    assert reply.status == kind.OK, reply.message
    assert reply.model.endswith(":second")
    rig.film(lambda: rig.objects[-1].model.endswith(":second"), what="results of the second model")
    ids = {m.objects[0].id for m in rig.objects[-5:] if m.objects}
    assert len(ids) == 1  # the tracker goes on through the exchange


def _latched():
    from rclpy.qos import DurabilityPolicy, QoSProfile

    return QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def _value(rig: Rig, part: str, key: str) -> str:
    return next(v.value for v in rig.diagnostic(part).values if v.key == key)
