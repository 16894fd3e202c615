# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A STAND-IN for TensorRT and a GPU, for tests of our own code only: it says nothing about TensorRT or any GPU.

`StandIn` has the part of TensorRT's module that the backend uses; its engines run the ONNX file in ONNX Runtime.
`StandInDevice` has "GPU memory" on the CPU and a queue for a stream: nothing queued happens before `synchronize`, so
that code which reads too early, or forgets to wait, fails here as it would there.
"""

import ctypes
import enum
import json
import math
from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

STREAM = 77
HEADER = b"STAND-IN "
GPU_FIELDS = {"name": "Stand-in", "capability": (8, 9), "processors": 4, "memory": 8 << 30, "cuda": (13, 0)}


class StandInDevice:
    """In the place of a CudaDevice."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.handle = STREAM
        self.allocations = 0
        self.captures = 0
        self.replays = 0
        self.capture_error = ""  # raised by the next captures
        self.stale_graph = False  # captures record nothing
        self._queue: list[Callable[[], None]] = []
        self._inside = 0

    @contextmanager
    def current(self):
        self._inside += 1
        yield
        self._inside -= 1

    def device_bytes(self, count):
        return self._allocate(count)

    def host_bytes(self, count):
        return self._allocate(count)

    def copy(self, target, source):
        self.enqueue(lambda: target.copy_(source))

    def enqueue(self, work):
        assert self._inside, "work was queued outside of the device's stream"
        self._queue.append(work)

    def synchronize(self):
        queue, self._queue = self._queue, []
        for work in queue:
            work()

    def capture(self, work):
        self.captures += 1
        assert not self._queue, "a capture must not begin while work is queued"
        work()
        recorded, self._queue = self._queue, []
        if self.capture_error:
            raise RuntimeError(self.capture_error)

        def replay():
            self.replays += 1
            self._queue.extend([] if self.stale_graph else recorded)

        return replay

    def _allocate(self, count):
        self.allocations += 1
        return self.torch.full((max(count, 1),), 0xAB, dtype=self.torch.uint8)  # nobody may count on zeros


class StandIn:
    """In the place of the module. `faults` names what goes wrong, see `fault`."""

    __name__ = "tensorrt"

    def __init__(self, device: StandInDevice, version: str = "10.16.0.0") -> None:
        self.__version__ = version
        self.device = device
        self.faults: set[str] = set()
        self.data_dependent: set[str] = set()  # outputs whose size only the data tells
        self.unsupported: set[str] = set()  # operators
        self.builds = 0
        self.timings_given: list[bytes] = []
        self.while_building: Callable[[], None] = lambda: None
        self.executions = 0
        self.DataType = enum.Enum("DataType", "FLOAT HALF INT8 INT32 BOOL UINT8 FP8 BF16 INT64")
        self.TensorIOMode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")
        self.TensorLocation = enum.Enum("TensorLocation", "DEVICE HOST")
        self.BuilderFlag = enum.Enum("BuilderFlag", "TF32 GPU_FALLBACK")
        self.DeviceType = enum.Enum("DeviceType", "GPU DLA")
        self.dla_cores = 0
        self.libraries: list[str] = []  # of plugins
        self.configs: list[Any] = []  # of each build
        self.runtimes: list[Any] = []
        self.own_plugins = False
        self.tf32: list[bool] = []  # of each build
        self.MemoryPoolType = enum.Enum("MemoryPoolType", "WORKSPACE")
        self.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})
        self.ILogger, self.IProgressMonitor, self.IOutputAllocator = _base(), _base(), _base()
        self.Builder = lambda logger: _Builder(self, self._first(logger))
        self.OnnxParser = lambda network, logger: _Parser(self, network)
        self.Runtime = lambda logger: _Runtime(self, self._first(logger))
        self._logger: Any = None

    def init_libnvinfer_plugins(self, logger: Any, namespace: str) -> bool:
        self.own_plugins = namespace == ""
        return True

    def get_plugin_registry(self) -> Any:
        def load_library(path: str) -> Any:
            if self.fault("library"):
                _complain(self._logger, "Error Code 1: cannot open shared object file")
                return None
            self.libraries.append(path)
            return object()

        return SimpleNamespace(load_library=load_library)

    def _first(self, logger: Any) -> Any:
        """TensorRT knows only the first logger it was given."""
        self._logger = self._logger or logger
        return self._logger

    def fault(self, name: str) -> bool:
        """Whether `name` is to go wrong."""
        return name in self.faults

    def kind(self, dtype: Any) -> Any:
        names = {"float32": "FLOAT", "float16": "HALF", "bool": "BOOL"}
        return self.DataType[names.get(str(dtype), str(dtype).upper())]


def _base() -> type:
    return type("Base", (), {})


