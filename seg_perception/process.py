# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Processes: what the system's kernel says about one (Linux only: elsewhere None), and how ours are ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path


def usable_cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Usage:
    """`cpu` s of all its threads since it began, `memory` MB resident and `peak` MB, `threads` and open `files`."""

    cpu: float
    memory: float
    peak: float
    threads: int
    files: int


def usage(pid: int | None = None) -> Usage | None:
    """Of a process (default: this one); None where it cannot be known."""
    folder = Path("/proc") / str(pid or os.getpid())
    try:
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        times = (folder / "stat").read_text().rpartition(")")[2].split()
        files = len(os.listdir(folder / "fd"))
    except OSError:
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    return Usage(
        cpu=(int(times[11]) + int(times[12])) / ticks,
        memory=_megabytes(status.get("VmRSS", "0")),
        peak=_megabytes(status.get("VmHWM", "0")),
        threads=int(status.get("Threads", "0")),
        files=files,
    )


def end(processes: Collection[subprocess.Popen[bytes]]) -> None:
    """Ends all of them, first asking, then insisting. Not by SIGINT: it is noisy while Python still loads."""
    for how, patience in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 3.0)):
        alive = [p for p in processes if p.poll() is None]
        for process in alive:
            process.send_signal(how)
        deadline = time.monotonic() + patience
        for process in alive:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue


def _megabytes(text: str) -> float:
    return int(text.split()[0]) / 1024
