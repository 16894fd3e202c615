# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the computer says about this process and its GPU: memory, load, temperature, throttling. What cannot be read is
left out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from seg_perception.process import Usage, usage

THERMAL = Path("/sys/class/thermal")
TOO_HOT = (
    0x8 | 0x20 | 0x40 | 0x80
)  # NVML's reasons for slow clocks: hardware, software heat, hardware heat, power brake


class Computer:
    """Looked at once a second."""

    def __init__(self) -> None:
        self._last: tuple[Usage, float] | None = None
        self._nvml: Any = None
        self._gpus: list[Any] = []
        self._zones: list[Path] = []
        self._searched = False

    def values(self) -> dict[str, str]:
        """Key -> value of what can be read now."""
        if not self._searched:
            self._searched = True
            self._search()
        return {**self._of_process(), **self._of_gpus()}

    def problem(self, values: dict[str, str]) -> str:
        """That a GPU runs slower than it could; empty if none says so."""
        slow = [
            name.removesuffix(" throttled") for name, text in values.items() if name.endswith(" throttled") and text
        ]
        reasons = "; ".join(f"{name} is {values[f'{name} throttled']}" for name in slow)
        return f"throttled, inference is slower than it could be: {reasons}" if slow else ""

    def _of_process(self) -> dict[str, str]:
        now, clock = usage(), time.monotonic()
        if now is None:
            return {}
        values = {"memory [MB]": f"{now.memory:.0f}", "threads": str(now.threads), "open files": str(now.files)}
        if self._last is not None and clock > self._last[1]:
            values["cpu [cores]"] = f"{(now.cpu - self._last[0].cpu) / (clock - self._last[1]):.2f}"
        self._last = (now, clock)
        return values

    def _of_gpus(self) -> dict[str, str]:
        values: dict[str, str] = {}
        for zone in self._zones:
            try:
                values["gpu temperature [C]"] = f"{int((zone / 'temp').read_text()) / 1000:.0f}"
            except (OSError, ValueError):  # it is asleep
                continue
        for index, gpu in enumerate(self._gpus):
            name = f"gpu {index}" if len(self._gpus) > 1 else "gpu"
            for key, read in _READ.items():
                try:
                    values[f"{name} {key}"] = read(self._nvml, gpu)
                except self._nvml.NVMLError:  # this card does not say
                    continue
        return values

    def _search(self) -> None:
        """NVIDIA's management library, if its Python package and its driver are there; else Jetson's thermal zones."""
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            self._gpus = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        except ImportError:
            self._gpus = []
        except pynvml.NVMLError:  # no driver
            self._gpus = []
        if not self._gpus:
            self._zones = [zone for zone in sorted(THERMAL.glob("thermal_zone*")) if "gpu" in _kind(zone)]


def _kind(zone: Path) -> str:
    try:
        return (zone / "type").read_text().lower()
    except OSError:
        return ""


_READ = {
    "temperature [C]": lambda nvml, gpu: str(nvml.nvmlDeviceGetTemperature(gpu, 0)),
    "load [%]": lambda nvml, gpu: str(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu),
    "memory [MB]": lambda nvml, gpu: f"{nvml.nvmlDeviceGetMemoryInfo(gpu).used / 2**20:.0f}",
    "throttled": lambda nvml, gpu: _words(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu) & TOO_HOT),
}


def _words(reasons: int) -> str:
    heat, brake = reasons & (0x20 | 0x40), reasons & 0x80
    if not reasons:
        return ""
    return "too hot" if heat else "braked by its power supply" if brake else "slowed down by its hardware"
