# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The runtimes of this machine that could run a model file, each a backend with its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from seg_perception.options import ConfigError, Selected, select
from seg_perception.plugins import PluginError, available, require
from seg_perception.zoo.onnx_file import quantised

READS = {  # backends of this project -> what they read; of others nothing is known, so they are tried on ONNX files
    "onnxruntime": (".onnx",),
    "openvino": (".onnx", ".xml"),
    "tensorrt": (".onnx",),
    "torch": (".pt", ".pt2", ".torchscript"),
    "kserve": (),  # a server has the file, not we
    "none": (),
    "adapter": (),  # a user's own code
}
SUFFIXES = sorted({suffix for known in READS.values() for suffix in known})
SKIPPED_PROVIDERS = ("cpu", "azure", "tensorrt")  # the reference, none, and the backend tensorrt in another coat
CHEAP: Mapping[str, Mapping[str, Any]] = {
    "onnxruntime": {"graph_optimization": "none", "threads": 1},
    "openvino": {"cache": False},
}
FULL = ("", "f32", "model")  # precisions that leave a model's own as they are


@dataclass(frozen=True)
class Runtime:
    """A backend plugin and the options that it is tried with."""

    plugin: str
    options: Mapping[str, Any] = field(default_factory=dict)
    asked: bool = False  # by the user: then it is a failure if it cannot run

    @property
    def name(self) -> str:
        shown = {key: value for key, value in self.options.items() if (key, value) != ("precision", "f32")}
        words = [str(v) if k == "precision" else f"{k}={_short(v)}" for k, v in shown.items()]
        return " ".join([self.plugin, *words])

    @property
    def exact(self) -> bool:
        """Whether it computes in the model's own precision, so that its results must be the reference's."""
        reduced = self.options.get("precision", "") not in FULL
        return not (reduced or self.options.get("tf32") or self.options.get("autocast"))

    @property
    def full(self) -> Runtime:
        """The same in the model's own precision."""
        return replace(self, options={key: value for key, value in self.options.items() if key != "precision"})

    def on(self, path: Path) -> Runtime:
        """The same for this file: OpenVINO computes in int8 if, and only if, the file is quantised."""
        if self.plugin != "openvino":
            return self
        if quantised(path):
            return replace(self, options={**self.options, "precision": "int8"})
        if self.options.get("precision") == "int8":
            return replace(self, options={**self.options, "precision": "f32"})
        return self

    def selected(self, path: Path) -> Selected:
        """The backend's section, checked. Raises ConfigError, PluginError."""
        return select("backends", {"plugin": self.plugin, **self.on(path).options}, "runtime")

    def load(self, path: Path) -> Any:
        """The backend with the file read, as quickly as it can be, to be asked and not to be run on images."""
        chosen = replace(self, options={**CHEAP.get(self.plugin, {}), **self.options}).selected(path)
        return replace(chosen, config=replace(chosen.config, model=str(path))).create()


def parse_runtime(text: str) -> Runtime:
    """NAME, NAME:PRECISION, or the section of a config: `{plugin: onnxruntime, providers: [cuda, cpu]}`.

    Raises ValueError for a text that is none of these.
    """
    if not text.startswith("{"):
        name, _, precision = text.partition(":")
        return Runtime(name, {"precision": precision} if precision else {}, asked=True)
    try:
        section = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not readable as YAML: {text}") from error
    if not isinstance(section, Mapping) or not isinstance(section.get("plugin"), str):
        raise ValueError(f"expected {{plugin: NAME, ...}}, got {text}")
    return Runtime(section["plugin"], {k: v for k, v in section.items() if k != "plugin"}, asked=True)


def runtimes_for(path: Path) -> list[Runtime]:
    """Every installed runtime that reads such a file, the reference first: ONNX Runtime on the CPU for ONNX files."""
    suffix = path.suffix.lower()
    readers = [name for name in available("backends") if suffix in READS.get(name, (".onnx",))]
    if not readers and available("backends"):
        raise ConfigError(f"{path}: expected a file ending in {', '.join(SUFFIXES)}, got '{path.suffix}'")
    readers.sort(key=lambda name: (name != "onnxruntime", name))
    found = []
    for name in readers or ["onnxruntime"]:  # not installed at all: loading it says so
        found.append(Runtime(name))
        if name == "onnxruntime":
            found += [Runtime(name, {"providers": [provider, "cpu"]}) for provider in _providers()]
    return found


def _providers() -> list[str]:
    try:
        names = require("onnxruntime", "onnx").get_available_providers()
    except PluginError:
        return []  # the runtime itself will say so
    return [name for full in names if (name := full.removesuffix("ExecutionProvider").lower()) not in SKIPPED_PROVIDERS]


def _short(value: Any) -> str:
    return str(value[0]) if isinstance(value, list) and value else str(value)
