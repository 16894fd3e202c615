# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One injected fault as a test sees it, and its row in the table of docs/reliability.md.

A test says which fault it injects by `@pytest.mark.fault(group, fault)`, and gets an `injected` to look through.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rig import PATIENCE, Rig, is_good

from seg_perception.ros.conversions import stamp_ns
from seg_perception.scene import Status

VARIABLE = "SEG_PERCEPTION_FAULT_ROWS"  # environment: the file that rows are appended to, one JSON object per line
LEVELS = {DiagnosticStatus.OK: "OK", DiagnosticStatus.WARN: "WARN", DiagnosticStatus.ERROR: "ERROR"}
WITH_3D = "objects with 3D"
NOTHING = "nothing"
RATE = 30.0  # Hz, of good frames
WINDOWS = 4  # looks at what is published: on a busy machine a transform may come late for a frame


@dataclass
class Row:
    """A row of the table. `recovery` s from the first good frame to its result; None = it is not about that."""

    group: str
    fault: str
    stand_in: str = ""
    said: str = ""
    published: str = ""
    afterwards: str = ""
    recovery: float | None = None
    outcome: str = "FAILED"


class Injected:
    """Waits for what the user gets of a fault and keeps it for the table."""

    def __init__(self, row: Row, rig: Rig) -> None:
        self.row = row
        self._rig = rig
        self._before = rig.problems()

    def says(self, part: str, level: bytes, *words: str, **camera: Any) -> DiagnosticStatus:
        """The diagnostics of `part`, once they are of this level and have these words in one line. What they said
        before, of another fault, does not count."""

        def said() -> DiagnosticStatus | None:
            status = self._rig.diagnostic(part)
            new = status.message != self._before.get(part)
            return status if new and status.level == level and all(w in status.message for w in words) else None

        status = self._rig.film(said, what=f"{part} {level} {words}", **camera)
        assert "\n" not in status.message
        self.heard(f"{part}: {LEVELS[level]}: {status.message}")
        return status

    def heard(self, text: str) -> None:
        """What the user is told, where that is not in the diagnostics."""
        plain = re.sub(
            r"/[^\s']*/pytest-[^\s'/]*/[^\s'/]*", "", text.replace(f"{self._rig.node.get_namespace()}/", "/")
        )
        self.row.said += f"{'; ' if self.row.said else ''}{plain}"

    def publishes(self, expected: str, seconds: float = 0.4, **camera: Any) -> None:
        """Films for a while: that these statuses are published, or `WITH_3D`, or `NOTHING`."""
        time.sleep(0.1)  # what was under way
        for _ in range(1 if expected == NOTHING else WINDOWS):
            self._rig.objects.clear()
            end = time.monotonic() + seconds
            self._rig.film(lambda end=end: time.monotonic() > end, **camera)
            if expected != NOTHING:
                self._rig.film(lambda: self._rig.objects, what=expected, **camera)
            found = published(self._rig.objects)
            if found == expected:
                break
        assert found == expected, f"expected {expected}, got {found}"
        self.row.published = found

    def recovers(self, shot: Callable[[], int] | None = None, afterwards: str = "by itself") -> Any:
        """Films good frames (`shot` publishes one and returns its stamp) until one has a result with 3D; that result.
        The last step of a fault."""
        self._rig.objects.clear()
        start = time.monotonic()
        stamps: list[int] = []

        def result() -> Any:
            good = (m for m in self._rig.objects[-5:] if is_good(m))
            return next((m for m in good if stamp_ns(m.header.stamp) in stamps), None)

        while not (found := result()):
            assert time.monotonic() - start < PATIENCE, f"does not recover: {self._rig.node.get_namespace()}"
            stamps.append((shot or self._rig.shoot)())
            end = time.monotonic() + 1 / RATE
            while time.monotonic() < end and not result():
                time.sleep(0.002)
        self.row.recovery = time.monotonic() - start
        self.ends(afterwards)
        return found

    def ends(self, afterwards: str) -> None:
        """The fault is over as it should be."""
        self.row.afterwards, self.row.outcome = afterwards, "passed"


def published(messages: Iterable[Any]) -> str:
    """What a listener of ~/objects gets, in a word or two."""
    messages = list(messages)
    if not messages:
        return NOTHING
    statuses = {o.status for m in messages for o in m.objects}
    if not statuses:
        return "results without objects"
    if all(Status(status).has_3d for status in statuses):
        return WITH_3D
    return f"masks, {', '.join(sorted(Status(s).name for s in statuses))}"


def row_of(mark: Any) -> Row:
    """The row of a `fault` mark, with nothing seen yet."""
    return Row(*mark.args, **mark.kwargs)


def rows_of(module: ModuleType) -> Iterable[Row]:
    """The rows that a module of tests defines."""
    for name, function in vars(module).items():
        if name.startswith("test_"):
            for mark in getattr(function, "pytestmark", ()):
                if mark.name == "fault":
                    yield row_of(mark)
                elif mark.name == "parametrize":
                    marks = [m for given in mark.args[1] for m in getattr(given, "marks", ())]
                    yield from (row_of(m) for m in marks if m.name == "fault")


def append(row: Row, path: Path) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row)) + "\n")
