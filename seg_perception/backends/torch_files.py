# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a PyTorch file holds, found out and loaded without running code that came with it, unless that is trusted."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seg_perception.options import ConfigError

SCRIPT, EXPORT, WEIGHTS = "TorchScript", "torch.export program", "weights"
TRUST = "if you trust where it came from, set trust_pickle: true"
LOADING: tuple[type[Exception], ...] = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError)
LOADING += (AssertionError, ImportError, EOFError, OSError, pickle.UnpicklingError, zipfile.BadZipFile)


def kind_of(path: Path) -> str:
    """SCRIPT, EXPORT or WEIGHTS. Raises ConfigError when it is none of them."""
    members = _members(path)
    if members is None:
        with path.open("rb") as file:
            if file.read(2) in (b"\x80\x02", b"\x80\x03", b"\x80\x04"):  # how torch.save began its files until 1.6
                return WEIGHTS
        raise ConfigError(f"not a readable PyTorch file: {path} (truncated, or another format?)")
    if "constants.pkl" in members:
        return SCRIPT
    if "archive_format" in members or "serialized_exported_program.json" in members:
        return EXPORT
    if "data.pkl" in members:
        return WEIGHTS
    raise ConfigError(f"{path}: a zip archive that PyTorch did not write (no TorchScript, program or weights in it)")


def metadata_of(path: Path) -> dict[str, str]:
    """The extra files in the archive: of a JSON mapping its entries, as Ultralytics has them, else the text by name."""
    found: dict[str, str] = {}
    for name, full in (_members(path) or {}).items():
        if not name.startswith("extra/"):
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                text = archive.read(full).decode("utf-8", errors="replace")
        except zipfile.BadZipFile as error:
            raise ConfigError(f"not a readable PyTorch file: {path}: {reason(error)}") from error
        try:
            values = json.loads(text, object_hook=_with_numbers)
        except ValueError:
            values = None
        if isinstance(values, Mapping):
            found.update({str(key): str(value) for key, value in values.items()})
        else:
            found[name.removeprefix("extra/")] = text
    return found


def load_script(torch: Any, path: Path, device: Any) -> Any:
    """The ScriptModule. Raises ConfigError."""
    try:
        return torch.jit.load(str(path), map_location=device)
    except LOADING as error:
        raise _unreadable(path, SCRIPT, error) from error


def load_program(torch: Any, path: Path, trusted: bool) -> Any:
    """The ExportedProgram. Raises ConfigError, also when loading it could run foreign code and it is not `trusted`."""
    try:
        return torch.export.load(str(path) if trusted else _vetted(torch, path))
    except LOADING as error:
        raise error if isinstance(error, ConfigError) else _unreadable(path, EXPORT, error) from error


def load_weights(torch: Any, path: Path, device: Any, trusted: bool, key: str) -> Any:
    """What the file holds (under `key`): a state dict, or a module when `trusted`. Raises ConfigError."""
    try:
        loaded = torch.load(str(path), map_location=device, weights_only=not trusted)
    except pickle.UnpicklingError as error:
        if trusted:
            raise _unreadable(path, WEIGHTS, error) from error
        raise _distrusted(path, error) from error
    except LOADING as error:
        raise _unreadable(path, WEIGHTS, error) from error
    if not key:
        return loaded
    if not isinstance(loaded, Mapping) or key not in loaded:
        there = ", ".join(map(str, loaded)) if isinstance(loaded, Mapping) else type(loaded).__name__
        raise ConfigError(f"checkpoint_key: no '{key}' in {path} (it holds: {_short(there)})")
    return loaded[key]


def _members(path: Path) -> dict[str, str] | None:
    """Name inside the archive's one folder -> full name; None if it is no zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            if min((member.header_offset for member in archive.infolist()), default=0) > 0:
                return None  # the rest of a truncated archive that held another one
            return {name.partition("/")[2] or name: name for name in archive.namelist()}
    except zipfile.BadZipFile:
        return None


def _vetted(torch: Any, path: Path) -> io.BytesIO:
    """The archive anew, of the members that were looked at: torch.export.load unpickles without restriction.

    All that it would unpickle must load as mere tensors first. Anew, since another reader of the same archive may see
    other members in it.
    """
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    pickles = {name for name, content in contents.items() if name.endswith(".pt") or content.startswith(b"PK\3\4")}
    for name, content in contents.items():
        if "data/aotinductor/" in name:
            raise ConfigError(f"{path}: holds compiled code: {TRUST}")
        if name.endswith("_config.json"):
            pickles |= _pickled_payloads(path, name, content) & contents.keys()
    for name in sorted(pickles):
        try:
            if contents[name]:
                torch.load(io.BytesIO(contents[name]), map_location="cpu", weights_only=True)
        except LOADING as error:
            raise _distrusted(path, error) from error
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    buffer.seek(0)
    return buffer


def _pickled_payloads(path: Path, name: str, config: bytes) -> set[str]:
    """Members that the weights or constants listed in `config` are unpickled from."""
    folder = name.rpartition("/")[0]
    try:
        payloads = [(p["path_name"], p["use_pickle"]) for p in json.loads(config)["config"].values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, EXPORT, error) from error
    for file, _ in payloads:
        if file.startswith(("custom_obj", "opaque_obj")):
            raise ConfigError(f"{path}: holds the pickled object {file}: {TRUST}")
    return {f"{folder}/{file}" for file, pickled in payloads if pickled}


def _with_numbers(values: dict[str, Any]) -> dict[Any, Any]:
    """JSON has class ids as texts."""
    return {int(key): v for key, v in values.items()} if values and all(k.isdecimal() for k in values) else values


def _unreadable(path: Path, kind: str, error: Exception) -> ConfigError:
    return ConfigError(f"not a readable {kind} file: {path}: {reason(error)}")


def _distrusted(path: Path, error: Exception) -> ConfigError:
    what = str(error).rpartition("WeightsUnpickler error:")[2].partition(" Please use")[0]
    return ConfigError(f"{path}: holds more than tensors, and loading it can run any code: {_short(what)}; {TRUST}")


def reason(error: Exception) -> str:
    """An error of torch in one line of bearable length."""
    return _short(str(error)) or type(error).__name__


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:297] + "..."
