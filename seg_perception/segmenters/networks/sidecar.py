# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The sidecar: `<model>.yaml` beside a model file says what the file itself cannot.

Exports of most families carry no metadata, and the same shapes mean different things in different families.

    family: mask2former
    names: [bolt, nut, washer]              # or {0: bolt, 7: nut}
    preprocessing: {resize: stretch, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}
    decoding: {grid: 384}                   # the family's own options, where the export differs from the family
    thresholds: {score: 0.5}
    inputs: {task_inputs: tokens.npy}       # constant inputs: numbers, or an .npy file beside the sidecar
    text: {tokenizer: tokenizer.json}       # what makes inputs of the names and of live prompts, see `text/inputs.py`
    licence: Apache-2.0
    source: https://example.org/where-it-came-from
    sha256: 3f2a...                         # refused if the model file has another one

An ONNX file can carry the same text in its metadata, under the key `seg_perception` (`models annotate --embed`). Where
both are there, the file beside the model has the last word, key by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from seg_perception.files import file_digest
from seg_perception.options import ConfigError, option, parse, section

MOST_CLASSES = 100_000
EMBEDDED = "seg_perception"  # key of an ONNX file's metadata


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the model's author; -1 = the family's own."""

    score: float = option(-1.0, "instances up to this score are dropped", ge=-1, le=1)
    mask: float = option(-1.0, "probability above which a pixel is in a mask", ge=-1, le=1)


@dataclass(frozen=True)
class Sidecar:
    """What a sidecar says; an empty one says nothing."""

    family: str = option("", "model family, e.g. mask2former")
    names: Any = option((), "class names: a list in order of id, or a mapping from id to name")
    preprocessing: Any = option(None, "where the image goes in the network's input, see `Preprocessing`")
    decoding: Any = option(None, "options of the family's decoder")
    thresholds: Thresholds = section(Thresholds, "thresholds of the model's author")
    inputs: Any = option(None, "constant inputs by name: numbers, or the name of an .npy file beside the sidecar")
    text: Any = option(None, "how texts become inputs of the network, see `TextConfig`")
    licence: str = option("", "licence of the weights")
    source: str = option("", "where the file came from")
    sha256: str = option("", "SHA-256 of the model file")

    def __post_init__(self) -> None:
        for key in ("preprocessing", "decoding", "inputs", "text"):
            if getattr(self, key) is None:
                object.__setattr__(self, key, {})
            elif not isinstance(getattr(self, key), Mapping):
                raise ConfigError(f"{key}: expected a mapping of keys, got {getattr(self, key)!r:.60}")
        if not isinstance(self.names, Mapping | list | tuple):
            raise ConfigError(f"names: expected a list or a mapping from id to name, got {self.names!r:.60}")
        if isinstance(self.names, Mapping) and not all(type(i) is int and 0 <= i < MOST_CLASSES for i in self.names):
            raise ConfigError(f"names: expected ids 0, 1, 2 ..., got {list(self.names)!r:.60}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in order of id; an id that a mapping leaves out is called `class_ID`. Empty if there are none."""
        if not isinstance(self.names, Mapping):
            return tuple(str(name) for name in self.names)
        return tuple(str(self.names.get(i, f"class_{i}")) for i in range(max(self.names, default=-1) + 1))


def sidecar_path(model: Path) -> Path:
    """Where the sidecar of a model file is: the same name, ending in .yaml."""
    return model.with_suffix(".yaml")


def read_sidecar(model: Path, metadata: Mapping[str, str] = {}) -> Sidecar:
    """What the sidecar of a model file says, and what the file's `metadata` carries of one; empty if neither is there.

    Raises ConfigError naming the sidecar: unreadable, an unknown key, a value that does not fit, another SHA-256.
    """
    path = sidecar_path(model)
    inner = _said(metadata.get(EMBEDDED, ""), f"{model.name}: its metadata '{EMBEDDED}'")
    if not path.is_file():
        return inner[1]
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from None
    outer = _said(text, str(path))
    sidecar = outer[1]
    if inner[0]:
        sidecar = parse(Sidecar, {**inner[0], **outer[0]})
    if sidecar.sha256 and model != path and model.is_file():  # else it is on a server
        digest = file_digest(model)
        if digest != sidecar.sha256.lower():
            raise ConfigError(
                f"{path}: written for the model {sidecar.sha256[:12]}..., but {model.name} is {digest[:12]}..."
            )
    return sidecar


def _said(text: str, where: str) -> tuple[dict[str, Any], Sidecar]:
    """The keys in a sidecar's text, and what they mean."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not readable as YAML: {' '.join(str(error).split())}") from None
    try:
        sidecar: Sidecar = parse(Sidecar, {} if values is None else values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return dict(values or {}), sidecar


def constant_inputs(sidecar: Sidecar, folder: Path) -> dict[str, NDArray]:
    """The sidecar's `inputs` as arrays; files are looked for in `folder`. Raises ConfigError."""
    arrays = {}
    for name, value in sidecar.inputs.items():
        if isinstance(value, str):
            try:
                arrays[name] = np.load(folder / value, allow_pickle=False)
            except (OSError, ValueError) as error:
                raise ConfigError(f"inputs.{name}: {folder / value} is not a readable .npy file: {error}") from None
        else:
            try:
                arrays[name] = np.array(value)
            except ValueError:
                raise ConfigError(f"inputs.{name}: expected rows of equal length, got {value!r:.60}") from None
            if arrays[name].dtype.kind not in "biuf":
                raise ConfigError(f"inputs.{name}: expected numbers, got {value!r:.60}")
    return arrays
