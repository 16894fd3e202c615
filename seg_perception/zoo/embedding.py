# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A sidecar inside its ONNX file, in the metadata, where it travels with it; written without the package onnx."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from seg_perception.options import ConfigError
from seg_perception.segmenters.networks.sidecar import EMBEDDED
from seg_perception.zoo.onnx_file import fields_of, read_onnx, text_of

METADATA, KEY, VALUE = 14, 1, 2  # numbers of fields: of ModelProto, and of one entry in there


def embed(path: Path, values: Mapping[str, Any]) -> None:
    """Writes `values` (keys of a sidecar, its `sha256` left out) into the metadata of an ONNX file, in the place of
    what was there before. The file is replaced as a whole or not at all. Raises ConfigError: not an ONNX file.
    """
    if path.suffix.lower() != ".onnx":
        raise ConfigError(f"{path.name}: only an ONNX file can carry its sidecar inside")
    read_onnx(path)
    said = {key: value for key, value in values.items() if key != "sha256"}
    text = yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=120)
    entry = _field(KEY, EMBEDDED.encode()) + _field(VALUE, text.encode())
    part = path.with_name(f".{path.name}.part")
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            part.open("wb") as out,
        ):
            at = 0
            for number, _, (start, stop) in fields_of(data, 0, len(data)):
                if number == METADATA and _key_of(data, start, stop) == EMBEDDED:
                    out.write(data[at : start - _head(METADATA, stop - start)])
                    at = stop
            out.write(data[at:])
            out.write(_field(METADATA, entry))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _key_of(data: mmap.mmap, start: int, stop: int) -> str:
    return next((text_of(data, span) for number, _, span in fields_of(data, start, stop) if number == KEY), "")


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _head(number: int, length: int) -> int:
    """Bytes before the value of a field."""
    return len(_varint(number << 3 | 2)) + len(_varint(length))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
