# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node end to end: a camera, the node, an empty node and a listener, each a process of its own, over real DDS."""

from __future__ import annotations

import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import yaml

from seg_perception.bench import Progress, Row
from seg_perception.bench.samples import make_sample
from seg_perception.bench.timing import percentiles
from seg_perception.config import load_config, to_mapping
from seg_perception.options import ConfigError
from seg_perception.process import Usage, end, usage

SECONDS, RATE = 60, 30.0
WIDTH, HEIGHT = 1280, 720
WARM = 3.0  # s of images before those that count
STEADY = 3  # results from so many seconds of images
START = 240.0  # s until the node is ready; its very first start compiles
CAMERA_START = 120.0  # s; frames are rendered
SETTLE = 2.5  # s after the last image; diagnostics come once a second
SLACK = 10.0  # s that a camera may take longer than it should
OBJECTS = 20  # that the recording finds
PLANNED_LATER = {"grasping": {"when": "request"}, "autostart": True}


@dataclass(frozen=True)
class Setup:
    """What is run. `source` is a folder of RGB-D frames, "" = simulated; `empty`: an empty node beside each."""

    seconds: float = SECONDS
    rate: float = RATE
    width: int = WIDTH
    height: int = HEIGHT
    nodes: int = 1
    source: str = ""
    empty: bool = True
    grasps: bool = False
    network: float | None = None  # s that a recording waits which takes the network's place; it finds OBJECTS
    config: Mapping[str, Any] = field(default_factory=dict)  # read by load_config, overrides included


def run(rows: list[Row], progress: Progress, setup: Setup) -> None:
    """One row per node. Raises ConfigError without ROS 2, or when a process does not come up."""
    try:
        listening = importlib.import_module("seg_perception.ros.bench.listener")
    except ImportError as error:
        raise ConfigError(f"node: needs ROS 2 and the built messages (source scripts/env): {error}") from error
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    names = [f"/bench_{os.getpid()}_{k}" for k in range(setup.nodes)]
    with tempfile.TemporaryDirectory() as folder, Stage() as stage, listening.Listener(names) as listener:
        config = Path(folder) / "config.yaml"
        later: Mapping[str, Any] = {"autostart": True} if setup.grasps else PLANNED_LATER
        if setup.network is not None:
            setup = _recorded(setup, Path(folder))
        config.write_text(yaml.safe_dump(to_mapping(load_config(dict(setup.config), dict(later)))), encoding="utf-8")
        benches = [_Bench(name, setup, stage, config, listener.heard[name]) for name in names]
        for bench in benches:
            bench.wait_until_ready()
        _measure(benches, setup, progress, rows)


def _recorded(setup: Setup, folder: Path) -> Setup:
    """With a recording for a network, and the camera that it belongs to."""
    sample = make_sample(OBJECTS, setup.width, setup.height)
    sample.save(folder / "outputs.npz")
    sample.save_frame(folder / "camera")
    backend = {"plugin": "seg_perception.bench.replay:Replay", "wait": setup.network}
    segmenter = {"plugin": "yolo", "model": str(folder / "outputs.npz"), "backend": backend}
    config = {**{k: v for k, v in setup.config.items() if k != "segmenter"}, "segmenter": segmenter}
    return replace(setup, source=str(folder / "camera"), config=config)


def _measure(benches: list[_Bench], setup: Setup, progress: Progress, rows: list[Row]) -> None:
    _warm_up(benches, setup)
    begin = time.monotonic()
    for bench in benches:
        bench.begin()
    try:
        for _ in progress(range(round(setup.seconds)), round(setup.seconds), "node", "second"):
            time.sleep(max(0.0, min(1.0, begin + setup.seconds - time.monotonic())))
        for bench in benches:
            bench.end()
        time.sleep(SETTLE)
    finally:  # what came by now is kept, also after ctrl-C
        rows += [bench.row() for bench in benches]


def _warm_up(benches: list[_Bench], setup: Setup) -> None:
    """Images until every node gives results steadily: a node may compile on the first thing it finds."""
    begin = time.monotonic()
    while True:
        before = [len(bench.heard.results) for bench in benches]
        for bench in benches:
            bench.camera.shoot(round(WARM * setup.rate), setup.rate)
        for bench in benches:
            bench.camera.answer(WARM + SLACK)
        time.sleep(SETTLE)
        if all(len(bench.heard.results) - n >= STEADY for bench, n in zip(benches, before, strict=True)):
            return
        if time.monotonic() - begin > START:
            raise ConfigError(f"node: fewer than {STEADY} results from {WARM:g} s of images, {START:.0f} s long")


