# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""TensorRT: an ONNX model as an engine for the NVIDIA GPU at hand, built once, checked, kept, run from host arrays."""

from __future__ import annotations

import hashlib
import logging
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from seg_perception.backends.host import cache_folder, model_file
from seg_perception.backends.progress import Progress, tell
from seg_perception.backends.tensors import fitted
from seg_perception.backends.trt.building import BuildOptions, build_engine
from seg_perception.backends.trt.device import CudaDevice
from seg_perception.backends.trt.driver import Gpu, check_fits, probe
from seg_perception.backends.trt.execution import Execution
from seg_perception.backends.trt.half import convert_to_half, converter
from seg_perception.backends.trt.library import (
    FLAVOURS,
    cuda_major,
    is_rtx,
    load_library,
    load_operators,
    rtx_capability,
    title,
)
from seg_perception.backends.trt.log import NO_MEMORY, collecting_logger, reason
from seg_perception.backends.trt.model import ModelFile, read_model
from seg_perception.backends.trt.network import Unsupported, unsupported_nodes
from seg_perception.backends.trt.profiles import Range, parse_shapes
from seg_perception.backends.trt.store import EngineKey, EngineStore
from seg_perception.backends.trt.verification import reference_inputs, verify
from seg_perception.options import ConfigError, option
from seg_perception.plugins import require

logger = logging.getLogger(__name__)

PRECISIONS = {  # the largest difference from the reference, in spreads of an output
    "model": 0.02,
    "tf32": 0.03,
    "fp16": 0.05,
}


@dataclass(frozen=True)
class TensorRTConfig:
    """How TensorRT builds and runs the model. `model` is left empty in a segmenter's section: it fills it in."""

    model: str = option("", "ONNX file; given by the segmenter")
    library: str = option("tensorrt", "which of the two: tensorrt_rtx is for GeForce and RTX", choices=tuple(FLAVOURS))
    device: int = option(0, "number of the GPU", ge=0, le=63)
    precision: str = option(
        "model",
        "model = as in the file; tf32 = float32 with 10 bits in products; fp16 = converted to float16 inside",
        choices=tuple(PRECISIONS),
    )
    shapes: tuple[str, ...] = option((), "of dynamic inputs: NAME=1x3x480x640, or NAME=SMALLEST..USUAL..LARGEST")
    optimization_level: int = option(3, "more finds faster kernels and builds longer", ge=0, le=5)
    workspace: int = option(0, "GPU memory a kernel may use while it works; 0 = all that is free", unit="MiB", ge=0)
    plugins: tuple[str, ...] = option((), "libraries (.so) with further operators; they are code: trust them")
    dla_core: int = option(
        -1, "Jetson's accelerator takes the layers it can, the GPU the rest, no CUDA graph; -1 = GPU only", ge=-1, le=7
    )
    cuda_graph: bool = option(True, "replay the whole network as one CUDA graph while the shapes stay")
    verify: bool = option(True, "compare a new engine with ONNX Runtime before it is used")
    tolerance: float = option(
        0.0, "largest difference, in spreads of an output; 0 = 0.02, with tf32 0.03, fp16 0.05", ge=0
    )
    reference: str = option("", ".npz file with inputs by name to compare on; empty = a pattern")
    cache: str = option("", "folder of the engines; empty = ~/.cache/seg_perception/tensorrt")
    on_engine_missing: str = option(
        "build", "the node meanwhile: build = drops frames, fallback = runs onnxruntime; fail = refuses to start",
        choices=("build", "fallback", "fail"),
    )  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """What the engine is for and runs on: the module, the GPU, and its memory and stream."""

    trt: Any
    gpu: Gpu
    device: Any


def this_machine(config: TensorRTConfig) -> Machine:
    """The real one. Asks the driver before TensorRT, which ends the process where there is none.

    Raises PluginError: a package is missing; ConfigError: no usable GPU or driver.
    """
    trt = load_library(config.library)
    gpu = probe(config.device)
    check_fits(gpu, cuda_major(trt), title(trt))
    if is_rtx(trt):
        rtx_capability(trt, gpu.capability)
    return Machine(trt, gpu, CudaDevice(require("torch", "tensorrt"), config.device))


def unsupported(library: str, model: Path) -> tuple[Unsupported, ...]:
    """The first node of an ONNX file that cannot be run, or nothing; no engine is built.

    TensorRT-RTX (`tensorrt_rtx`) needs no GPU for this. Raises ConfigError: no GPU, no such file; PluginError.
    """
    trt = load_library(library)
    if not is_rtx(trt):
        check_fits(probe(), cuda_major(trt), title(trt))  # it would end the process
    return unsupported_nodes(trt, model_file(str(model)))


