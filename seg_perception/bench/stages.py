# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Everything after inference, stage by stage, on the product's own path: NMS and masks, fusion, messages; no grasps."""

from __future__ import annotations

import importlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from seg_perception.bench import Progress, Row
from seg_perception.bench.peers import use_one_thread
from seg_perception.bench.samples import Sample, make_sample
from seg_perception.memory import freed_memory_kept
from seg_perception.pipeline import Pipeline
from seg_perception.scene import Scene

COUNTS = (1, 20, 100, 300)
SECONDS = 8.0  # of each row
LEAST = 10  # frames

NOT_FUSED = ("segment", "grasp")  # the other laps of a scene are parts of fuse

Serialise = Callable[[Scene], dict[str, bytes]]


def run(rows: list[Row], progress: Progress, counts: tuple[int, ...] = COUNTS, seconds: float = SECONDS) -> None:
    """One row per number of instances at 1280x720, one thread."""
    use_one_thread()
    for count in progress(counts, len(counts), "stages", "row"):
        rows.append(measure(make_sample(count), seconds))


@freed_memory_kept()  # as the node does
def measure(sample: Sample, seconds: float) -> Row:
    """Medians of the stages for one sample, CPU time of the thread, ms; messages are null without ROS, and why."""
    serialise, why = serialiser()
    times: list[tuple[float, float, float]] = []
    laps: list[dict[str, float]] = []
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "outputs.npz"
        sample.save(recording)
        pipeline = replaying(recording)
    backend = _backend_of(pipeline)
    begin = time.perf_counter()
    while len(times) <= LEAST or time.perf_counter() - begin < seconds:
        instances = pipeline.segment(sample.frame)
        decoded = time.thread_time() - backend.returned
        start = time.thread_time()
        scene = pipeline.complete(sample.frame, instances, grasps=False)
        fused = time.thread_time() - start
        start = time.thread_time()
        if serialise is not None:
            serialise(scene)
        times.append((decoded, fused, time.thread_time() - start))
        laps.append({name: seconds for name, seconds in scene.timings.items() if name not in NOT_FUSED})
        count = len(scene)
    decode, fuse, messages = (1e3 * float(v) for v in np.median(times[1:], axis=0))  # the first one compiles
    row: Row = {"instances": count, "threads": 1, "width": sample.frame.width, "height": sample.frame.height}
    row |= {"decode_ms": round(decode, 3), "fuse_ms": round(fuse, 3)}
    row["fuse_parts_ms"] = {name: round(1e3 * float(np.median([lap[name] for lap in laps])), 3) for name in laps[-1]}
    row["messages_ms"] = round(messages, 3) if serialise is not None else None
    row["total_ms"] = round(decode + fuse + messages, 3) if serialise is not None else None
    return row if not why else {**row, "messages_reason": why}


def replaying(recording: Path) -> Pipeline:
    """A pipeline whose network is the recording: everything found is kept, nothing is tracked or grasped."""
    segmenter = {"plugin": "yolo", "model": str(recording), "backend": {"plugin": "seg_perception.bench.replay:Replay"}}
    config = {"max_instances": 300, "fusion": {"threads": 1}, "grasping": {"planners": []}}
    return Pipeline.from_config({"segmenter": segmenter, **config})


def serialiser() -> tuple[Serialise | None, str]:
    """What makes a scene into serialized messages; without ROS None, and the reason."""
    try:
        return importlib.import_module("seg_perception.ros.bench.serialise").serialise, ""
    except ImportError as error:
        return None, f"no ROS 2 here: {error}"


def _backend_of(pipeline: Pipeline) -> Any:
    return pipeline.segmenter._backend  # type: ignore[attr-defined]  # nobody else may ask when it returned
