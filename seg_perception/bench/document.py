# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A benchmark's result as one JSON document: what was measured, on which machine, with which code."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seg_perception.bench import Row
from seg_perception.zoo.machine import this_machine

PACKAGES = (
    "seg_perception", "numpy", "numba", "opencv-python-headless", "scipy", "onnxruntime", "openvino", "torch",
    "ultralytics", "rclpy",
)  # fmt: skip
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def document(
    benchmark: str, on: Mapping[str, Any], settings: Mapping[str, Any], rows: Sequence[Row], complete: bool
) -> dict[str, Any]:
    """The result; `on` is what `machine` said before it began, `complete` is false after a ctrl-C."""
    return {
        "benchmark": benchmark,
        "complete": complete,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": dict(on),
        "settings": dict(settings),
        "rows": list(rows),
    }


def machine() -> dict[str, Any]:
    """Processor, cores, system, versions, the state of the code, and the limits on threads."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    for variable in ("ROS_DISTRO", "RMW_IMPLEMENTATION"):
        if variable in os.environ:
            versions[variable] = os.environ[variable]
    threads = {name: os.environ[name] for name in THREADS if name in os.environ}
    return {**asdict(this_machine()), "versions": versions, "code": code(), "threads": threads}


def code() -> dict[str, Any]:
    """The commit of the sources and how many of their files were changed since; empty outside of git."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {}
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD").strip()
        changed = _git(root, "status", "--porcelain", "--untracked-files=no").splitlines()
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": commit, "changed_files": len(changed)}


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=20)
    return done.stdout
