# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Medians of functions that take turns, so that whatever else this machine does slows them all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

LEAST, MOST = 15, 400  # rounds


def interleaved(candidates: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Name -> median CPU time of this thread in ms. Each is called once before, then all in turn, for about `seconds`.

    CPU time is what a quiet machine would take by the clock, for what works in one thread.
    """
    for call in candidates.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    begin = time.perf_counter()
    rounds = 0
    while rounds < LEAST or (time.perf_counter() - begin < seconds and rounds < MOST):
        for name in names[rounds % len(names) :] + names[: rounds % len(names)]:  # none always comes after the same
            start = time.thread_time()
            candidates[name]()
            times[name].append(time.thread_time() - start)
        rounds += 1
    return {name: 1e3 * float(np.median(values)) for name, values in times.items()}


def percentiles(seconds: Any) -> dict[str, float | None]:
    """p50, p95 and p99 in ms; None where there is nothing."""
    values = np.asarray(seconds, np.float64)
    return {f"p{q}": round(1e3 * float(np.percentile(values, q)), 3) if len(values) else None for q in (50, 95, 99)}
