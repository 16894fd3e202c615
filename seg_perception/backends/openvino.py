# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""OpenVINO: ONNX and IR models on Intel and AMD CPUs, Intel GPUs and NPUs."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from seg_perception.backends.host import cache_folder, model_file, threads_for
from seg_perception.backends.tensors import fitted, single_precision
from seg_perception.options import ConfigError, option
from seg_perception.plugins import TensorSpec, require

FRONTENDS = {".onnx": "ONNX", ".xml": "OpenVINO"}
QUANTIZERS = ("FakeQuantize", "FakeConvert")
CAPABILITIES = {"f32": "FP32", "f16": "FP16", "bf16": "BF16", "int8": "INT8"}
HINTS = {"f32": "f32", "f16": "f16", "bf16": "bf16", "int8": "f32"}  # int8: of what is not quantised
TELEMETRY = "openvino_telemetry"
AUTO = "AUTO"
_CORE = threading.Lock()  # to make it


@dataclass(frozen=True)
class OpenVinoConfig:
    """How OpenVINO runs the model. `model` is left empty in a segmenter's section: the segmenter fills it in."""

    model: str = option("", "ONNX file, or .xml of an OpenVINO IR; given by the segmenter")
    device: str = option("CPU", "CPU, GPU, GPU.1, NPU, or AUTO, which takes the best of them: AUTO, AUTO:GPU,CPU")
    precision: str = option(
        "f32", "of the arithmetic; f16, bf16: faster, other masks at the edges; int8: a model quantised for it",
        choices=tuple(CAPABILITIES),
    )  # fmt: skip
    performance: str = option("latency", "what OpenVINO optimises for", choices=("latency", "throughput"))
    threads: int = option(0, "threads of one inference on the CPU; 0 = all cores but one, at most 8", ge=0, le=256)
    cache: bool = option(True, "keep compiled models in the user's cache folder: starts faster from the second time on")


