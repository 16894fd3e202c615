# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""/diagnostics, once a second and in every lifecycle state: what is missing, what is wrong, how fast it goes."""

from __future__ import annotations

import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile

from seg_perception.ros.statuses import ERROR, OK, WARN, Part, Statuses

__all__ = ["ERROR", "OK", "WARN", "Diagnostics"]

PERIOD = 1.0  # s
CALM = 2.0  # s that a part must be better before its level goes down
STATES = ("node", "model")  # parts whose text is a state, not a measurement: they are believed at once
SUMMARY_PERIOD = 10.0  # s between two summaries in the log


class Steady:
    """Levels that do not flicker: up at once, down when a part has been better for a while."""

    def __init__(self) -> None:
        self._worst: dict[str, tuple[Part, float]] = {}  # when each part was last as bad as it is called

    def take(self, part: Part, now: float) -> Part:
        """The part at steady time `now`, s, or what it was with its newest values."""
        worst, seen = self._worst.get(part.name, (part, now))
        if part.level >= worst.level or now - seen >= CALM or part.name in STATES:
            self._worst[part.name] = (part, now)
            return part
        return worst._replace(values=part.values)


class Diagnostics:
    """Publishes what `node` (a SegPerceptionNode) knows. A plain publisher: it speaks before configure too."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._publisher = Node.create_publisher(node, DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
        self._name = node.get_fully_qualified_name()
        self._statuses = Statuses(node)
        self._steady = Steady()
        self._missing: frozenset[str] = frozenset()
        self._summarised = float("-inf")
        self._bad = False  # the last summary named something
        self._timer = node.create_timer(PERIOD, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def publish(self) -> None:
        """Everything, now."""
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        parts = [self._steady.take(part, time.monotonic()) for part in self._statuses.parts()]
        message.status = [
            DiagnosticStatus(
                level=part.level,
                name=f"{self._name}: {part.name}",
                message=part.text,
                hardware_id=self._name,
                values=[KeyValue(key=k, value=str(v)) for k, v in part.values.items()],
            )
            for part in parts
        ]
        self._publisher.publish(message)
        self._summarise([part for part in parts if part.level != OK])

    def look(self) -> None:
        """Says at once that an input has become missing; call it a few times a second."""
        missing, before = self._statuses.missing(), self._missing
        self._missing = missing
        if missing - before:
            self._timer.reset()
            self.publish()

    def _summarise(self, bad: list[Part]) -> None:
        """One line every ten seconds while something is wrong, and one when it is over."""
        perception, logger = self._node.perception, self._node.get_logger()
        if perception is not None and perception.ready is None and not self._node.problem:
            return  # warming up: the node has said so
        if bad and time.monotonic() - self._summarised > SUMMARY_PERIOD:
            self._summarised = time.monotonic()
            self._bad = True
            logger.warning("; ".join(f"{part.name}: {part.text}" for part in bad))
        elif self._bad and not bad:
            self._bad = False
            if perception is not None:  # a node that was stopped is not well again
                logger.info("all OK again")
