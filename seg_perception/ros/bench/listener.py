# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Who waits for the results, as a pick controller would: when each came, and what the node says about itself."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Header

from seg_perception.msg import SegmentedObjectArray
from seg_perception.ros.conversions import stamp_ns


@dataclass(frozen=True, slots=True)
class Arrival:
    """A result: its stamp, when it was here (both ns, system clock), and what the node says it took, s."""

    stamp: int
    came: int
    waited: float = 0.0
    segment: float = 0.0
    objects: int = 0

    @property
    def latency(self) -> float:
        """s, from the stamp of the image."""
        return (self.came - self.stamp) * 1e-9


@dataclass
class Heard:
    """Everything of one namespace. `numbers` are what its diagnostics count, by part and key; `said` how often."""

    results: list[Arrival] = field(default_factory=list)
    empty: list[Arrival] = field(default_factory=list)
    numbers: dict[str, dict[str, str]] = field(default_factory=dict)
    complaints: dict[str, str] = field(default_factory=dict)
    said: int = 0


class Listener:
    """Listens in several namespaces; a context manager."""

    def __init__(self, namespaces: list[str]) -> None:
        self.heard = {name: Heard() for name in namespaces}
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("bench_listener", context=self._context)
        for name, heard in self.heard.items():
            self._subscribe(name, heard)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 20)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._executor.spin, name="listener", daemon=True)
        self._thread.start()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(timeout_sec=5.0)
        self._thread.join(5.0)
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _subscribe(self, name: str, heard: Heard) -> None:
        def on_objects(message: SegmentedObjectArray) -> None:
            wait, segment = message.timings[:2]
            stamp = stamp_ns(message.header.stamp)
            heard.results.append(Arrival(stamp, time.time_ns(), wait, segment, len(message.objects)))

        def on_empty(message: Header) -> None:
            heard.empty.append(Arrival(stamp_ns(message.stamp), time.time_ns()))

        self._node.create_subscription(
            SegmentedObjectArray, f"{name}/seg_perception/objects", on_objects, QoSProfile(depth=50)
        )
        self._node.create_subscription(Header, f"{name}/empty/result", on_empty, QoSProfile(depth=50))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            for name, heard in self.heard.items():
                head = f"{name}/seg_perception: "
                if status.name.startswith(head):
                    part = status.name.removeprefix(head)
                    heard.numbers[part] = {pair.key: pair.value for pair in status.values}
                    heard.complaints[part] = status.message if status.level != status.OK else ""
                    heard.said += part == "node"