class _Bench:
    """One camera, one node, one empty node, in one namespace."""

    def __init__(self, name: str, setup: Setup, stage: Stage, config: Path, heard: Any) -> None:
        self.name, self.setup, self.heard = name, setup, heard
        self.sent: dict[str, Any] = {}
        self._node = stage.start("seg_perception.ros.node", name, {"config": str(config)})
        self._empty = stage.start("seg_perception.ros.bench.empty_node", name, {}) if setup.empty else None
        size: dict[str, Any] = {"width": setup.width, "height": setup.height}
        source = {"source": str(Path(setup.source).resolve())} if setup.source else {}
        self.camera = Camera(stage.start("seg_perception.ros.bench.camera", name, {**size, **source}, talks=True))
        self._before: tuple[dict[str, float], Usage | None] = ({}, None)
        self._began_ns = 0
        self._complaints: dict[str, str] = {}

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START
        self.camera.wait_until_ready(CAMERA_START)
        while True:
            model = self.heard.numbers.get("model")
            if model is not None and not self.heard.complaints.get("model") and "sync" in self.heard.numbers:
                return
            if self._node.poll() is not None:
                raise ConfigError("node: the node ended early, see its lines above")
            if time.monotonic() > deadline:
                said = {part: text for part, text in self.heard.complaints.items() if text}
                raise ConfigError(f"node: not ready after {START:.0f} s; it says: {said or 'nothing'}")
            time.sleep(0.1)

    def begin(self) -> None:
        self._before = (self._counts(), usage(self._node.pid))
        self._began_ns = time.time_ns()
        self.camera.shoot(round(self.setup.seconds * self.setup.rate), self.setup.rate)

    def end(self) -> None:
        """Waits for the camera's last frame. What the node complains of by then counts; later it misses the camera."""
        self.sent = self.camera.answer(SLACK + 0.5 * self.setup.seconds)
        self._complaints = {part: text for part, text in self.heard.complaints.items() if text}

    def _counts(self) -> dict[str, float]:
        """What the node has counted since it started: pairs, and drops by reason."""
        numbers = self.heard.numbers
        drops = {**numbers.get("sync", {}), **numbers.get("pipeline", {})}
        counts = {key: float(value) for key, value in drops.items() if key.startswith("dropped: ")}
        return {"pairs": float(numbers.get("sync", {}).get("pairs", 0)), **counts}

    def _stages(self, which: str) -> dict[str, float]:
        """What the node itself says of its last frames."""
        numbers, end = self.heard.numbers.get("pipeline", {}), f" {which} [ms]"
        return {key.removesuffix(end): float(value) for key, value in numbers.items() if key.endswith(end)}

    def row(self) -> Row:
        """All that was seen since `begin`."""
        before, used = self._before
        now, counts = usage(self._node.pid), self._counts()
        results = [a for a in self.heard.results if a.stamp >= self._began_ns]
        empty = [a for a in self.heard.empty if a.stamp >= self._began_ns]
        grown = {key: int(value - before.get(key, 0)) for key, value in counts.items()}
        ages = np.array([a.latency for a in results])
        period = float(np.median(np.diff([a.came for a in results]))) * 1e-9 if len(results) > 1 else float("nan")
        sent = self.sent.get("sent")
        return {
            "pairs_sent": sent,
            "pairs_received": grown.pop("pairs"),
            "results": len(results),
            "seconds": self.setup.seconds,
            "rate_hz": self.setup.rate,
            "width": self.setup.width,
            "height": self.setup.height,
            "nodes": self.setup.nodes,
            "objects_per_result": round(float(np.mean([a.objects for a in results])), 2) if results else None,
            "result_rate_hz": round(1 / period, 2) if period > 0 else None,
            "latency_ms": percentiles(ages),
            "empty_node_ms": percentiles([a.latency for a in empty]),
            "empty_node_pairs": len(empty) if self._empty is not None else None,
            "inference_ms": percentiles([a.segment for a in results]),
            "wait_ms": percentiles([a.waited for a in results]),
            "over_inference_ms": percentiles([a.latency - a.segment for a in results]),
            "over_inference_and_wait_ms": percentiles([a.latency - a.segment - a.waited for a in results]),
            "stages_p50_ms": self._stages("p50"),
            "stages_p95_ms": self._stages("p95"),
            "oldest_ms": round(1e3 * float(ages.max()), 2) if len(ages) else None,
            "oldest_periods": round(float(ages.max()) / period, 2) if period > 0 else None,
            "dropped": {key.removeprefix("dropped: "): n for key, n in grown.items() if n},
            "node_cpu_s": round(now.cpu - used.cpu, 2) if now and used else None,
            "node_rss_mb": round(now.memory, 1) if now else None,
            "node_rss_growth_mb": round(now.memory - used.memory, 1) if now and used else None,
            "node_peak_mb": round(now.peak, 1) if now else None,
            "node_threads": now.threads if now else None,
            "camera": self.sent,
            "camera_kept_up": self.sent["skipped"] == 0 if self.sent else None,
            "complaints": self._complaints,
        }


class Camera:
    """The camera's process, spoken to in lines."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._rest = b""

    def wait_until_ready(self, patience: float) -> None:
        self.answer(patience)

    def shoot(self, frames: int, rate: float) -> None:
        """Asks for frames at a rate; returns at once."""
        assert self._process.stdin is not None  # a pipe
        self._process.stdin.write(f"{frames} {rate}\n".encode())
        self._process.stdin.flush()

    def answer(self, patience: float) -> dict[str, Any]:
        """Its next answer. Raises ConfigError when there is none within `patience` s, or it tells an error."""
        assert self._process.stdout is not None  # a pipe
        deadline = time.monotonic() + patience
        line = b""
        while not line.startswith(b"{"):  # the middleware writes to standard output too
            while b"\n" not in self._rest:
                ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
                more = os.read(self._process.stdout.fileno(), 65536) if ready else b""
                if not more:
                    why = "ended" if ready else f"did not answer within {patience:.0f} s"
                    raise ConfigError(f"node: the camera's process {why}")
                self._rest += more
            line, _, self._rest = self._rest.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise ConfigError(f"camera: {said['error']}")
        return said


class Stage:
    """The processes; leaving the context ends all of them, first asking, then insisting."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Stage:
        return self

    def start(
        self, module: str, namespace: str, parameters: Mapping[str, Any], talks: bool = False
    ) -> subprocess.Popen[bytes]:
        """`python -m module` in a session of its own, so that ctrl-C comes to us alone."""
        command = [sys.executable, "-m", module, "--ros-args", "--log-level", "error", "-r", f"__ns:={namespace}"]
        for key, value in parameters.items():
            command += ["-p", f"{key}:={value}"]
        pipe = subprocess.PIPE if talks else None
        process = subprocess.Popen(command, start_new_session=True, stdin=pipe, stdout=pipe)
        self._running.append(process)
        return process

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self._running)
