# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`~/set_model`: another model is loaded beside the running one and takes over between two frames, or does not."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from rclpy.callback_groups import ReentrantCallbackGroup

from seg_perception.backends.progress import Progress, watching
from seg_perception.config import Config, ConfigError, merge, to_mapping
from seg_perception.files import shipped
from seg_perception.msg import ModelStatus
from seg_perception.pipeline import Pipeline
from seg_perception.ros.calls import BusyError, Calls
from seg_perception.ros.engine import model_name
from seg_perception.ros.model_build import ATTENTION, SAY_EVERY
from seg_perception.srv import SetModel
from seg_perception.tracking import NoTracker

SUFFIXES = ("", ".onnx")  # tried after a bare model name
TRUSTING = ("trust_pickle",)
LOADING = ("module", "plugins", "provider_options")  # ONNX Runtime's and TensorRT's can name libraries
MODELS = ("model", "encoder", "decoder")
NAMING = (*MODELS, "cache", "reference")
FILES = (".onnx", ".pt", ".pt2", ".pth", ".xml", ".engine", ".plan", ".so", ".npz", ".npy", ".yaml", ".json")
WAIT = 60.0  # s, for a call that waits without naming a timeout


class RefusedError(Exception):
    """The model is not taken: `status` of SetModel, and a line."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class ModelSwap:
    """Serves the call; one at a time. `node` is a SegPerceptionNode."""

    def __init__(self, node: Any, calls: Calls) -> None:
        self._node = node
        self._calls = calls
        self._busy = threading.Lock()
        node.create_service(SetModel, "~/set_model", self._on_set_model, callback_group=ReentrantCallbackGroup())

    async def _on_set_model(self, request: Any, response: Any) -> Any:
        kind = SetModel.Response
        node = self._node
        if node.engine.pipeline is None:
            why = node.engine.absence or f"the node is {node.state_label}"
            return self._say(response, kind.INVALID, f"there is no model to exchange: {why}")
        if not self._busy.acquire(blocking=False):
            return self._say(response, kind.BUSY, "another model is being loaded")
        try:
            config = self._wanted_config(request)
        except RefusedError as error:
            self._busy.release()
            return self._say(response, error.status, str(error))
        finished = threading.Event()
        outcome: list[tuple[int, str]] = []

        def load() -> None:
            try:
                outcome.append(self._load(config, request.dry_run))
            finally:
                self._busy.release()
                finished.set()

        start = time.monotonic()
        self._calls.start(load)
        if not request.wait:
            return self._say(response, kind.ACCEPTED, "loading; see ~/model_status")
        try:
            done = await self._calls.run(lambda: self._wait(finished, request.timeout or WAIT))
        except BusyError as error:
            return self._say(response, kind.BUSY, f"{error}; the model is loading all the same, see ~/model_status")
        if not done and node.stopping.is_set():
            return self._say(response, kind.INVALID, "the node was told to end while the model was loading")
        if not done:
            return self._say(response, kind.TIMEOUT, "still loading; see ~/model_status")
        response.load_time = time.monotonic() - start
        return self._say(response, *(outcome[0] if outcome else (kind.INVALID, "failed; see the log")))

    def _wait(self, finished: threading.Event, seconds: float) -> bool:
        """Until it is finished; False if that takes longer, or the node is to end."""
        deadline = time.monotonic() + seconds
        while not finished.wait(min(ATTENTION, max(0.0, deadline - time.monotonic()))):
            if self._node.stopping.is_set() or time.monotonic() >= deadline:
                return False
        return True

    def _load(self, config: Config, dry_run: bool) -> tuple[int, str]:
        """Loads, warms up and swaps; in a thread of its own."""
        kind = SetModel.Response
        node = self._node
        old = node.engine.pipeline
        if old is None:
            return kind.INVALID, "the node was cleaned up meanwhile"
        status = node.model_status
        status.say(ModelStatus.LOADING, old, f"loading {config.segmenter.plugin} beside the running model")
        said = 0.0

        def building(progress: Progress) -> bool:
            """Says how far it is; False once the node was cleaned up."""
            nonlocal said
            if time.monotonic() - said > SAY_EVERY:
                said = time.monotonic()
                status.say(ModelStatus.BUILDING, old, f"beside the running model: {progress.text}", progress)
            return node.engine.pipeline is not None and not node.finished.is_set()

        try:
            with watching(building):
                segmenter = config.segmenter.create()
            fresh = Pipeline(segmenter, old.tracker, old.planners, config)
            status.say(ModelStatus.WARMING_UP, old, f"warming up {model_name(fresh)}")
            own_tracks = NoTracker(NoTracker.Config())  # warming up resets the tracker: not the running one
            Pipeline(fresh.segmenter, own_tracks, fresh.planners, config).warm_up()
        except Exception as error:  # noqa: BLE001 - plugins raise what they like; the old model goes on
            text = node.report(error, "set_model")
            if not node.model_build.say():
                status.say(ModelStatus.READY, old, f"the old model goes on: {text}")
            return kind.INVALID, text
        name = model_name(fresh)
        if dry_run:
            node.say_ready()
            return kind.OK, f"{name} loads and runs; not taken (dry run)"
        taken = self._in_executor(lambda: node.take_segmenter(old, fresh))
        return (kind.OK, f"{name} is running") if taken else (kind.INVALID, "the configuration changed meanwhile")

    def _in_executor(self, action: Callable[[], bool]) -> bool:
        """Between two callbacks, so that no transition and no change of parameters comes in between."""
        done = threading.Event()
        result: list[bool] = []

        def act() -> None:
            try:
                result.append(action())
            finally:
                done.set()

        self._node.executor.create_task(act)
        return done.wait(WAIT) and bool(result) and result[0]

    # -- what is asked for -------------------------------------------------------------------------------------------

    def _wanted_config(self, request: Any) -> Config:
        kind = SetModel.Response
        current = to_mapping(self._node.parameters.config)["segmenter"]
        if ":" in request.segmenter and request.segmenter != current["plugin"]:
            raise RefusedError(kind.UNTRUSTED, f"segmenter: '{request.segmenter}' is code from anywhere: name a plugin")
        section = dict(current) if request.segmenter in ("", current["plugin"]) else {"plugin": request.segmenter}
        try:
            options = yaml.safe_load(request.options) if request.options.strip() else {}
        except yaml.YAMLError as error:
            raise RefusedError(kind.INVALID, f"options: not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(options, dict):
            raise RefusedError(
                kind.INVALID, f"options: expected a mapping of segmenter keys, got {type(options).__name__}"
            )
        for key, why in _untrusted(options):
            raise RefusedError(kind.UNTRUSTED, f"options: '{key}' {why}")
        section = merge(section, options)
        if request.model:
            section["model"] = str(self._trusted(request.model))
        try:
            return self._node.parameters.replace("segmenter", section)
        except ConfigError as error:
            raise RefusedError(kind.INVALID, str(error)) from error

    def _trusted(self, name: str) -> Path:
        """The model file, if it lies in a trusted folder: the shipped one, or that of the configured model."""
        kind = SetModel.Response
        folders = self._folders()
        known = ", ".join(map(str, folders)) or "any trusted folder"
        for folder in folders:
            for suffix in SUFFIXES:
                path = Path(
                    os.path.normpath(folder / f"{name}{suffix}")
                )  # links stay: the folder's owner put them there
                if path.is_file():
                    if not any(path.is_relative_to(trusted) for trusted in folders):
                        listing = ", ".join(map(str, folders))
                        raise RefusedError(
                            kind.UNTRUSTED, f"model: '{path}' is outside the trusted folders ({listing})"
                        )
                    return path
        raise RefusedError(kind.NOT_FOUND, f"model: no file '{name}' in {known}")

    def _folders(self) -> list[Path]:
        found = []
        for key in MODELS:
            model = getattr(self._node.parameters.config.segmenter.config, key, "")
            if model and Path(model).expanduser().exists():
                found.append(Path(os.path.abspath(Path(model).expanduser())).parent)
        try:
            found.append(Path(os.path.abspath(shipped("models"))))
        except FileNotFoundError:
            pass
        return found

    def _say(self, response: Any, status: int, text: str) -> Any:
        response.status, response.message = status, " ".join(text.split())
        response.model = model_name(self._node.engine.pipeline)
        return response


def _untrusted(options: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Keys that a caller may not set, and why: what names a file, code from anywhere, or says that code is trusted."""
    if isinstance(options, dict):
        for key, value in options.items():
            name = f"{path}{key}"
            if key in NAMING and value:
                yield name, "names a file; only the member 'model' may"
            elif key in TRUSTING and value:
                yield name, "lets code in a file run: only the node's own configuration may"
            elif key in LOADING and value:
                yield name, "loads code: only the node's own configuration may"
            else:
                yield from _untrusted(value, name if isinstance(value, list) else f"{name}.")
    elif isinstance(options, list):
        for value in options:
            yield from _untrusted(value, path)
    elif isinstance(options, str) and _is_file(options):
        yield path.removesuffix("."), f"names a file or code ('{options}'); only the member 'model' may name one"


def _is_file(text: str) -> bool:
    """Whether a text may be a path, or a plugin class from anywhere: those are code or close to it."""
    return any(c in text for c in ":/\\~") or Path(text).suffix.lower() in FILES or text == ".."
