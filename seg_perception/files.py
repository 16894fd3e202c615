# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Files: where the shipped ones are, beside the sources or under share/ once installed; and which one a file is."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path


def shipped(folder: str, name: str = "") -> Path:
    """The shipped file `folder/name`, e.g. `shipped("config", "tabletop.yaml")`.

    Looked for beside the sources, then in share/seg_perception of the ROS overlays and of this Python. Raises
    FileNotFoundError naming the folders searched.
    """
    candidates = [root / folder / name for root in _roots()]
    for path in candidates:
        if path.exists():
            return path
    raise FileNotFoundError(f"no {folder}/{name} in {', '.join(str(c.parent) for c in candidates)}")


def file_digest(path: Path) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _roots() -> Iterator[Path]:
    source = Path(__file__).resolve().parents[1]
    if (source / "package.xml").exists():
        yield source
    for prefix in [*filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)), sys.prefix]:
        yield Path(prefix) / "share" / "seg_perception"
