# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM end the node in every state: exit code 0, no traceback, and whoever waits gets an answer."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fault_rows import Injected
from lifecycle_msgs.msg import Transition
from rig import RED, NodeProcess, Rig
from seg_perception.srv import SegmentOnce, SetModel

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ENGINE = "contracts/yolov8-seg_tiny_raw.onnx"
SLOW = "segmenter.plugin:=plugins_for_faults:SlowThings"
LONG = 60.0  # s, what must not be waited for
WAITING = SegmentOnce.Request(timeout=LONG)


@dataclass
class Running:
    """One of the two nodes of a test."""

    process: NodeProcess
    rig: Rig
    begun: Path  # exists once the slow part has begun


@pytest.fixture(scope="module")
def rigs(namespace: str) -> Iterator[list[Rig]]:
    made = [Rig(f"{namespace}/{number.name.lower()}") for number in SIGNALS]
    yield made
    for rig in made:
        rig.close()


@pytest.fixture
def start(rigs: list[Rig], tmp_path: Path) -> Iterator[Callable[..., list[Running]]]:
    """Starts two nodes, one for each signal; in parameters, BEGUN is a file of its own."""
    running: list[Running] = []

    def start(*parameters: str, autostart: bool = True) -> list[Running]:
        for number, rig in zip(SIGNALS, rigs, strict=True):
            begun = tmp_path / number.name
            given = [p.replace("BEGUN", str(begun)) for p in parameters]
            process = NodeProcess(*given, f"autostart:={str(autostart).lower()}", namespace=rig.node.get_namespace())
            running.append(Running(process, rig, begun))
        return running

    yield start
    for one in running:
        if one.process.process.poll() is None:
            one.process.process.kill()


def end(running: list[Running], injected: Injected) -> None:
    """Sends each its signal; both must end well."""
    ends = []
    for number, one in zip(SIGNALS, running, strict=True):
        began = time.monotonic()
        code = one.process.stop(number)
        ends.append(f"{number.name}: exit code {code} after {time.monotonic() - began:.1f} s")
        assert code == 0, one.process.log
        assert "Traceback" not in one.process.log
    injected.ends("; ".join(ends))


def said(rig: Rig, part: str, word: str) -> None:
    rig.wait(lambda: word in rig.diagnostic(part).message, 40.0, f"{part}: {word}")


@pytest.mark.fault("signals", "unconfigured")
def test_unconfigured(start: Callable, injected: Injected) -> None:
    running = start(RED, autostart=False)
    for one in running:
        said(one.rig, "node", "unconfigured")
    end(running, injected)


@pytest.mark.fault("signals", "inactive")
def test_inactive(start: Callable, injected: Injected) -> None:
    running = start(RED, autostart=False)
    for one in running:
        said(one.rig, "node", "unconfigured")
        assert one.rig.change_state(Transition.TRANSITION_CONFIGURE)
    end(running, injected)


@pytest.mark.fault("signals", "finalized")
def test_finalized(start: Callable, injected: Injected) -> None:
    running = start(RED, autostart=False)
    for one in running:
        said(one.rig, "node", "unconfigured")
        assert one.rig.change_state(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
        said(one.rig, "node", "finalized")
    end(running, injected)


@pytest.mark.fault("signals", "active, a frame under way")
def test_active(start: Callable, injected: Injected) -> None:
    running = start(RED, "segmenter.delay:=0.3")
    for one in running:
        one.rig.objects.clear()
        one.rig.film(lambda one=one: one.rig.objects, timeout=40.0, what="a result")
    end(running, injected)


@pytest.mark.fault("signals", "active, a call waits for an image")
def test_waiting_call(start: Callable, injected: Injected) -> None:
    running = start(RED)
    futures: list[Any] = []
    for one in running:
        said(one.rig, "model", "READY")
        futures.append(one.rig.call_async(SegmentOnce, "segment_once", WAITING))
    time.sleep(0.3)
    end(running, injected)
    for one, future in zip(running, futures, strict=True):
        one.rig.wait(future.done, 5.0, "an answer")
        assert future.result().status == SegmentOnce.Response.NOT_ACTIVE
    injected.heard(f"answer: NOT_ACTIVE: {future.result().message}")


@pytest.mark.fault("signals", "active, ~/set_model loads for a minute")
def test_loading_another_model(start: Callable, injected: Injected) -> None:
    running = start(SLOW, "segmenter.begun:=BEGUN")
    futures: list[Any] = []
    for one in running:
        said(one.rig, "model", "READY")
        futures.append(one.rig.call_async(SetModel, "set_model", SetModel.Request(options=f"load: {LONG}", wait=True)))
        one.rig.wait(one.begun.exists, what="loading")
    end(running, injected)
    for one, future in zip(running, futures, strict=True):
        one.rig.wait(future.done, 5.0, "an answer")
        assert future.result().status == SetModel.Response.INVALID
    injected.heard(f"answer: INVALID: {future.result().message}")


@pytest.mark.fault("signals", "configuring, a model takes a minute to load")
def test_configuring(start: Callable, injected: Injected) -> None:
    running = start(SLOW, f"segmenter.load:={LONG}", "segmenter.begun:=BEGUN")
    for one in running:
        one.rig.wait(one.begun.exists, 40.0, "loading")
    end(running, injected)


@pytest.mark.fault("signals", "warming up, for a minute")
def test_warming_up(start: Callable, injected: Injected) -> None:
    running = start(SLOW, f"segmenter.warm_up:={LONG}", "segmenter.begun:=BEGUN")
    for one in running:
        one.rig.wait(one.begun.exists, 40.0, "warming up")
    end(running, injected)


@pytest.mark.fault("signals", "an engine is being built, for a minute", stand_in="the builder")
def test_building(start: Callable, injected: Injected, models_dir: Path, tmp_path: Path) -> None:
    running = start(
        "segmenter.plugin:=yolo",
        f"segmenter.model:={models_dir / ENGINE}",
        "segmenter.backend.plugin:=backends_for_tests:SlowEngine",
        f"segmenter.backend.cache:={tmp_path}",
        f"segmenter.backend.seconds:={LONG}",
    )
    for one in running:
        said(one.rig, "model", "BUILDING")
    end(running, injected)
