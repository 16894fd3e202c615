# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Loads the model at configure. A runtime that must build an engine first does it behind the transition.

What the option `on_engine_missing` of such a backend says is done meanwhile: `build` = frames are counted as dropped,
`fallback` = ONNX Runtime runs the same file, `fail` = the backend itself refuses.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seg_perception.backends.onnxruntime import OnnxRuntimeConfig
from seg_perception.backends.progress import Progress, watching
from seg_perception.config import Config, ConfigError
from seg_perception.msg import ModelStatus
from seg_perception.options import Selected, adapted
from seg_perception.pipeline import Pipeline
from seg_perception.plugins import Segmenter
from seg_perception.ros.rehearsal import rehearse
from seg_perception.tracking import NoTracker

SAY_EVERY = 0.5  # s between two words on the progress
ATTENTION = 0.1  # s between two looks at whether the node is to end
LAST_STEP = 3.0  # s that a cancelled build gets for the step it is in
POLICY = "on_engine_missing"  # the option of backends that build
BUILDING, FAILED_BUILD = "its engine is being built", "its engine could not be built"


class Build:
    """Makes a segmenter in a thread of its own. `settled` once it is there, failed, or turns out to take long."""

    def __init__(self, make: Callable[[], Segmenter], watch: Callable[[Progress], None]) -> None:
        self.settled = threading.Event()
        self.progress: Progress | None = None  # None = nothing had to be built so far
        self.segmenter: Segmenter | None = None
        self.error: Exception | None = None
        self.began = time.monotonic()
        self._make, self._watch = make, watch
        self._cancelled = threading.Event()
        self._goes_on: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="model build", daemon=True)
        self._thread.start()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    @property
    def done(self) -> bool:
        return self.segmenter is not None or self.error is not None

    def then(self, action: Callable[[], None]) -> bool:
        """Calls `action` in the thread at the end; False, and no call, if it is done already."""
        with self._lock:
            if not self.done:
                self._goes_on = action
            return self._goes_on is not None

    def cancel(self, timeout: float) -> bool:
        """Ends it at its next step; False if it still runs after `timeout` s."""
        self._cancelled.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        segmenter, error = None, None
        try:
            with watching(self._on_progress):
                segmenter = self._make()
        except Exception as raised:  # noqa: BLE001 - plugins raise what they like; whoever waits gets it
            error = raised
        with self._lock:
            self.segmenter, self.error = segmenter, error
        self.settled.set()
        if self._goes_on is not None and not self.cancelled:
            self._goes_on()

    def _on_progress(self, progress: Progress) -> bool:
        self.progress = progress
        self.settled.set()
        if self._goes_on is not None and not self.cancelled:
            self._watch(progress)
        return not self.cancelled


@dataclass(eq=False)
class Awaited:
    """What the built segmenter is put together with. `meanwhile` runs until then, None = nothing does."""

    build: Build
    config: Config  # as it was when the build began
    tracker: Any
    planners: tuple[Any, ...]
    meanwhile: Config | None


