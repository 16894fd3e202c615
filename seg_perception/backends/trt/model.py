# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""An ONNX file as far as the backend must know it: what it is made of and what it says of itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seg_perception.options import ConfigError
from seg_perception.plugins import require

ENGINE_SUFFIXES = (".engine", ".plan", ".trt")


@dataclass(frozen=True)
class ModelFile:
    """`sha256` covers the weights beside the file too."""

    path: Path
    sha256: str
    metadata: Mapping[str, str]


def read_model(path: Path) -> ModelFile:
    """Raises ConfigError: an engine, or no ONNX file; PluginError without onnx."""
    if path.suffix in ENGINE_SUFFIXES:
        raise ConfigError(
            f"{path.name} is an engine, which belongs to one GPU and one version of TensorRT: give the ONNX file; the "
            "engine is built from it and kept"
        )
    onnx = require("onnx", "tensorrt")
    unreadable = require("google.protobuf.message", "tensorrt").DecodeError  # comes with onnx
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (unreadable, ValueError) as error:
        raise ConfigError(f"not a readable ONNX model: {path}: {' '.join(str(error).split())} (truncated?)") from error
    if not model.graph.output:
        raise ConfigError(f"not a readable ONNX model: {path}: it has no outputs (truncated, or another format?)")
    digest = hashlib.sha256()
    for file in (path, *sorted(set(_weights(path, model.graph)))):
        if not file.is_file():
            raise ConfigError(f"{path.name} keeps its weights in {file.name}, which is not beside it: {file}")
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return ModelFile(path, digest.hexdigest(), {entry.key: entry.value for entry in model.metadata_props})


def _weights(path: Path, graph: Any) -> Iterator[Path]:
    for tensor in graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                yield path.parent / entry.value
