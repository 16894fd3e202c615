# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Many frames through the whole pipeline in one process: nothing may grow, neither memory nor threads, files, time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.bench import Progress, Row
from seg_perception.bench.stages import serialiser
from seg_perception.bench.timing import percentiles
from seg_perception.config import load_config
from seg_perception.options import ConfigError
from seg_perception.pipeline import Pipeline
from seg_perception.process import Usage, usage
from seg_perception.scene import Frame
from seg_perception.sim import SimCamera, random_scene

FRAMES = 100_000
WIDTH, HEIGHT, LOOP = 160, 120, 60
SEED, OBJECTS = 0, 5
PERIOD_NS = 33_333_333
WARM, TAIL = 0.15, 0.15  # share of the frames before the first sample that counts, and of the samples at either end
SAMPLES = 400
LIMITS = {"rss_growth_percent": 2.0, "threads_growth": 0, "fds_growth": 0, "latency_growth_percent": 20.0}
SMALL = {  # for the small images
    "segmenter": {"plugin": "tabletop"},
    "fusion": {"max_depth": 3.0},
    "tracker": {"plugin": "iou3d"},
    "grasping": {"planners": []},
}


class _Watch:
    """Samples of what the process holds, and per frame its times in s: room for all from the start, or they would be
    the growth."""

    def __init__(self, frames: int) -> None:
        self.usages: list[Usage] = []
        self._latencies, self._cpu = np.full(frames, np.nan), np.full(frames, np.nan)
        self._done = 0

    def note(self, latency: float, cpu: float) -> None:
        self._latencies[self._done], self._cpu[self._done] = latency, cpu
        self._done += 1

    @property
    def latencies(self) -> NDArray[np.float64]:
        """Of the frames after the warm-up."""
        return self._latencies[round(WARM * self._done) : self._done]

    def grown(self) -> dict[str, float | int | None]:
        """Last samples against first ones, after the warm-up; None where there are too few."""
        taken = self.usages[round(WARM * len(self.usages)) :]
        tail = max(1, round(TAIL * len(taken)))
        if len(taken) < 4:
            return dict.fromkeys(LIMITS)
        first, last = taken[:tail], taken[-tail:]
        before, after = (float(np.median([u.memory for u in part])) for part in (first, last))
        return {
            "rss_growth_percent": round(100 * (after / before - 1), 3),
            "threads_growth": min(u.threads for u in last) - max(u.threads for u in first),
            "fds_growth": min(u.files for u in last) - max(u.files for u in first),
            "latency_growth_percent": round(self._slower(), 1),
        }

    def _slower(self) -> float:
        """How much more CPU time the quicker frames at the end take than those at the beginning, percent: other work on
        this machine makes frames late, but hardly adds to the least time they need."""
        taken = self._cpu[round(WARM * self._done) : self._done]
        part = max(1, len(taken) // 4)
        before, after = (float(np.percentile(half, 25)) for half in (taken[:part], taken[-part:]))
        return 100 * (after / before - 1)


def run(
    rows: list[Row],
    progress: Progress,
    frames: int = FRAMES,
    grasps: bool = False,
    config: Mapping[str, Any] | None = None,
    messages: bool = True,
) -> None:
    """One row. `config` stands in for the tabletop with the 3D tracker; `grasps`: plan them for every frame too.

    Raises ConfigError where a process cannot be looked into.
    """
    if usage() is None:
        raise ConfigError("soak: this system does not tell what a process holds (/proc)")
    extra: dict[str, Any] = {"grasping": {"planners": ["antipodal"]}} if grasps else {}
    pipeline = Pipeline.from_config(load_config(dict(config or SMALL), extra))
    scene = random_scene(SEED, objects=OBJECTS)
    camera = SimCamera(WIDTH, HEIGHT, motion="moving", frames=LOOP, scene=scene)  # the camera moves: tracks come and go
    loop = [shot.frame for shot in map(camera.frame, range(LOOP))]
    pipeline.warm_up(WIDTH, HEIGHT)
    serialise, why = serialiser() if messages else (None, "not asked for")
    row: Row = {"frames": 0, "width": WIDTH, "height": HEIGHT, "grasps": grasps, "messages": serialise is not None}
    if why:
        row["messages_reason"] = why
    rows.append(row)
    watch = _Watch(frames)
    every = max(1, frames // SAMPLES)
    objects = 0

    def step(k: int) -> None:
        nonlocal objects
        frame = _fresh(loop[k % LOOP], k)
        scene = pipeline.complete(frame, pipeline.segment(frame), grasps=grasps)
        objects += len(scene)
        if serialise is not None:
            serialise(scene)

    for k in progress(range(frames), frames, "soak", "frame"):
        _timed(step, k, watch)
        if k % every == every - 1:
            watch.usages.append(_usage())
            row.update(_summary(k + 1, objects, watch))
    row.update(_summary(frames, objects, watch))


def faults(row: Row) -> list[str]:
    """What grew more than it may, a line each."""
    return [
        f"{name} {row[name]:g}, at most {limit:g} is allowed"
        for name, limit in LIMITS.items()
        if row.get(name) is not None and row[name] > limit
    ]


def _fresh(frame: Frame, k: int) -> Frame:
    """As it would come from a driver: arrays of its own, a stamp of its own."""
    assert frame.depth is not None  # simulated
    return replace(frame, color=frame.color.copy(), depth=frame.depth.copy(), stamp_ns=k * PERIOD_NS)


def _timed(step: Callable[[int], None], k: int, watch: _Watch) -> None:
    start, cpu = time.perf_counter(), time.process_time()
    step(k)
    watch.note(time.perf_counter() - start, time.process_time() - cpu)


def _summary(frames: int, objects: int, watch: _Watch) -> Row:
    now = _usage()
    memory = [u.memory for u in watch.usages] or [now.memory]
    return {
        "frames": frames,
        "objects_per_frame": round(objects / frames, 2),
        **watch.grown(),
        "rss_mb": round(now.memory, 1),
        "rss_first_mb": round(memory[round(WARM * (len(memory) - 1))], 1),
        "threads": now.threads,
        "fds": now.files,
        "latency_ms": percentiles(watch.latencies),
        "rss_samples_mb": [round(v, 1) for v in memory[:: max(1, len(memory) // 40)]],
    }


def _usage() -> Usage:
    now = usage()
    assert now is not None  # run has asked before
    return now
