# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A model file as a segmenter: which plugin reads it, started on any runtime, with every call of the network seen."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from seg_perception.options import ConfigError, Selected, option, parse
from seg_perception.plugins import Backend, PluginError, Segmenter, TensorSpec, available, load_plugin
from seg_perception.scene import Frame, Instances
from seg_perception.segmenters.networks.sidecar import read_sidecar
from seg_perception.segmenters.sam.prompts import grid_prompts
from seg_perception.zoo.onnx_file import read_onnx
from seg_perception.zoo.runtimes import Runtime, runtimes_for

ENCODER, DECODER = "encoder", "decoder"
POINTS_PER_SIDE = 3  # of the grid of points that a promptable network is asked for


class UnrecognisedError(ConfigError):
    """No segmenter reads the file; `against` is what each of them says."""

    def __init__(self, path: Path, against: Mapping[str, str]) -> None:
        self.against = dict(against)
        self.listing = "; ".join(f"{name}: {reason}" for name, reason in against.items())
        reasons = set(against.values())
        said = reasons.pop() if len(reasons) == 1 else "`models inspect` shows what each says"
        super().__init__(
            f"{path.name}: no segmenter recognises it ({said}): say what it is with `models annotate`, or choose with "
            "--segmenter; of a SAM name the encoder's file"
        )


@dataclass(frozen=True)
class DescribedConfig:
    """The file."""

    model: str = option("", "the model file")


