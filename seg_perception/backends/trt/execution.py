# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Runs one engine: binds its memory, queues it on its own stream, and as a CUDA graph once the shapes stay."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.backends.trt.buffers import Buffers
from seg_perception.backends.trt.library import is_rtx, title
from seg_perception.backends.trt.log import collecting_logger, reason
from seg_perception.backends.trt.profiles import Range
from seg_perception.options import ConfigError
from seg_perception.plugins import TensorSpec

logger = logging.getLogger(__name__)

DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


class Execution:
    """An engine and the memory it works in; calls take turns.

    `device` is a CudaDevice. Raises ConfigError: the engine needs
    what is not there (memory, a type that NumPy has not).
    """

    def __init__(self, trt: Any, engine: Any, device: Any, model: str, use_graph: bool = True) -> None:
        self._trt, self._engine, self._device, self._model = trt, engine, device, model
        self._log = collecting_logger(trt)
        self._mark = self._log.mark()
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        is_input = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        specs = {name: _spec(engine, name, model) for name in names}
        self.inputs = tuple(specs[name] for name in names if is_input[name])
        self.outputs = tuple(specs[name] for name in names if not is_input[name])
        self.ranges = {
            spec.name: Range(*(tuple(shape) for shape in engine.get_tensor_profile_shape(spec.name, 0)))
            for spec in self.inputs
            if -1 in spec.shape
        }
        self._on_host = {  # outputs that are sizes; inputs of that kind are refused when the engine is built
            name for name in names if engine.get_tensor_location(name) == trt.TensorLocation.HOST
        }
        self._lock = threading.Lock()
        self._allocators: dict[str, Any] = {}  # of outputs whose size only the data tells
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._calls = 0  # with the shapes as they are
        self._replay: Callable[[], None] | None = None
        with device.current():
            self._context = self._make_context()
            self._buffers = {name: Buffers(spec, device) for name, spec in specs.items()}
        self._use_graph = use_graph and not is_rtx(trt)  # RTX records by itself

    @property
    def recorded(self) -> bool:
        """Whether the next call with the same shapes replays a CUDA graph."""
        return self._replay is not None

    def run(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Every output of inputs that fit their specs. Raises ValueError: outside the shapes the engine was built for;
        RuntimeError: TensorRT refuses or the GPU fails."""
        with self._lock, self._device.current():
            self._mark = self._log.mark()
            shapes = {name: array.shape for name, array in inputs.items()}
            if shapes != self._shapes:
                self._bind(shapes)
            for name, array in inputs.items():
                self._buffers[name].write(array)
                self._buffers[name].upload()
            self._execute()
            for spec in self.outputs:
                self._fetch(spec.name)
            self._device.synchronize()
            return {spec.name: self._buffers[spec.name].read() for spec in self.outputs}

    # -- shapes and memory ---------------------------------------------------------------------------------------------

    def _bind(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes, self._replay, self._calls = {}, None, 0  # none of it holds should something below fail
        context = self._context
        for name, shape in shapes.items():
            if name in self.ranges and not self.ranges[name].holds(shape):
                raise ValueError(
                    f"{self._model}: input {name}: {'x'.join(map(str, shape))} is outside what the engine was built "
                    f"for ({self.ranges[name]}): change backend.shapes or resize"
                )
            self._check(context.set_input_shape(name, shape), f"the shape {shape} of {name}")
            self._buffers[name].fit(shape)
            self._point(name)
        self._infer_shapes()
        self._shapes = dict(shapes)

    def _infer_shapes(self) -> None:
        context = self._context
        missing = context.infer_shapes()
        if missing:
            raise RuntimeError(f"{self._model}: the engine wants more inputs: {', '.join(missing)}")
        for spec in self.outputs:
            shape = tuple(context.get_tensor_shape(spec.name))
            if -1 in shape:
                self._allocate_later(spec.name)
            else:
                self._buffers[spec.name].fit(shape)
                self._point(spec.name)

    def _point(self, name: str) -> None:
        buffers, context = self._buffers[name], self._context
        address = buffers.host_address if name in self._on_host else buffers.device_address
        self._check(context.set_tensor_address(name, address), f"the memory of {name}")

    def _allocate_later(self, name: str) -> None:
        if name not in self._allocators:
            self._allocators[name] = _allocator(self._trt, self._buffers[name])
            context = self._context
            self._check(context.set_output_allocator(name, self._allocators[name]), f"an allocator for {name}")
            if self._use_graph:
                logger.info("%s: the size of %s depends on the data: no CUDA graph", self._model, name)
            self._use_graph = False

    # -- execution -----------------------------------------------------------------------------------------------------

    def _execute(self) -> None:
        self._calls += 1
        if self._replay is not None:
            self._replay()
            return
        self._enqueue()
        if self._use_graph and self._calls == 2:  # the first call of a shape may still allocate
            self._record()

    def _enqueue(self) -> None:
        context = self._context
        self._check(context.execute_async_v3(self._device.handle), "the execution")

    def _record(self) -> None:
        """From now on a graph, if it gives what this call gave; a graph in which something was refused replays
        old results for ever."""
        self._device.synchronize()
        tensors = [self._buffers[spec.name].tensor for spec in self.outputs]
        expected = [tensor.clone() for tensor in tensors]
        try:
            replay = self._device.capture(self._enqueue)
            for tensor in tensors:
                tensor.zero_()
            replay()
            self._device.synchronize()
            if not all(_same(self._device.torch, *pair) for pair in zip(tensors, expected, strict=True)):
                raise RuntimeError("its results differ from those without it")
        except RuntimeError as error:
            logger.warning("%s runs without a CUDA graph: %s", self._model, " ".join(str(error).split()))
            self._use_graph = False
            self._enqueue()
            return
        self._replay = replay

    def _fetch(self, name: str) -> None:
        buffers = self._buffers[name]
        if name in self._allocators:
            self._device.synchronize()  # until then its size is not known
            buffers.fit(self._allocators[name].shape)
        if name not in self._on_host:
            buffers.download()

    def _make_context(self) -> Any:
        context = (
            _rtx_context(self._trt, self._engine) if is_rtx(self._trt) else self._engine.create_execution_context()
        )
        if context is None:
            raise ConfigError(f"{title(self._trt)} cannot prepare {self._model}: {reason(self._log.since(self._mark))}")
        return context

    def _check(self, accepted: bool, what: str) -> None:
        if not accepted:
            raise RuntimeError(
                f"{self._model}: {title(self._trt)} refused {what}: {reason(self._log.since(self._mark))}"
            )


def _spec(engine: Any, name: str, model: str) -> TensorSpec:
    kind = engine.get_tensor_dtype(name).name
    if kind not in DTYPES:
        raise ConfigError(
            f"{model}: {name} is {kind}, expected one of {', '.join(DTYPES)}: export it with float32 or float16"
        )
    return TensorSpec(name, tuple(engine.get_tensor_shape(name)), np.dtype(DTYPES[kind]))


def _rtx_context(rtx: Any, rtx_engine: Any) -> Any:
    """TensorRT-RTX compiles kernels while it runs, so it must record its graphs itself."""
    rtx_config = rtx_engine.create_runtime_config()
    rtx_config.cuda_graph_strategy = rtx.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return rtx_engine.create_execution_context(rtx_config)


def _allocator(trt: Any, buffers: Buffers) -> Any:
    """A `trt.IOutputAllocator` that gives out the buffers' memory and keeps the shape it is told."""

    class Allocator(trt.IOutputAllocator):
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.shape: tuple[int, ...] = ()

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            try:
                buffers.grow(size)
            except RuntimeError as error:  # it must not rise through TensorRT; 0 = there is none
                logger.error("no %d bytes of GPU memory for %s: %s", size, name, error)
                return 0
            return buffers.device_address

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
            return self.reallocate_output_async(name, memory, size, alignment, 0)

        def notify_shape(self, name: str, shape: Any) -> None:
            self.shape = tuple(shape)

    return Allocator()


def _same(torch: Any, result: Any, expected: Any) -> bool:
    if not result.is_floating_point():
        return bool(torch.equal(result, expected))
    scale = float(expected.abs().nan_to_num(0, 0, 0).max()) if expected.numel() else 0.0
    return bool(torch.allclose(result, expected, rtol=1e-2, atol=1e-3 * scale, equal_nan=True))
