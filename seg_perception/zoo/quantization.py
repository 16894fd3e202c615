# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A network in int8: for OpenVINO by NNCF, for ONNX Runtime and TensorRT as Q/DQ by ONNX Runtime's quantiser."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import re
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from seg_perception.backends.openvino import load_openvino, the_core
from seg_perception.backends.progress import Progress, tell
from seg_perception.options import ConfigError
from seg_perception.plugins import PluginError, require
from seg_perception.zoo.annotation import copy_sidecar
from seg_perception.zoo.onnx_file import quantised
from seg_perception.zoo.samples import Samples
from seg_perception.zoo.subject import Subject

SUFFIX = {"openvino": ".xml", "qdq": ".onnx"}
WORK = {"Conv", "ConvTranspose", "MatMul", "Gemm"}  # TensorRT fuses the rest to them
TELEMETRY = "openvino_telemetry"


def quantise(
    subject: Subject, samples: Samples, target: Path, keep: Sequence[str] = (), transformer: bool = False
) -> None:
    """Writes the subject's network in int8 to `target`, whose ending says for whom: .xml OpenVINO, .onnx Q/DQ.

    `samples` calibrate it. What is in `keep` stays as it is: operator types (Sigmoid), and patterns of node names, that
    have a slash (/model.23/.*). `transformer` is for networks of attention. Nothing is left of what was not finished.
    Raises ConfigError, PluginError.
    """
    if subject.path.suffix.lower() != ".onnx":
        raise ConfigError(f"{subject.path.name}: expected an ONNX file, got '{subject.path.suffix}'")
    if quantised(subject.path):
        raise ConfigError(f"{subject.path.name}: it is quantised already")
    if target.suffix not in SUFFIX.values():
        raise ConfigError(f"{target}: expected {' or '.join(SUFFIX.values())}, got '{target.suffix}'")
    feeds = []
    for k, (name, frame) in enumerate(samples):
        tell(Progress(f"reading {name}", k / len(samples)))
        feeds.append(subject.inputs(frame))
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".quantise-") as folder:
        part = Path(folder) / target.name
        make = _by_nncf if target.suffix == ".xml" else _by_onnxruntime
        make(subject.path, part, feeds, keep, transformer)
        for file in sorted(part.parent.iterdir(), key=lambda file: file.suffix == target.suffix):  # the .xml last
            if file.stem == target.stem:
                file.replace(target.with_name(file.name))
    copy_sidecar(subject.path, target, f"in int8, calibrated on {len(feeds)} images")


def _by_nncf(
    source: Path, target: Path, feeds: Sequence[Mapping[str, NDArray]], keep: Sequence[str], transformer: bool
) -> None:
    nncf = _nncf()
    openvino = load_openvino()
    nncf.set_log_level(logging.ERROR)
    model = the_core().read_model(str(source))
    count = iter(range(1, sys.maxsize))

    def told(feed: Mapping[str, NDArray]) -> Mapping[str, NDArray]:
        done = (next(count) - 1) / len(feeds)
        tell(Progress("calibrating" if done < 1 else "correcting", min(done, 1.0)))
        return feed

    types, patterns = _kept(keep)
    _check_kept(source, types, {node.get_type_name() for node in model.get_ops()})
    with contextlib.redirect_stdout(io.StringIO()):  # it draws bars of its own
        quantised_model = nncf.quantize(
            model,
            nncf.Dataset(list(feeds), told),
            subset_size=len(feeds),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(types=types, patterns=patterns) if keep else None,
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        )
    openvino.save_model(quantised_model, str(target), compress_to_fp16=False)


def _kept(keep: Sequence[str]) -> tuple[list[str], list[str]]:
    """Operator types, patterns of node names."""
    return [text for text in keep if "/" not in text], [text for text in keep if "/" in text]


def _check_kept(source: Path, types: Sequence[str], known: Collection[str]) -> None:
    unknown = sorted(set(types) - set(known))
    if unknown:
        raise ConfigError(
            f"keep: {source.name} has no operators {', '.join(unknown)} (it has {', '.join(sorted(known))})"
        )


def _nncf() -> Any:
    """The package, imported without openvino_telemetry, which would report it over the network."""
    load_openvino()
    blocked = TELEMETRY not in sys.modules
    if blocked:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # NNCF is prepared for its absence
    try:
        return importlib.import_module("nncf")
    except ImportError as error:
        raise PluginError(f"nncf is not usable ({error}): pip install 'seg_perception[quantize]'") from error
    finally:
        if blocked:
            del sys.modules[TELEMETRY]


def _by_onnxruntime(
    source: Path, target: Path, feeds: Sequence[Mapping[str, NDArray]], keep: Sequence[str], transformer: bool
) -> None:
    onnx = require("onnx", "quantize")
    tools = require("onnxruntime.quantization", "quantize")
    shapes = require("onnxruntime.quantization.shape_inference", "quantize")
    types, patterns = _kept(keep)
    nodes = onnx.load(str(source), load_external_data=False).graph.node
    _check_kept(source, types, {node.op_type for node in nodes})
    ready = target.with_name("prepared.onnx")
    tell(Progress("preparing the graph"))
    shapes.quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
    tools.quantize_static(
        str(ready),
        str(target),
        _reader(tools, feeds),
        quant_format=tools.QuantFormat.QDQ,
        op_types_to_quantize=sorted(WORK - set(types)),
        nodes_to_exclude=[node.name for node in nodes if any(re.search(pattern, node.name) for pattern in patterns)],
        per_channel=True,
        activation_type=tools.QuantType.QInt8,
        weight_type=tools.QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},  # what TensorRT takes
    )


def _reader(tools: Any, feeds: Sequence[Mapping[str, NDArray]]) -> Any:
    class Reader(tools.CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds: Iterator[tuple[int, Mapping[str, NDArray]]] = iter(enumerate(feeds))

        def get_next(self) -> Mapping[str, NDArray] | None:
            k, feed = next(self._feeds, (0, None))
            if feed is not None:
                tell(Progress("calibrating", k / len(feeds)))
            return feed

    return Reader()
