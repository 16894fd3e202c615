# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Live prompts over real DDS: boxes, points in px and in metres, texts, the roi of a call, and every refusal.

STAND-INS, so that answers can be predicted: a SAM and a text network that go by color, and tf2's buffer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import color_words
import numpy as np
import pytest
import yaml
from geometry_msgs.msg import PointStamped, TransformStamped
from numpy.testing import assert_allclose
from rig import BRICK, FOCAL, HEIGHT, HERE, OPTICAL, TOP, WIDTH, NodeProcess, Rig
from seg_perception.srv import Prompt, SegmentOnce
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from seg_perception.geometry import invert, transform_points
from seg_perception.ros.conversions import stamp_from_ns
from seg_perception.ros.poses import transform_message

pytest.importorskip("tokenizers", reason="the extra text is not installed")
KIND = Prompt.Response
OTHER = (BRICK[0] - 100, BRICK[1], BRICK[2] - 100, BRICK[3])  # the second brick
T_BASE_CAMERA = np.array([[0.0, -1, 0, 0.4], [-1, 0, 0, 0.1], [0, 0, -1, 0.9], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def tf(rig: Rig):
    publisher = rig.node.create_publisher(TransformStamped, "stand_in_tf", 10)

    def publish(T: np.ndarray) -> None:
        """T_base_camera, as the camera's T_camera_base: the stand-in knows no chains and no inverses."""
        message = TransformStamped(child_frame_id="base_link", transform=transform_message(invert(T)))
        message.header.frame_id, message.header.stamp = OPTICAL, stamp_from_ns(rig.now())
        publisher.publish(message)

    return publish


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig, tf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("models")
    color_words.write_tokenizer(folder / "tokenizer.json")
    for name in ("encoder.onnx", "decoder.onnx", "words.onnx"):
        (folder / name).write_bytes(b"stand-in")
    (folder / "words.yaml").write_text(yaml.safe_dump(color_words.sidecar(thresholds={"mask": 0.5})))
    segmenter = {
        "plugin": "promptable",
        "prompts": "live",
        "min_agreement": 0.3,
        "encoder": str(folder / "encoder.onnx"),
        "decoder": str(folder / "decoder.onnx"),
        "backend": {"plugin": "sam_stand_in:Encoder"},
        "decoder_backend": {"plugin": "sam_stand_in:MetaDecoder"},
        "detector": {
            "plugin": "semantic", "model": str(folder / "words.onnx"), "backend": {"plugin": "color_words:ColorWords"},
        },
    }  # fmt: skip
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"segmenter": segmenter, "grasping": {"when": "request"}}))
    program = [str(HERE / "node_with_tf_stand_in.py")]
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(color_words.__file__).parent), before])
    process = NodeProcess(f"config:={path}", namespace=namespace, program=program)
    os.environ["PYTHONPATH"] = before
    try:
        rig.wait(lambda: rig.diagnostic("model").message.startswith("READY"), 300.0, "ready")
        rig.film(lambda: rig.objects, timeout=40.0, what="the first result", extra_brick=True)
        yield process
    finally:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log


def ask(rig: Rig, **request):
    return rig.call(Prompt, "prompt", Prompt.Request(**request), film=True, rate=10.0, extra_brick=True)


def point(x: float, y: float, z: float = 0.0, frame: str = "", stamp: int = 0) -> PointStamped:
    message = PointStamped(header=Header(frame_id=frame, stamp=stamp_from_ns(stamp)))
    message.point.x, message.point.y, message.point.z = float(x), float(y), float(z)
    return message


def seen(rig: Rig, boxes) -> bool:
    """Whether the newest result has just these boxes."""
    found = sorted(tuple(o.box) for o in rig.objects[-1].objects)
    return len(found) == len(boxes) and all(
        np.abs(np.subtract(a, b)).max() <= 6 for a, b in zip(found, sorted(boxes), strict=True)
    )  # a cell of the stand-in's map is 5 px


def film_until(rig: Rig, boxes) -> None:
    rig.film(lambda: seen(rig, boxes), rate=10.0, extra_brick=True, what=f"objects at {boxes}")


