# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Does an engine compute what ONNX Runtime computes on the CPU? Some do not, and say nothing.

Known: float32 engines of TensorRT 11.1 with DETR-style networks (NVIDIA/TensorRT issue 4813).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg_perception.backends.trt.profiles import Range
from seg_perception.options import ConfigError
from seg_perception.plugins import TensorSpec, require

TINY = 1e-6
Run = Callable[[Mapping[str, NDArray]], dict[str, NDArray]]


@dataclass(frozen=True)
class Agreement:
    """How far an output is from the reference: RMS of the difference over the spread (RMS about the mean) of the
    reference. Both are sorted first, since two values that are nearly equal may change places in a top-k."""

    output: str
    difference: float


def reference_inputs(specs: Sequence[TensorSpec], ranges: Mapping[str, Range], given: str = "") -> dict[str, NDArray]:
    """What the engine is tried on: arrays by name from the .npz file `given`, for the others a smooth pattern of 0..1
    (floats) or ones. Raises ConfigError for a file that cannot be read or does not fit."""
    arrays = _from_file(given) if given else {}
    inputs = {}
    for spec in specs:
        shape = ranges[spec.name].usual if spec.name in ranges else spec.shape
        array = arrays.get(spec.name)
        if array is None:
            array = _pattern(shape) if spec.dtype.kind == "f" else np.ones(shape)
        if not spec.fits(array.shape):
            raise ConfigError(f"reference: {spec.name} in {given}: expected {spec.shape}, got {array.shape}")
        inputs[spec.name] = np.ascontiguousarray(array, spec.dtype)
    return inputs


def verify(run: Run, model: Path, inputs: Mapping[str, NDArray], tolerance: float) -> tuple[Agreement, ...]:
    """Compares with ONNX Runtime on the CPU. Raises ConfigError when an output is off by more than `tolerance`."""
    expected = _reference(model, inputs)
    got = run(inputs)
    if got.keys() != expected.keys():
        raise ConfigError(f"{model.name}: the engine has the outputs {sorted(got)}, the model {sorted(expected)}")
    agreements = tuple(Agreement(name, _difference(got[name], expected[name])) for name in expected)
    worst = max(agreements, key=lambda agreement: agreement.difference)
    if not worst.difference <= tolerance:
        raise ConfigError(
            f"the engine of {model.name} disagrees with ONNX Runtime: {worst.output} is off by {worst.difference:.3g} "
            f"of its spread (tolerance {tolerance:g}): not used and not kept. Try another TensorRT version (10.16) or "
            "precision: model; backend.reference can name an .npz with real inputs, backend.tolerance allows more"
        )
    return agreements


def _reference(model: Path, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
    runtime = require("onnxruntime", "tensorrt")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return dict(zip((node.name for node in session.get_outputs()), session.run(None, dict(inputs)), strict=True))


def _difference(got: NDArray, expected: NDArray) -> float:
    if got.shape != expected.shape:
        # As many rows as the data asks for: one more or less near a threshold is no fault, so quantiles are compared.
        if got.ndim != expected.ndim or not got.size or not expected.size:
            return 0.0 if got.size == expected.size else float("inf")
        positions = np.linspace(0, 1, min(got.size, expected.size))
        got, expected = (np.quantile(array.astype(np.float64), positions) for array in (got, expected))
    a, b = (np.sort(array.astype(np.float64), axis=None) for array in (got, expected))
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return float("inf")
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if not a.size:
        return 0.0
    return float(np.sqrt(np.mean((a - b) ** 2)) / max(b.std(), TINY * max(1.0, np.abs(b).max())))


def _pattern(shape: tuple[int, ...]) -> NDArray:
    """Waves of several lengths and a little noise: a network sees edges and areas, and it is the same every time."""
    rng = np.random.default_rng(0)
    pattern = 0.1 * rng.random(shape)
    for axis, n in enumerate(shape):
        along = np.linspace(0, 1, n).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        pattern = pattern + sum(np.sin(2 * np.pi * (k * along + rng.random())) / k for k in (1, 3, 7))
    pattern -= pattern.min()
    return pattern / max(float(pattern.max()), TINY)


def _from_file(name: str) -> dict[str, NDArray]:
    try:
        with np.load(Path(name).expanduser(), allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (OSError, ValueError) as error:
        raise ConfigError(f"reference: {name} cannot be read as .npz: {error}") from error
