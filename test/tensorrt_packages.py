# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Gets TensorRT's wheels for the tests: kept in .ros/tensorrt, never installed; without them the tests skip."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / ".ros" / "tensorrt"
RTX = ("tensorrt-rtx-cu13-libs==1.7.1.116", "tensorrt-rtx-cu13-bindings==1.7.1.116")  # 95 MB: a real builder, no GPU
ONNX = ("onnx==1.23.2", "ml-dtypes==0.6.0")


def fetched(*requirements: str) -> Path:
    """The folder with these packages, without what they depend on; downloaded the first time. Skips the test else."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        pytest.skip(f"{requirements[0]}: taken as a wheel for Linux on x86_64 only, this is {platform.machine()}")
    python = f"py{sys.version_info[0]}{sys.version_info[1]}"
    target = FOLDER / "-".join([*(r.replace("==", "-") for r in requirements), python])
    if not target.is_dir():
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        command = [sys.executable, "-m", "pip", "install", "--no-deps", "--only-binary=:all:", "--quiet", "--retries=1"]
        done = subprocess.run(
            [*command, "--timeout=20", "--disable-pip-version-check", f"--target={part}", *requirements],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            shutil.rmtree(part, ignore_errors=True)
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            pytest.skip(f"pip cannot get {', '.join(requirements)}: {lines[-1] if lines else 'no reason given'}")
        try:
            part.rename(target)
        except OSError:  # another run was quicker
            shutil.rmtree(part)
    return target


def with_onnx() -> None:
    """Makes `import onnx` work, from the kept wheels where it is not installed."""
    if importlib.util.find_spec("onnx") is None:
        sys.path.append(str(fetched(*ONNX)))
        importlib.invalidate_caches()


def real_rtx():
    """The real module of TensorRT-RTX: parses and builds without a GPU, runs nothing."""
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        sys.path.append(str(fetched(*RTX)))
        importlib.invalidate_caches()
    return importlib.import_module("tensorrt_rtx_bindings")
