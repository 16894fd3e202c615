# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Transitions again and again leave nothing behind; benchmark/lifecycle_cycles.py does a thousand."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seg_perception.process import Usage

SCRIPT = Path(__file__).resolve().parents[2] / "benchmark" / "lifecycle_cycles.py"


def test_forty_cycles_leave_nothing_behind() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--cycles", "40"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 cycles: memory" in done.stdout


@pytest.mark.parametrize(
    ("growth", "words"),
    [({}, ""), ({"memory": 3.0}, "memory grew by"), ({"threads": 1}, "more threads"), ({"files": 2}, "more files")],
)
def test_growth_is_found(growth: dict[str, Any], words: str) -> None:
    spec = importlib.util.spec_from_file_location("lifecycle_cycles", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    still = {"cpu": 0.0, "peak": 500.0, "memory": 400.0, "threads": 10, "files": 20}
    samples = [Usage(**{**still, **{k: still[k] + v * i for k, v in growth.items()}}) for i in range(40)]
    faults = module.grown(samples)
    assert (words in " ".join(faults)) if words else not faults
