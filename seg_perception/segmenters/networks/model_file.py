# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Where a network's file is, one word that says which file it was, and the backend that runs it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from seg_perception.files import file_digest, shipped
from seg_perception.options import ConfigError, Selected
from seg_perception.plugins import load_plugin
from seg_perception.segmenters.networks.sidecar import read_sidecar


def find_model(name: str, hint: str, backend: Selected | None = None) -> Path:
    """The absolute path of a model named relative to the working directory, else to the shipped `models/` folder.

    With a `backend` that is a model server the file may be there alone: then the path leads to the sidecar, if any.
    Raises ConfigError: `hint` tells how to get a model when none is named.
    """
    if not name and (name := _name_on_server(backend)) == "":
        raise ConfigError(f"model: no network file is named; {hint}")
    path = Path(name).expanduser()
    if path.is_file():
        return path.absolute()
    try:
        return shipped("models", name).resolve(strict=True)
    except FileNotFoundError:
        if _is_server(backend):
            return _beside_sidecar(path)
        raise ConfigError(f"model: no such file: {path.absolute()} (nor in the shipped models/ folder)") from None


def _is_server(backend: Selected | None) -> bool:
    return backend is not None and getattr(load_plugin(backend.group, backend.plugin), "IS_SERVER", False)


def _name_on_server(backend: Selected | None) -> str:
    return getattr(backend.config, "name", "") if backend is not None and _is_server(backend) else ""


def _beside_sidecar(path: Path) -> Path:
    """Where the model would be if it were here: beside its sidecar, in the working directory or models/."""
    if not path.with_suffix(".yaml").is_file():
        try:
            return shipped("models", path.with_suffix(".yaml").name)
        except FileNotFoundError:
            pass
    return path.absolute()


def fingerprint(path: Path) -> str:
    """The file's stem and the start of its SHA-256, e.g. `yolo11n-seg@3f2a91c0`; `@server` if it is there alone."""
    if not path.is_file() or path.suffix == ".yaml":
        return f"{path.stem}@server"
    return f"{path.stem}@{file_digest(path)[:8]}"


def start_backend(backend: Selected, path: Path, key: str = "backend", instead: str = "model") -> Any:
    """The backend with the model's path in its own config, which is all that a backend is constructed from.

    Raises ConfigError when the user named a model in the backend's section `key` rather than as the segmenter's
    `instead`, and when the file is not the one that its sidecar's SHA-256 speaks of.
    """
    if backend.config.model:
        raise ConfigError(f"{key}.model: given by the segmenter; set the segmenter's {instead} instead")
    read_sidecar(path)
    return replace(backend, config=replace(backend.config, model=str(path))).create()
