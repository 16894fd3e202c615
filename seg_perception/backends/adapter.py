# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`adapter`: your own code and weights in the place of a runtime, for networks that have no sensible export.

    class MyNetwork:                                             # backend: {plugin: adapter, code: module:MyNetwork}
        inputs = ("image 1x3x800x1088",)                         # NAME SIZES [DTYPE]; -1 = any size
        outputs = ("boxes -1x4", "labels -1 int64", "masks -1x1x28x28", "scores -1")
        def __init__(self, model: Path, device: str): ...        # load your checkpoint
        def __call__(self, inputs): ...                          # arrays by name -> arrays or torch tensors by name

The names and shapes are those of a family that a segmenter reads (docs/models.md); the sidecar says which one.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seg_perception.backends.host import model_file
from seg_perception.backends.tensors import fitted
from seg_perception.options import ConfigError, option
from seg_perception.own_code import own_class
from seg_perception.plugins import TensorSpec


class AdaptedNetwork(Protocol):
    """What your class must have; constructed as `MyNetwork(model, device)`."""

    inputs: Sequence[str]
    outputs: Sequence[str]

    def __call__(self, inputs: Mapping[str, NDArray]) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class AdapterConfig:
    """Which code. `model` is left empty in a segmenter's section: the segmenter fills it in."""

    model: str = option("", "your checkpoint; given by the segmenter")
    code: str = option("", "module:Class of your adapter, its folder on PYTHONPATH")
    device: str = option("cpu", "given to your class: cpu, cuda, cuda:1 ...")


class Adapter:
    """A network in your own code. Raises ConfigError when the class cannot be loaded or does not say what it takes;
    what its constructor raises comes as it is."""

    Config = AdapterConfig

    def __init__(self, config: AdapterConfig) -> None:
        path = model_file(config.model)
        if not config.code:
            raise ConfigError("code: name your adapter, module:Class")
        made = own_class("code", config.code)
        self._name = config.code
        self.inputs = _specs(made, config.code, "inputs")
        self.outputs = _specs(made, config.code, "outputs")
        self.metadata: Mapping[str, str] = {}
        self._network: AdaptedNetwork = made(Path(path), config.device)
        self._lock = threading.Lock()  # foreign code serves one call at a time

    def __call__(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Every output by name. Raises ValueError when a name or shape is not what the class says."""
        feed = fitted(self._name, self.inputs, inputs)
        with self._lock:
            results = self._network(feed)
        return {spec.name: self._checked(spec, results) for spec in self.outputs}

    def _checked(self, spec: TensorSpec, results: Mapping[str, Any]) -> NDArray:
        if spec.name not in results:
            raise ValueError(f"{self._name}: no output '{spec.name}', got {', '.join(results) or 'nothing'}")
        value = results[spec.name]
        if hasattr(value, "detach"):  # a tensor of PyTorch, which need not be imported here
            value = value.detach().float().cpu() if spec.dtype.kind == "f" else value.detach().cpu()
            value = value.numpy()
        array = np.ascontiguousarray(value, spec.dtype)
        if not spec.fits(array.shape):
            raise ValueError(f"{self._name}: {spec.name}: expected {spec.shape}, got {array.shape}")
        return array


def _specs(made: Any, code: str, what: str) -> tuple[TensorSpec, ...]:
    lines = getattr(made, what, ())
    if not lines or isinstance(lines, str):
        raise ConfigError(f"code: {code} has no {what}: expected e.g. {what} = ('image 1x3x800x1088 float32',)")
    return tuple(_spec(code, what, str(line)) for line in lines)


def _spec(code: str, what: str, line: str) -> TensorSpec:
    words = line.split()
    try:
        name, sizes, dtype = words if len(words) == 3 else (*words, "float32")
        return TensorSpec(name, tuple(int(size) for size in sizes.split("x")), np.dtype(dtype))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"code: {code}: {what}: expected NAME SIZES [DTYPE], got '{line}'") from error
