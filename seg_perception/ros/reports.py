# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the node knows about itself: problems by name, counts of what was dropped, times of the stages. Thread-safe."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

import numpy as np

REMEMBER = 3.0  # s, a problem that was not seen for longer is over
WINDOW = 300  # frames that percentiles are taken over
NUMBER = re.compile(r"[-+]?\d[\d.]*")  # another number is no other problem
REPEATED = 3  # failures in a row that make an ERROR


class Reports:
    """Collects; diagnostics reads. `log` gets a problem's line when it is new or was silent for a while."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._problems: dict[str, tuple[str, float]] = {}
        self._logged: dict[str, tuple[str, float]] = {}
        self._stages: dict[str, deque[float]] = {}
        self._facts: dict[str, dict[str, object]] = {}
        self.drops: Counter[str] = Counter()
        self.failures = 0  # in a row
        self.published = 0
        self.last_published: float | None = None

    def problem(self, name: str, text: str) -> None:
        """`name` (an input, or a part of the node) has a problem now."""
        now = time.monotonic()
        with self._lock:
            self._problems[name] = (text, now)
            logged = self._logged.get(name)
            words = NUMBER.sub("#", text)
            fresh = logged is None or now - logged[1] > 10.0 or (logged[0] != words and now - logged[1] > 5.0)
            if fresh:
                self._logged[name] = (words, now)
        if fresh:
            self._log(f"{name}: {text}")

    def solved(self, name: str) -> None:
        """`name` works."""
        if name in self._problems:
            with self._lock:
                self._problems.pop(name, None)

    def current(self, name: str) -> str:
        """The problem that `name` has, empty if none was seen lately."""
        text, seen = self._problems.get(name, ("", 0.0))
        return text if text and time.monotonic() - seen < REMEMBER else ""

    def fact(self, name: str, key: str, value: object) -> None:
        """What is to be known about `name`, with its unit in the key."""
        with self._lock:
            self._facts.setdefault(name, {})[key] = value

    def facts(self, name: str) -> dict[str, object]:
        """All that is known about `name`."""
        with self._lock:
            return dict(self._facts.get(name, {}))

    def drop(self, reason: str) -> None:
        """A frame was lost."""
        with self._lock:
            self.drops[reason] += 1

    def failed(self, where: str, error: Exception, text: str = "") -> None:
        """A stage raised: the frame is lost. `text` replaces the error where another part says it already."""
        self.failures += 1
        self.drop(f"{where} raised")
        self.problem("pipeline", text or f"{where} raised {type(error).__name__}: {' '.join(str(error).split())}")

    def stage(self, name: str, seconds: float) -> None:
        """Time that a stage took."""
        with self._lock:
            self._stages.setdefault(name, deque(maxlen=WINDOW)).append(seconds)

    def done(self, timings: Mapping[str, float]) -> None:
        """A frame came through; `timings` maps stages to s."""
        for name, seconds in timings.items():
            self.stage(name, seconds)
        self.failures = 0
        self.published += 1
        self.last_published = time.monotonic()
        self.solved("pipeline")

    def percentiles(self) -> dict[str, tuple[float, float]]:
        """Stage -> median and 95th percentile, s."""
        with self._lock:
            stages = {name: np.array(values) for name, values in self._stages.items()}
        return {name: (float(np.median(v)), float(np.percentile(v, 95))) for name, v in stages.items()}
