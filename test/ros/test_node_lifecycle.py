# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Lifecycle: every transition, again and again; what is said in each state; how it ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from rclpy.qos import ReliabilityPolicy
from rig import RED, NodeProcess, Rig, is_good
from seg_perception.msg import SegmentedObjectArray
from seg_perception.srv import GetGrasps, SegmentOnce, SetModel
from std_srvs.srv import SetBool, Trigger

WARN, ERROR = DiagnosticStatus.WARN, DiagnosticStatus.ERROR
CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig) -> Iterator[NodeProcess]:
    process = NodeProcess(RED, "autostart:=false", namespace=namespace)
    try:
        assert rig.state() == "unconfigured"
        yield process
    finally:
        assert process.stop(signal.SIGTERM) == 0, process.log
        assert "Traceback" not in process.log


def test_services_answer_when_not_active(node: NodeProcess, rig: Rig) -> None:
    for kind, name in ((SegmentOnce, "segment_once"), (GetGrasps, "get_grasps")):
        reply = rig.call(kind, name, timeout=2.0)
        assert reply.status == kind.Response.NOT_ACTIVE
        assert "unconfigured" in reply.message
    for kind, name in ((SetBool, "enable"), (Trigger, "reset_tracks")):
        reply = rig.call(kind, name, timeout=2.0)
        assert (reply.success, "unconfigured" in reply.message) == (False, True)
    assert rig.call(SetModel, "set_model", timeout=2.0).status == SetModel.Response.INVALID


def test_diagnostics_speak_before_configure(node: NodeProcess, rig: Rig) -> None:
    rig.wait(lambda: rig.diagnostic("node").message == "unconfigured", what="diagnostics")


def test_a_transition_that_the_state_does_not_allow_is_refused_at_once(node: NodeProcess, rig: Rig) -> None:
    assert not rig.change_state(ACTIVATE)
    assert rig.state() == "unconfigured"


def test_a_bad_configuration_fails_configure_and_can_be_mended(node: NodeProcess, rig: Rig) -> None:
    assert rig.set_parameters(segmenter__model="/nowhere/model.txt").successful
    assert not rig.change_state(CONFIGURE)
    assert rig.state() == "unconfigured"
    status = rig.wait(
        lambda: s if (s := rig.diagnostic("node")).level == ERROR else None, what="the failure in diagnostics"
    )
    assert "/nowhere/model.txt" in status.message
    reply = rig.call(SegmentOnce, "segment_once")
    assert "/nowhere/model.txt" in reply.message
    assert rig.set_parameters(segmenter__model="").successful
    assert rig.change_state(CONFIGURE)
    assert rig.change_state(CLEANUP)


def test_a_plugin_that_cannot_change_its_options_says_so(node: NodeProcess, rig: Rig) -> None:
    assert rig.set_parameters(segmenter__plugin="segmenters_for_tests:NeedsNothing").successful
    assert rig.change_state(CONFIGURE)
    result = rig.set_parameters(segmenter__threshold=100)
    assert not result.successful
    assert "segmenter" in result.reason
    assert "needs cleanup first" in result.reason
    assert rig.change_state(CLEANUP)
    assert rig.set_parameters(segmenter__plugin="segmenters_for_tests:RedThings").successful


def test_twenty_rounds_leave_nothing_behind(node: NodeProcess, rig: Rig) -> None:
    threads = []
    for _ in range(20):
        assert rig.change_state(CONFIGURE)
        assert rig.color.get_subscription_count() == 0  # inactive: subscribed to nothing
        assert rig.change_state(ACTIVATE)
        rig.wait(lambda: rig.color.get_subscription_count() == 1, what="subscribed")
        threads.append(node.threads)
        assert rig.change_state(DEACTIVATE)
        rig.wait(lambda: rig.color.get_subscription_count() == 0, what="unsubscribed")
        assert rig.change_state(CLEANUP)
    assert threads[-1] <= threads[2]
    rig.wait(
        lambda: rig.node.count_publishers(f"{rig.node.get_namespace()}/seg_perception/points") == 0, what="no topic"
    )


