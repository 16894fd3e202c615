# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A full disk: captures and log files are lost, frames are not. The disk is small, in a mount namespace of the node."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from fault_rows import WITH_3D, Injected
from rig import RED, NodeProcess, Rig
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

WARN, ERROR = DiagnosticStatus.WARN, DiagnosticStatus.ERROR
ODD = "depth of the full disk"  # an encoding that the log will tell of
SIZE = 1 << 20  # bytes, of the disk


def on_small_disk(folder: Path) -> list[str]:
    """What makes a command run with a small disk at `folder`, which ends with it. Skips where that is not allowed."""
    own = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    mount = f"mount -t tmpfs -o size={SIZE} tmpfs '{folder}'"
    command = ["unshare", *own, "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace of our own here (unshare --mount)")
    return command


class Disk:
    """The node's disk, seen from outside."""

    def __init__(self, process: NodeProcess, folder: Path) -> None:
        self.root = Path("/proc", str(process.process.pid), "root", *folder.parts[1:])

    def fill(self) -> None:
        with (self.root / "fill").open("wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError:
                return

    def free(self) -> None:
        (self.root / "fill").unlink()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disk")


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig, folder: Path) -> Iterator[NodeProcess]:
    process = NodeProcess(
        RED, f"capture.folder:={folder}/captures", "capture.automatic:=false",
        namespace=namespace, wrapper=on_small_disk(folder), environment={"ROS_LOG_DIR": f"{folder}/log"},
    )  # fmt: skip
    try:
        rig.film(lambda: rig.objects, timeout=40.0, what="the first result")
        yield process
    finally:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log


@pytest.fixture
def full(node: NodeProcess, folder: Path) -> Disk:
    disk = Disk(node, folder)
    disk.fill()
    return disk


@pytest.mark.fault("disk", "full, where captures go")
def test_captures(full: Disk, injected: Injected, rig: Rig) -> None:
    reply = rig.call(Trigger, "capture", film=True)
    assert not reply.success
    assert "cannot write to" in reply.message
    assert "No space left on device" in reply.message
    rig.call_async(Trigger, "capture", Trigger.Request())
    injected.says("watch", WARN, "cannot write to", "No space left on device")
    injected.publishes(WITH_3D)
    assert not list((full.root / "captures").iterdir())  # nothing by halves
    full.free()
    reply = rig.call(Trigger, "capture", film=True)
    assert reply.success, reply.message
    injected.recovers()


def odd(message: Image) -> None:
    message.encoding = ODD


@pytest.mark.fault("disk", "full, where log files go")
def test_logs(full: Disk, node: NodeProcess, injected: Injected, rig: Rig) -> None:
    def log() -> str:
        return "".join(path.read_text(encoding="utf-8") for path in (full.root / "log").iterdir())

    full.fill()
    said = len(node.log)
    rig.wait_for_diagnostic("input depth", ERROR, ODD, depth=odd)
    injected.publishes(WITH_3D)
    rig.wait(lambda: ODD in node.log[said:], what="on the console")
    assert ODD not in log()
    injected.heard("the console and /rosout go on; lines are missing in the file")
    full.free()
    injected.recovers()
