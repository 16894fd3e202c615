# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Runs a model on several runtimes and compares each with the reference, image by image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from numpy.typing import NDArray

from seg_perception.backends.progress import BuildCancelledError, Progress, tell
from seg_perception.options import ConfigError
from seg_perception.plugins import PluginError
from seg_perception.scene import Instances
from seg_perception.zoo.agreement import Agreement, Comparison
from seg_perception.zoo.probe import crash_of
from seg_perception.zoo.runtimes import Runtime
from seg_perception.zoo.samples import Samples
from seg_perception.zoo.subject import Subject, Trial

T = TypeVar("T")
EQUAL, CLOSE, DIFFERS, ABSENT, FAILED = "equal", "close", "DIFFERS", "not run", "FAILED"


@dataclass(frozen=True)
class Verdict:
    """What became of one runtime. `reason` says why it did not run."""

    runtime: str
    verdict: str
    asked: bool
    agreement: Agreement | None = None
    reason: str = ""

    @property
    def wrong(self) -> bool:
        """Whether a user must not go on with it, or did not get what was asked for."""
        return self.verdict in (DIFFERS, FAILED) or (self.verdict == ABSENT and self.asked)


def verify(
    subject: Subject, runtimes: Sequence[Runtime], samples: Samples, reference: Runtime, file: Path | None = None
) -> list[Verdict]:
    """One verdict for each runtime, on `file` if it is given, against `reference` on the subject's own file.

    Raises ConfigError, PluginError when the reference itself cannot run. Progress goes to who watches.
    """
    steps = len(samples) * (1 + len(runtimes))
    tell(Progress(f"loading {subject.path.name} in {reference.name}", 0.0))
    expected = []
    trial = subject.start(reference)
    for k, (name, frame) in enumerate(samples):
        tell(Progress(f"{reference.name}: {name}", k / steps))
        instances = trial.segment(frame)
        expected.append((instances, trial.outputs))
    del trial
    verdicts = []
    for row, runtime in enumerate(runtimes):
        done = (row + 1) * len(samples)
        tell(Progress(f"loading {(file or subject.path).name} in {runtime.name}", done / steps))
        started = started_or_why(subject, runtime, file)
        if isinstance(started, str):
            verdicts.append(Verdict(runtime.on(file or subject.path).name, ABSENT, runtime.asked, reason=started))
            continue
        name = started.runtime.name
        comparison = attempt(_compared, started, samples, expected, (done, steps))
        if isinstance(comparison, str):
            verdicts.append(Verdict(name, FAILED, runtime.asked, reason=comparison))
            continue
        agreement = comparison.result()
        exact = started.runtime.exact and file is None
        verdict = EQUAL if agreement.equal else DIFFERS if exact or not agreement.close else CLOSE
        verdicts.append(Verdict(name, verdict, runtime.asked, agreement))
    return verdicts


def _compared(
    trial: Trial,
    samples: Samples,
    expected: Sequence[tuple[Instances, list[dict[str, NDArray]]]],
    share: tuple[int, int],
) -> Comparison:
    comparison = Comparison()
    for k, (picture, frame) in enumerate(samples):
        tell(Progress(f"{trial.runtime.name}: {picture}", (share[0] + k) / share[1]))
        found = trial.segment(frame)
        comparison.add(expected[k][0], found, expected[k][1], trial.outputs)
    return comparison


def started_or_why(subject: Subject, runtime: Runtime, file: Path | None = None) -> Trial | str:
    """The segmenter on that runtime, or one line that says why there is none."""
    try:
        for each, its in subject.parts(runtime, file):
            if crash := crash_of(its, each):
                return crash
        return subject.start(runtime, file)
    except (ConfigError, PluginError) as error:
        return " ".join(str(error).split())


def attempt(work: Callable[..., T], *arguments: object) -> T | str:
    """What `work` gives, or the line that says how it failed."""
    try:
        return work(*arguments)
    except BuildCancelledError:
        raise
    except Exception as error:  # noqa: BLE001  a runtime fails in any way; the others must still be tried
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
