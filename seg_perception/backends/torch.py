# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""PyTorch: TorchScript, torch.export programs, and your own modules with a file of weights, on CPU and CUDA."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.backends.host import model_file, threads_for
from seg_perception.backends.tensors import fitted
from seg_perception.backends.torch_files import (
    EXPORT,
    LOADING,
    SCRIPT,
    kind_of,
    load_program,
    load_script,
    load_weights,
    metadata_of,
    reason,
)
from seg_perception.options import ConfigError, option
from seg_perception.plugins import TensorSpec, require

AUTOCAST = ("off", "bfloat16", "float16")


@dataclass(frozen=True)
class TorchConfig:
    """How PyTorch runs the model. `model` is left empty in a segmenter's section: the segmenter fills it in."""

    model: str = option("", "TorchScript, torch.export program (.pt2) or weights; given by the segmenter")
    module: str = option("", "for weights: module:Class, or a function, that builds the network without arguments")
    checkpoint_key: str = option("", "for weights: the entry of the checkpoint that holds them, e.g. state_dict")
    trust_pickle: bool = option(False, "load files that hold more than tensors; this runs whatever code is in them")
    inputs: tuple[str, ...] = option(
        (), "NAME SIZES [DTYPE] of each input, e.g. 'images 1x3x640x640'; not for programs, which say it themselves"
    )
    output_names: tuple[str, ...] = option((), "names of the outputs in their order; empty = the keys, or output0 ...")
    device: str = option("cpu", "cpu, cuda, cuda:1 ...")
    threads: int = option(
        0, "threads of all of PyTorch in this process; 0 = all cores but one, at most 8", ge=0, le=256
    )  # fmt: skip
    channels_last: bool = option(False, "weights and images in NHWC order: often faster for convolutions")
    autocast: str = option(
        "off", "lower precision where PyTorch finds that safe: faster, other masks at the edges", choices=AUTOCAST
    )
    tf32: bool = option(False, "GPU: products of float32 rounded to 10 bits, in all of PyTorch in this process")
    compile: bool = option(False, "torch.compile: seconds to minutes at the start; needs a C++ compiler on the CPU")


