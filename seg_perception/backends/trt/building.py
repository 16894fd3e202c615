# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Builds an engine from an ONNX file, in a thread of its own, so that the caller sees progress and can cancel."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from seg_perception.backends.progress import BuildCancelledError, Progress, tell
from seg_perception.backends.trt.library import is_rtx, rtx_capability, title
from seg_perception.backends.trt.log import collecting_logger, reason
from seg_perception.backends.trt.network import Parsed
from seg_perception.backends.trt.profiles import Range, fit_ranges
from seg_perception.options import ConfigError

T = TypeVar("T")
TICK = 0.1  # s between two looks at the progress
EARLY = 0.02  # share of the work before which the time left is anybody's guess
MIB = 1 << 20


@dataclass(frozen=True)
class BuildOptions:
    """What an engine depends on beside the model, the library and the GPU."""

    ranges: dict[str, Range] = field(default_factory=dict)  # of the dynamic inputs
    optimization_level: int = 3
    workspace: int = 0  # MiB; 0 = all that is free
    half: bool = False  # the model was converted to float16
    tf32: bool = False  # float32 products may be taken in TF32
    capability: tuple[int, int] | None = None  # TensorRT-RTX builds without the GPU: the one it is for; None = any
    dla_core: int = -1  # of a Jetson; what it cannot do runs on the GPU; -1 = all on the GPU


@dataclass(frozen=True)
class Built:
    """A serialized engine, and what adds TensorRT's measurements, which make the next build quicker, to those kept."""

    plan: bytes
    timings: Callable[[bytes], bytes]


def build_engine(
    trt: Any,
    model: Path,
    options: BuildOptions,
    timings: bytes = b"",
    on_device: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Built:
    """The engine of `model`. `on_device()` makes the GPU current in the thread that builds.

    Progress goes to whoever watches (backends.progress). Raises ConfigError: a model that cannot be built;
    BuildCancelledError; KeyboardInterrupt as soon as the step under way ends.
    """
    monitor = _monitor(trt)

    def work() -> Built:
        with on_device():
            return _build(trt, model, options, timings, monitor)

    return _watched(work, monitor, f"building {model.name} for {title(trt)}")


def _build(trt: Any, model: Path, options: BuildOptions, timings: bytes, monitor: Any) -> Built:
    logger = collecting_logger(trt)
    mark = logger.mark()
    parsed = Parsed(trt, model)
    builder, network = parsed.builder, parsed.network
    _check_precision(trt, model, parsed, options.half)
    build_config = builder.create_builder_config()
    build_config.progress_monitor = monitor
    build_config.builder_optimization_level = options.optimization_level
    if not options.tf32:
        build_config.clear_flag(trt.BuilderFlag.TF32)  # TensorRT's own default is to use it
    if is_rtx(trt) and options.capability is not None:
        _build_for(trt, build_config, options.capability)
    if options.dla_core >= 0:
        _use_dla(trt, builder, build_config, options.dla_core)
    if options.workspace:
        build_config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace * MIB)
    for tensor in parsed.inputs():
        if tensor.is_shape_tensor:
            raise ConfigError(f"{model.name}: the values of input '{tensor.name}' are sizes: export it with fixed ones")
    shapes = {tensor.name: tuple(tensor.shape) for tensor in parsed.inputs()}
    profile = builder.create_optimization_profile()
    for name, wanted in fit_ranges(model.name, shapes, options.ranges).items():
        profile.set_shape(name, wanted.smallest, wanted.usual, wanted.largest)
    if any(-1 in shape for shape in shapes.values()) and build_config.add_optimization_profile(profile) < 0:
        raise ConfigError(f"{title(trt)} refuses the shapes of {model.name}: {reason(logger.since(mark))}")
    keeps_timings = not is_rtx(trt)  # TensorRT-RTX measures nothing: its kernels are compiled on the user's GPU
    if keeps_timings:
        _reuse_timings(build_config, timings)
    plan = builder.build_serialized_network(network, build_config)
    if monitor.cancelled.is_set():
        raise BuildCancelledError(f"the build of {model.name} was cancelled; nothing was kept")
    if plan is None:
        raise ConfigError(f"{title(trt)} cannot build {model.name}: {reason(logger.since(mark))}")
    parts = (parsed, build_config)  # all of it must live as long as the measurements are asked for
    return Built(bytes(plan), lambda kept: _merged(parts[1], kept) if keeps_timings else b"")


