# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Shared memory between this process and a model server on the same computer: tensors that are not sent."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Mapping, Sequence
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.plugins import TensorSpec

ALIGNMENT = 64  # bytes
_count = itertools.count()


class SharedTensors:
    """One block of system shared memory for some tensors, known to the server under a name of its own."""

    def __init__(self, layout: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> None:
        self.layout = dict(layout)
        self.offsets: dict[str, int] = {}
        size = 0
        for name, (shape, dtype) in self.layout.items():
            self.offsets[name] = size
            size += -(-_bytes(shape, dtype) // ALIGNMENT) * ALIGNMENT
        self.name = f"seg_perception_{os.getpid()}_{next(_count)}"
        self._block = SharedMemory(self.name, create=True, size=max(size, 1))
        self._end = weakref.finalize(self, _free, self._block)

    def register(self, client: Any) -> None:
        """Tells the server where the block is."""
        client.register_system_shared_memory(self.name, f"/{self._block.name}", self._block.size)

    def place(self, tensor: Any, name: str) -> None:
        """Points an InferInput or InferRequestedOutput at its part of the block."""
        shape, dtype = self.layout[name]
        tensor.set_shared_memory(self.name, _bytes(shape, dtype), self.offsets[name])

    def array(self, name: str) -> NDArray:
        """The tensor as it lies in the block."""
        shape, dtype = self.layout[name]
        array: NDArray = np.ndarray(shape, dtype, self._block.buf, self.offsets[name])
        return array

    def unregister(self, client: Any) -> None:
        """Ends the server's own mapping."""
        client.unregister_system_shared_memory(self.name)

    def close(self) -> None:
        """Frees the block; also happens by itself."""
        self._end()


def _free(block: SharedMemory) -> None:
    block.close()
    block.unlink()


def layout_of(arrays: Mapping[str, NDArray]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of each."""
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


def static_layout(specs: Sequence[TensorSpec]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Of the tensors whose size is known before the network ran."""
    return {spec.name: (spec.shape, spec.dtype) for spec in specs if min(spec.shape, default=1) >= 0}


def _bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