class TensorRT:
    """One ONNX model as a TensorRT engine. float16 inputs and outputs of the model are float32 at this door.

    The first time a model is used on a GPU its engine is built, which takes seconds to minutes; who watches is told
    (backends.progress). Raises ConfigError, PluginError, BuildCancelledError.
    """

    Config = TensorRTConfig

    def __init__(self, config: TensorRTConfig, machine: Machine | None = None) -> None:
        self._config = config
        model = read_model(model_file(config.model))
        self._name = model.path.name
        self._machine = machine or this_machine(config)
        self.metadata: Mapping[str, str] = model.metadata
        self._plugins = tuple(_library(name) for name in config.plugins)
        load_operators(self._machine.trt, collecting_logger(self._machine.trt), self._plugins)
        self._execution = self._ready(model)
        self.inputs, self.outputs = self._execution.inputs, self._execution.outputs
        self._warm_up()

    def __call__(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Every output by name. Raises ValueError when a name, shape or dtype is not the engine's, RuntimeError when
        the GPU fails."""
        return self._execution.run(fitted(self._name, self.inputs, inputs))

    @property
    def ranges(self) -> Mapping[str, Range]:
        """What the dynamic inputs may be, by name."""
        return self._execution.ranges

    @property
    def recorded(self) -> bool:
        """Whether the next call of the same shapes replays a CUDA graph."""
        return self._execution.recorded

    # -- an engine: kept, or built anew --------------------------------------------------------------------------------

    def _ready(self, model: ModelFile) -> Execution:
        config, trt = self._config, self._machine.trt
        store = EngineStore(Path(config.cache).expanduser() if config.cache else cache_folder("tensorrt"))
        key = self._key(model)
        kept = store.load(key)
        if kept is not None and (kept.facts.get("verified") or not config.verify):
            execution = self._start(kept.plan)  # without a lock: the folder may be read-only
            if execution is not None:
                return execution
        with store.locked(key):
            kept = store.load(key)  # another process may have built it meanwhile
            if kept is not None:
                execution = self._start(kept.plan)
                if execution is not None:
                    if config.verify and not kept.facts.get("verified"):
                        facts = {**kept.facts, "verified": self._verify(execution, model)}
                        store.save(key, kept.plan, facts)
                    return execution
                logger.warning("the kept engine of %s does not start (%s): building it anew", self._name, self._why)
                store.forget(key)
            why = store.why_not(key)
            if config.on_engine_missing == "fail":
                raise ConfigError(
                    f"there is no engine of {self._name} for {self._machine.gpu} with {title(trt)}"
                    f"{': ' + why if why else ''}; on_engine_missing is fail: `seg-perception models build` makes one"
                )
            text = f"building the engine of {self._name} for {self._machine.gpu} with {title(trt)}"
            logger.info("%s%s", text, f", since {why}" if why else "")
            tell(Progress(f"{text}{', since ' + why if why else ''}", 0.0))
            return self._build(model, store, key)

    def _build(self, model: ModelFile, store: EngineStore, key: EngineKey) -> Execution:
        config, machine = self._config, self._machine
        owner = f"{title(machine.trt)} {machine.gpu.name} {machine.gpu.sm}"
        half = config.precision == "fp16"
        options = BuildOptions(
            parse_shapes(config.shapes),
            config.optimization_level,
            config.workspace,
            half,
            tf32=config.precision != "model",
            capability=machine.gpu.capability,
            dla_core=config.dla_core,
        )
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="seg_perception_") as folder:
            source = model.path
            if half:
                source = Path(folder) / model.path.name
                convert_to_half(model.path, source)
            built = build_engine(machine.trt, source, options, store.timings(owner), machine.device.current)
        seconds = time.monotonic() - start
        execution = self._start(built.plan)
        if execution is None:
            raise ConfigError(f"{title(machine.trt)} built {self._name}, but cannot start it: {self._why}")
        tell(Progress(f"comparing the engine of {self._name} with ONNX Runtime", 1.0))
        verified = self._verify(execution, model) if config.verify else {}
        store.save(key, built.plan, {"build_seconds": round(seconds, 1), "verified": verified})
        store.merge_timings(owner, built.timings)
        return execution

    def _key(self, model: ModelFile) -> EngineKey:
        config, machine = self._config, self._machine
        fields = {
            "library": title(machine.trt),
            "gpu": machine.gpu.fields(),
            "model": model.sha256,
            "precision": f"fp16 by {converter()}" if config.precision == "fp16" else config.precision,
            "shapes": {name: str(shapes) for name, shapes in parse_shapes(config.shapes).items()},
            "optimization_level": config.optimization_level,
            "workspace": config.workspace,
            "plugins": [hashlib.sha256(file.read_bytes()).hexdigest() for file in self._plugins],
            "dla_core": config.dla_core,
            "platform": f"{platform.system()} {platform.machine()}",
        }
        return EngineKey(model.path.stem, fields)

    def _start(self, plan: bytes) -> Execution | None:
        """None when TensorRT does not take it; `_why` then says so."""
        trt, device = self._machine.trt, self._machine.device
        trt_log = collecting_logger(trt)
        mark = trt_log.mark()
        with device.current():
            try:
                self._runtime = runtime = trt.Runtime(trt_log)
            except TypeError as error:  # what the bindings make of a NULL
                raise ConfigError(f"{title(trt)} does not start: {reason(trt_log.since(mark))}") from error
            if self._config.dla_core >= 0:
                runtime.DLA_core = self._config.dla_core
            engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            self._why = reason(trt_log.since(mark))
            return None
        try:
            return Execution(trt, engine, device, self._name, self._config.cuda_graph and self._config.dla_core < 0)
        except device.torch.cuda.OutOfMemoryError as error:
            raise ConfigError(f"{self._name}: {NO_MEMORY} ({' '.join(str(error).split())})") from error

    def _verify(self, execution: Execution, model: ModelFile) -> dict[str, float]:
        config = self._config
        tolerance = config.tolerance or PRECISIONS[config.precision]
        inputs = reference_inputs(execution.inputs, execution.ranges, config.reference)
        agreements = verify(execution.run, model.path, inputs, tolerance)
        return {agreement.output: agreement.difference for agreement in agreements}

    def _warm_up(self) -> None:
        """Twice: memory is settled in the first call of a shape, the CUDA graph recorded in the second."""
        inputs = reference_inputs(self.inputs, self._execution.ranges, self._config.reference)
        for _ in range(2):
            self._execution.run(inputs)


def _library(name: str) -> Path:
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise ConfigError(f"plugins: no such library: {path}")
    return path
