# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Engines that were built before: each beside a JSON file that says what it was built from, found by a hash of that."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from seg_perception.backends.progress import Progress, tell
from seg_perception.options import ConfigError

logger = logging.getLogger(__name__)

SCHEMA = 1  # of the key and of the JSON file
TICK = 0.2  # s between two looks at a lock
DIFFERENCES = {  # a field of the key -> what its change means
    "library": "TensorRT's version",
    "gpu": "the GPU or its driver",
    "model": "the model file",
    "precision": "the precision",
    "shapes": "the shapes",
    "optimization_level": "the optimization level",
    "workspace": "the workspace",
    "plugins": "the plugin libraries",
    "dla_core": "the DLA core",
    "platform": "the platform",
    "schema": "the format of the cache",
}


@dataclass(frozen=True)
class EngineKey:
    """Everything that an engine depends on; `name` is for people."""

    name: str
    fields: Mapping[str, Any]

    @property
    def digest(self) -> str:
        text = json.dumps({"schema": SCHEMA, **self.fields}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def stem(self) -> str:
        return f"{_file_name(self.name)}-{self.digest[:16]}"


@dataclass(frozen=True)
class Kept:
    """An engine and what its JSON file says."""

    plan: bytes
    facts: Mapping[str, Any]


class EngineStore:
    """A folder of engines. Files appear in it whole or not at all. Engines are code: nobody else may write there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, key: EngineKey) -> Kept | None:
        """The engine of this key; None when there is none, or none that is whole.

        Raises ConfigError where anybody may write: an engine is code.
        """
        facts = self._facts(self._file(key, "json"))
        path = self._file(key, "engine")
        if facts is None or not path.is_file():
            return None
        for place in (self.folder, path):
            if place.stat().st_mode & stat.S_IWOTH and not place.stat().st_mode & stat.S_ISVTX:
                raise ConfigError(f"{place} may be written by anybody, and an engine is code: chmod o-w {place}")
        plan = path.read_bytes()
        if hashlib.sha256(plan).hexdigest() != facts.get("sha256"):
            logger.warning("%s is damaged: it is not what was written; building it anew", path)
            return None
        return Kept(plan, facts)

    def save(self, key: EngineKey, plan: bytes, facts: Mapping[str, Any]) -> None:
        """Keeps an engine. Raises ConfigError when it cannot be written; then nothing of it is left."""
        about = {
            **facts,
            "name": key.name,
            "key": {"schema": SCHEMA, **key.fields},
            "sha256": hashlib.sha256(plan).hexdigest(),
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        self._file(key, "json").unlink(missing_ok=True)  # an engine counts once its new description is there
        self._write(self._file(key, "engine"), plan)
        self._write(self._file(key, "json"), json.dumps(about, indent=1).encode())

    def forget(self, key: EngineKey) -> None:
        """Deletes an engine that turned out to be of no use."""
        for kind in ("json", "engine"):
            self._file(key, kind).unlink(missing_ok=True)

    def why_not(self, key: EngineKey) -> str:
        """How the engine of the same name that is nearest to `key` differs from it; empty when there is none."""
        others = []
        wanted = {"schema": SCHEMA, **key.fields}
        for path in sorted(self.folder.glob("*.json")) if self.folder.is_dir() else ():
            facts = self._facts(path)
            if facts is not None and facts.get("name") == key.name and isinstance(facts.get("key"), dict):
                old = facts["key"]
                changed = [name for name in {**wanted, **old} if old.get(name) != wanted.get(name)]
                if changed:
                    others.append((len(changed), changed, old, facts))
        if not others:
            return ""
        _, changed, old, facts = min(others, key=lambda other: other[0])
        parts = [
            f"{DIFFERENCES.get(n, n)} changed from {_short(old.get(n))} to {_short(wanted.get(n))}" for n in changed
        ]
        took = facts.get("build_seconds")
        return "; ".join(parts) + (f" (that one took {took:.0f} s to build)" if isinstance(took, int | float) else "")

    @contextlib.contextmanager
    def locked(self, key: EngineKey) -> Iterator[None]:
        """Lets one process build an engine while the others wait for it. Raises ConfigError: not writable, full."""
        with self._lock_file(key.stem) as file:
            if not _try_lock(file):
                logger.info("another process is building %s: waiting for it", key.name)
            while not _try_lock(file):
                tell(Progress(f"another process is building {key.name}: waiting for it"))
                time.sleep(TICK)
            for part in self.folder.glob(f".{key.stem}.*.part"):  # of a process that was killed
                part.unlink()
            yield

    # -- what TensorRT measured, for the next build on the same GPU ----------------------------------------------------

    def timings(self, owner: str) -> bytes:
        """The measurements of `owner` (a version on a GPU); empty when there are none."""
        path = self._timings(owner)
        return path.read_bytes() if path.is_file() else b""

    def merge_timings(self, owner: str, merge: Callable[[bytes], bytes]) -> None:
        """Keeps what `merge` makes of those kept so far; processes take turns. Raises ConfigError as `save` does."""
        with self._lock_file(f"{_file_name(owner)}.timings") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # held for milliseconds
            merged = merge(self.timings(owner))
            if merged:
                self._write(self._timings(owner), merged)

    # ------------------------------------------------------------------------------------------------------------------

    def _lock_file(self, stem: str) -> TextIO:
        """Open; it stays in the folder, which is made. Raises ConfigError: not writable, full."""
        path = self.folder / f".{stem}.lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return path.open("w")
        except OSError as error:
            raise self._refusal(path, 0, error) from error

    def _file(self, key: EngineKey, kind: str) -> Path:
        return self.folder / f"{key.stem}.{kind}"

    def _timings(self, owner: str) -> Path:
        return self.folder / f"{_file_name(owner)}.timings"

    def _facts(self, path: Path) -> dict[str, Any] | None:
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            logger.warning("%s is damaged: it is no JSON; the engine beside it is built anew", path)
            return None
        return facts if isinstance(facts, dict) else None

    def _write(self, path: Path, data: bytes) -> None:
        part = self._part(path)
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise self._refusal(path, len(data), error) from error

    def _part(self, path: Path) -> Path:
        return path.with_name(f".{path.name}.{os.getpid()}.part")

    def _refusal(self, path: Path, size: int, error: OSError) -> ConfigError:
        need = f" ({size / 1e6:.1f} MB)" if size else ""
        return ConfigError(
            f"the engine cannot be kept: {error.strerror}: {path}{need}; free space there, or set backend.cache to a "
            "folder that can be written"
        )


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items()) or "none"
    text = str(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{64}", text) else text or "none"
