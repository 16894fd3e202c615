# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A model whose engine must be built first: what the node does meanwhile, over real DDS.

The builder is a stand-in (backends_for_tests.py): it waits and tells progress.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from rclpy.qos import DurabilityPolicy, QoSProfile
from rig import NodeProcess, Rig
from seg_perception.msg import ModelStatus
from seg_perception.srv import SegmentOnce, SetModel

WARN, ERROR = DiagnosticStatus.WARN, DiagnosticStatus.ERROR
MODEL = "yolov8-seg_tiny_raw.onnx"
NAME = "yolov8-seg_tiny_raw"
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
NO_MODEL = "dropped: no model: its engine is being built"


@pytest.fixture
def statuses(rig: Rig) -> Iterator[list[ModelStatus]]:
    heard: list[ModelStatus] = []
    subscription = rig.node.create_subscription(ModelStatus, "seg_perception/model_status", heard.append, LATCHED)
    yield heard
    rig.node.destroy_subscription(subscription)


@pytest.fixture
def start(namespace: str, models_dir: Path, tmp_path: Path, rig: Rig) -> Iterator[Callable[..., NodeProcess]]:
    """Starts a node whose backend is the stand-in, not yet configured; `name=value` are the backend's options."""
    running: list[NodeProcess] = []

    def start(**options: object) -> NodeProcess:
        given = {"seconds": 3.0, "cache": tmp_path, **options}
        process = NodeProcess(
            "segmenter.plugin:=yolo",
            f"segmenter.model:={models_dir / 'contracts' / MODEL}",
            "segmenter.backend.plugin:=backends_for_tests:SlowEngine",
            *(f"segmenter.backend.{name}:={value}" for name, value in given.items()),
            "autostart:=false",
            namespace=namespace,
        )
        running.append(process)
        rig.wait(lambda: rig.node.count_services(f"{namespace}/seg_perception/change_state"), 30.0, "the node")
        rig.objects.clear()
        return process

    yield start
    for process in running:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log


def state_of(statuses: list[ModelStatus]) -> int:
    return statuses[-1].state if statuses else -1


def value(rig: Rig, key: str) -> str:
    return next((v.value for v in rig.diagnostic("pipeline").values if v.key == key), "0")


def test_configure_does_not_wait_and_dropped_frames_are_counted(start, rig: Rig, statuses, tmp_path: Path) -> None:
    process = start(seconds=4.0)
    assert rig.change_state(Transition.TRANSITION_CONFIGURE)
    assert not (tmp_path / f"{NAME}.engine").exists()  # it goes on
    rig.wait(lambda: state_of(statuses) == ModelStatus.BUILDING, what="BUILDING")
    assert rig.change_state(Transition.TRANSITION_ACTIVATE)
    rig.wait_for_diagnostic("model", WARN, f"BUILDING yolo:{NAME}", "building the engine of", "frames are dropped")
    rig.film(lambda: int(value(rig, NO_MODEL)) >= 10, what="counted drops")
    reply = rig.call(SegmentOnce, "segment_once", SegmentOnce.Request(timeout=0.5), film=True)
    assert reply.status != SegmentOnce.Response.OK
    assert "its engine is being built" in reply.message
    reply = rig.call(SetModel, "set_model", SetModel.Request(model=MODEL, wait=True), film=True)
    assert reply.status == SetModel.Response.INVALID
    assert "its engine is being built" in reply.message
    assert rig.set_parameters(segmenter__score_threshold=0.33).successful  # live options count for what comes
    assert not rig.set_parameters(segmenter__model="other.onnx").successful
    assert not rig.objects

    rig.film(lambda: state_of(statuses) == ModelStatus.READY, timeout=60.0, what="READY")
    rig.film(lambda: len(rig.objects) >= 3, what="results")
    assert (tmp_path / f"{NAME}.engine").exists()
    assert rig.parameters("segmenter.score_threshold") == [0.33]
    building = [s for s in statuses if s.state == ModelStatus.BUILDING]
    shares = [s.progress for s in building]
    assert shares == sorted(shares)
    assert any(0 < share < 1 for share in shares)
    assert any(0 < s.eta < 4.0 for s in building)
    assert all((s.model, s.backend) == (f"yolo:{NAME}", "backends_for_tests:SlowEngine") for s in building)
    assert math.isnan(statuses[-1].eta)
    assert "the engine is ready after" in process.log

    # From now on the engine is there.
    assert rig.change_state(Transition.TRANSITION_DEACTIVATE)
    assert rig.change_state(Transition.TRANSITION_CLEANUP)
    seen = len(statuses)
    assert rig.change_state(Transition.TRANSITION_CONFIGURE)
    assert ModelStatus.BUILDING not in [s.state for s in statuses[seen:]]


