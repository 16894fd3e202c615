# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Those who look at every result without having a say in it: metrics, captures, drift. From configure to cleanup."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from std_srvs.srv import Trigger

from seg_perception.config import Config
from seg_perception.drift import Drift, Profile
from seg_perception.options import ConfigError
from seg_perception.ros.calls import Calls
from seg_perception.ros.capture import Capture
from seg_perception.ros.metrics import Metrics
from seg_perception.ros.results import Result

CAPTURE_WAIT = 5.0  # s that ~/capture waits for a frame and for the disk


class Watch:
    """What `config` asks for of them; those not asked for cost nothing."""

    def __init__(self, node: Any, config: Config) -> None:
        """Raises ConfigError for what cannot be: a port in use, a folder that cannot be written, a bad profile."""
        self._node, self._reports = node, node.reports
        self.metrics: Metrics | None = None
        self.capture: Capture | None = None
        self.drift: Drift | None = None
        try:
            if config.drift.profile:
                self.drift = Drift(Profile.read(config.drift.profile), config.drift)
            if config.capture.folder:
                self.capture = Capture(config, node.get_fully_qualified_name(), self._problem, node.get_logger().info)
            if config.metrics.port:
                self.metrics = Metrics(node, config.metrics)
        except ConfigError:
            self.close()
            raise

    def follow(self, config: Config) -> None:
        """Live options changed."""
        if self.capture is not None:
            self.capture.options = config.capture
        if self.drift is not None:
            self.drift.config = config.drift

    def look(self, result: Result, laps: Mapping[str, float], latency: float) -> None:
        """A result was published. An error here costs no frame."""
        try:
            if self.drift is not None:
                self.drift.look(result.scene)
                problem = self.drift.problem
                if problem:
                    self._reports.problem("drift", problem)
                else:
                    self._reports.solved("drift")
            if self.capture is not None:
                self.capture.look(result, drifting=bool(self._reports.current("drift")))
            if self.metrics is not None:
                self.metrics.observe(result, laps, latency)
        except Exception as error:  # noqa: BLE001 - whoever only looks must not stop what is looked at
            self._problem(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Writes what waits, frees the port."""
        for part in (self.capture, self.metrics):
            if part is not None:
                part.close()

    def _problem(self, text: str) -> None:
        self._reports.problem("watch", text)


class CaptureService:
    """`~/capture`: keeps the next frame."""

    def __init__(self, node: Any, calls: Calls) -> None:
        self._node, self._calls = node, calls
        node.create_service(Trigger, "~/capture", self._on_capture, callback_group=ReentrantCallbackGroup())

    async def _on_capture(self, request: Any, response: Any) -> Any:
        node = self._node
        capture = node.watch.capture if node.watch is not None else None
        if capture is None:
            response.message = "capture.folder is not set: there is nowhere to put captures"
        elif node.perception is None:
            response.message = f"the node is {node.state_label}: there are no frames to capture"
        elif not node.streaming:
            response.message = "streaming is off: call segment_once while this call waits, or switch it on (~/enable)"
        if response.message:
            response.success = False
            return response
        asked = capture.ask()

        def wait() -> None:
            asked.done.wait(CAPTURE_WAIT)

        started = time.monotonic()
        await self._calls.run(wait)
        if not asked.done.is_set():
            response.message = f"no frame came within {time.monotonic() - started:.1f} s, see /diagnostics"
        response.success = bool(asked.path)
        response.message = response.message or asked.path or asked.error
        return response
