# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which machine a measurement was made on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from seg_perception.backends.trt.driver import probe
from seg_perception.options import ConfigError
from seg_perception.process import usable_cores


@dataclass(frozen=True)
class Machine:
    """`load` is how many processes wanted to run in the last minute: above the number of `cores` times are too long."""

    processor: str
    cores: int
    gpu: str
    system: str
    load: float

    def __str__(self) -> str:
        parts = [f"{self.processor}, {self.cores} cores", self.gpu, self.system, f"load {self.load:.1f}"]
        return ", ".join(filter(None, parts))


def this_machine() -> Machine:
    """What it is, as far as the system tells."""
    try:
        gpu = str(probe())
    except ConfigError:
        gpu = ""
    return Machine(_processor(), usable_cores(), gpu, f"{platform.system()} {platform.machine()}", os.getloadavg()[0])


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="ignore").splitlines() if cpuinfo.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return named[0] if named else platform.processor() or platform.machine()
