# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which cores the process runs on, with how many threads its libraries do, and the memory it gives back."""

from __future__ import annotations

import ctypes
import gc
import os
import sys

import cv2

from seg_perception.config import ConfigError, CpuConfig
from seg_perception.process import usable_cores

ALL = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def use_cores(config: CpuConfig) -> None:
    """Binds all threads of the process, those to come too, and bounds OpenCV's. Raises ConfigError where the system
    cannot, or has no such core."""
    if config.affinity or hasattr(os, "sched_setaffinity"):
        _bind(frozenset(config.affinity) or ALL, config.affinity)
    cv2.setNumThreads(config.threads or max(1, usable_cores() - 1))


def settle() -> None:
    """After warming up: what lives as long as the process is not looked at again in every garbage collection, and what
    compilation needed goes back to the system."""
    gc.unfreeze()  # from an earlier activation: it may be garbage by now
    gc.collect()
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None  # glibc's
    if trim is not None:
        trim(0)


def _bind(cores: frozenset[int], asked: tuple[int, ...]) -> None:
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigError(f"cpu.affinity: this system cannot bind a process to cores, got {list(asked)}")
    if cores == os.sched_getaffinity(0):
        return
    try:
        os.sched_setaffinity(0, cores)  # this thread first: it is the one that a wrong core fails for
        for thread in os.listdir("/proc/self/task"):
            _bind_thread(int(thread), cores)
    except OSError as error:
        raise ConfigError(
            f"cpu.affinity: expected cores among {_listed(ALL)}, got {list(asked)} ({error.strerror})"
        ) from error


def _bind_thread(thread: int, cores: frozenset[int]) -> None:
    try:
        os.sched_setaffinity(thread, cores)
    except ProcessLookupError:  # it has ended meanwhile
        pass


def _listed(cores: frozenset[int]) -> str:
    """`0-3, 6`."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][1] + 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
