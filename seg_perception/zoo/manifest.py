# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The manifest: models that are known by name, with licence and SHA-256, and where they are from.

models:
  parts-seg:
    file: parts-seg.onnx
    url: https://example.org/parts-seg.onnx      # absent: no address is known, `export` says how to make it
    sha256: 3f2a...
    bytes: 11814518
    licence: Apache-2.0
    licence_url: https://example.org/LICENSE
    about: what it finds
    export: how to make one like it
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import yaml

from seg_perception.files import shipped
from seg_perception.options import ConfigError, option, parse

FILE = "manifest.yaml"


@dataclass(frozen=True)
class Known:
    """One model of a manifest."""

    file: str = option("", "its file name")
    url: str = option("", "where it can be had")
    sha256: str = option("", "of the file")
    bytes: int = option(0, "size of the file; 0 = not known", ge=0)
    licence: str = option("", "of the weights")
    licence_url: str = option("", "its text")
    about: str = option("", "what it is")
    export: str = option("", "how to make one like it")

    def __post_init__(self) -> None:
        check_address(self.url)
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ConfigError(f"sha256: expected 64 hexadecimal digits, got '{self.sha256:.70}'")
        if not self.file or PurePosixPath(self.file).name != self.file or self.file.startswith("."):
            raise ConfigError(f"file: expected a file name, got '{self.file}'")
        if not self.licence:
            raise ConfigError("licence: expected its name, got none")


def read_manifest(path: Path | None = None) -> dict[str, Known]:
    """The models of a manifest by name; the shipped one by default. Raises ConfigError naming the file."""
    path = path or shipped("models", FILE)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, Mapping) or not isinstance(values.get("models"), Mapping):
        raise ConfigError(f"{path}: expected models: {{NAME: {{file: ..., sha256: ..., licence: ...}}}}")
    return {str(name): parse(Known, about, f"{path}: {name}") for name, about in values["models"].items()}


def check_address(url: str) -> None:
    """Raises ConfigError for anything but http and https."""
    if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise ConfigError(f"url: expected http:// or https://, got '{url}'")
