# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A backend that runs nothing: it gives the outputs that are in a file, for timing what comes after a network."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.bench.samples import NET
from seg_perception.options import option
from seg_perception.plugins import TensorSpec


@dataclass(frozen=True)
class ReplayConfig:
    """The recording."""

    model: str = option("", "file made by `Sample.save`")
    wait: float = option(0.0, "what an answer takes, as of a network on a GPU: no CPU", unit="s", ge=0)


class Replay:
    """`returned` is the time of the last answer, CPU time of the thread."""

    Config = ReplayConfig

    def __init__(self, config: ReplayConfig) -> None:
        with np.load(config.model) as file:
            self._outputs = {name: file[name] for name in file.files}
        self.inputs = (TensorSpec("images", (1, 3, *NET), np.dtype(np.float32)),)
        self.outputs = tuple(TensorSpec(name, array.shape, array.dtype) for name, array in self._outputs.items())
        classes = {i: f"class_{i}" for i in range(80)}
        self.metadata: Mapping[str, str] = {"task": "segment", "names": str(classes), "args": "{'nms': False}"}
        self.returned = 0.0
        self._wait = config.wait

    def __call__(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        if self._wait:
            time.sleep(self._wait)
        self.returned = time.thread_time()
        return self._outputs
