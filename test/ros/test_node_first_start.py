# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The very first start, with nothing compiled yet: what is said meanwhile, and that it can be stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rig import RED, NodeProcess, Rig
from test_node_start import left_of, shared_memory_of

from seg_perception.ros.node import _autostart

WARN = DiagnosticStatus.WARN


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of this test find no kernels of earlier ones."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))


@pytest.fixture
def heard(namespace: str, rig: Rig) -> Iterator[list[tuple[str, bytes, str]]]:
    """Part, level and message of each status."""
    said: list[tuple[str, bytes, str]] = []
    name = f"{namespace}/seg_perception: "

    def on_message(message: DiagnosticArray) -> None:
        said.extend((s.name.removeprefix(name), s.level, s.message) for s in message.status if s.name.startswith(name))

    subscription = rig.node.create_subscription(DiagnosticArray, "/diagnostics", on_message, 10)
    yield said
    rig.node.destroy_subscription(subscription)


def test_it_says_that_it_compiles_and_calls_nothing_missing(cold: None, namespace: str, rig: Rig, heard: list) -> None:
    process = NodeProcess(RED, namespace=namespace)
    try:
        rig.wait(lambda: any("warming up (" in text for _, _, text in heard), 60.0, "warming up")
        rig.wait(lambda: "the very first start compiles kernels" in process.log, what="the log says so")
        assert all(level == WARN for part, level, text in heard if text.startswith("warming up ("))
        segments = shared_memory_of(str(process.process.pid))
        assert process.stop(signal.SIGINT) in (0, 130), process.log
    finally:
        process.stop()
    assert not [text for _, _, text in heard if "nothing on" in text]
    assert "ERROR" not in process.log
    assert segments
    assert not left_of(segments)


def test_a_slow_camera_is_never_called_missing(namespace: str, rig: Rig, heard: list) -> None:
    process = NodeProcess(RED, namespace=namespace)
    try:
        rig.film(lambda: len(rig.objects) >= 4, rate=0.7, timeout=60.0, what="four results")
        assert f"ready: segmenters_for_tests:RedThings, listening to '{namespace}/color/image_raw' and" in process.log
        assert not [text for _, _, text in heard if "nothing on" in text or "not ROS time" in text]
        stale = rig.now() - 60_000_000_000
        rig.shoot(stale)  # a frame that is sent again says nothing about the camera's clock
        rig.film(lambda: len(rig.objects) >= 7, rate=1.0, what="more results")
        assert not [text for _, _, text in heard if "nothing on" in text or "not ROS time" in text]
    finally:
        assert process.stop() == 0, process.log


def test_a_missing_topic_is_named_with_those_that_are_there(namespace: str, rig: Rig, heard: list) -> None:
    process = NodeProcess(RED, "topics.color:=elsewhere", namespace=namespace)
    try:
        status = rig.wait_for_diagnostic("input color", WARN, "nothing on", "elsewhere", "no publisher", rate=2.0)
    finally:
        assert process.stop() == 0, process.log
    there = status.message.split("Image topics here: ")[1]
    assert f"{namespace}/color/image_raw" in there
    assert f"{namespace}/depth/image_rect" in there


def test_nothing_starts_once_it_was_told_to_stop() -> None:
    """A transition that is not possible any more would raise."""
    stop, asked = threading.Event(), []
    stop.set()
    node = SimpleNamespace(
        trigger_configure=lambda: asked.append("configure"), trigger_activate=lambda: asked.append("activate")
    )
    assert _autostart(node, stop)
    assert asked == []
