# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How fast a model is on each runtime of this machine: latency of one call after another, throughput of several."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from seg_perception.backends.progress import Progress, tell
from seg_perception.scene import Frame
from seg_perception.zoo.runtimes import Runtime
from seg_perception.zoo.samples import Samples
from seg_perception.zoo.subject import Subject, Trial
from seg_perception.zoo.verification import attempt, started_or_why

LEAST_CALLS = 5


@dataclass(frozen=True)
class Speed:
    """Seconds of the network alone and of the whole segmenter for one image; images per second of the network when
    `callers` threads call it at once. `load` is until the first image was done. NaN = did not run."""

    runtime: str
    asked: bool
    load: float = np.nan
    median: float = np.nan
    p95: float = np.nan
    segment: float = np.nan
    throughput: float = np.nan
    callers: int = 0
    calls: int = 0
    reason: str = ""


@dataclass
class _Loaded:
    """A runtime under way: seconds in the network and for the whole segmenter, call by call."""

    name: str
    asked: bool
    trial: Trial
    load: float
    network: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)


def measure(
    subject: Subject, entries: Sequence[tuple[Runtime, Path]], samples: Samples, seconds: float, callers: int
) -> list[Speed]:
    """Speed of each runtime on its file, in their order; each is timed for `seconds` alone, as long with `callers`.

    They take turns, call by call, so that whatever else this machine does slows them all alike.
    """
    frames = [frame for _, frame in samples]
    rows: list[_Loaded | Speed] = []
    for k, (runtime, file) in enumerate(entries):
        tell(Progress(f"loading {file.name} in {runtime.name}", 0.1 * k / len(entries)))
        rows.append(_loaded(subject, runtime, file, frames[0]))
    begin = time.perf_counter()
    total = seconds * max(len(entries), 1)
    turns = 0
    while (past := time.perf_counter() - begin) < total or turns < LEAST_CALLS:
        for k, row in enumerate(rows):
            if isinstance(row, _Loaded):
                tell(Progress(f"{row.name}: latency", 0.1 + 0.45 * min(past / total, 1.0)))
                failure = attempt(_timed, row, frames[turns % len(frames)])
                if failure:
                    rows[k] = Speed(row.name, row.asked, reason=failure)
        turns += 1
        if not any(isinstance(row, _Loaded) for row in rows):
            break
    for k, row in enumerate(rows):
        if isinstance(row, _Loaded):
            tell(Progress(f"{row.name}: throughput", 0.55 + 0.45 * k / len(rows)))
            rate = attempt(_throughput, row.trial, frames[0], seconds, callers)
            rows[k] = _speed(row, rate, callers) if isinstance(rate, float) else Speed(row.name, row.asked, reason=rate)
    return [row for row in rows if isinstance(row, Speed)]


def _loaded(subject: Subject, runtime: Runtime, file: Path, frame: Frame) -> _Loaded | Speed:
    name = runtime.on(file).name + (f" {file.name}" if file != subject.path else "")
    start = time.perf_counter()
    trial = started_or_why(subject, runtime, file)
    if isinstance(trial, str):
        return Speed(name, runtime.asked, reason=trial)
    failure = attempt(trial.segment, frame)
    if isinstance(failure, str):
        return Speed(name, runtime.asked, reason=failure)
    return _Loaded(name, runtime.asked, trial, time.perf_counter() - start)


def _timed(row: _Loaded, frame: Frame) -> str:
    start = time.perf_counter()
    row.trial.segment(frame)
    row.whole.append(time.perf_counter() - start)
    row.network.append(row.trial.seconds)
    return ""


def _speed(row: _Loaded, rate: float, callers: int) -> Speed:
    median, p95 = (float(np.quantile(row.network, q)) for q in (0.5, 0.95))
    whole = float(np.median(row.whole))
    return Speed(row.name, row.asked, row.load, median, p95, whole, rate, callers, calls=len(row.network))


def _throughput(trial: Trial, frame: Frame, seconds: float, callers: int) -> float:
    """Images per second: the calls of one image, again and again, in several threads."""
    trial.segment(frame)
    calls = [(tap.backend, inputs) for tap in trial.taps for inputs, _ in tap.calls]
    counts = [0] * callers
    stop = threading.Event()

    def call(worker: int) -> None:
        while not stop.is_set():
            for backend, inputs in calls:
                backend(inputs)
            counts[worker] += 1

    threads = [threading.Thread(target=call, args=(k,), daemon=True) for k in range(callers)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    try:
        while time.perf_counter() - begin < seconds or not sum(counts):
            tell(Progress(f"{trial.runtime.name}: throughput"))
            time.sleep(0.05)
            if not any(thread.is_alive() for thread in threads):
                break
        counted, took = sum(counts), time.perf_counter() - begin
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return counted / took
