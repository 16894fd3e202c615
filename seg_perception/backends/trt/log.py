# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""TensorRT's own log: kept, since it alone says why a call returned nothing, and put into words that help."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from functools import cache
from typing import Any

logger = logging.getLogger("seg_perception.backends.tensorrt")

KEPT = 200  # lines
NO_MEMORY = "not enough GPU memory: lower backend.workspace or the largest shapes, close other programs"

HINTS = (  # what a line holds -> what to do about it; the first that fits counts
    (
        "is a shape tensor and must have type",
        "an input that is a size must be int64: export the model so, or without it",
    ),
    ("kEXPECTED_MAGIC_TAG", "that is no engine, or a damaged one"),
    ("not found in plugin registry", "this TensorRT has no such operator"),
    ("Plugin not found", "this TensorRT has no such operator"),
    (
        "libnvinfer_builder_resource",
        "this installation runs engines but cannot build them for this GPU (trimmed image?)",
    ),
    ("has no runners that implement it", "an operator of the model is missing in this TensorRT: export it without NMS"),
    ("does not support this compute capability", "TensorRT-RTX does not know this GPU: install tensorrt-cu13"),
    ("CUDA driver version is insufficient", "no driver, or one older than this TensorRT's CUDA: update the driver"),
    ("OutOfMemory", NO_MEMORY),
    ("out of memory", NO_MEMORY),
    ("MEM_ALLOC", NO_MEMORY),
    ("no optimization profile", "an input is dynamic: set backend.shapes"),
)
LEVELS = {"INTERNAL_ERROR": logging.ERROR, "ERROR": logging.ERROR, "WARNING": logging.WARNING, "INFO": logging.DEBUG}


@cache
def collecting_logger(trt: Any) -> Any:
    """The one `trt.ILogger` of this process: it keeps errors and warnings, and passes all on to `logging`.

    One for ever, since TensorRT knows only the first it is given and calls that as long as anything of it lives. Not an
    IErrorRecorder: with one attached, a parse that fails can end the process.
    """

    class Collector(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._lines: deque[tuple[int, str]] = deque(maxlen=KEPT)
            self._count = 0

        def log(self, severity: Any, message: str) -> None:
            level = LEVELS.get(severity.name, logging.NOTSET)
            if level >= logging.WARNING:
                self._count += 1
                self._lines.append((self._count, message))
            if level:
                logger.debug("%s: %s", severity.name, message)

        def mark(self) -> int:
            """A place in the log, for `since`."""
            return self._count

        def since(self, mark: int) -> list[str]:
            """What was said after that."""
            return [message for count, message in list(self._lines) if count > mark]

    return Collector()


def reason(lines: Sequence[str]) -> str:
    """One line of why it failed: the hint that fits, then TensorRT's own words."""
    said = [" ".join(line.split()) for line in lines if "--- " not in line]
    hints = [hint for mark, hint in HINTS if any(mark in line for line in said)]
    own = next(
        (line for line in said if "Error Code" in line or "rror" in line), said[-1] if said else "it gave no reason"
    )
    own = own if len(own) <= 300 else own[:297] + "..."
    return f"{hints[0]} (TensorRT: {own})" if hints else f"TensorRT: {own}"