class Torch:
    """One network in PyTorch. bfloat16 and float16 inputs and outputs of the network are float32 at this door.

    Shapes of outputs are those of two trial runs when the file does not say them; a size that differed is -1. Raises
    ConfigError when the file is missing, unreadable, not to be trusted or does not run, PluginError without torch.
    """

    Config = TorchConfig

    def __init__(self, config: TorchConfig) -> None:
        self._torch = torch = require("torch", "torch")
        self._path = path = model_file(config.model)
        self._config = config
        self._device = _device(torch, config.device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.tf32
        torch.set_num_threads(threads_for(config.threads))
        kind = kind_of(path)
        if config.module and kind in (SCRIPT, EXPORT):
            raise ConfigError(f"module: {path.name} is a {kind} and needs none")
        if config.compile and kind == SCRIPT:
            raise ConfigError("compile: TorchScript is compiled already; torch.compile takes modules and .pt2 programs")
        self.metadata: Mapping[str, str] = metadata_of(path)
        if kind == EXPORT:
            self._start_program(load_program(torch, path, config.trust_pickle))
        else:
            self._start_module(load_script(torch, path, self._device) if kind == SCRIPT else self._module())

    def __call__(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Every output by name. Raises ValueError when a name, shape or dtype is not the model's."""
        feed = fitted(self._path.name, self.inputs, inputs)
        results = [array for _, array in self._run(feed.values())]
        return {spec.name: array for spec, array in zip(self.outputs, results, strict=True)}

    def _run(self, arrays: Iterable[NDArray]) -> list[tuple[str, NDArray]]:
        """Name, by the structure of the result, and array of every output; nothing of it is written to later."""
        torch = self._torch
        with torch.inference_mode(), self._precision():
            tensors = [self._tensor(array, dtype) for array, dtype in zip(arrays, self._dtypes, strict=True)]
            return [(name, _array(torch, tensor)) for name, tensor in _leaves(torch, self._network(*tensors))]

    def _precision(self) -> Any:
        if self._config.autocast == "off":
            return contextlib.nullcontext()
        return self._torch.autocast(self._device.type, dtype=getattr(self._torch, self._config.autocast))

    def _tensor(self, array: NDArray, dtype: Any) -> Any:
        tensor = self._torch.from_numpy(array if array.flags.writeable else array.copy()).to(self._device, dtype)
        if self._config.channels_last and tensor.ndim == 4:
            return tensor.contiguous(memory_format=self._torch.channels_last)
        return tensor

    # -- the kinds of files --

    def _start_program(self, program: Any) -> None:
        """A torch.export program knows its inputs and outputs."""
        torch, config, signature = self._torch, self._config, program.graph_signature
        if config.inputs:
            raise ConfigError(f"inputs: {self._path.name} is a {EXPORT}, which says them itself")
        nodes = {node.name: node.meta.get("val") for node in program.graph.nodes}
        taken = [(name, nodes[name]) for name in signature.user_inputs]
        given = [nodes.get(name) for name in signature.user_outputs]
        if not all(isinstance(value, torch.Tensor) for value in [*given, *(value for _, value in taken)]):
            raise ConfigError(f"{self._path}: expected tensors in and out, got other values as well")
        self._dtypes = [value.dtype for _, value in taken]
        self.inputs = tuple(_spec(torch, name, value) for name, value in taken)
        structure = torch.utils._pytree.tree_unflatten(given, program.call_spec.out_spec)
        names = self._output_names([name for name, _ in _leaves(torch, structure)])
        self.outputs = tuple(_spec(torch, name, value) for name, value in zip(names, given, strict=True))
        self._network = self._prepared(_moved(program, self._device).module())
        if all(size > 0 for spec in self.inputs for size in spec.shape):
            self._trial(np.zeros)

    def _start_module(self, module: Any) -> None:
        """A module or TorchScript is told its inputs, by options or metadata, and shows its outputs."""
        torch = self._torch
        self.inputs = self._declared()
        own = next((p.dtype for p in module.parameters() if p.dtype.is_floating_point), torch.float32)
        self._dtypes = [own if spec.dtype.kind == "f" else getattr(torch, spec.dtype.name) for spec in self.inputs]
        self._network = self._prepared(module.eval())
        rng = np.random.default_rng(0)
        trials = [self._trial(np.zeros), self._trial(rng.random)]
        names = self._output_names([name for name, _ in trials[0]])
        pairs = zip(names, *([array for _, array in trial] for trial in trials), strict=True)
        self.outputs = tuple(TensorSpec(name, _common(a.shape, b.shape), a.dtype) for name, a, b in pairs)

    def _module(self) -> Any:
        """The user's module with the weights of the file, or the module in the file."""
        torch, config, path = self._torch, self._config, self._path
        loaded = load_weights(torch, path, self._device, config.trust_pickle, config.checkpoint_key)
        if not config.module:
            if isinstance(loaded, torch.nn.Module):
                return loaded.to(self._device)
            raise ConfigError(f"{path}: holds weights only: set module to module:Class of the network they belong to")
        module = _built(config.module)
        if not isinstance(module, torch.nn.Module):
            raise ConfigError(f"module: '{config.module}' makes a {type(module).__name__}, expected a torch.nn.Module")
        weights = loaded.state_dict() if isinstance(loaded, torch.nn.Module) else loaded
        try:
            module.load_state_dict(weights)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path}: not the weights of {config.module}: {reason(error)}") from error
        return module.to(self._device)

    def _prepared(self, module: Any) -> Callable[..., Any]:
        if self._config.channels_last:
            module = module.to(memory_format=self._torch.channels_last)
        return self._torch.compile(module) if self._config.compile else module

    def _declared(self) -> tuple[TensorSpec, ...]:
        if self._config.inputs:
            return tuple(map(_parsed, self._config.inputs))
        size = _size(self.metadata.get("imgsz", ""))
        if size is None:
            raise ConfigError(
                f"inputs: {self._path.name} does not say what it takes: give NAME SIZES of each input, "
                "e.g. inputs: ['images 1x3x640x640']"
            )
        return (TensorSpec("images", (1, 3, *size), np.dtype(np.float32)),)

    def _trial(self, content: Callable[[tuple[int, ...]], NDArray]) -> list[tuple[str, NDArray]]:
        """One run, so that what does not run is known now; it is the warm-up, too."""
        arrays = [content(spec.shape).astype(spec.dtype) for spec in self.inputs]
        try:
            return self._run(arrays)
        except LOADING as error:
            shown = ", ".join(f"{spec.name} {spec.shape} {spec.dtype}" for spec in self.inputs)
            raise ConfigError(f"{self._path} does not run on {shown}: {reason(error)}") from error

    def _output_names(self, own: Sequence[str]) -> Sequence[str]:
        names = self._config.output_names or own
        if len(names) != len(own) or len(set(names)) != len(names):
            raise ConfigError(
                f"output_names: {self._path.name} has {len(own)} outputs ({', '.join(own)}), got {', '.join(names)}"
            )
        return names


def _device(torch: Any, name: str) -> Any:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device: '{name}' is not here (torch {torch.__version__}): {reason(error)}") from error
    return device


def _moved(program: Any, device: Any) -> Any:
    """The torch.export program on that device; it is loaded onto the one it was exported on."""
    passes = importlib.import_module("torch.export.passes")
    return passes.move_to_device_pass(program, str(device))


def _built(name: str) -> Any:
    module, colon, attribute = name.partition(":")
    if not (colon and module and attribute):
        raise ConfigError(f"module: expected module:Class, got '{name}'")
    try:
        return getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError, SyntaxError) as error:
        raise ConfigError(f"module: '{name}' cannot be built: {reason(error)}") from error


