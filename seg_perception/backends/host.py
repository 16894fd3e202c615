# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What backends take from this computer: the model's file, a share of the cores, a folder for what is compiled."""

from __future__ import annotations

import os
from pathlib import Path

from seg_perception.options import ConfigError
from seg_perception.process import usable_cores

MOST_THREADS = 8  # more gain little on the networks used here and take the machine from everyone else


def model_file(name: str) -> Path:
    """The file `name`, absolute. Raises ConfigError where there is none."""
    path = Path(name).expanduser().absolute()
    if not name or not path.is_file():
        raise ConfigError(f"no such model file: {path if name else 'the name is empty'}")
    return path


def threads_for(asked: int) -> int:
    """`asked` threads; for 0 all cores that this process may use but one, at most 8."""
    return asked or min(MOST_THREADS, max(1, usable_cores() - 1))


def cache_folder(runtime: str) -> Path:
    """Where the models that `runtime` compiled are kept: $XDG_CACHE_HOME/seg_perception, by default in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seg_perception" / runtime