def test_meanwhile_onnxruntime_runs_it_and_no_frame_is_lost(start, rig: Rig, statuses, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.engine").write_text("of another model")
    start(seconds=5.0, on_engine_missing="fallback")
    assert rig.change_state(Transition.TRANSITION_CONFIGURE)
    assert rig.change_state(Transition.TRANSITION_ACTIVATE)
    rig.film(lambda: len(rig.objects) >= 3, rate=10.0, timeout=60.0, what="results of the fallback")
    assert state_of(statuses) == ModelStatus.FALLBACK
    assert "onnxruntime runs it until the engine is there: building the engine" in statuses[-1].message
    assert "since the model file changed" in statuses[-1].message
    assert statuses[-1].backend == "onnxruntime"
    rig.wait_for_diagnostic("model", WARN, "FALLBACK yolo:", "onnxruntime runs it")
    assert rig.set_parameters(segmenter__score_threshold=0.44).successful
    first = rig.objects[0].sequence
    rig.film(lambda: state_of(statuses) == ModelStatus.READY, rate=10.0, timeout=60.0, what="READY")
    assert statuses[-1].backend == "backends_for_tests:SlowEngine"
    here = len(rig.objects)
    rig.film(lambda: len(rig.objects) >= here + 5, rate=10.0, what="results of the engine")
    sequences = [m.sequence for m in rig.objects]
    assert sequences == list(range(first, first + len(sequences)))
    assert rig.parameters("segmenter.score_threshold") == [0.44]
    assert value(rig, NO_MODEL) == "0"


def test_without_an_engine_configure_can_fail(start, rig: Rig, statuses, tmp_path: Path) -> None:
    start(on_engine_missing="fail")
    assert not rig.change_state(Transition.TRANSITION_CONFIGURE)
    rig.wait(lambda: state_of(statuses) == ModelStatus.FAILED, what="FAILED")
    assert "on_engine_missing is fail" in statuses[-1].message
    assert rig.state() == "unconfigured"


@pytest.mark.parametrize("policy", ["build", "fallback"])
def test_a_build_that_fails_says_why(start, rig: Rig, statuses, policy: str) -> None:
    start(seconds=1.0, fault="the GPU is too small for it", on_engine_missing=policy)
    assert rig.change_state(Transition.TRANSITION_CONFIGURE)
    assert rig.change_state(Transition.TRANSITION_ACTIVATE)
    if policy == "build":
        rig.wait_for_diagnostic("model", ERROR, "FAILED", "the GPU is too small for it")
        assert state_of(statuses) == ModelStatus.FAILED
        rig.film(lambda: value(rig, "dropped: no model: its engine could not be built") != "0", what="counted")
    else:
        rig.wait_for_diagnostic("model", WARN, "FALLBACK", "onnxruntime goes on: the GPU is too small for it")
        rig.film(lambda: len(rig.objects) >= 3, what="results")
        assert rig.set_parameters(segmenter__score_threshold=0.4).successful


def test_cleanup_cancels_the_build_and_leaves_nothing(start, rig: Rig, statuses, tmp_path: Path) -> None:
    start(seconds=60.0)
    for _ in range(2):
        assert rig.change_state(Transition.TRANSITION_CONFIGURE)
        rig.wait(lambda: state_of(statuses) == ModelStatus.BUILDING, what="BUILDING")
        assert rig.change_state(Transition.TRANSITION_CLEANUP)
        rig.wait(lambda: state_of(statuses) == ModelStatus.UNLOADED, what="UNLOADED")
        assert [p.name for p in tmp_path.iterdir()] == ["cancelled"]
        (tmp_path / "cancelled").unlink()
    assert rig.set_parameters(segmenter__backend__seconds=0.5).successful
    assert rig.change_state(Transition.TRANSITION_CONFIGURE)
    rig.wait(lambda: state_of(statuses) == ModelStatus.READY, 60.0, "READY before it is activated")
    assert rig.change_state(Transition.TRANSITION_ACTIVATE)
    rig.film(lambda: rig.objects, timeout=30.0, what="a result")
    assert state_of(statuses) == ModelStatus.READY


def test_ctrl_c_cancels_the_build_and_leaves_nothing(start, rig: Rig, statuses, tmp_path: Path) -> None:
    process = start(seconds=60.0)
    assert rig.change_state(Transition.TRANSITION_CONFIGURE)
    assert rig.change_state(Transition.TRANSITION_ACTIVATE)
    rig.film(lambda: int(value(rig, NO_MODEL)) >= 1, what="dropped frames")
    assert process.stop(signal.SIGINT) == 0, process.log
    assert [p.name for p in tmp_path.iterdir()] == ["cancelled"]