def _parsed(text: str) -> TensorSpec:
    """`images 1x3x640x640 float32` as a spec."""
    words = text.split()
    try:
        name, sizes, dtype = words if len(words) == 3 else (*words, "float32")
        shape = tuple(int(size) for size in sizes.split("x"))
        if min(shape) < 1:
            raise ValueError(text)
        return TensorSpec(name, shape, np.dtype(dtype))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"inputs: expected NAME SIZES [DTYPE], e.g. 'images 1x3x640x640', got '{text}'") from error


def _size(text: str) -> tuple[int, int] | None:
    """`[480, 640]` as (480, 640)."""
    words = text.strip("[]() ").replace(",", " ").split()
    if len(words) not in (1, 2) or not all(word.isdecimal() for word in words):
        return None
    return int(words[0]), int(words[-1])


def _leaves(torch: Any, value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor of nested mappings and sequences: keys joined by dots, `output0` ... where there are no keys."""
    if isinstance(value, torch.Tensor):
        yield name or "output0", value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(torch, part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _leaves(torch, part, f"{name}.{i}" if name else f"output{i}")
    elif value is not None:  # e.g. an absent loss
        raise TypeError(f"{name or 'the output'} is a {type(value).__name__}, expected tensors")


def _spec(torch: Any, name: str, value: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    dtype = torch.float32 if value.dtype == torch.bfloat16 else value.dtype
    return TensorSpec(name, shape, torch.empty(0, dtype=dtype).numpy().dtype)


def _array(torch: Any, tensor: Any) -> NDArray:
    dtype = torch.float32 if tensor.dtype in (torch.bfloat16, torch.float16) else tensor.dtype
    return tensor.to("cpu", dtype, copy=True, memory_format=torch.contiguous_format).numpy()


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(m if m == n else -1 for m, n in zip(a, b, strict=True)) if len(a) == len(b) else ()