def test_boxes_points_and_nothing(node: NodeProcess, rig: Rig) -> None:
    assert seen(rig, [])
    reply = ask(rig, boxes=[float(v) for v in BRICK], points=[point(60, 120)])
    assert (reply.status, reply.message) == (KIND.OK, "looking for 1 box, 1 point")
    two = rig.film(lambda: len(rig.objects[-1].objects) == 2 and rig.objects[-1], rate=10.0, extra_brick=True)
    by_right_edge = sorted((tuple(o.box) for o in two.objects), key=lambda box: box[2])
    assert np.abs(np.subtract(by_right_edge[0], OTHER)).max() <= 6  # the point's: the detector has this brick
    assert by_right_edge[1][2] > 150  # the box's: all that has the color, to this network
    reply = ask(rig, points=[point(160, 120), point(60, 120)], point_labels=[1, 1], point_objects=[0, 0])
    assert reply.status == KIND.OK, reply.message
    rig.film(lambda: len(rig.objects[-1].objects) == 1, rate=10.0, extra_brick=True, what="one object of two points")
    reply = ask(rig)
    assert (reply.status, reply.message) == (KIND.OK, "looking for what is configured")
    film_until(rig, [])


def test_a_point_in_metres_follows_the_scene_while_the_camera_moves(node: NodeProcess, rig: Rig, tf) -> None:
    tf(T_BASE_CAMERA)
    in_camera = np.array([0.0, 0.0, TOP])  # the brick in the middle
    x, y, z = transform_points(T_BASE_CAMERA, in_camera)
    rig.wait(lambda: ask(rig, points=[point(x, y, z, "base_link")]).status == KIND.OK, what="the transform arrived")
    film_until(rig, [BRICK])
    T = T_BASE_CAMERA.copy()
    T[:3, 3] += T_BASE_CAMERA[:3, 0] * (100 / FOCAL * TOP)  # the camera moves to its right
    assert_allclose(transform_points(invert(T), [x, y, z])[0], -100 / FOCAL * TOP, atol=1e-9)
    tf(T)
    film_until(rig, [OTHER])  # the same point of the world; the picture stayed, so it lies on the other brick
    T[:3, 3] += T_BASE_CAMERA[:3, 0] * 5
    tf(T)
    film_until(rig, [])  # out of view: nothing is looked for, and the log says why
    rig.wait(lambda: "lies outside the 320x240 image" in node.log, what="the reason in the log")


def test_a_click_gives_one_object_and_the_next_one_another(node: NodeProcess, rig: Rig) -> None:
    clicks = rig.node.create_publisher(PointStamped, "clicked_point", 5)
    rig.wait(lambda: clicks.get_subscription_count() == 1, what="the node listens")
    for u, box in ((160, BRICK), (60, OTHER)):
        clicks.publish(point((u - WIDTH / 2) / FOCAL * TOP, (120 - HEIGHT / 2) / FOCAL * TOP, TOP, OPTICAL, rig.now()))
        film_until(rig, [box])
    clicks.publish(point(0.0, 0.0, -1.0, OPTICAL))
    rig.wait(lambda: "click not taken: a point in" in node.log, what="a refusal in the log")
    film_until(rig, [OTHER])  # what was asked for stays
    assert ask(rig).status == KIND.OK


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        ({"points": [point(400, 120)]}, KIND.BAD_REQUEST, "point 400, 120 lies outside the 320x240 image"),
        ({"points": [point(0, 0, 1, "nowhere")]}, KIND.NO_TRANSFORM, "nowhere"),
        ({"points": [point(0, 0, -1, OPTICAL)]}, KIND.BAD_REQUEST, "behind the camera"),
        ({"points": [point(0, 0, 1, OPTICAL, stamp=10**9)]}, KIND.BAD_REQUEST, "stale: stamped"),
        ({"points": [point(float("nan"), 0)]}, KIND.BAD_REQUEST, "finite"),
        ({"points": [point(9, 9)], "point_labels": [0]}, KIND.BAD_REQUEST, "neither a box nor a point on it"),
        ({"points": [point(9, 9)], "point_labels": [7]}, KIND.BAD_REQUEST, "point_labels: expected 0 or 1"),
        ({"points": [point(9, 9)], "point_objects": [0, 1]}, KIND.BAD_REQUEST, "point_objects: expected one for each"),
        ({"boxes": [1.0, 2.0, 3.0]}, KIND.BAD_REQUEST, "boxes: expected 4 finite numbers for each box, got 3"),
        ({"boxes": [9.0, 9.0, 3.0, 20.0]}, KIND.BAD_REQUEST, "boxes: expected min < max"),
        ({"texts": ["red"], "boxes": [1.0, 2.0, 30.0, 40.0]}, KIND.BAD_REQUEST, "either texts or places"),
        ({"texts": [" "]}, KIND.BAD_REQUEST, "empty text"),
        ({"texts": ["mug " * 80]}, KIND.BAD_REQUEST, "82 tokens, the network reads 77"),
    ],
)
def test_refusals_name_what_is_wrong(node: NodeProcess, rig: Rig, request_, status, reason) -> None:
    reply = ask(rig, **request_)
    assert reply.status == status, reply.message
    assert reason in reply.message
    assert "\n" not in reply.message


