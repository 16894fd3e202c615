# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The memory of one input or output, on the host and on the GPU: it grows when it must and is kept otherwise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.plugins import TensorSpec

SPARE = 1.25  # what grows once will grow again


class Buffers:
    """Host and device memory of a tensor. `device` is a CudaDevice."""

    def __init__(self, spec: TensorSpec, device: Any) -> None:
        self.spec = spec
        self.shape: tuple[int, ...] = ()
        self._device = device
        self._torch_dtype = device.torch.from_numpy(np.empty(0, spec.dtype)).dtype
        self._host_bytes = device.host_bytes(0)
        self._device_bytes = device.device_bytes(0)
        self.fit(tuple(0 if n == -1 else n for n in spec.shape))

    def fit(self, shape: tuple[int, ...]) -> None:
        """Makes room for this shape. The addresses stay what they were where there was room already."""
        self.shape = shape
        size = math.prod(shape) * self.spec.dtype.itemsize
        if size > self._host_bytes.numel():
            self._host_bytes = self._device.host_bytes(size)
        if size > self._device_bytes.numel():
            self._device_bytes = self._device.device_bytes(size)
        self._host = self._host_bytes[:size].view(self._torch_dtype).view(shape)
        self._array: NDArray = self._host.numpy()
        self.tensor = self._device_bytes[:size].view(self._torch_dtype).view(shape)

    def grow(self, size: int) -> None:
        """At least `size` bytes on the GPU, with some to spare."""
        if size > self._device_bytes.numel():
            self._device_bytes = self._device.device_bytes(int(size * SPARE))

    @property
    def host_address(self) -> int:
        return int(self._host_bytes.data_ptr())

    @property
    def device_address(self) -> int:
        return int(self._device_bytes.data_ptr())

    def write(self, array: NDArray) -> None:
        """Takes the values over, on the host."""
        np.copyto(self._array, array)

    def upload(self) -> None:
        """Queues the copy to the GPU."""
        self._device.copy(self.tensor, self._host)

    def download(self) -> None:
        """Queues the copy to the host."""
        self._device.copy(self._host, self.tensor)

    def read(self) -> NDArray:
        """The values on the host, as an array of the caller's own; float16 as float32."""
        return self._array.astype(np.float32 if self.spec.dtype == np.float16 else self.spec.dtype)
