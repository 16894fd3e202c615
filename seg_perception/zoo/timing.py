# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How fast a model is on each runtime of this machine: latency of one call after another, throughput of several."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
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


def measure(
    subject: Subject,
    runtimes: Sequence[Runtime],
    samples: Samples,
    seconds: float,
    callers: int,
    file: Path | None = None,
) -> list[Speed]:
    """Speed on each runtime; each is timed for `seconds` alone and as long with `callers` threads."""
    frames = [frame for _, frame in samples]
    speeds = []
    for row, runtime in enumerate(runtimes):
        tell(Progress(f"loading {(file or subject.path).name} in {runtime.name}", row / len(runtimes)))
        start = time.perf_counter()
        trial = started_or_why(subject, runtime, file)
        if isinstance(trial, str):
            speeds.append(Speed(runtime.on(file or subject.path).name, runtime.asked, reason=trial))
            continue
        share = (row / len(runtimes), (row + 1) / len(runtimes))
        speed = attempt(_speed, trial, runtime.asked, frames, seconds, callers, start, share)
        if isinstance(speed, str):
            speed = Speed(trial.runtime.name, runtime.asked, reason=speed)
        speeds.append(speed)
    return speeds


def _speed(
    trial: Trial,
    asked: bool,
    frames: Sequence[Frame],
    seconds: float,
    callers: int,
    start: float,
    share: tuple[float, float],
) -> Speed:
    trial.segment(frames[0])
    load = time.perf_counter() - start
    network, whole = _latencies(trial, frames, seconds, share)
    rate = _throughput(trial, frames[0], seconds, callers)
    median, p95 = (float(np.quantile(network, q)) for q in (0.5, 0.95))
    return Speed(
        trial.runtime.name, asked, load, median, p95, float(np.median(whole)), rate, callers, calls=len(network)
    )


def _latencies(
    trial: Trial, frames: Sequence[Frame], seconds: float, share: tuple[float, float]
) -> tuple[list[float], list[float]]:
    network: list[float] = []
    whole: list[float] = []
    begin = time.perf_counter()
    while (past := time.perf_counter() - begin) < seconds or len(whole) < LEAST_CALLS:
        done = share[0] + min(past / (2 * seconds), 0.5) * (share[1] - share[0])
        tell(Progress(f"{trial.runtime.name}: latency", done))
        start = time.perf_counter()
        trial.segment(frames[len(whole) % len(frames)])
        whole.append(time.perf_counter() - start)
        network.append(trial.seconds)
    return network, whole


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
