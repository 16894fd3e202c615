# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime: ONNX models on the CPU, or on whatever execution provider the installed build has."""

from __future__ import annotations

import contextlib
import io
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.backends.host import cache_folder, model_file, threads_for
from seg_perception.backends.tensors import fitted, single_precision
from seg_perception.options import ConfigError, option
from seg_perception.plugins import TensorSpec, require

SUFFIX = "ExecutionProvider"
NVIDIA = ("cuda", "tensorrt")
OPTIMIZATION = {"none": "DISABLE_ALL", "basic": "ENABLE_BASIC", "extended": "ENABLE_EXTENDED", "all": "ENABLE_ALL"}
DTYPES = {
    "float": np.float32,
    "float16": np.float16,
    "double": np.float64,
    "bool": np.bool_,
    **{f"{sign}int{bits}": getattr(np, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class OnnxRuntimeConfig:
    """How ONNX Runtime runs the model. `model` is left empty in a segmenter's section: the segmenter fills it in."""

    model: str = option("", "ONNX file; given by the segmenter")
    providers: tuple[str, ...] = option(("cpu",), "execution providers in order of preference: cpu, cuda, openvino ...")
    provider_options: tuple[str, ...] = option(
        (), "PROVIDER.KEY=VALUE each, e.g. tensorrt.trt_fp16_enable=1; keys and values are ONNX Runtime's"
    )
    device: int = option(0, "which GPU, for cuda and tensorrt", ge=0, le=63)
    io_binding: str = option(
        "auto",
        "inputs in kept device memory; auto = on when cuda or tensorrt comes first",
        choices=("auto", "on", "off"),
    )
    threads: int = option(0, "threads of one inference; 0 = all cores but one, at most 8", ge=0, le=256)
    spinning: bool = option(False, "idle threads spin: a little faster, takes whole cores from the rest of the robot")
    graph_optimization: str = option("all", "rewriting of the graph when loaded", choices=tuple(OPTIMIZATION))


class OnnxRuntime:
    """One ONNX model in ONNX Runtime. float16 inputs and outputs of the model are float32 at this door.

    A provider that does not start is an error; none stands in for it. Operators that a provider lacks run on the CPU,
    as ONNX Runtime has it. Raises ConfigError when the file is missing or unreadable or a provider is not there,
    PluginError without onnxruntime.
    """

    Config = OnnxRuntimeConfig

    def __init__(self, config: OnnxRuntimeConfig) -> None:
        runtime = require("onnxruntime", "onnx")
        path = model_file(config.model)
        self._path = path
        providers = _providers(runtime, config)
        self._session = _load(runtime, path, providers, _session_options(runtime, config))
        self.inputs = tuple(_spec(path, node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(path, node) for node in self._session.get_outputs())
        self.metadata: Mapping[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        first = _short(next(iter(providers)))
        self._binding: DeviceBinding | None = None
        if config.io_binding == "on" or (config.io_binding == "auto" and first in NVIDIA):
            self._binding = DeviceBinding(
                runtime, self._session, "cuda" if first in NVIDIA else "cpu", config.device if first in NVIDIA else 0
            )

    def __call__(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Every output by name. Raises ValueError when a name, shape or dtype is not the model's."""
        feed = fitted(self._path.name, self.inputs, inputs)
        results = self._session.run(None, feed) if self._binding is None else self._binding.run(feed)
        return {spec.name: single_precision(result) for spec, result in zip(self.outputs, results, strict=True)}


class DeviceBinding:
    """Runs a session on inputs in memory of the device, which is allocated once per shape; one call at a time."""

    def __init__(self, runtime: Any, session: Any, device: str, index: int) -> None:
        self._session, self._place = session, (device, index)
        self._allocate = runtime.OrtValue.ortvalue_from_shape_and_type
        self._binding = session.io_binding()
        self._inputs: dict[str, Any] = {}
        self._lock = threading.Lock()

    def run(self, feed: Mapping[str, NDArray]) -> list[NDArray]:
        """Every output in the model's order, on the host."""
        with self._lock:
            for name, array in feed.items():
                value = self._inputs.get(name)
                if value is None or tuple(value.shape()) != array.shape:
                    value = self._inputs[name] = self._allocate(array.shape, array.dtype.type, *self._place)
                    self._binding.bind_ortvalue_input(name, value)
                value.update_inplace(array)
            for node in self._session.get_outputs():  # anew: a bound output keeps its memory, which need not fit
                self._binding.bind_output(node.name, *self._place)
            self._session.run_with_iobinding(self._binding)
            return self._binding.copy_outputs_to_cpu()


def _short(provider: str) -> str:
    return provider.removesuffix(SUFFIX).lower()


def _providers(runtime: Any, config: OnnxRuntimeConfig) -> dict[str, dict[str, str]]:
    """Full name of every provider that is asked for, e.g. CPUExecutionProvider -> its options."""
    available = {_short(name): name for name in runtime.get_available_providers()}
    if not config.providers:
        raise ConfigError(f"providers: expected at least one of {', '.join(available)}, got none")
    for name in config.providers:
        if _short(name) not in available:
            raise ConfigError(f"providers: '{name}' is not in this onnxruntime (available: {', '.join(available)})")
    chosen = {_short(name): _defaults(_short(name), config.device) for name in config.providers}
    for text in config.provider_options:
        name, dot, assignment = text.partition(".")
        key, equals, value = assignment.partition("=")
        if not (dot and equals and key) or _short(name) not in chosen:
            raise ConfigError(
                f"provider_options: expected PROVIDER.KEY=VALUE with one of {', '.join(chosen)}, got '{text}'"
            )
        chosen[_short(name)][key] = value
    return {available[name]: options for name, options in chosen.items()}


def _defaults(provider: str, device: int) -> dict[str, str]:
    """Full float32 wherever the provider would take less, and a cache of what takes minutes to compile."""
    if provider == "cuda":
        return {"device_id": str(device), "use_tf32": "0"}
    if provider == "tensorrt":
        folder = str(cache_folder("onnxruntime_tensorrt"))
        cache = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder}
        return {"device_id": str(device), **cache, "trt_timing_cache_enable": "1", "trt_timing_cache_path": folder}
    if provider == "openvino":
        return {"device_type": "CPU", "precision": "FP32"}
    return {}


def _session_options(runtime: Any, config: OnnxRuntimeConfig) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads_for(config.threads)
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # a plan of the memory, kept beside what the first run took: 54 MB of yolo11n
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(config.spinning)))
    options.graph_optimization_level = getattr(
        runtime.GraphOptimizationLevel, f"ORT_{OPTIMIZATION[config.graph_optimization]}"
    )
    options.log_severity_level = 3  # errors; they are raised as well
    return options


def _load(runtime: Any, path: Path, providers: Mapping[str, Mapping[str, str]], options: Any) -> Any:
    if any(_short(name) in NVIDIA for name in providers) and hasattr(runtime, "preload_dlls"):
        with contextlib.redirect_stdout(
            io.StringIO()
        ):  # prints what it does not find; the system may have it all the same
            runtime.preload_dlls()  # CUDA from its Python packages
    state = runtime.capi.onnxruntime_pybind11_state
    own = [e for e in vars(state).values() if isinstance(e, type) and issubclass(e, Exception)]
    errors: tuple[type[Exception], ...] = (*own, RuntimeError, ValueError)
    try:
        # Without its fallback, which would print and go on with the CPU, now or at some later frame.
        session = runtime.InferenceSession(str(path), options, providers=list(providers.items()), enable_fallback=0)
    except errors as error:
        reason = " ".join(str(error).split()).rpartition("failed:")[2]
        reason = re.sub(r"^/\S+ .*\) ", "", reason).strip()  # less the place in ONNX Runtime's source
        if isinstance(error, state.InvalidProtobuf | state.InvalidArgument) or "ModelProto" in reason:
            raise ConfigError(f"not a readable ONNX model: {path}: {reason} (truncated, or another format?)") from error
        raise ConfigError(f"onnxruntime {runtime.__version__} cannot load {path}: {reason}") from error
    missing = [_short(name) for name in providers if name not in session.get_providers()]
    if missing:  # onnxruntime goes on without a provider whose libraries do not load
        raise ConfigError(
            f"providers: {missing[0]} did not start (its driver or libraries are missing, or an option does not fit; "
            f"onnxruntime's log says which); running: {', '.join(map(_short, session.get_providers()))}"
        )
    return session


def _spec(path: Path, node: Any) -> TensorSpec:
    dtype = DTYPES.get(node.type.removeprefix("tensor(").removesuffix(")"))
    if dtype is None:
        raise ConfigError(f"{path}: {node.name} is a {node.type}, expected a tensor of numbers")
    shape = tuple(n if isinstance(n, int) and n >= 0 else -1 for n in node.shape)
    return TensorSpec(node.name, shape, np.dtype(dtype))
