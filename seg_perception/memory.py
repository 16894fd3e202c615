# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Memory between frames: a process that makes the same large arrays again and again keeps what it freed."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_* of malloc.h
LARGEST = 32 << 20  # bytes, the most that glibc takes
KEPT = 128 << 20  # bytes that may lie free


def keep_freed_memory() -> bool:
    """Tells glibc's malloc not to give arrays of up to 32 MB back to the system when they are freed; whether it obeys.

    Else the system takes the pages of a cloud or an image back and clears new ones for the next, several times per
    message: that costs more than all the work on them. Holds for the whole process, so only who owns it may call this.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None  # musl has none
    return mallopt is not None and bool(mallopt(MMAP_THRESHOLD, LARGEST)) and bool(mallopt(TRIM_THRESHOLD, KEPT))