def _build_for(rtx: Any, rtx_build_config: Any, capability: tuple[int, int]) -> None:
    """For one kind of GPU. Raises ConfigError when TensorRT-RTX does not know it."""
    rtx_build_config.num_compute_capabilities = 1
    rtx_build_config.set_compute_capability(rtx_capability(rtx, capability), 0)


def _reuse_timings(build_config: Any, timings: bytes) -> None:
    """Measurements of another GPU or version are left aside."""
    timing_cache = build_config.create_timing_cache(timings)
    if timing_cache is None or not build_config.set_timing_cache(timing_cache, False):
        build_config.set_timing_cache(build_config.create_timing_cache(b""), False)


def _merged(build_config: Any, kept: bytes) -> bytes:
    """This build's measurements and those that were kept; the latter count for nothing if they are of another GPU."""
    timing_cache = build_config.get_timing_cache()
    if kept:
        other = build_config.create_timing_cache(kept)
        if other is not None:
            timing_cache.combine(other, False)  # False where they do not fit: then nothing was added
    return bytes(timing_cache.serialize())


def _use_dla(trt: Any, builder: Any, build_config: Any, core: int) -> None:
    """Layers go to the accelerator where it can run them. Raises ConfigError: there is none, or not so many."""
    cores = 0 if is_rtx(trt) else builder.num_DLA_cores
    if core >= cores:
        there = f"cores 0 to {cores - 1}" if cores else "no DLA here"
        raise ConfigError(f"dla_core: {core}, but {title(trt)} finds {there} (only Jetsons have it, and Thor does not)")
    build_config.default_device_type = trt.DeviceType.DLA
    build_config.DLA_core = core
    build_config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _check_precision(trt: Any, model: Path, parsed: Parsed, half: bool) -> None:
    """Types come from the file, whatever was asked for: TensorRT 11 would build float32 without a word."""
    if half and not parsed.precisions(trt).get("HALF"):
        raise ConfigError(f"precision: {model.name} has no float16 in it, so {title(trt)} would run it as float32")


def _watched(work: Callable[[], T], monitor: Any, text: str) -> T:
    """`work()` in a thread; meanwhile this one reports, and hears ctrl-C."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="tensorrt build", daemon=True)
    start = time.monotonic()
    thread.start()
    try:
        tell(Progress(text, 0.0))
        while thread.is_alive():
            done = monitor.fraction()
            seconds = time.monotonic() - start
            eta = seconds * (1 - done) / done if done > EARLY else math.nan
            tell(Progress(text, done, eta))
            thread.join(TICK)
    except BaseException:
        monitor.cancelled.set()
        thread.join()  # TensorRT writes into memory that must not go away under it
        raise
    if errors:
        raise errors[0]
    return results[0]


def _monitor(trt: Any) -> Any:
    """A `trt.IProgressMonitor`: knows the share that is done, and stops the build once `cancelled` is set."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = threading.Event()
            self._phases: dict[str, tuple[str | None, int, int]] = {}  # name -> parent, steps, steps done
            self._lock = threading.Lock()
            self._shown = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases[phase_name] = (parent_phase, max(num_steps, 1), 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                parent, steps, _ = self._phases.get(phase_name, (None, 1, 0))
                self._phases[phase_name] = (parent, steps, min(step + 1, steps))
            return not self.cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.pop(phase_name, None)

        def fraction(self) -> float:
            """0..1, never less than it said before."""
            with self._lock:
                shares = [self._share(name) for name, (parent, _, _) in self._phases.items() if parent is None]
                self._shown = max([self._shown, *shares])
                return self._shown

        def _share(self, name: str) -> float:
            _, steps, done = self._phases[name]
            inner = [self._share(child) for child, (parent, _, _) in self._phases.items() if parent == name]
            return min(1.0, (done + max(inner, default=0.0)) / steps)

    return Monitor()
