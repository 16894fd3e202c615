# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM as KeyboardInterrupt, and the memory of it: compiled code may wrap the exception or swallow it."""

from __future__ import annotations

import signal
import sys
from types import FrameType, TracebackType
from typing import Any

_seen = False


class Interruptible:
    """While inside, both signals raise KeyboardInterrupt, and `check` raises it again should it get lost."""

    def __enter__(self) -> None:
        global _seen
        _seen = False
        self._before: dict[int, Any] = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
        for number, handler in self._before.items():
            if handler != signal.SIG_IGN:  # a shell's background job is not meant by ctrl-C
                signal.signal(number, _raise)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._hook

    def _unraisable(self, lost: Any) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            self._hook(lost)


def seen() -> bool:
    """Whether there was one."""
    return _seen


def check() -> None:
    """Raises KeyboardInterrupt if there was one."""
    if _seen:
        raise KeyboardInterrupt


def _raise(number: int, frame: FrameType | None) -> None:
    global _seen
    _seen = True
    raise KeyboardInterrupt
