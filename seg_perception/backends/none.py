# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""No runtime: what `fallback` is where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from numpy.typing import NDArray

from seg_perception.options import ConfigError, option
from seg_perception.plugins import TensorSpec

RUNS_NOTHING = "backend none runs nothing: it stands for no fallback of the backend kserve"


@dataclass(frozen=True)
class NoBackendConfig:
    """Nothing to set."""

    model: str = option("", "not read")


class NoBackend:
    """Runs nothing, and cannot be built."""

    Config = NoBackendConfig
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    metadata: Mapping[str, str] = {}

    def __init__(self, config: NoBackendConfig) -> None:
        raise ConfigError(RUNS_NOTHING)

    def __call__(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        raise ConfigError(RUNS_NOTHING)