class OpenVino:
    """One model in OpenVINO. float16 inputs and outputs of the model are float32 at this door.

    OpenVINO left alone computes in bfloat16 or float16 where the device can; here it computes in `precision`, or not
    at all. Raises ConfigError when the file is missing or unreadable or the device or its precision is not there,
    PluginError without openvino.
    """

    Config = OpenVinoConfig

    def __init__(self, config: OpenVinoConfig) -> None:
        runtime, core = load_openvino(), the_core()
        path = model_file(config.model)
        self._path = path
        devices = _devices(core, config)
        model = _read(runtime, core, path)
        _check_precision(core, devices, config, model, path)
        self.inputs = tuple(_spec(path, port) for port in model.inputs)
        self.outputs = tuple(_spec(path, port) for port in model.outputs)
        self.metadata: Mapping[str, str] = _metadata(model, path)
        self._request = _compile(runtime, core, model, devices, config, path).create_infer_request()
        self._lock = threading.Lock()  # a request serves one call at a time

    def __call__(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Every output by name. Raises ValueError when a name, shape or dtype is not the model's."""
        feed = fitted(self._path.name, self.inputs, inputs)
        with self._lock:
            results = self._request.infer(list(feed.values()), share_inputs=True)  # outputs are copies: they stay
        return {spec.name: single_precision(results[i]) for i, spec in enumerate(self.outputs)}


def the_core() -> Any:
    """The one openvino.Core of this process, kept to its end.

    A Core's CPU plugin gives the calling thread another stack for signals and puts the former one back when it goes.
    With two Cores that is a freed one, and the next ctrl-C ends the process (seen in 2026.4.1).
    """
    with _CORE:
        return _make_core()


@functools.cache
def _make_core() -> Any:
    return load_openvino().Core()


def load_openvino() -> Any:
    """The package, imported without openvino_telemetry, which would fork this process to report it over the network."""
    if TELEMETRY in sys.modules or "openvino" in sys.modules:
        return require("openvino", "openvino")
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # the import of it fails, which OpenVINO is prepared for
    try:
        return require("openvino", "openvino")
    finally:
        del sys.modules[TELEMETRY]


def _devices(core: Any, config: OpenVinoConfig) -> tuple[str, ...]:
    """The devices that may compute: the one, or of AUTO the listed ones, or all that have the precision."""
    available = tuple(core.available_devices)  # CPU, GPU or GPU.0 GPU.1, NPU
    if config.device.upper() == AUTO:
        return tuple(d for d in available if not _lacks(core, d, config.precision)) or available
    wanted = config.device.upper().removeprefix(f"{AUTO}:").split(",")
    for device in wanted:
        if device not in available and device not in {known.partition(".")[0] for known in available}:
            raise ConfigError(
                f"device: '{device}' is not here (available: {', '.join(available) or 'none'}); is its driver missing?"
            )
    if len(wanted) > 1 and not config.device.upper().startswith(AUTO):
        raise ConfigError(f"device: expected one, or {AUTO}:{config.device}, got '{config.device}'")
    return tuple(wanted)


def _lacks(core: Any, device: str, precision: str) -> str:
    """Why the device cannot compute in that precision; empty when it can."""
    known = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if CAPABILITIES[precision] in known:
        return ""
    can = [name for name, capability in CAPABILITIES.items() if capability in known]
    return f"{device} does not compute in {precision} (it does in {', '.join(can)})"


def _read(runtime: Any, core: Any, path: Path) -> Any:
    kind = FRONTENDS.get(path.suffix.lower())
    if kind is None:  # OpenVINO would try every format it knows, with a page of errors
        raise ConfigError(f"{path}: expected an ONNX file (.onnx) or an OpenVINO IR (.xml), got '{path.suffix}'")
    weights = path.with_suffix(".bin")
    if kind == "OpenVINO" and not weights.is_file():
        raise ConfigError(f"not a readable OpenVINO model: {path}: its weights are not beside it: no {weights.name}")
    try:
        frontend = runtime.frontend.FrontEndManager().load_by_framework(kind.lower() if kind == "ONNX" else "ir")
        if kind == "ONNX" and not frontend.supported(str(path)):
            raise ConfigError(
                f"not a readable ONNX model: {path}: it does not begin like one (truncated, or another format?)"
            )
        return core.read_model(str(path))
    except (RuntimeError, TypeError) as error:
        raise ConfigError(
            f"not a readable {kind} model: {path}: {_reason(error)} (truncated, or another format?)"
        ) from error


def _check_precision(core: Any, devices: tuple[str, ...], config: OpenVinoConfig, model: Any, path: Path) -> None:
    quantized = any(node.get_type_name() in QUANTIZERS for node in model.get_ops())
    if quantized and config.precision != "int8":
        raise ConfigError(
            f"precision: {path.name} is quantised and computes in int8: set precision: int8, or take another"
        )
    if config.precision == "int8" and not quantized:
        raise ConfigError(f"precision: int8 needs a model that is quantised (NNCF, QDQ), which {path.name} is not")
    for reason in filter(None, (_lacks(core, device, config.precision) for device in devices)):
        raise ConfigError(f"precision: {reason}")


def _compile(runtime: Any, core: Any, model: Any, devices: tuple[str, ...], config: OpenVinoConfig, path: Path) -> Any:
    options: dict[str, Any] = {"PERFORMANCE_HINT": config.performance.upper(), "EXECUTION_MODE_HINT": "PERFORMANCE"}
    options["INFERENCE_PRECISION_HINT"] = HINTS[config.precision]
    if config.precision == "f32":
        options["EXECUTION_MODE_HINT"] = "ACCURACY"  # no rounding of activations for compressed weights either
    if config.cache:
        options["CACHE_DIR"] = str(cache_folder("openvino") / config.precision)
    auto = config.device.upper().startswith(AUTO)
    if auto and "CPU" in devices:
        options["DEVICE_PROPERTIES"] = {"CPU": {"INFERENCE_NUM_THREADS": threads_for(config.threads)}}
    elif devices == ("CPU",):
        options["INFERENCE_NUM_THREADS"] = threads_for(config.threads)
    target = f"{AUTO}:{','.join(devices)}" if auto else devices[0]
    try:
        return core.compile_model(model, target, options)
    except RuntimeError as error:
        raise ConfigError(
            f"openvino {runtime.__version__.partition('-')[0]} cannot run {path} on {target}: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    """OpenVINO's message in one line, less the places in its source that it passed."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [
        line for line in lines if line and not line.startswith(("Exception from", "Check '", "FrontEnd API failed"))
    ]
    return " ".join(kept) or " ".join(str(error).split())


def _spec(path: Path, port: Any) -> TensorSpec:
    name = min(port.get_names(), default=port.get_node().get_friendly_name())
    try:
        dtype = np.dtype(port.get_element_type().to_dtype())
    except RuntimeError as error:
        raise ConfigError(f"{path}: {name} is a {port.get_element_type()}, expected a tensor of numbers") from error
    shape = port.get_partial_shape()
    sizes = shape if shape.rank.is_static else ()
    return TensorSpec(name, tuple(n.get_length() if n.is_static else -1 for n in sizes), dtype)


def _metadata(model: Any, path: Path) -> dict[str, str]:
    """What the ONNX file or the IR carries, and what Ultralytics' export writes beside an IR."""
    info = model.get_rt_info()
    found = {key: str(value.value) for key, value in info["framework"].items()} if "framework" in info else {}
    beside = path.with_name("metadata.yaml")
    if path.suffix.lower() == ".xml" and beside.is_file():
        try:
            values = yaml.safe_load(beside.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{beside}: not readable: {' '.join(str(error).split())}") from error
        if not isinstance(values, Mapping):
            raise ConfigError(f"{beside}: expected a mapping of keys, got {type(values).__name__}")
        found.update({str(key): str(value) for key, value in values.items()})
    return found
