# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Transforms that are missing or late, and simulated time that stops or jumps. With a STAND-IN of tf2's buffer (see
node_with_tf_stand_in.py); the clock is a real /clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from fault_rows import NOTHING, WITH_3D, Injected
from geometry_msgs.msg import TransformStamped
from rig import HERE, OPTICAL, RED, NodeProcess, Rig, is_good
from rosgraph_msgs.msg import Clock

from seg_perception.ros.conversions import stamp_from_ns, stamp_ns
from seg_perception.ros.messages import transform_message

WARN = DiagnosticStatus.WARN
STAND_IN = "tf2's buffer"
LATE = 0.05  # s, of a transform; tf_timeout is 0.1
STEP = 33_000_000  # ns between two frames of a bag


class Robot:
    """The camera on a robot: frames with their transform, in wall time or in that of a bag."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.now = 0  # ns, of the bag; 0 = wall time
        self._tf = rig.node.create_publisher(TransformStamped, "stand_in_tf", 100)
        self._clock = rig.node.create_publisher(Clock, "/clock", 10)

    def transform(self, stamp: int) -> None:
        message = TransformStamped(child_frame_id=OPTICAL, transform=transform_message(np.eye(4)))
        message.header.frame_id, message.header.stamp = "base_link", stamp_from_ns(stamp)
        self._tf.publish(message)

    def shoot(self, late: float = 0.0, transform: bool = True, clock: bool = True) -> int:
        if self.now and clock:
            self.now += STEP
            self._clock.publish(Clock(clock=stamp_from_ns(self.now)))
        stamp = self.now or self.rig.now()
        if transform and not late:
            self.transform(stamp)
        self.rig.shoot(stamp)
        if transform and late:
            threading.Timer(late, self.transform, (stamp,)).start()
        return stamp

    def without(self, **options: Any) -> dict[str, Callable]:
        """Options of `film` that shoot so."""
        return {"shot": lambda **_: self.shoot(**options)}


@pytest.fixture(scope="module")
def robot(rig: Rig) -> Robot:
    return Robot(rig)


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig, robot: Robot) -> Iterator[NodeProcess]:
    program = [str(HERE / "node_with_tf_stand_in.py")]
    process = NodeProcess(RED, "target_frame:=base_link", namespace=namespace, program=program)
    try:
        rig.film(lambda: rig.objects, timeout=40.0, what="the first result", **robot.without())
        yield process
    finally:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log


def good(rig: Rig, robot: Robot) -> None:
    """Films until there is 3D."""
    start = robot.now or rig.now()
    rig.film(
        lambda: [m for m in rig.objects[-3:] if is_good(m) and stamp_ns(m.header.stamp) >= start],
        what="3D",
        **robot.without(),
    )


@pytest.fixture(autouse=True)
def good_before(node: NodeProcess, rig: Rig, robot: Robot) -> None:
    good(rig, robot)


@pytest.fixture
def bag(rig: Rig, robot: Robot) -> Iterator[None]:
    """Simulated time runs."""
    robot.now = 1_000_000_000_000
    assert rig.set_parameters(use_sim_time=True).successful
    good(rig, robot)
    yield
    robot.now = 0
    assert rig.set_parameters(use_sim_time=False).successful


@pytest.mark.fault("transforms", "none at the image's stamp", stand_in=STAND_IN)
def test_gap(injected: Injected, robot: Robot) -> None:
    gap = robot.without(transform=False)
    words = ("no transform from 'camera_color_optical_frame' to 'base_link' at the image's stamp", "extrapolation")
    injected.says("transforms", WARN, *words, **gap)
    injected.publishes("masks, NO_TRANSFORM", **gap)
    injected.recovers(robot.shoot)


@pytest.mark.fault("transforms", "come 50 ms after the image", stand_in=STAND_IN)
def test_late(injected: Injected, rig: Rig, robot: Robot) -> None:
    rig.wait_for_diagnostic("transforms", DiagnosticStatus.OK, "available", **robot.without())
    late = {"rate": 10.0, **robot.without(late=LATE)}
    injected.publishes(WITH_3D, **late)
    injected.says("transforms", DiagnosticStatus.OK, "available at the images' stamps", **late)
    injected.recovers(robot.shoot, "waited for, up to `tf_timeout`")


@pytest.mark.fault("time", "no /clock although `use_sim_time`", stand_in=STAND_IN)
def test_no_clock(injected: Injected, rig: Rig, robot: Robot) -> None:
    assert rig.set_parameters(use_sim_time=True).successful
    try:
        injected.publishes(WITH_3D, **robot.without())
        injected.says("node", WARN, "simulated time has not begun", "nothing comes on /clock", **robot.without())
    finally:
        assert rig.set_parameters(use_sim_time=False).successful
    injected.recovers(robot.shoot)


@pytest.mark.fault("time", "/clock stops, and so does the bag; it goes on", stand_in=STAND_IN)
def test_clock_stops(bag: None, injected: Injected, robot: Robot) -> None:
    silent = {"shot": lambda **_: None}
    injected.says("input color", WARN, "nothing on", "1 publisher", "last stamp 100", **silent)
    injected.publishes(NOTHING, **silent)
    injected.recovers(robot.shoot)


@pytest.mark.fault("time", "/clock stops while images go on", stand_in=STAND_IN)
def test_clock_stops_alone(bag: None, injected: Injected, rig: Rig, robot: Robot) -> None:
    stopped = robot.now

    def shoot() -> None:
        nonlocal stopped
        stopped += STEP
        robot.transform(stopped)
        rig.shoot(stopped)

    alone = {"shot": lambda **_: shoot()}
    injected.says("input color", WARN, "camera stamps are not ROS time", "ahead of the node's clock", **alone)
    injected.publishes(WITH_3D, **alone)
    robot.now = stopped
    injected.recovers(robot.shoot)


@pytest.mark.fault("time", "/clock jumps back: a bag begins again", stand_in=STAND_IN)
def test_loop(bag: None, node: NodeProcess, injected: Injected, rig: Rig, robot: Robot) -> None:
    before = next(m for m in reversed(rig.objects) if is_good(m))
    said = len(node.log)
    robot.now -= 500_000_000_000
    line = "the clock was set back or exchanged: transforms, tracks and results are forgotten"
    rig.film(lambda: line in node.log[said:], what=line, **robot.without())
    injected.heard(f"log: {line}")
    good(rig, robot)
    time.sleep(0.3)  # frames of before the jump are out, without their transforms
    injected.publishes(WITH_3D, **robot.without())
    after = next(m for m in rig.objects if is_good(m))
    assert after.header.stamp.sec < before.header.stamp.sec
    assert after.objects[0].id > before.objects[0].id  # never used twice
    injected.recovers(robot.shoot, "begins anew")
