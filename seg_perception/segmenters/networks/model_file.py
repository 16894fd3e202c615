# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Where a network's file is, one word that says which file it was, and the backend that runs it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from seg_perception.files import shipped
from seg_perception.options import ConfigError, Selected


def find_model(name: str, hint: str) -> Path:
    """The absolute path of a model named relative to the working directory, else to the shipped `models/` folder.

    Raises ConfigError: `hint` tells how to get a model when none is named.
    """
    if not name:
        raise ConfigError(f"model: no network file is named; {hint}")
    path = Path(name).expanduser()
    if path.is_file():
        return path.absolute()
    try:
        return shipped("models", name).resolve(strict=True)
    except FileNotFoundError:
        raise ConfigError(f"model: no such file: {path.absolute()} (nor in the shipped models/ folder)") from None


def fingerprint(path: Path) -> str:
    """The file's stem and the start of its SHA-256, e.g. `yolo11n-seg@3f2a91c0`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return f"{path.stem}@{digest.hexdigest()[:8]}"


def start_backend(backend: Selected, path: Path, key: str = "backend", instead: str = "model") -> Any:
    """The backend with the model's path in its own config, which is all that a backend is constructed from.

    Raises ConfigError when the user named a model in the backend's section `key` rather than as the segmenter's
    `instead`.
    """
    if backend.config.model:
        raise ConfigError(f"{key}.model: given by the segmenter; set the segmenter's {instead} instead")
    return replace(backend, config=replace(backend.config, model=str(path))).create()