def _complain(logger, message, level="ERROR"):
    logger.log(SimpleNamespace(name=level), message)


# -- building ----------------------------------------------------------------------------------------------------------


class _Network:
    def __init__(self, trt):
        self._trt = trt
        self.data = b""
        self.num_inputs = self.num_outputs = self.num_layers = 0

    def load(self, path):
        import onnx

        self.data = path.read_bytes()
        model = onnx.load_from_string(self.data)
        self.nodes = list(model.graph.node)
        self.inputs = []
        for value in model.graph.input:
            tensor = value.type.tensor_type
            shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            kind = self._trt.kind(dtype)
            self.inputs.append(SimpleNamespace(name=value.name, shape=shape, dtype=kind, is_shape_tensor=False))
        self.weights = {onnx.helper.tensor_dtype_to_np_dtype(w.data_type) for w in model.graph.initializer}
        self.num_inputs, self.num_outputs, self.num_layers = len(self.inputs), len(model.graph.output), len(self.nodes)

    def get_input(self, index):
        return self.inputs[index]

    def get_layer(self, index):
        kind = self._trt.DataType.HALF if np.dtype("float16") in self.weights else self._trt.DataType.FLOAT
        return SimpleNamespace(num_outputs=1, get_output=lambda _: SimpleNamespace(dtype=kind))


class _Parser:
    def __init__(self, trt, network):
        self._trt, self._network = trt, network
        self._failed = []

    def parse_from_file(self, path):
        import pathlib

        self._network.load(pathlib.Path(path))
        self._failed = [node for node in self._network.nodes if node.op_type in self._trt.unsupported]
        return not self._failed

    @property
    def num_errors(self):
        return len(self._failed)

    def get_error(self, index):
        node = self._failed[index]
        return SimpleNamespace(
            node_name=lambda: node.name, node_operator=lambda: node.op_type, desc=lambda: "Plugin not found"
        )


class _Builder:
    def __init__(self, trt, logger):
        self._trt, self._logger = trt, logger
        self.num_DLA_cores = trt.dla_cores
        if trt.fault("no builder"):
            _complain(logger, "Error Code 6: Unable to load library: libnvinfer_builder_resource_sm89.so.10.16.0")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags):
        assert flags == 1 << self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return _Network(self._trt)

    def create_builder_config(self):
        return _BuilderConfig(self._trt)

    def create_optimization_profile(self):
        return _Profile()

    def build_serialized_network(self, network, config):
        self._trt.builds += 1
        self._trt.tf32.append(config.tf32)
        self._trt.configs.append(config)
        monitor = config.progress_monitor
        monitor.phase_start("Building engine", None, 4)
        for step in range(4):
            if not monitor.step_complete("Building engine", step):
                return None
        monitor.phase_finish("Building engine")
        if self._trt.fault("build"):
            _complain(self._logger, "Error Code 2: OutOfMemory (Requested size was 123 bytes.)")
            return None
        ranges = config.profiles[0].ranges if config.profiles else {}
        config.timing_cache.measured.add(self._trt.builds)
        self._trt.while_building()
        return HEADER + json.dumps(ranges).encode() + b"\n" + network.data


class _Profile:
    def __init__(self):
        self.ranges = {}

    def set_shape(self, name, low, usual, high):
        self.ranges[name] = [low, usual, high]


class _BuilderConfig:
    def __init__(self, trt):
        self._trt = trt
        self.profiles = []
        self.pools = {}
        self.tf32 = True
        self.flags: set[Any] = set()

    def clear_flag(self, flag):
        assert flag is self._trt.BuilderFlag.TF32
        self.tf32 = False

    def set_flag(self, flag):
        self.flags.add(flag)

    def set_memory_pool_limit(self, pool, size):
        self.pools[pool] = size

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, data):
        self._trt.timings_given.append(data)
        return _TimingCache(data)

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        if cache.foreign:
            return False
        self.timing_cache = cache
        return True

    def get_timing_cache(self):
        return self.timing_cache


class _TimingCache:
    """Measurements are numbers here: `timings` and a byte for each build that made one."""

    def __init__(self, data):
        self.foreign = bool(data) and not data.startswith(b"timings")
        self.measured = set() if self.foreign else set(data[len("timings") :])

    def combine(self, other, ignore_mismatch):
        assert not ignore_mismatch
        self.measured |= other.measured
        return not other.foreign

    def serialize(self):
        return b"timings" + bytes(sorted(self.measured))


# -- running -----------------------------------------------------------------------------------------------------------


