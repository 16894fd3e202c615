# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Tests that need a process of their own: TensorRT-RTX's builder crashed in one that had run all the other runtimes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FILES = sorted((HERE / "own_process").glob("test_*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_in_a_process_of_its_own(file):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "--no-header", "-p", "no:cacheprovider", str(file)]
    result = subprocess.run(
        command, env=environment, cwd=HERE.parent, capture_output=True, text=True, timeout=600, check=False
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-1000:]
    if " passed" not in result.stdout:
        pytest.skip(" ".join(line for line in result.stdout.splitlines() if line.startswith("SKIPPED")))