class ModelBuild:
    """Loads models for `node` (a SegPerceptionNode), at once or, where an engine is missing, in the background."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._awaited: Awaited | None = None
        self._failure: tuple[int, str] | None = None  # state and text that stand until the next model
        self._on_fallback = False  # ONNX Runtime runs what another backend was asked for
        self._said = 0.0

    @property
    def running(self) -> bool:
        """Whether an engine is being built; the model of the configuration is not in use yet."""
        return self._awaited is not None

    def load(self, config: Config) -> None:
        """Takes the model into use, now or once its engine is built. Raises what a plugin's constructor raises."""
        engine = self._node.engine
        engine.absence, self._failure = "", None
        planners = tuple(planner.create() for planner in config.grasping.planners)
        tracker = config.tracker.create()
        build = Build(config.segmenter.create, self._say_progress)
        while not build.settled.wait(ATTENTION):
            if self._node.stopping.is_set():  # whoever ends the node does not wait for a model
                self._node.left_behind |= not build.cancel(0.0)
                raise ConfigError("told to stop while the model is loaded")
        meanwhile = None
        try:
            if not build.done and _policy(config) == "fallback":
                meanwhile = on_onnxruntime(config)
                running = Pipeline(meanwhile.segmenter.create(), tracker, planners, meanwhile)
        except Exception:
            build.cancel(LAST_STEP)
            raise
        self._awaited = Awaited(build, config, tracker, planners, meanwhile)
        if build.done or not build.then(self._finish):
            self._awaited = None
            if build.error is not None:
                raise build.error
            engine.use(Pipeline(build.segmenter, tracker, planners, config), warm=False)
            return
        if meanwhile is not None:
            self._on_fallback = True
            engine.use(running, warm=False)
        else:
            engine.absence = BUILDING
        text = build.progress.text if build.progress is not None else "building"
        until = "onnxruntime runs it until then" if meanwhile is not None else "frames are dropped until then"
        self._node.get_logger().info(f"{text}; {until}, see ~/model_status")
        self.say()

    def cancel(self, timeout: float = LAST_STEP) -> bool:
        """No build goes on. False if one is in a step that takes longer: it ends after that, and leaves nothing."""
        awaited, self._awaited, self._failure, self._on_fallback = self._awaited, None, None, False
        return awaited is None or awaited.build.cancel(timeout)

    def running_config(self, config: Config) -> Config:
        """`config` as what runs now can follow it: without the backend whose engine is not there."""
        return on_onnxruntime(config) if self._on_fallback else config

    def say(self) -> bool:
        """On ~/model_status what is built, or why it could not be; False = nothing of that kind, all is well."""
        awaited, node = self._awaited, self._node
        if awaited is None:
            if self._failure is not None:
                node.model_status.say(
                    self._failure[0], node.engine.pipeline, self._failure[1], config=node.parameters.config
                )
            return self._failure is not None
        progress = awaited.build.progress or Progress("building")
        if awaited.meanwhile is None:
            text = f"{_line(progress)}; frames are dropped until then"
            node.model_status.say(ModelStatus.BUILDING, None, text, progress, awaited.config)
        else:
            text = f"onnxruntime runs it until the engine is there: {_line(progress)}"
            node.model_status.say(ModelStatus.FALLBACK, node.engine.pipeline, text, progress)
        return True

    # -- in the build's thread -----------------------------------------------------------------------------------------

    def _say_progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._said >= SAY_EVERY:
            self._said = now
            self.say()

    def _finish(self) -> None:
        awaited = self._awaited
        if awaited is None:
            return
        try:
            if awaited.build.error is not None:
                raise awaited.build.error
            self._warm_up(awaited)
        except Exception as error:  # noqa: BLE001 - the one place that reports it
            text = self._node.report(error, "model build")
            self._in_executor(awaited, lambda: self._give_up(awaited, text))
            return
        self._in_executor(awaited, lambda: self._take(awaited))

    def _warm_up(self, awaited: Awaited) -> None:
        """Beside what runs, so that the frame of the exchange waits for nothing."""
        node = self._node
        awaited.build.progress = Progress("warming up the engine", 1.0)
        self.say()
        own_tracks = NoTracker(NoTracker.Config())  # warming up resets the tracker: not the running one
        fresh = Pipeline(awaited.build.segmenter, own_tracks, awaited.planners, awaited.config)
        fresh.warm_up()
        outputs = node.outputs
        if awaited.meanwhile is None and outputs is not None and not awaited.build.cancelled:
            rehearse(awaited.config, fresh, node.transforms, outputs)

    def _in_executor(self, awaited: Awaited, action: Callable[[], None]) -> None:
        """Between two callbacks, so that no transition and no change of parameters comes in between."""

        def act() -> None:
            if self._awaited is awaited and not awaited.build.cancelled:
                action()

        executor = self._node.executor
        if executor is None:
            act()
        elif not awaited.build.cancelled:
            executor.create_task(act)
            executor.wake()

    # -- in the executor -----------------------------------------------------------------------------------------------

    def _take(self, awaited: Awaited) -> None:
        node, config = self._node, self._node.parameters.config
        self._awaited = None
        running = node.engine.pipeline
        tracker = running.tracker if running is not None else awaited.tracker
        planners = running.planners if running is not None else awaited.planners
        try:
            segmenter = adapted(awaited.build.segmenter, awaited.config.segmenter, config.segmenter, "segmenter")
            if running is None and config.grasping.planners != awaited.config.grasping.planners:
                planners = tuple(planner.create() for planner in config.grasping.planners)
            if running is None and config.tracker != awaited.config.tracker:
                tracker = adapted(tracker, awaited.config.tracker, config.tracker, "tracker")
        except Exception as error:  # noqa: BLE001 - plugins raise what they like
            self._give_up(awaited, node.report(error, "model build"))
            return
        node.engine.absence, self._on_fallback = "", False
        node.engine.use(Pipeline(segmenter, tracker, planners, config))
        seconds = time.monotonic() - awaited.build.began
        node.get_logger().info(f"the engine is ready after {seconds:.1f} s and takes the next frame")
        node.say_ready()

    def _give_up(self, awaited: Awaited, text: str) -> None:
        self._awaited = None
        if awaited.meanwhile is None:
            self._node.engine.absence = FAILED_BUILD
            self._failure = (ModelStatus.FAILED, text)
        else:
            self._failure = (ModelStatus.FALLBACK, f"onnxruntime goes on: {text}")
        self.say()


def on_onnxruntime(config: Config) -> Config:
    """The same with ONNX Runtime in the place of every backend that builds. Raises ConfigError for a file that is no
    ONNX."""
    return replace(config, segmenter=_swapped(config.segmenter))


def _swapped(chosen: Selected) -> Selected:
    """`chosen` with the backends in it exchanged, at any depth."""
    if chosen.group == "backends":
        if not hasattr(chosen.config, POLICY):
            return chosen
        return Selected("backends", "onnxruntime", OnnxRuntimeConfig(model=chosen.config.model))
    inner = {f.name: getattr(chosen.config, f.name) for f in dataclasses.fields(chosen.config)}
    changed = {name: _swapped(value) for name, value in inner.items() if isinstance(value, Selected)}
    model = Path(str(inner.get("model", "")))
    if changed != {name: inner[name] for name in changed} and model.suffix not in ("", ".onnx"):
        raise ConfigError(f"on_engine_missing: fallback needs an ONNX file, got {model.name}")
    return replace(chosen, config=replace(chosen.config, **changed))


def _policy(config: Config) -> str:
    """What the first backend that builds says; those that say nothing build."""
    found = (getattr(backend.config, POLICY, "") for backend in _backends(config.segmenter))
    return next(filter(None, found), "build")


def _backends(chosen: Selected) -> list[Selected]:
    if chosen.group == "backends":
        return [chosen]
    inner = [getattr(chosen.config, f.name) for f in dataclasses.fields(chosen.config)]
    return [backend for value in inner if isinstance(value, Selected) for backend in _backends(value)]


def _line(progress: Progress) -> str:
    share = "" if math.isnan(progress.fraction) else f", {progress.fraction:.0%}"
    eta = "" if math.isnan(progress.eta) else f", {progress.eta:.0f} s left"
    return f"{progress.text}{share}{eta}"
