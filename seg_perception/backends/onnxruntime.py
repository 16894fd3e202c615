# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime: ONNX models on the CPU, or on whatever execution provider the installed build has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.options import ConfigError, option
from seg_perception.plugins import TensorSpec, require

SUFFIX = "ExecutionProvider"
OPTIMIZATION = {"none": "DISABLE_ALL", "basic": "ENABLE_BASIC", "extended": "ENABLE_EXTENDED", "all": "ENABLE_ALL"}
DTYPES = {
    "float": np.float32,
    "float16": np.float16,
    "double": np.float64,
    "bool": np.bool_,
    **{f"{sign}int{bits}": getattr(np, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
MOST_THREADS = 8  # more gain little on the networks used here and take the machine from everyone else


@dataclass(frozen=True)
class OnnxRuntimeConfig:
    """How ONNX Runtime runs the model. `model` is left empty in a segmenter's section: the segmenter fills it in."""

    model: str = option("", "ONNX file; given by the segmenter")
    providers: tuple[str, ...] = option(("cpu",), "execution providers in order of preference: cpu, cuda, openvino ...")
    threads: int = option(0, "threads of one inference; 0 = all cores but one, at most 8", ge=0, le=256)
    spinning: bool = option(False, "idle threads spin: a little faster, takes whole cores from the rest of the robot")
    graph_optimization: str = option("all", "rewriting of the graph when loaded", choices=tuple(OPTIMIZATION))


class OnnxRuntime:
    """One ONNX model in ONNX Runtime. float16 inputs and outputs of the model are float32 at this door.

    Raises ConfigError when the file is missing or unreadable or a provider is not there, PluginError without
    onnxruntime.
    """

    Config = OnnxRuntimeConfig

    def __init__(self, config: OnnxRuntimeConfig) -> None:
        runtime = require("onnxruntime", "onnx")
        path = Path(config.model).expanduser().absolute()
        if not config.model or not path.is_file():
            raise ConfigError(f"no such model file: {path if config.model else 'the name is empty'}")
        self._path = path
        self._session = _load(runtime, path, _providers(runtime, config.providers), _session_options(runtime, config))
        self.inputs = tuple(_spec(path, node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(path, node) for node in self._session.get_outputs())
        self.metadata: Mapping[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Every output by name. Raises ValueError when a name, shape or dtype is not the model's."""
        if inputs.keys() != {spec.name for spec in self.inputs}:
            expected = ", ".join(spec.name for spec in self.inputs)
            raise ValueError(f"{self._path.name}: expected inputs {expected}, got {', '.join(inputs) or 'none'}")
        feed = {spec.name: self._fitting(spec, inputs[spec.name]) for spec in self.inputs}
        results = self._session.run(None, feed)
        return {spec.name: _single_precision(result) for spec, result in zip(self.outputs, results, strict=True)}

    def _fitting(self, spec: TensorSpec, array: NDArray) -> NDArray:
        same_rank = array.ndim == len(spec.shape)
        if not same_rank or any(want not in (-1, got) for want, got in zip(spec.shape, array.shape, strict=True)):
            raise ValueError(f"{self._path.name}: input {spec.name}: expected {spec.shape}, got {array.shape}")
        if array.dtype == np.float32 and spec.dtype == np.float16:
            array = array.astype(np.float16)
        if array.dtype != spec.dtype:
            raise ValueError(f"{self._path.name}: input {spec.name}: expected {spec.dtype}, got {array.dtype}")
        return np.ascontiguousarray(array)


def _single_precision(array: NDArray) -> NDArray:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _providers(runtime: Any, wanted: tuple[str, ...]) -> list[str]:
    """The full names of `wanted`, e.g. CPUExecutionProvider for cpu."""
    available = {name.removesuffix(SUFFIX).lower(): name for name in runtime.get_available_providers()}
    if not wanted:
        raise ConfigError(f"providers: expected at least one of {', '.join(available)}, got none")
    for name in wanted:
        if name.removesuffix(SUFFIX).lower() not in available:
            raise ConfigError(f"providers: '{name}' is not in this onnxruntime (available: {', '.join(available)})")
    return [available[name.removesuffix(SUFFIX).lower()] for name in wanted]


def _session_options(runtime: Any, config: OnnxRuntimeConfig) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = config.threads or min(MOST_THREADS, max(1, _usable_cores() - 1))
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(config.spinning)))
    options.graph_optimization_level = getattr(
        runtime.GraphOptimizationLevel, f"ORT_{OPTIMIZATION[config.graph_optimization]}"
    )
    options.log_severity_level = 3  # errors; they are raised as well
    return options


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load(runtime: Any, path: Path, providers: list[str], options: Any) -> Any:
    state = runtime.capi.onnxruntime_pybind11_state
    own = [e for e in vars(state).values() if isinstance(e, type) and issubclass(e, Exception)]
    errors: tuple[type[Exception], ...] = (*own, RuntimeError, ValueError)
    try:
        session = runtime.InferenceSession(str(path), options, providers=providers)
    except errors as error:
        reason = " ".join(str(error).split()).rpartition("failed:")[2]
        if isinstance(error, state.InvalidProtobuf | state.InvalidArgument):
            raise ConfigError(f"not a readable ONNX model: {path}: {reason} (truncated, or another format?)") from error
        raise ConfigError(f"onnxruntime {runtime.__version__} cannot load {path}: {reason}") from error
    missing = [name for name in providers if name not in session.get_providers()]
    if missing:  # onnxruntime goes on without a provider whose libraries do not load
        raise ConfigError(
            f"providers: {missing[0]} did not start (its driver or libraries are missing); "
            f"running: {', '.join(session.get_providers())}"
        )
    return session


def _spec(path: Path, node: Any) -> TensorSpec:
    dtype = DTYPES.get(node.type.removeprefix("tensor(").removesuffix(")"))
    if dtype is None:
        raise ConfigError(f"{path}: {node.name} is a {node.type}, expected a tensor of numbers")
    shape = tuple(n if isinstance(n, int) and n >= 0 else -1 for n in node.shape)
    return TensorSpec(node.name, shape, np.dtype(dtype))
