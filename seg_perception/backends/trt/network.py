# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""An ONNX file as TensorRT's network: parsed strongly typed, or refused with the nodes that it cannot run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seg_perception.backends.trt.library import title
from seg_perception.backends.trt.log import collecting_logger, reason
from seg_perception.options import ConfigError

SHOWN = 5  # nodes in an error line
SELECTING = {"NonMaxSuppression", "NonZero", "EfficientNMS_TRT", "BatchedNMS_TRT"}  # sizes that depend on the data
EXPORT_RAW = "export the raw heads, without NMS in the graph"


@dataclass(frozen=True)
class Unsupported:
    """A node that TensorRT cannot run."""

    node: str
    operator: str
    why: str

    def __str__(self) -> str:
        return f"node '{self.node}' (op {self.operator})" if self.operator else "the model"


class Parsed:
    """Network, and all that must live as long as it does: TensorRT's bindings do not keep it themselves."""

    def __init__(self, trt: Any, model: Path) -> None:
        logger = collecting_logger(trt)
        mark = logger.mark()
        self.builder = make_builder(trt, logger)
        self.network = self.builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self.parser = parser = trt.OnnxParser(self.network, logger)
        if not parser.parse_from_file(str(model)) or not self.network.num_outputs:
            raise ConfigError(_refusal(trt, model, _errors(parser), logger.since(mark)))

    def inputs(self) -> list[Any]:
        """The inputs, as trt.ITensor."""
        network = self.network
        return [network.get_input(i) for i in range(network.num_inputs)]

    def precisions(self, trt: Any) -> dict[str, int]:
        """How many layers put out each floating point type, e.g. {'FLOAT': 12, 'HALF': 300}."""
        counts: dict[str, int] = {}
        network = self.network
        for i in range(network.num_layers):
            layer = network.get_layer(i)
            if layer.num_outputs:
                tensor = layer.get_output(0)
                if tensor.dtype in (trt.DataType.FLOAT, trt.DataType.HALF, trt.DataType.BF16):
                    counts[tensor.dtype.name] = counts.get(tensor.dtype.name, 0) + 1
        return counts


def make_builder(trt: Any, logger: Any) -> Any:
    """A trt.Builder. Raises ConfigError; without a driver only TensorRT-RTX may be asked at all (see driver.py)."""
    mark = logger.mark()
    try:
        return trt.Builder(logger)
    except TypeError as error:  # what the bindings make of a NULL
        raise ConfigError(f"{title(trt)} cannot build: {reason(logger.since(mark))}") from error


def unsupported_nodes(trt: Any, model: Path) -> tuple[Unsupported, ...]:
    """Every node of an ONNX file that TensorRT cannot run; empty = all of it is supported. Builds nothing."""
    logger = collecting_logger(trt)
    mark = logger.mark()
    builder = make_builder(trt, logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)  # a fresh one: a parser that has parsed refuses to be asked
    data = model.read_bytes()
    supported = parser.supports_model_v2(data, str(model))
    found = () if supported else tuple(_errors(parser)) or (Unsupported("", "", reason(logger.since(mark))),)
    del parser, network, builder  # in this order: a parser looks at its network to the end
    return found


def _errors(parser: Any) -> list[Unsupported]:
    found: dict[str, Unsupported] = {}
    for i in range(parser.num_errors):
        error = parser.get_error(i)
        why = " ".join(error.desc().split())
        found.setdefault(error.node_name(), Unsupported(error.node_name(), error.node_operator(), why))
    return list(found.values())


def _refusal(trt: Any, model: Path, errors: Sequence[Unsupported], said: Sequence[str]) -> str:
    named = [node for node in errors if node.operator]
    if not named:
        why = errors[0].why if errors else reason(said)
        return f"{title(trt)} cannot read {model}: {why} (truncated, or another format?)"
    others = f"; also {', '.join(map(str, named[1:SHOWN]))}" if len(named) > 1 else ""
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    hint = EXPORT_RAW if any(node.operator in SELECTING for node in named) else "export the model without it"
    cause = reason([named[0].why])
    what = f"{named[0]}: {cause}{others}{more}"
    return f"{title(trt)} cannot run {model.name}: {what}; {hint}, or use the backend onnxruntime"
