# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""When an input counts as missing, and when a level in /diagnostics goes down: by the clock, without waiting."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from seg_perception.ros import inputs
from seg_perception.ros.diagnostics import OK, WARN, Steady
from seg_perception.ros.inputs import Input
from seg_perception.ros.statuses import Part


class FakeNode:
    """What an Input asks a node."""

    def __init__(self) -> None:
        self.offers: list[SimpleNamespace] = []
        self._parameter_overrides: dict = {}

    def resolve_topic_name(self, topic: str) -> str:
        return f"/{topic}"

    def count_publishers(self, topic: str) -> int:
        return len(self.offers)

    def get_publishers_info_by_topic(self, topic: str) -> list[SimpleNamespace]:
        return self.offers

    def get_fully_qualified_name(self) -> str:
        return "/node"

    def get_topic_names_and_types(self) -> list:
        return []

    def get_clock(self) -> SimpleNamespace:
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=round(self.now * 1e9)))

    def create_subscription(self, kind, topic, callback, qos, **_) -> SimpleNamespace:
        return SimpleNamespace(qos_profile=qos)

    def destroy_subscription(self, subscription) -> None:
        pass


def offer(reliability: ReliabilityPolicy, kind: str = "sensor_msgs/msg/Image") -> SimpleNamespace:
    qos = QoSProfile(depth=1, reliability=reliability, durability=DurabilityPolicy.VOLATILE)
    return SimpleNamespace(node_name="camera", topic_type=kind, qos_profile=qos)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """`clock.now`, s, is the time."""
    time = SimpleNamespace(now=100.0)
    monkeypatch.setattr(inputs, "time", SimpleNamespace(monotonic=lambda: time.now))
    return time


def opened(node: FakeNode, reliability: str = "auto") -> Input:
    one = Input(node, "color", "image", Image, reliability, lambda _: None)
    one.open()
    one.follow()
    return one


def test_without_a_publisher_it_is_missing_before_two_seconds_are_over(clock: SimpleNamespace) -> None:
    one = opened(FakeNode())
    assert not one.is_missing(heard=1.0)
    assert one.is_missing(heard=1.75)


def test_a_silent_publisher_gets_the_same_time_from_its_discovery_on(clock: SimpleNamespace) -> None:
    node = FakeNode()
    one = opened(node)
    clock.now += 60.0
    node.offers = [offer(ReliabilityPolicy.RELIABLE)]
    one.follow()
    clock.now += 1.0
    assert not one.is_missing(heard=61.0)
    clock.now += 0.75
    assert one.is_missing(heard=61.75)


def test_one_that_sends_is_not_missing_until_it_falls_silent(clock: SimpleNamespace) -> None:
    node = FakeNode()
    node.offers = [offer(ReliabilityPolicy.RELIABLE)]
    one = opened(node)
    for _ in range(10):
        clock.now += 0.03
        node.now = clock.now
        stamp = SimpleNamespace(sec=int(clock.now), nanosec=round(clock.now % 1 * 1e9))
        header = SimpleNamespace(stamp=stamp, frame_id="camera")
        one._on_message(_image(header))
    assert one.stamp_delta == pytest.approx(0.03, abs=1e-6)
    clock.now += 0.9
    assert not one.is_missing(heard=100.0)
    clock.now += 0.2
    assert one.is_missing(heard=100.0)


def test_the_policy_that_does_not_fit_is_named_with_both_sides(clock: SimpleNamespace) -> None:
    node = FakeNode()
    node.offers = [offer(ReliabilityPolicy.BEST_EFFORT)]
    assert opened(node).conflict == ""  # auto asks for what is offered
    one = opened(node, "reliable")
    assert one.conflict == "RELIABILITY: 'camera' offers best effort, we ask for reliable"
    assert one.conflict in one.missing_text()


def test_another_type_of_message_is_named(clock: SimpleNamespace) -> None:
    node = FakeNode()
    node.offers = [offer(ReliabilityPolicy.RELIABLE, "sensor_msgs/msg/CompressedImage")]
    text = opened(node).missing_text()
    assert "published as sensor_msgs/msg/CompressedImage and not as sensor_msgs/msg/Image" in text


def test_a_level_goes_up_at_once_and_down_when_it_has_been_calm() -> None:
    steady = Steady()
    good, bad = Part("sync", OK, "fine", {"n": 1}), Part("sync", WARN, "apart", {"n": 2})
    assert steady.take(good, 0.0) == good
    assert steady.take(bad, 1.0) == bad
    assert steady.take(good, 2.0) == bad._replace(values={"n": 1})
    assert steady.take(bad, 3.0) == bad  # flickers: counts from here
    assert steady.take(good, 4.9).level == WARN
    assert steady.take(good, 5.0) == good


def test_a_state_is_believed_at_once() -> None:
    steady = Steady()
    assert steady.take(Part("model", WARN, "warming up", {}), 0.0).level == WARN
    assert steady.take(Part("model", OK, "READY", {}), 0.1).level == OK


def _image(header: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(header=header, width=4, height=2, encoding="rgb8")
