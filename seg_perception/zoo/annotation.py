# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Writes the sidecar of a model file, which says what the file itself cannot, and sees that it settles the matter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from seg_perception.files import file_digest
from seg_perception.options import ConfigError, parse
from seg_perception.segmenters.networks.sidecar import Sidecar, sidecar_path
from seg_perception.zoo.embedding import embed
from seg_perception.zoo.manifest import read_manifest
from seg_perception.zoo.subject import Subject, UnrecognisedError, recognise

ORDER = ("family", "names", "preprocessing", "decoding", "thresholds", "inputs", "licence", "source", "sha256")


def annotate(
    path: Path, changes: Mapping[str, Any], plugin: str = "", decoder: Path | None = None, inside: bool = False
) -> tuple[Path, Subject]:
    """Writes `changes` (keys of a sidecar) over what the sidecar says, with the file's SHA-256; returns its path and
    the segmenter that now reads the model. If none does, the sidecar is left as it was and ConfigError raised.
    `inside`: an ONNX file carries the same in its metadata as well, and is another file by its SHA-256 then.
    """
    if not path.is_file():
        raise ConfigError(f"no such model file: {path}")
    target = sidecar_path(path)
    before = target.read_text(encoding="utf-8") if target.is_file() else None
    digest = file_digest(path)
    values = merged({**_licence_of(digest), **_read(target, before)}, changes)
    values["sha256"] = digest
    parse(Sidecar, values, str(target))
    write_sidecar(target, values)
    try:
        subject = recognise(path, plugin, decoder)
    except ConfigError as error:
        target.unlink() if before is None else target.write_text(before, encoding="utf-8")
        if isinstance(error, UnrecognisedError):
            raise ConfigError(f"{path.name}: that settles nothing, no sidecar written: {error.listing}") from None
        raise
    if inside:
        embed(path, values)
        write_sidecar(target, {**values, "sha256": file_digest(path)})
    return target, subject


def copy_sidecar(source: Path, target: Path, about: str) -> None:
    """The sidecar of one model file for another that was made of it, if it has one; `about` says how it was made."""
    path = sidecar_path(source)
    if not path.is_file():
        return
    values = _read(path, path.read_text(encoding="utf-8"))
    origin = str(values.get("source") or source.name)
    write_sidecar(sidecar_path(target), {**values, "source": f"{origin}, {about}", "sha256": file_digest(target)})


def write_sidecar(target: Path, values: Mapping[str, Any]) -> None:
    """Whole or not at all, keys in their usual order."""
    ordered = {key: values[key] for key in (*ORDER, *values) if key in values}
    part = target.with_name(f".{target.name}.part")
    part.write_text(yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=120), encoding="utf-8")
    part.replace(target)


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `changes` over them, mapping by mapping; names are replaced as a whole."""
    out = dict(values)
    for key, value in changes.items():
        deep = key != "names" and isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merged(out[key], value) if deep else value
    return out


def _licence_of(digest: str) -> dict[str, str]:
    """What the manifest says of a file that it knows."""
    known = [model for model in read_manifest().values() if model.sha256 == digest]
    return {"licence": known[0].licence} if known else {}


def _read(path: Path, text: str | None) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text) if text else {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values or {}, Mapping):
        raise ConfigError(f"{path}: expected a mapping of keys, got {type(values).__name__}")
    return dict(values or {})
