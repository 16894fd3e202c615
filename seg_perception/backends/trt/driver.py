# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the CUDA driver says, asked before TensorRT is: without a driver or GPU it ends the process in a crash."""

from __future__ import annotations

import ctypes
from dataclasses import asdict, dataclass
from typing import Any

from seg_perception.options import ConfigError

NO_GPU = 100  # CUDA_ERROR_NO_DEVICE
ATTRIBUTES = {"processors": 16, "cc_major": 75, "cc_minor": 76}  # CUdevice_attribute
GIB = 1 << 30


@dataclass(frozen=True)
class Gpu:
    """One GPU as the driver describes it. `cuda` is the newest CUDA the driver can run, e.g. (13, 0)."""

    index: int
    name: str
    capability: tuple[int, int]
    processors: int
    memory: int  # bytes
    cuda: tuple[int, int]

    @property
    def sm(self) -> str:
        return f"{self.capability[0]}.{self.capability[1]}"

    def fields(self) -> dict[str, Any]:
        """What an engine depends on; memory to the next GiB, since boards of one kind differ in some MB."""
        kept = asdict(self) | {"capability": self.sm, "memory_gib": round(self.memory / GIB), "cuda": self.cuda[0]}
        return {key: kept[key] for key in ("name", "capability", "processors", "memory_gib", "cuda")}

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.sm})"


def probe(index: int = 0, library: str = "libcuda.so.1") -> Gpu:
    """GPU number `index`. Raises ConfigError: no driver, no GPU, not so many of them."""
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        raise ConfigError(
            f"no NVIDIA driver ({library} is not there): TensorRT needs one. In Docker use --gpus all (Jetson: "
            "--runtime nvidia); without a GPU use the backend onnxruntime or openvino"
        ) from None
    code = cuda.cuInit(0)
    count = ctypes.c_int()
    if code == 0:
        code = cuda.cuDeviceGetCount(ctypes.byref(count))
    if code not in (0, NO_GPU):
        raise ConfigError(
            f"the NVIDIA driver does not work here (cuInit says {code}: {_error_name(cuda, code)}). In Docker use "
            "--gpus all; after an update of the driver restart the machine"
        )
    if code == NO_GPU or count.value == 0:
        raise ConfigError("the NVIDIA driver sees no GPU: in Docker use --gpus all; check CUDA_VISIBLE_DEVICES")
    if index >= count.value:
        raise ConfigError(f"device: expected 0 to {count.value - 1}, got {index}: so many GPUs are visible")
    return _describe(cuda, index)


def check_fits(gpu: Gpu, needed: int, title: str) -> None:
    """Raises ConfigError when the driver is older than CUDA `needed`, the one `title` was built for (0 = any)."""
    if gpu.cuda[0] < needed:
        raise ConfigError(
            f"the driver runs CUDA {gpu.cuda[0]}.{gpu.cuda[1]}, but this {title} needs CUDA {needed}: update the "
            f"driver or install TensorRT for CUDA {gpu.cuda[0]} (tensorrt-cu{gpu.cuda[0]})"
        )


def _describe(cuda: ctypes.CDLL, index: int) -> Gpu:
    device, version, value = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    _checked(cuda, cuda.cuDeviceGet(ctypes.byref(device), index))
    _checked(cuda, cuda.cuDriverGetVersion(ctypes.byref(version)))
    _checked(cuda, cuda.cuDeviceGetName(name, len(name), device))
    _checked(cuda, cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device))
    found = {}
    for key, attribute in ATTRIBUTES.items():
        _checked(cuda, cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device))
        found[key] = value.value
    return Gpu(
        index=index,
        name=name.value.decode(),
        capability=(found["cc_major"], found["cc_minor"]),
        processors=found["processors"],
        memory=memory.value,
        cuda=(version.value // 1000, version.value % 1000 // 10),
    )


def _checked(cuda: ctypes.CDLL, code: int) -> None:
    if code:
        raise ConfigError(f"the NVIDIA driver does not answer ({code}: {_error_name(cuda, code)})")


def _error_name(cuda: ctypes.CDLL, code: int) -> str:
    text = ctypes.c_char_p()
    cuda.cuGetErrorName(code, ctypes.byref(text))
    return (text.value or b"unknown").decode()
