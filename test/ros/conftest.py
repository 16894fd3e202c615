# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Nodes and rigs for tests over real DDS; without rclpy and the built messages these tests skip."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # rig.py and the segmenters
os.environ.setdefault("ROS_DOMAIN_ID", "42")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


def _missing() -> str:
    if importlib.util.find_spec("rclpy") is None:
        return "no ROS 2 here: source scripts/env"
    try:
        importlib.import_module("seg_perception.msg")
    except ImportError as error:
        return f"the messages are not built: {error}"
    return ""


MISSING = _missing()
collect_ignore_glob = ["test_*.py"] if MISSING else []


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(group, fault): a row of the table in docs/reliability.md")


def pytest_report_header() -> str:
    return f"test/ros skipped: {MISSING}" if MISSING else "test/ros: over real DDS"


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """The very first start compiles for a minute or more; no test should have to wait for that."""
    from rig import RED, NodeProcess

    process = NodeProcess(RED, namespace="/compile")
    try:
        deadline = time.monotonic() + 300.0
        while "ready: " not in process.log and process.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
    finally:
        process.stop()
    assert "ready: " in process.log, process.log


@pytest.fixture(scope="module")
def namespace(request: pytest.FixtureRequest) -> str:
    """One namespace per test module, so that nobody hears another module's camera."""
    return f"/{request.module.__name__.rpartition('.')[2]}"


@pytest.fixture(scope="module")
def rig(namespace: str) -> Iterator:
    """The camera, listeners and caller of a module."""
    from rig import Rig

    made = Rig(namespace)
    yield made
    made.close()


@pytest.fixture
def injected_in(request: pytest.FixtureRequest) -> Iterator:
    """Makes what a test marked `fault` looks through at a node beside the given rig; the row goes to the file that is
    asked for, whatever the outcome."""
    from fault_rows import VARIABLE, Injected, append, row_of

    row = row_of(request.node.get_closest_marker("fault"))
    yield lambda rig: Injected(row, rig)
    if VARIABLE in os.environ:
        append(row, Path(os.environ[VARIABLE]))


@pytest.fixture
def injected(injected_in, rig):
    """The same, beside the module's rig."""
    return injected_in(rig)
