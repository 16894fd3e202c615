# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""/diagnostics, once a second and in every lifecycle state: what is missing, what is wrong, how fast it goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile

from seg_perception.ros.engine import model_name
from seg_perception.ros.inputs import UNKNOWN, Input
from seg_perception.ros.reports import REPEATED

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
PERIOD = 1.0  # s
SETTLING = 2.0  # s after warming up, or subscribing, in which nothing is called missing
PATIENCE = 1.0  # s without a pair after which stamps do not fit
SUMMARY_PERIOD = 10.0  # s between two summaries in the log


class Diagnostics:
    """Publishes what `node` (a SegPerceptionNode) knows. A plain publisher: it speaks before configure too."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._publisher = Node.create_publisher(node, DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
        self._name = node.get_fully_qualified_name()
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(PERIOD, self.publish, clock=self._steady)
        self._last_published = 0
        self._summarised = 0.0

    def publish(self) -> None:
        """Everything, now."""
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.status = [
            DiagnosticStatus(
                level=level,
                name=f"{self._name}: {part}",
                message=text,
                hardware_id=self._name,
                values=[KeyValue(key=k, value=str(v)) for k, v in values.items()],
            )
            for part, level, text, values in self._statuses()
        ]
        self._publisher.publish(message)
        self._log_summary(message.status)

    def _log_summary(self, statuses: list[DiagnosticStatus]) -> None:
        """One line every ten seconds while something is wrong."""
        bad = [s for s in statuses if s.level != OK]
        perception = self._node.perception
        if perception is not None and perception.ready is None and not self._node.problem:
            return  # warming up: the node has said so
        if bad and time.monotonic() - self._summarised > SUMMARY_PERIOD:
            self._summarised = time.monotonic()
            lines = "; ".join(f"{s.name.rsplit(': ', 1)[-1]}: {s.message}" for s in bad)
            self._node.get_logger().warning(lines)

    # -- the parts -----------------------------------------------------------------------------------------------------

    def _statuses(self) -> Iterator[tuple[str, bytes, str, dict[str, Any]]]:
        node = self._node
        yield ("node", *self._of_node())
        yield ("model", *self._of_model())
        inputs, perception = node.inputs, node.perception
        if inputs is None or perception is None:
            return
        waiting = inputs.opened is not None
        heard = 0.0  # s, for how long messages could come
        if waiting and perception.ready is not None:
            heard = time.monotonic() - max(inputs.opened, perception.ready)
        for one in inputs:
            yield (f"input {one.name}", *self._of_input(one, waiting, heard))
        yield ("sync", *self._of_sync(heard >= SETTLING, inputs, perception.feed))
        if inputs.depth is not None:
            yield ("alignment", *self._of_alignment())
        yield ("pipeline", *self._of_pipeline(waiting))
        if perception.config.grasping.when == "stream":
            yield ("grasping", *self._of_grasping())
        if perception.config.target_frame or perception.config.gravity.frame or perception.config.workspace.frame:
            yield ("transforms", *self._of_transforms())

    def _of_node(self) -> tuple[bytes, str, dict[str, Any]]:
        node = self._node
        problem = node.problem
        level = ERROR if problem else OK
        return level, problem or node.state_label, {"state": node.state_label, "streaming": node.streaming}

    def _of_model(self) -> tuple[bytes, str, dict[str, Any]]:
        status = self._node.model_status.message
        perception = self._node.perception
        if perception is not None and perception.ready is None:
            seconds = time.monotonic() - perception.began
            return WARN, f"warming up ({seconds:.0f} s): {model_name(self._node.engine.pipeline)}", {}
        level = ERROR if status.state == status.FAILED else OK
        level = WARN if status.state in (status.FALLBACK, status.BUILDING) else level
        names = {
            getattr(type(status), n): n
            for n in ("UNLOADED", "LOADING", "BUILDING", "WARMING_UP", "READY", "FALLBACK", "FAILED")
        }
        text = f"{names[status.state]} {status.model}".strip()
        return level, f"{text}: {status.message}" if status.message else text, {
            "classes": len(status.class_names),
            "progress": f"{status.progress:.2f}",
            "eta [s]": f"{status.eta:.0f}",
        }

    def _of_input(self, one: Input, waiting: bool, heard: float) -> tuple[bytes, str, dict[str, Any]]:
        silence = one.silence
        values: dict[str, Any] = {
            "topic": one.topic,
            "publishers": one.publishers,
            "qos": one.qos_text,
            "rate [Hz]": f"{one.rate:.1f}",
            "messages": one.count,
        }
        if silence is not None:
            age = (self._node.get_clock().now().nanoseconds - one.stamp_ns) * 1e-9
            values |= {"age [s]": f"{age:.3f}", "encoding": one.encoding, "size": one.size, "frame": one.frame_id}
        problem = self._node.reports.current({"color_info": "calibration"}.get(one.name, one.name))
        patience = UNKNOWN if silence is None and one.publishers else SETTLING
        quiet = heard >= patience and one.is_quiet
        optional = one.name in ("ignore_mask", "depth_info")
        once_is_enough = one.name in ("color_info", "depth_info", "ignore_mask") and one.count > 0
        if one.incompatible and one.publishers and one.is_quiet:
            return (
                WARN,
                f"'{one.topic}': a publisher's QoS is incompatible: {one.incompatible}; {one.missing_text()}",
                values,
            )
        if quiet and not once_is_enough and not (optional and one.publishers == 0):
            return WARN, one.missing_text(), values
        if problem:
            return (ERROR if problem.startswith("refused") else WARN), f"'{one.topic}': {problem}", values
        if not waiting:
            return OK, "not subscribed", values
        if one.clock_problem and not one.is_quiet and heard >= SETTLING and one.name in ("color", "depth"):
            return WARN, one.clock_problem, values
        return OK, "receiving" if silence is not None else "waiting", values

    def _of_sync(self, settled: bool, inputs: Any, feed: Any) -> tuple[bytes, str, dict[str, Any]]:
        pairer = feed.pairer
        drops = dict(pairer.dropped)
        colors = inputs.color.count
        values: dict[str, Any] = {"pairs": pairer.pairs, "slop [s]": pairer.slop_ns * 1e-9}
        values["pairs per color image"] = f"{pairer.pairs / colors:.2f}" if colors else "0"
        if pairer.last_delta_ns is not None:
            values["last delta [s]"] = f"{pairer.last_delta_ns * 1e-9:.6f}"
        values |= {f"dropped: {reason}": count for reason, count in drops.items()}
        both = inputs.depth is not None and not inputs.color.is_quiet and not inputs.depth.is_quiet
        apart = pairer.last_delta_ns is not None and abs(pairer.last_delta_ns) > pairer.slop_ns
        if settled and both and apart and feed.pairless > PATIENCE:
            text = (
                f"stamps of '{inputs.color.topic}' and '{inputs.depth.topic}' never pair: last delta "
                f"{pairer.last_delta_ns * 1e-9:+.6f} s, sync.slop is {pairer.slop_ns * 1e-9:g} s"
            )
            return WARN, text, values
        return OK, f"{pairer.pairs} pairs", values

    def _of_alignment(self) -> tuple[bytes, str, dict[str, Any]]:
        problem = self._node.reports.current("alignment")
        return (WARN, problem, {}) if problem else (OK, "nothing seen that speaks against it", {})

    def _of_grasping(self) -> tuple[bytes, str, dict[str, Any]]:
        problem = self._node.reports.current("grasping")
        return (WARN, problem, {}) if problem else (OK, "all objects reached", {})

    def _of_pipeline(self, waiting: bool) -> tuple[bytes, str, dict[str, Any]]:
        reports = self._node.reports
        values: dict[str, Any] = {"results": reports.published}
        for stage, (median, p95) in reports.percentiles().items():
            values[f"{stage} p50 [ms]"] = f"{median * 1e3:.2f}"
            values[f"{stage} p95 [ms]"] = f"{p95 * 1e3:.2f}"
        values |= {f"dropped: {reason}": count for reason, count in reports.drops.items()}
        rate = (reports.published - self._last_published) / PERIOD
        self._last_published = reports.published
        values["rate [Hz]"] = f"{rate:.1f}"
        problem = reports.current("pipeline")
        if reports.failures >= REPEATED:
            return ERROR, f"{reports.failures} frames in a row lost: {problem}", values
        if problem:
            return WARN, problem, values
        return OK, f"{rate:.1f} results per second" if waiting else "idle", values

    def _of_transforms(self) -> tuple[bytes, str, dict[str, Any]]:
        problems = [p for p in map(self._node.reports.current, ("transform", "gravity")) if p]
        frames = {"target_frame": self._node.perception.config.target_frame}
        return (WARN, "; ".join(problems), frames) if problems else (OK, "available at the images' stamps", frames)