def test_ids_go_on_after_cleanup(node: NodeProcess, rig: Rig) -> None:
    ids = []
    for _ in range(2):
        assert rig.change_state(CONFIGURE)
        assert rig.change_state(ACTIVATE)
        rig.objects.clear()
        rig.film_good()
        assert rig.objects[0].sequence == 1
        ids.append({o.id for m in rig.objects for o in m.objects})
        assert rig.change_state(DEACTIVATE)
        assert rig.change_state(CLEANUP)
    assert min(ids[1]) > max(ids[0])


def test_a_call_is_answered_when_the_node_is_deactivated_under_it(node: NodeProcess, rig: Rig) -> None:
    assert rig.change_state(CONFIGURE)
    assert rig.change_state(ACTIVATE)
    future = rig.call_async(SegmentOnce, "segment_once", SegmentOnce.Request(timeout=60.0))
    time.sleep(0.3)
    assert rig.change_state(DEACTIVATE)
    rig.wait(future.done, 2.0, "an answer")
    assert future.result().status == SegmentOnce.Response.NOT_ACTIVE
    assert "deactivated" in future.result().message
    assert rig.change_state(CLEANUP)


def test_cores_are_bound_and_one_that_is_not_there_is_refused(node: NodeProcess, rig: Rig) -> None:
    pid, usable = node.process.pid, sorted(os.sched_getaffinity(0))

    def bound() -> set[int]:
        return set().union(*(os.sched_getaffinity(int(thread)) for thread in os.listdir(f"/proc/{pid}/task")))

    assert rig.set_parameters(cpu__affinity=[4000]).successful
    assert not rig.change_state(CONFIGURE)
    rig.wait(lambda: "cpu.affinity: expected cores among" in rig.diagnostic("node").message, what="the cores named")
    assert rig.set_parameters(cpu__affinity=usable[:1]).successful
    assert rig.change_state(CONFIGURE)
    assert bound() == {usable[0]}
    assert not rig.set_parameters(cpu__affinity=usable).successful  # not while it is configured
    assert rig.change_state(CLEANUP)
    assert rig.set_parameters(cpu__affinity=usable).successful
    assert rig.change_state(CONFIGURE)
    assert bound() == set(usable)
    assert rig.change_state(CLEANUP)


def test_a_best_effort_camera(node: NodeProcess, rig: Rig, namespace: str) -> None:
    """auto takes what is offered; `reliable` gets nothing, and diagnostics name the policy."""
    other = Rig(f"{namespace}/best_effort", ReliabilityPolicy.BEST_EFFORT)
    try:
        assert rig.set_parameters(input_reliability="reliable", topics__color=other.color.topic_name).successful
        assert rig.change_state(CONFIGURE)
        assert rig.change_state(ACTIVATE)
        rig.wait_for_diagnostic(
            "input color", WARN, "incompatible: RELIABILITY: 'rig' offers best effort, we ask for reliable"
        )
        assert int(_value(rig, "input color", "incompatible QoS events")) == 1
        assert rig.change_state(DEACTIVATE)
        assert rig.change_state(CLEANUP)

        assert rig.set_parameters(input_reliability="auto").successful
        assert rig.change_state(CONFIGURE)
        assert rig.change_state(ACTIVATE)
        rig.wait(lambda: _value(rig, "input color", "qos").startswith("best effort"), what="best effort")
        rig.wait(lambda: _value(rig, "input depth", "qos").startswith("reliable"), what="reliable")
        rig.objects.clear()

        def both() -> list[SegmentedObjectArray]:
            other.shoot(rig.sent[-1], only=("color",))
            return [m for m in rig.objects if is_good(m)]

        rig.film(both, what="results from a best-effort camera", only=("color_info", "depth", "depth_info"))
    finally:
        other.close()
        rig.change_state(DEACTIVATE)
        rig.change_state(CLEANUP)


def _value(rig: Rig, part: str, key: str) -> str:
    return next((v.value for v in rig.diagnostic(part).values if v.key == key), "")
