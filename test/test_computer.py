# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What is said of the computer: this process for real, the GPU through a stand-in of NVIDIA's library."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from seg_perception.ros import computer
from seg_perception.ros.computer import Computer

THERMAL_SLOWDOWN, IDLE = 0x40, 0x1


class NVMLError(Exception):
    """As pynvml's."""


def nvml(reasons: int) -> SimpleNamespace:
    """A STAND-IN of pynvml with one card, 83 degrees hot; its load cannot be read."""

    def refuse(_: object) -> None:
        raise NVMLError("not supported")

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetTemperature=lambda gpu, sensor: 83,
        nvmlDeviceGetUtilizationRates=lambda gpu: SimpleNamespace(gpu=97),
        nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(used=512 * 2**20),
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda gpu: reasons,
        refuse=refuse,
    )


def test_a_throttled_gpu_is_a_problem_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(THERMAL_SLOWDOWN))
    one = Computer()
    values = one.values()
    assert values["gpu temperature [C]"] == "83"
    assert values["gpu memory [MB]"] == "512"
    assert one.problem(values) == "throttled, inference is slower than it could be: gpu is too hot"


def test_an_idle_gpu_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(IDLE))
    one = Computer()
    assert one.problem(one.values()) == ""


def test_what_a_card_does_not_say_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = nvml(THERMAL_SLOWDOWN)
    fake.nvmlDeviceGetUtilizationRates = fake.refuse
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    values = Computer().values()
    assert "gpu temperature [C]" in values
    assert "gpu load [%]" not in values
    assert values["gpu throttled"] == "too hot"


def test_a_jetson_has_a_thermal_zone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    monkeypatch.setattr(computer, "THERMAL", tmp_path)
    for i, (kind, degrees) in enumerate((("cpu-thermal", 41500), ("gpu-thermal", 52500))):
        zone = tmp_path / f"thermal_zone{i}"
        zone.mkdir()
        (zone / "type").write_text(f"{kind}\n")
        (zone / "temp").write_text(f"{degrees}\n")
    assert Computer().values()["gpu temperature [C]"] == "52"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(computer, "THERMAL", tmp_path)
    values = Computer().values()
    assert not [key for key in values if key.startswith("gpu")]
    assert float(values["memory [MB]"]) > 10
    assert int(values["threads"]) == len(os.listdir("/proc/self/task"))
