# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Tries a runtime on a file in a process of its own: some end the process instead of raising.

OpenVINO 2026.4.1 does when it compiles MobileSAM's decoder in bfloat16.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from seg_perception.backends.progress import Progress, tell
from seg_perception.zoo.runtimes import Runtime

TRUSTED = ("onnxruntime", "tensorrt")  # the reference; the other asks the driver first, and would build an engine twice
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGBUS, signal.SIGFPE)
TICK = 0.2  # s between two looks at the process


def crash_of(runtime: Runtime, path: Path) -> str:
    """One line that says how the runtime ended the process, or nothing. What it merely refuses is not told here."""
    if runtime.plugin in TRUSTED:
        return ""
    order = json.dumps([runtime.plugin, dict(runtime.on(path).options), str(path)])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, order],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        while process.poll() is None:
            tell(Progress(f"trying {path.name} in {runtime.name}"))
            try:
                process.wait(TICK)
            except subprocess.TimeoutExpired:
                continue
    finally:
        process.kill()
        process.wait()
    if -process.returncode not in CRASHES:
        return ""
    return (
        f"it ends the process ({signal.Signals(-process.returncode).name}) on {path.name}: another precision may work"
    )


def _try(plugin: str, options: dict[str, object], path: Path) -> None:
    backend = Runtime(plugin, options).load(path)
    backend({spec.name: np.zeros([max(n, 1) for n in spec.shape], spec.dtype) for spec in backend.inputs})


if __name__ == "__main__":
    name, section, file = json.loads(sys.argv[1])
    _try(name, section, Path(file))