class _Runtime:
    def __init__(self, trt, logger):
        self._trt, self._logger = trt, logger
        if trt.fault("no runtime"):
            _complain(logger, "CUDA driver version is insufficient for CUDA runtime version")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.DLA_core = -1
        trt.runtimes.append(self)

    def deserialize_cuda_engine(self, plan):
        if self._trt.fault("deserialize") or not plan.startswith(HEADER):
            _complain(
                self._logger, "Error Code 1: Serialization assertion header.magicTag == kEXPECTED_MAGIC_TAG failed"
            )
            return None
        return _Engine(self._trt, plan, self._logger)


class _Engine:
    def __init__(self, trt, plan, logger):
        self._trt, self._logger = trt, logger
        header, _, data = plan[len(HEADER) :].partition(b"\n")
        self.ranges = json.loads(header)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(data, options)
        self.inputs = {node.name: node for node in self.session.get_inputs()}
        self.outputs = {node.name: node for node in self.session.get_outputs()}
        self._nodes = {**self.inputs, **self.outputs}
        self.num_io_tensors = len(self._nodes)

    def get_tensor_name(self, index):
        return list(self._nodes)[index]

    def get_tensor_mode(self, name):
        return self._trt.TensorIOMode.INPUT if name in self.inputs else self._trt.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        kind = self._nodes[name].type.removeprefix("tensor(").removesuffix(")")
        return (
            self._trt.kind({"float": "float32"}.get(kind, kind))
            if not self._trt.fault("fp8")
            else self._trt.DataType.FP8
        )

    def get_tensor_shape(self, name):
        return tuple(n if isinstance(n, int) else -1 for n in self._nodes[name].shape)

    def get_tensor_profile_shape(self, name, profile):
        return self.ranges[name]

    def get_tensor_location(self, name):
        return self._trt.TensorLocation.DEVICE

    def create_execution_context(self):
        if self._trt.fault("context"):
            _complain(self._logger, "Error Code 1: Cuda Runtime (out of memory)")
            return None
        return _Context(self._trt, self, self._logger)


class _Context:
    def __init__(self, trt, engine, logger):
        self._trt, self._engine, self._logger = trt, engine, logger
        self._shapes, self._addresses, self._allocators, self._sizes = {}, {}, {}, {}

    def _refuse(self, what):
        if self._trt.fault(what):
            _complain(self._logger, f"Error Code 3: API Usage Error ({what} was told to fail)")
            return True
        return False

    def set_input_shape(self, name, shape):
        if name in self._engine.ranges:
            low, _, high = self._engine.ranges[name]
            assert all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True)), "the caller must check the range"
        self._shapes[name] = tuple(shape)
        return not self._refuse("set_input_shape")

    def infer_shapes(self):
        missing = [name for name in self._engine.inputs if name not in self._shapes]
        if not missing:
            zeros = {n: np.zeros(s, self._dtype(n)) for n, s in self._shapes.items()}
            results = self._engine.session.run(None, zeros)
            self._sizes = {n: r.shape for n, r in zip(self._engine.outputs, results, strict=True)}
        return [*missing, "ghost"] if self._trt.fault("infer_shapes") else missing

    def get_tensor_shape(self, name):
        shape = self._sizes[name]
        return tuple(-1 for _ in shape) if name in self._trt.data_dependent else shape

    def set_tensor_address(self, name, address):
        self._addresses[name] = address
        return not self._refuse("set_tensor_address")

    def set_output_allocator(self, name, allocator):
        self._allocators[name] = allocator
        return not self._refuse("set_output_allocator")

    def execute_async_v3(self, stream):
        assert stream == STREAM, "not on the backend's own stream"
        if self._refuse("execute_async_v3"):
            return False
        self._trt.device.enqueue(self._work)
        return True

    def _work(self):
        self._trt.executions += 1
        feed = {}
        for name, shape in self._shapes.items():
            feed[name] = self._memory(self._addresses[name], shape, self._dtype(name)).copy()
        results = self._engine.session.run(None, feed)
        for name, result in zip(self._engine.outputs, results, strict=True):
            if self._trt.fault("wrong results"):
                result = result + 1
            address = self._addresses.get(name)
            if name in self._allocators:
                allocator = self._allocators[name]
                address = allocator.reallocate_output_async(name, 0, result.nbytes, 256, STREAM)
                allocator.notify_shape(name, result.shape)
            self._memory(address, result.shape, result.dtype)[...] = result

    def _dtype(self, name):
        kind = self._engine.inputs[name].type.removeprefix("tensor(").removesuffix(")")
        return np.dtype({"float": "float32", "double": "float64"}.get(kind, kind))

    def _memory(self, address, shape, dtype):
        size = math.prod(shape) * np.dtype(dtype).itemsize
        raw = (ctypes.c_uint8 * max(size, 1)).from_address(address)
        return np.frombuffer(raw, np.uint8, size).view(dtype).reshape(shape)
