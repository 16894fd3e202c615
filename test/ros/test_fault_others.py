# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Others on the network: a listener that hangs, a second node of the same name."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from fault_rows import WITH_3D, Injected
from rig import RED, NodeProcess, Rig

OK, WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN
FRAMES = 60
LISTENER = """
import pathlib, sys, rclpy
from seg_perception.msg import SegmentedObjectArray
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("stuck", namespace=sys.argv[1])
def take(message):
    pathlib.Path(sys.argv[2]).touch()
node.create_subscription(SegmentedObjectArray, "seg_perception/objects", take, 5)
node.create_subscription(Image, "seg_perception/overlay", take, 5)
rclpy.spin(node)
"""


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig) -> Iterator[NodeProcess]:
    process = NodeProcess(RED, namespace=namespace)
    try:
        rig.film(lambda: rig.objects, timeout=40.0, what="the first result")
        yield process
    finally:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log


def resident(process: NodeProcess) -> int:
    """MB."""
    with open(f"/proc/{process.process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) // 1000


@pytest.mark.fault("others", "a reliable listener's process hangs (SIGSTOP)")
def test_a_listener_hangs(node: NodeProcess, injected: Injected, rig: Rig, namespace: str, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    listener = subprocess.Popen([sys.executable, "-c", LISTENER, namespace, str(heard)])
    try:
        rig.film(heard.exists, what="a message heard")
        listener.send_signal(signal.SIGSTOP)
        before = resident(node)
        rig.objects.clear()
        for _ in range(FRAMES):
            rig.shoot()
            time.sleep(0.03)
        assert len(rig.objects) > FRAMES // 2  # the others are served on
        injected.publishes(WITH_3D)
        assert resident(node) - before < 50  # MB; sixty results and pictures would be more
        injected.heard("nothing; the other listeners get everything")
        listener.send_signal(signal.SIGCONT)
        injected.recovers(afterwards="gets the newest when it goes on")
    finally:
        listener.kill()
        listener.wait()


@pytest.mark.fault("others", "a second node of the same name")
def test_a_namesake(node: NodeProcess, injected: Injected, rig: Rig, namespace: str) -> None:
    rig.wait(lambda: rig.diagnostic("node").message == "active", what="alone")
    namesake = NodeProcess(RED, namespace=namespace)
    try:
        injected.says("node", WARN, "1 more of this name", "-r __node:=")
        injected.publishes(WITH_3D)
    finally:
        assert namesake.stop() == 0, namesake.log
    rig.wait_for_diagnostic("node", OK, "active")
    injected.recovers(afterwards="when the other one has ended")
