# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What goes into a network and comes out of it, checked at the door that every backend has in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from seg_perception.plugins import TensorSpec


def fitted(model: str, specs: Sequence[TensorSpec], inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """`inputs` in the order of `specs`, contiguous; float32 becomes the float16 that a model asks for.

    Raises ValueError, which names `model`, when a name, shape or dtype is not the one of its spec.
    """
    if inputs.keys() != {spec.name for spec in specs}:
        expected = ", ".join(spec.name for spec in specs)
        raise ValueError(f"{model}: expected inputs {expected}, got {', '.join(inputs) or 'none'}")
    return {spec.name: _fitted(model, spec, inputs[spec.name]) for spec in specs}


def single_precision(array: NDArray) -> NDArray:
    """float16 as float32, anything else as it is."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _fitted(model: str, spec: TensorSpec, array: NDArray) -> NDArray:
    if not spec.fits(array.shape):
        raise ValueError(f"{model}: input {spec.name}: expected {spec.shape}, got {array.shape}")
    if array.dtype == np.float32 and spec.dtype == np.float16:
        array = array.astype(np.float16)
    if array.dtype != spec.dtype:
        raise ValueError(f"{model}: input {spec.name}: expected {spec.dtype}, got {array.dtype}")
    return np.ascontiguousarray(array)
