# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What an ONNX file says of itself, read without its weights and without the package onnx: quickly, however large.

The file is one protobuf message (onnx.proto3: ModelProto); the numbers below are those of its fields.
"""

from __future__ import annotations

import math
import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from seg_perception.options import ConfigError

MODEL = {"ir_version": 1, "producer": 2, "producer_version": 3, "graph": 7, "opset": 8}
GRAPH = {"node": 1, "initializer": 5}
NODE = {"operator": 4, "attribute": 5, "domain": 7}
ATTRIBUTE = {"tensor": 5, "graph": 6, "graphs": 11}
TENSOR = {"dims": 1, "type": 2, "location": 14}
TYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}
TYPES |= {16: "bfloat16", 17: "float8", 18: "float8", 19: "float8", 20: "float8", 21: "uint4", 22: "int4"}
FLOATS = ("float32", "float16", "bfloat16", "float64", "float8")
QUANTISERS = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"}
QUANTISERS |= {"QLinearConv", "QLinearMatMul", "FakeQuantize"}
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
DEEPEST = 16  # graphs within graphs
LONGEST = 1 << 16  # bytes of a name


@dataclass
class OnnxFile:
    """`operators` and the number of nodes of each, subgraphs included; `weights` by type and how many numbers."""

    ir_version: int = 0
    producer: str = ""
    opsets: dict[str, int] = field(default_factory=dict)
    operators: Counter[str] = field(default_factory=Counter)
    weights: Counter[str] = field(default_factory=Counter)
    external: bool = False  # weights in files beside it

    @property
    def quantised(self) -> bool:
        """Whether it computes in integers."""
        return bool(QUANTISERS & self.operators.keys())

    @property
    def precision(self) -> str:
        """What it computes in: int8, or the type of most of its weights."""
        floats = {kind: self.weights[kind] for kind in FLOATS if self.weights[kind]}
        return "int8" if self.quantised else max(floats, key=lambda kind: floats[kind], default="float32")


def read_onnx(path: Path) -> OnnxFile:
    """Raises ConfigError: no such file, or not an ONNX file, or one that ends too early."""
    if not path.is_file():
        raise ConfigError(f"no such model file: {path}")
    if path.stat().st_size == 0:
        raise ConfigError(f"not a readable ONNX model: {path}: it is empty")
    about = OnnxFile()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            _read_model(data, about)
        except (IndexError, ValueError) as error:
            raise ConfigError(f"not a readable ONNX model: {path}: {error} (truncated, or another format?)") from None
    if not about.opsets or not about.ir_version or not about.operators:
        raise ConfigError(f"not a readable ONNX model: {path}: it has no graph (truncated, or another format?)")
    return about


def quantised(path: Path) -> bool:
    """Whether a model file computes in integers: an ONNX file with Q/DQ, an OpenVINO IR with FakeQuantize."""
    if path.suffix.lower() == ".onnx":
        return read_onnx(path).quantised
    return path.suffix.lower() == ".xml" and b'type="FakeQuantize"' in path.read_bytes()


def _read_model(data: mmap.mmap, about: OnnxFile) -> None:
    for number, value, span in fields_of(data, 0, len(data)):
        if number == MODEL["ir_version"]:
            about.ir_version = value
        elif number == MODEL["producer"]:
            about.producer = text_of(data, span)
        elif number == MODEL["producer_version"]:
            about.producer = f"{about.producer} {text_of(data, span)}".strip()
        elif number == MODEL["graph"]:
            _read_graph(data, span, about, 0)
        elif number == MODEL["opset"]:
            parts = {n: (v, s) for n, v, s in fields_of(data, *span)}
            domain = text_of(data, parts[1][1]) if 1 in parts else ""
            about.opsets[domain or "ai.onnx"] = parts[2][0] if 2 in parts else 0


def _read_graph(data: mmap.mmap, span: tuple[int, int], about: OnnxFile, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"graphs within graphs, {depth} deep")
    for number, _, inner in fields_of(data, *span):
        if number == GRAPH["node"]:
            _read_node(data, inner, about, depth)
        elif number == GRAPH["initializer"]:
            _read_tensor(data, inner, about)


def _read_node(data: mmap.mmap, span: tuple[int, int], about: OnnxFile, depth: int) -> None:
    operator, domain = "", ""
    for number, _, inner in fields_of(data, *span):
        if number == NODE["operator"]:
            operator = text_of(data, inner)
        elif number == NODE["domain"]:
            domain = text_of(data, inner)
        elif number == NODE["attribute"]:
            for kind, _, part in fields_of(data, *inner):
                if kind in (ATTRIBUTE["graph"], ATTRIBUTE["graphs"]):
                    _read_graph(data, part, about, depth + 1)
                elif kind == ATTRIBUTE["tensor"]:
                    _read_tensor(data, part, about)
    about.operators[operator if domain in ("", "ai.onnx") else f"{domain}.{operator}"] += 1


def _read_tensor(data: mmap.mmap, span: tuple[int, int], about: OnnxFile) -> None:
    sizes: list[int] = []
    kind = 0
    for number, value, inner in fields_of(data, *span):
        if number == TENSOR["dims"]:
            sizes += list(_varints(data, inner)) if inner[1] else [value]
        elif number == TENSOR["type"]:
            kind = value
        elif number == TENSOR["location"]:
            about.external = about.external or value == 1
    about.weights[TYPES.get(kind, f"type {kind}")] += math.prod(sizes)


def fields_of(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """(number, value of a varint, where the bytes of a longer one are) of each field of the message in start..stop."""
    at = start
    while at < stop:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        value, span = 0, (0, 0)
        if wire == VARINT:
            value, at = _varint(data, at)
        elif wire == BYTES:
            length, at = _varint(data, at)
            span = (at, at + length)
            at += length
        elif wire in (FIXED64, FIXED32):
            at += 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"byte {at} begins no field")
        if number == 0 or at > stop:
            raise ValueError(f"it ends within a field, at byte {min(at, len(data))}" if at > stop else "field 0")
        yield number, value, span


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError(f"it ends within a number, at byte {at}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _varints(data: mmap.mmap, span: tuple[int, int]) -> Iterator[int]:
    at = span[0]
    while at < span[1]:
        value, at = _varint(data, at)
        yield value


def text_of(data: mmap.mmap, span: tuple[int, int]) -> str:
    if span[1] - span[0] > LONGEST:
        raise ValueError(f"a name of {span[1] - span[0]} bytes")
    return data[slice(*span)].decode()
