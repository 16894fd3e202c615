# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A float32 ONNX model as float16 inside: TensorRT takes precision from the file, not from a switch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seg_perception.options import ConfigError
from seg_perception.plugins import require

CONVERTER = "onnxruntime.transformers.float16"


def converter() -> str:
    """The converter and its version, for the key of what was made with it."""
    return f"{CONVERTER} {require('onnxruntime', 'tensorrt').__version__}"


def convert_to_half(source: Path, target: Path) -> None:
    """Writes `source` with float16 arithmetic to `target`; inputs and outputs stay float32.

    Raises ConfigError: a model that cannot be converted; PluginError without onnx or onnxruntime.
    """
    onnx = require("onnx", "tensorrt")
    runtime = require("onnxruntime", "tensorrt")
    model = _load(onnx, source)
    try:
        converted = require(CONVERTER, "tensorrt").convert_float_to_float16(model, keep_io_types=True)
        _drop_repeated_casts(converted.graph)
        data = converted.SerializeToString()
        runtime.InferenceSession(data, _quiet(runtime))  # loads = every type in it fits
    except Exception as error:  # whatever a graph that it does not know makes the converter raise
        raise ConfigError(
            f"precision: {source.name} cannot be converted to float16 ({_line(error)}): export it as float16, "
            "or use precision: model"
        ) from error
    target.write_bytes(data)


def _load(onnx: Any, source: Path) -> Any:
    unreadable = require("google.protobuf.message", "tensorrt").DecodeError  # comes with onnx
    try:
        return onnx.load(str(source))
    except (unreadable, ValueError) as error:
        raise ConfigError(f"not a readable ONNX model: {source}: {_line(error)} (truncated?)") from error


def _quiet(runtime: Any) -> Any:
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return options


def _drop_repeated_casts(graph: Any) -> None:
    """The converter casts a value once per consumer, and may give two casts of one value one name: keeps the first."""
    seen = set()
    for node in list(graph.node):
        if node.op_type != "Cast":
            continue
        what = (node.input[0], node.output[0], node.attribute[0].i)
        if what in seen:
            graph.node.remove(node)
        seen.add(what)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."
