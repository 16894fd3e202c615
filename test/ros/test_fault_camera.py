# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A camera that stops, never starts, is exchanged, or whose stamps are wrong: what is said, and the way back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from fault_rows import NOTHING, WITH_3D, Injected
from lifecycle_msgs.msg import Transition
from rclpy.qos import ReliabilityPolicy
from rig import RED, NodeProcess, Rig, is_good

OK, WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN
fault = pytest.mark.fault
CAMERA, STAMPS = "camera", "stamps"
NO_DEPTH = "masks, NO_DEPTH_IMAGE"
CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig) -> Iterator[NodeProcess]:
    process = NodeProcess(RED, namespace=namespace)
    try:
        rig.film(lambda: rig.objects, timeout=40.0, what="the first result")
        yield process
    finally:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log


@pytest.fixture(autouse=True)
def good_before(node: NodeProcess, rig: Rig) -> None:
    rig.film_good()


def restart(rig: Rig, **parameters: object) -> None:
    """Cleans up, sets parameters, configures and activates."""
    assert rig.change_state(DEACTIVATE)
    assert rig.change_state(CLEANUP)
    assert rig.set_parameters(**parameters).successful
    assert rig.change_state(CONFIGURE)
    assert rig.change_state(ACTIVATE)


def by_hand(shot: Callable[[], object]) -> dict[str, object]:
    """Options of `film` that let `shot` publish, or not."""
    return {"shot": lambda **_: shot()}


# -- the camera itself -------------------------------------------------------------------------------------------------


@fault(CAMERA, "stops, and returns")
def test_it_stops(injected: Injected, rig: Rig) -> None:
    silent = by_hand(lambda: None)
    for part in ("input color", "input depth"):
        status = injected.says(part, WARN, "nothing on", "1 publisher, we ask for reliable", "last stamp", **silent)
        assert f"{rig.sent[-1] / 1e9:.9f}" in status.message
    injected.publishes(NOTHING, **silent)
    injected.recovers()


@fault(CAMERA, "only depth stops")
def test_depth_stops(injected: Injected) -> None:
    color = {"only": ("color", "color_info")}
    injected.says(
        "input depth", WARN, "nothing on", "/depth/image_rect", "1 publisher", "reliable", "last stamp", **color
    )
    injected.publishes(NO_DEPTH, **color)
    injected.recovers()


@fault(CAMERA, "only color stops")
def test_color_stops(injected: Injected) -> None:
    depth = {"only": ("depth", "depth_info")}
    injected.says("input color", WARN, "nothing on", "/color/image_raw", "1 publisher", **depth)
    injected.publishes(NOTHING, **depth)
    injected.recovers()


@fault(CAMERA, "its driver ends, and another one that offers best effort starts")
def test_another_driver(injected: Injected, rig: Rig) -> None:
    rig.unplug()
    silent = by_hand(lambda: None)
    injected.says("input color", WARN, "nothing on", "no publisher", "Image topics here", **silent)
    injected.publishes(NOTHING, **silent)
    rig.plug_in(ReliabilityPolicy.BEST_EFFORT)
    try:
        injected.recovers(afterwards="subscribes anew, best effort")
    finally:
        rig.unplug()
        rig.plug_in()
        rig.film_good()


@fault(CAMERA, "none at all from the start")
def test_no_camera(injected: Injected, rig: Rig) -> None:
    rig.unplug()
    silent = by_hand(lambda: None)
    restart(rig, input_reliability="auto")
    words = ("nothing on", "/color/image_raw", "no publisher", "no message so far")
    injected.says("input color", WARN, *words, **silent)
    injected.says("input color_info", WARN, "nothing on", "/color/camera_info", "no publisher", **silent)
    injected.publishes(NOTHING, **silent)
    rig.plug_in()
    injected.recovers()


@fault(CAMERA, "no camera_info from the start")
def test_no_camera_info(injected: Injected, rig: Rig) -> None:
    restart(rig, input_reliability="auto")
    images = {"only": ("color", "depth")}
    injected.says("input color_info", WARN, "/color/camera_info", "1 publisher", "no message so far", **images)
    injected.publishes("masks, BAD_INTRINSICS", **images)
    injected.recovers()


@fault(CAMERA, "its images name no frame")
def test_no_frame(injected: Injected) -> None:
    injected.says("input color", WARN, "/color/image_raw", "header.frame_id is empty", frame_id="")
    injected.publishes(WITH_3D, frame_id="")
    injected.recovers()


@fault(CAMERA, "wrong QoS: it offers best effort, the node is told to ask for reliable")
def test_wrong_qos(injected: Injected, rig: Rig) -> None:
    rig.unplug()
    rig.plug_in(ReliabilityPolicy.BEST_EFFORT)
    restart(rig, input_reliability="reliable")
    try:
        words = "incompatible: RELIABILITY: 'rig' offers best effort, we ask for reliable; nothing arrives"
        injected.says("input color", WARN, "/color/image_raw", words)
        injected.publishes(NOTHING)
    finally:
        restart(rig, input_reliability="auto")
    injected.recovers(afterwards="with `input_reliability: auto`")
    rig.unplug()
    rig.plug_in()


# -- its stamps --------------------------------------------------------------------------------------------------------


@fault(STAMPS, "of color and depth drift apart, by 20 ms a second at 10 Hz")
def test_drift(injected: Injected, rig: Rig) -> None:
    start = time.monotonic() - 0.9

    def shot() -> None:
        rig.shoot(depth_shift=0.02 * (time.monotonic() - start))

    injected.says("sync", WARN, "never pair", "last delta", "sync.slop is 0.02", rate=10.0, **by_hand(shot))
    injected.publishes(NO_DEPTH, rate=10.0, **by_hand(shot))
    injected.recovers()


@fault(STAMPS, "of the device's own clock")
def test_device_clock(injected: Injected, rig: Rig) -> None:
    booted = rig.now() - 5_000_000_000
    device = by_hand(lambda: rig.shoot(rig.now() - booted))
    injected.says("input color", WARN, "camera stamps are not ROS time", "behind the node's clock", **device)
    injected.publishes(WITH_3D, **device)
    assert all(m.header.stamp.sec < 100 for m in rig.objects)  # bit for bit
    injected.recovers()


@fault(STAMPS, "of depth stall")
def test_depth_stalled(injected: Injected, rig: Rig) -> None:
    stuck = time.monotonic()
    behind = by_hand(lambda: rig.shoot(depth_shift=stuck - time.monotonic() - 0.1))
    injected.says("sync", WARN, "never pair", "last delta -", **behind)
    injected.publishes(NO_DEPTH, **behind)
    injected.recovers()


@fault(STAMPS, "jump back by 100 s and go on from there")
def test_backward(injected: Injected, rig: Rig) -> None:
    behind = by_hand(lambda: rig.shoot(rig.now() - 100_000_000_000))
    injected.says("input color", WARN, "camera stamps are not ROS time", "100.0 s behind the node's clock", **behind)
    injected.publishes(WITH_3D, **behind)
    injected.recovers()


@fault(STAMPS, "stall: every image has the same one")
def test_stalled(injected: Injected, rig: Rig) -> None:
    stamp = rig.now()
    same = by_hand(lambda: rig.shoot(stamp))
    injected.says("input color", WARN, "stamps stand still", "/color/image_raw", **same)
    injected.publishes(WITH_3D, **same)
    injected.recovers()


def test_stamps_after_a_stall_are_believed(rig: Rig) -> None:
    rig.wait_for_diagnostic("input color", OK)
    assert is_good(rig.film_good())
