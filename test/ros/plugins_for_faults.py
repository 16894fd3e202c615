# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A runtime and a planner that fail when a file says so (the word in it is the fault, no file is none), and a model
that is slow to load or to warm up."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from segmenters_for_tests import RedConfig, RedThings

from seg_perception.backends.onnxruntime import OnnxRuntime, OnnxRuntimeConfig
from seg_perception.options import option
from seg_perception.scene import GraspPlan


def fault(file: str) -> str:
    path = Path(file)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


@dataclass(frozen=True)
class FaultyRuntimeConfig:
    """Where the word is."""

    model: str = option("", "ONNX file; given by the segmenter")
    faults: str = option("", "file with the fault")


class FaultyRuntime(OnnxRuntime):
    """ONNX Runtime whose outputs are spoilt: `nan`, `shape`, `raise`."""

    Config = FaultyRuntimeConfig  # type: ignore[assignment]

    def __init__(self, config: FaultyRuntimeConfig) -> None:
        self._faults = config.faults
        super().__init__(OnnxRuntimeConfig(model=config.model, threads=1))

    def __call__(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        word = fault(self._faults)
        if word == "raise":
            raise RuntimeError("out of memory on device 0")
        outputs = super().__call__(inputs)
        if word == "nan":
            return {name: np.full_like(values, np.nan) for name, values in outputs.items()}
        if word == "shape":
            return {name: values[:, :-3] for name, values in outputs.items()}
        return outputs


@dataclass(frozen=True)
class FaultyPlannerConfig:
    """Where the word is."""

    faults: str = option("", "file with the fault")


class FaultyPlanner:
    """No grasps; `planner` in the file makes it raise."""

    Config = FaultyPlannerConfig

    def __init__(self, config: FaultyPlannerConfig) -> None:
        self._faults = config.faults

    def plan(self, obj, scene_points, gravity, support=None) -> GraspPlan:
        if fault(self._faults) == "planner":
            raise ZeroDivisionError("the gripper has no width")
        return GraspPlan((), "never any")


@dataclass(frozen=True)
class SlowConfig:
    """What is slow, and for how long."""

    load: float = option(0.0, "time that loading takes", unit="s", ge=0)
    warm_up: float = option(0.0, "time that warming up takes", unit="s", ge=0)
    begun: str = option("", "file that appears when the slow part begins")


class SlowThings(RedThings):
    """Red things by a model that is slow to load or to warm up."""

    Config = SlowConfig  # type: ignore[assignment]

    def __init__(self, config: SlowConfig) -> None:
        self._slow = config
        super().__init__(RedConfig())
        self._take(config.load)

    def warm_up(self) -> None:
        self._take(self._slow.warm_up)

    def _take(self, seconds: float) -> None:
        if seconds:
            Path(self._slow.begun).touch()
            time.sleep(seconds)
