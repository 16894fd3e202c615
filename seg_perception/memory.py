# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Memory between frames: a process that makes the same large arrays again and again keeps what it freed."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # M_* of malloc.h
LARGEST = 32 << 20  # bytes, the most that glibc takes
KEPT = 128 << 20  # bytes that may lie free
ARENAS = 2  # that threads allocate from; each keeps what was freed in it
DEFAULT = 128 << 10  # bytes, of both thresholds


def keep_freed_memory() -> bool:
    """Tells glibc's malloc not to give arrays of up to 32 MB back to the system when they are freed; whether it obeys.

    Else the system takes the pages of a cloud or an image back and clears new ones for the next, several times per
    message: that costs more than all the work on them. Threads share two arenas, or each would keep its own (40 MB of
    the node's). Holds for the whole process, so only who owns it may call this.
    """
    return _set(MMAP_THRESHOLD, LARGEST) and _set(TRIM_THRESHOLD, KEPT) and _set(ARENA_MAX, ARENAS)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """The same for a while: afterwards the process gives memory back as by default."""
    keep_freed_memory()
    try:
        yield
    finally:
        _set(MMAP_THRESHOLD, DEFAULT)
        _set(TRIM_THRESHOLD, DEFAULT)
        _set(ARENA_MAX, 0)  # as many as it likes


def _set(parameter: int, value: int) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None  # musl has none
    return mallopt is not None and bool(mallopt(parameter, value))