def test_texts_change_the_classes_and_load_nothing(node: NodeProcess, rig: Rig) -> None:
    reply = ask(rig, texts=["a red mug", "green"])
    assert (reply.status, reply.message) == (KIND.OK, "looking for 'a red mug', 'green'")
    film_until(rig, [BRICK, OTHER])
    assert {o.class_name for o in rig.objects[-1].objects} == {"a red mug"}
    rig.wait(lambda: rig.diagnostic("model").message.startswith("READY"), what="the model stays ready")
    assert ask(rig, texts=["green"]).status == KIND.OK
    film_until(rig, [])
    assert ask(rig).status == KIND.OK


def once(rig: Rig, **request):
    return rig.call(SegmentOnce, "segment_once", SegmentOnce.Request(**request), film=True, rate=10.0, extra_brick=True)


def test_a_call_looks_for_something_of_its_own(node: NodeProcess, rig: Rig) -> None:
    assert ask(rig, texts=["green"]).status == KIND.OK
    film_until(rig, [])
    rig.objects.clear()
    reply = once(rig, prompt="red; blue", classes=["red"])
    assert reply.status == SegmentOnce.Response.OK, reply.message
    assert len(reply.result.objects) == 2
    reply = once(rig, prompt="red", roi=[0.0, 0.0, 100.0, 240.0])
    assert len(reply.result.objects) == 1
    assert np.abs(np.subtract(reply.result.objects[0].box, OTHER)).max() <= 6
    time.sleep(0.3)
    assert not any(m.objects for m in rig.objects)  # the stream goes on with its own
    assert ask(rig).status == KIND.OK
    reply = once(rig, roi=[0.0, 90.0, 320.0, 150.0])  # nothing else is asked for: the roi is the box
    assert len(reply.result.objects) == 1
    reply = once(rig, prompt="red;;")
    assert reply.status == SegmentOnce.Response.BAD_REQUEST
    assert "empty text" in reply.message


def test_while_the_stream_is_off_a_click_fetches_its_own_image(node: NodeProcess, rig: Rig) -> None:
    assert rig.call(SetBool, "enable", SetBool.Request(data=False)).success
    rig.wait(lambda: rig.color.get_subscription_count() == 0, what="unsubscribed")
    clicks = rig.node.create_publisher(PointStamped, "clicked_point", 5)
    rig.wait(lambda: clicks.get_subscription_count() >= 1, what="the node listens")
    rig.objects.clear()
    clicks.publish(point(160, 120))
    rig.film(lambda: rig.objects and seen(rig, [BRICK]), rate=10.0, extra_brick=True, what="an object")
    rig.wait(lambda: rig.color.get_subscription_count() == 0, what="unsubscribed again")