class Described:
    """A backend that knows a network's inputs, outputs and metadata, and runs nothing: read once for all segmenters."""

    Config = DescribedConfig

    def __init__(self, config: DescribedConfig) -> None:
        self.inputs, self.outputs, self.metadata = described(Path(config.model))

    def __call__(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        raise AskedError(inputs)


class AskedError(Exception):
    """A described network was asked: `inputs` are what for."""

    def __init__(self, inputs: Mapping[str, NDArray]) -> None:
        super().__init__("the network is only described, not loaded")
        self.inputs = {name: array.copy() for name, array in inputs.items()}


@dataclass(frozen=True)
class Subject:
    """A file and the segmenter that reads it. `key` is the option that names the file, `values` the other ones."""

    path: Path
    plugin: str
    key: str
    values: Mapping[str, Any]

    @property
    def others(self) -> tuple[Path, ...]:
        """Further model files that belong to it."""
        return (Path(self.values[DECODER]),) if self.key == ENCODER else ()

    def parts(self, runtime: Runtime, path: Path | None = None) -> list[tuple[Path, Runtime]]:
        """Each model file and the runtime for it, in the order of the segmenter's backends.

        A lower precision is for the file itself, where the work is; a decoder keeps its own.
        """
        return [(path or self.path, runtime), *((other, runtime.full) for other in self.others)]

    def describe(self) -> Any:
        """The segmenter without its network: all but `segment` works. Raises ConfigError where it refuses the file."""
        plugin = load_plugin("segmenters", self.plugin)
        config = parse(plugin.Config, {**self.values, self.key: str(self.path)}, self.plugin)
        backend = Selected("backends", f"{__name__}:Described", DescribedConfig())
        return plugin(replace(config, **dict.fromkeys(_backend_keys(plugin), backend)))

    def inputs(self, frame: Frame) -> dict[str, NDArray]:
        """What the network is given for a frame; of a promptable one its encoder. It is not run for that."""
        segmenter = self.describe()
        try:
            segmenter.encode(frame.color) if self.key == ENCODER else segmenter.segment(frame)
        except AskedError as asked:
            return asked.inputs
        raise ConfigError(f"segmenter {self.plugin} asks no network about an image")

    def start(self, runtime: Runtime, path: Path | None = None) -> Trial:
        """The segmenter on that runtime; `path` stands in for the file. Raises ConfigError, PluginError."""
        file = path or self.path
        plugin = load_plugin("segmenters", self.plugin)
        config = parse(plugin.Config, {**self.values, self.key: str(file)}, self.plugin)
        taps: list[Tap] = []
        runs = {}
        for key, (part, its) in zip(_backend_keys(plugin), self.parts(runtime, path), strict=True):
            chosen = its.selected(part)
            runs[key] = Tapped("backends", chosen.plugin, chosen.config, taps)
        return Trial(plugin(replace(config, **runs)), taps, runtime.on(file))


class Tap:
    """A backend that remembers what went in and came out, and how long that took."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.inputs, self.outputs, self.metadata = backend.inputs, backend.outputs, backend.metadata
        self.calls: list[tuple[Mapping[str, NDArray], dict[str, NDArray]]] = []
        self.seconds = 0.0
        self.keeps = True

    def __call__(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        start = time.perf_counter()
        outputs = self.backend(inputs)
        self.seconds += time.perf_counter() - start
        if self.keeps:
            self.calls.append(({name: array.copy() for name, array in inputs.items()}, outputs))
        return outputs


@dataclass(frozen=True)
class Tapped(Selected):
    """A chosen backend that is created with a tap on it."""

    taps: list[Tap] = field(default_factory=list)

    def create(self) -> Any:
        self.taps.append(Tap(super().create()))
        return self.taps[-1]


@dataclass
class Trial:
    """A segmenter on one runtime."""

    segmenter: Segmenter
    taps: list[Tap]
    runtime: Runtime

    def segment(self, frame: Frame) -> Instances:
        """The instances of a frame; of a promptable network the answers to a grid of points, in their order."""
        for tap in self.taps:
            tap.calls.clear()
            tap.seconds = 0.0
        if not is_promptable(type(self.segmenter)):
            return self.segmenter.segment(frame)
        segmenter: Any = self.segmenter
        prompts = grid_prompts(frame.height, frame.width, POINTS_PER_SIDE)
        return segmenter.decode(segmenter.encode(frame.color.copy()), prompts)  # a copy: it knows the last array

    @property
    def outputs(self) -> list[dict[str, NDArray]]:
        """What the network put out for the last frame, call by call."""
        return [outputs for tap in self.taps for _, outputs in tap.calls]

    @property
    def seconds(self) -> float:
        """In the network, for the last frame."""
        return sum(tap.seconds for tap in self.taps)


def described(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], Mapping[str, str]]:
    """Inputs, outputs and metadata of a model file. Raises ConfigError, PluginError."""
    about = path.stat()
    return _tensors(path, about.st_mtime_ns, about.st_size)


def recognise(path: Path, plugin: str = "", decoder: Path | None = None, options: Mapping[str, Any] = {}) -> Subject:
    """The segmenter that reads the file: the one called `plugin`, else the one of its sidecar's family, else the only
    one that takes it. A SAM is its encoder's file; its decoder is the one of the same name, or `decoder`.

    Raises ConfigError naming what each segmenter says against it.
    """
    if not path.is_file():
        raise ConfigError(f"no such model file: {path}")
    runtimes_for(path)  # an ending that nothing reads
    if path.suffix.lower() == ".onnx":
        read_onnx(path)
    described(path)
    subjects = list(_candidates(path.absolute(), plugin, decoder, options))
    against = {}
    found = []
    for subject in subjects:
        try:
            subject.describe()
        except (ConfigError, PluginError) as error:
            against[subject.plugin] = str(error)
        else:
            found.append(subject)
    if len(found) == 1:
        return found[0]
    if len(subjects) == 1:
        raise ConfigError(against[subjects[0].plugin])
    if found:
        names = ", ".join(subject.plugin for subject in found)
        raise ConfigError(f"{path.name}: more than one segmenter reads it ({names}): choose with --segmenter")
    raise UnrecognisedError(path, {name: text.splitlines()[0].removesuffix("; seen") for name, text in against.items()})


def families() -> dict[str, str]:
    """Every family that a sidecar can name -> the segmenter that reads it."""
    return {family: name for name, plugin in _plugins() for family in getattr(plugin, "FAMILIES", ())}


def is_promptable(plugin: type) -> bool:
    """Whether it is asked by prompts: it has `encode` and `decode`."""
    return hasattr(plugin, "encode") and hasattr(plugin, "decode")


def _candidates(path: Path, plugin: str, decoder: Path | None, options: Mapping[str, Any]) -> Iterator[Subject]:
    family = read_sidecar(path, described(path)[2]).family
    known = families()
    pair = decoder or _decoder_of(path)
    names = [plugin] if plugin else [known[family]] if family in known else [name for name, _ in _plugins()]
    if not plugin and family not in known and pair is not None:
        names = [name for name, loaded in _plugins() if is_promptable(loaded)]
    for name in names:
        keys = {key.name for key in fields(load_plugin("segmenters", name).Config)}
        if {ENCODER, DECODER} <= keys:
            if pair is not None:
                yield Subject(path, name, ENCODER, {**options, DECODER: str(pair.absolute()), "prompts": "grid"})
            elif plugin:
                raise ConfigError(f"{path.name}: its decoder is not beside it: name it with --decoder")
        elif {"model", "backend"} <= keys:
            yield Subject(path, name, "model", dict(options))
        elif plugin:
            raise ConfigError(f"segmenter {plugin}: it has no option 'model': it reads no file")


def _decoder_of(path: Path) -> Path | None:
    for suffix in (path.suffix, ".onnx"):
        beside = path.with_name(path.stem.replace(ENCODER, DECODER) + suffix)
        if ENCODER in path.stem and beside.is_file():
            return beside
    return None


def _plugins() -> Iterator[tuple[str, Any]]:
    for name in available("segmenters"):
        try:
            plugin = load_plugin("segmenters", name)
        except PluginError:
            continue  # `models list` and `doctor` tell of it
        if is_dataclass(plugin.Config):
            yield name, plugin


def _backend_keys(plugin: Any) -> list[str]:
    return [key.name for key in fields(plugin.Config) if key.metadata.get("group") == "backends"]


@lru_cache(maxsize=16)
def _tensors(path: Path, modified: int, size: int) -> tuple[Any, Any, Any]:
    backend = runtimes_for(path)[0].load(path)
    return backend.inputs, backend.outputs, backend.metadata
