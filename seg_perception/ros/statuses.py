# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What /diagnostics says of each part of the node, as things are at this moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticStatus

from seg_perception.ros.computer import Computer
from seg_perception.ros.engine import model_name
from seg_perception.ros.inputs import SETTLING, Input
from seg_perception.ros.reports import REPEATED

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
HANGS = 5.0  # s at one frame after which it is said
PATIENCE = 1.0  # s without a pair after which stamps do not fit


class Part(NamedTuple):
    """A part's name, how bad it is, one line, and what else is known."""

    name: str
    level: bytes
    text: str
    values: dict[str, Any]


class Statuses:
    """Reads what `node` (a SegPerceptionNode) knows."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._computer = Computer()
        self._counted = (0, time.monotonic())  # results, and when they were counted

    def parts(self) -> Iterator[Part]:
        """All of them, the node first. For a second's rates, call it once a second."""
        node = self._node
        yield self._node_itself()
        yield self._model()
        yield self._of_computer()
        inputs, perception = node.inputs, node.perception
        if inputs is None or perception is None:
            return
        yield from (self._input(one) for one in inputs)
        yield self._sync()
        if inputs.depth is not None:
            yield self._problems("alignment", "nothing seen that speaks against it", "alignment")
        yield self._pipeline()
        watch = self._node.watch
        if watch is not None and watch.drift is not None:
            shares = {f"{name} outside": f"{share:.2f}" for name, share in watch.drift.shares.items()}
            yield self._problems("drift", "as in the reference", "drift", values=shares)
        if watch is not None and (watch.capture is not None or watch.metrics is not None):
            yield self._problems("watch", "metrics and captures work", "watch")
        if perception.config.grasping.when == "stream":
            yield self._problems("grasping", "all objects reached", "grasping")
        if perception.config.target_frame or perception.config.gravity.frame or perception.config.workspace.frame:
            yield self._transforms()

    def missing(self) -> frozenset[str]:
        """Inputs from which nothing comes."""
        inputs = self._node.inputs
        return frozenset(one.name for one in inputs or () if self._is_missing(one))

    # -- the node, its model, its computer -----------------------------------------------------------------------------

    def _node_itself(self) -> Part:
        node = self._node
        values = {"state": node.state_label, "streaming": node.streaming}
        if node.problem:
            return Part("node", ERROR, node.problem, values)
        doubts = [text for text in (self._time_stands(), self._namesakes()) if text]
        return Part("node", WARN if doubts else OK, "; ".join([node.state_label, *doubts]), values)

    def _time_stands(self) -> str:
        """That simulated time has not begun; empty if it has, or time is not simulated."""
        clock = self._node.get_clock()
        if not clock.ros_time_is_active or clock.now().nanoseconds:
            return ""
        return "simulated time has not begun: use_sim_time is true and nothing comes on /clock"

    def _namesakes(self) -> str:
        """That other nodes have this one's name: who calls a service does not know which of them answers."""
        own = (self._node.get_name(), self._node.get_namespace())
        others = self._node.get_node_names_and_namespaces().count(own) - 1
        if others < 1:
            return ""
        return f"{others} more of this name, whose topics and services are the same: start it with -r __node:=OTHER"

    def _model(self) -> Part:
        status = self._node.model_status.message
        perception = self._node.perception
        values = {
            "backend": status.backend,
            "classes": len(status.class_names),
            "progress": f"{status.progress:.2f}",
            "eta [s]": f"{status.eta:.0f}",
        }
        if perception is not None and perception.ready is None:
            seconds = time.monotonic() - perception.began
            text = f"warming up ({seconds:.0f} s): {model_name(self._node.engine.pipeline)}"
            return Part("model", WARN, text, values)
        level = ERROR if status.state == status.FAILED else OK
        level = WARN if status.state in (status.FALLBACK, status.BUILDING) else level
        names = {
            getattr(type(status), n): n
            for n in ("UNLOADED", "LOADING", "BUILDING", "WARMING_UP", "READY", "FALLBACK", "FAILED")
        }
        text = f"{names[status.state]} {status.model}".strip()
        return Part("model", level, f"{text}: {status.message}" if status.message else text, values)

    def _of_computer(self) -> Part:
        values = self._computer.values()
        problem = self._computer.problem(values)
        memory = f"{values['memory [MB]']} MB resident" if "memory [MB]" in values else "nothing can be read"
        return Part("computer", WARN if problem else OK, problem or memory, values)

    # -- what comes in -------------------------------------------------------------------------------------------------

    @property
    def _heard(self) -> float:
        """s for how long messages could come."""
        inputs, perception = self._node.inputs, self._node.perception
        if inputs is None or inputs.opened is None or perception is None or perception.ready is None:
            return 0.0
        return time.monotonic() - max(inputs.opened, perception.ready)

    def _is_missing(self, one: Input) -> bool:
        optional = one.name in ("ignore_mask", "depth_info")
        once_is_enough = one.name in ("color_info", "depth_info", "ignore_mask") and one.count > 0
        return one.is_missing(self._heard) and not once_is_enough and not (optional and one.publishers == 0)

    def _input(self, one: Input) -> Part:
        reports = self._node.reports
        values: dict[str, Any] = {
            "topic": one.topic,
            "publishers": one.publishers,
            "qos": one.qos_text,
            "rate [Hz]": f"{one.rate:.1f}",
            "messages": one.count,
        }
        if one.silence is not None:
            age = (self._node.get_clock().now().nanoseconds - one.stamp_ns) * 1e-9
            values |= {"age [s]": f"{age:.3f}", "last stamp delta [s]": f"{one.stamp_delta:.6f}"}
            values |= {"encoding": one.encoding, "size": one.size, "frame": one.frame_id}
        conflict = one.conflict
        if conflict or one.incompatible_events:
            values |= {"incompatible QoS": conflict, "incompatible QoS events": one.incompatible_events}
        values |= reports.facts(one.name)

        def part(level: bytes, text: str) -> Part:
            return Part(f"input {one.name}", level, text, values)

        problem = reports.current({"color_info": "calibration"}.get(one.name, one.name))
        if conflict and one.publishers and one.is_quiet:
            return part(WARN, f"'{one.topic}': a publisher's QoS is incompatible: {conflict}; nothing arrives")
        if self._is_missing(one):
            return part(WARN, one.missing_text())
        if problem:
            return part(ERROR if problem.startswith("refused") else WARN, f"'{one.topic}': {problem}")
        if not one.is_open:
            return part(OK, "not subscribed")
        if one.name in ("color", "depth") and one.silence is not None and not one.frame_id:
            return part(WARN, f"'{one.topic}': the images name no frame: header.frame_id is empty")
        if one.name in ("color", "depth") and one.clock_problem and not one.is_quiet and self._heard >= SETTLING:
            return part(WARN, one.clock_problem)
        return part(OK, "receiving" if one.silence is not None else "waiting")

    def _sync(self) -> Part:
        inputs, feed = self._node.inputs, self._node.perception.feed
        pairer = feed.pairer
        colors = inputs.color.count
        values: dict[str, Any] = {"pairs": pairer.pairs, "slop [s]": pairer.slop_ns * 1e-9}
        values["hit ratio"] = f"{min(1.0, pairer.pairs / colors):.2f}" if colors else "0"
        if pairer.last_delta_ns is not None:
            values["last delta [s]"] = f"{pairer.last_delta_ns * 1e-9:.6f}"
        values |= {f"dropped: {reason}": count for reason, count in dict(pairer.dropped).items()}
        both = inputs.depth is not None and not inputs.color.is_quiet and not inputs.depth.is_quiet
        apart = pairer.last_delta_ns is not None and abs(pairer.last_delta_ns) > pairer.slop_ns
        if self._heard >= SETTLING and both and apart and feed.pairless > PATIENCE:
            text = (
                f"stamps of '{inputs.color.topic}' and '{inputs.depth.topic}' never pair: last delta "
                f"{pairer.last_delta_ns * 1e-9:+.6f} s, sync.slop is {pairer.slop_ns * 1e-9:g} s"
            )
            return Part("sync", WARN, text, values)
        return Part("sync", OK, f"{pairer.pairs} pairs", values)

    # -- what becomes of it --------------------------------------------------------------------------------------------

    def _pipeline(self) -> Part:
        reports = self._node.reports
        values: dict[str, Any] = {"results": reports.published}
        for stage, (median, p95) in reports.percentiles().items():
            values[f"{stage} p50 [ms]"] = f"{median * 1e3:.2f}"
            values[f"{stage} p95 [ms]"] = f"{p95 * 1e3:.2f}"
        values |= {f"dropped: {reason}": count for reason, count in dict(reports.drops).items()}
        (before, then), now = self._counted, time.monotonic()
        rate = (reports.published - before) / max(now - then, 1e-3)
        self._counted = (reports.published, now)
        values["rate [Hz]"] = f"{rate:.1f}"
        problem = reports.current("pipeline") or reports.current("segmenter")
        if reports.failures >= REPEATED:
            return Part("pipeline", ERROR, f"{reports.failures} frames in a row lost: {problem}", values)
        for where, seconds in self._node.perception.under_way.items():
            if seconds > HANGS:
                text = f"{where} of a frame has not returned for {seconds:.0f} s: a plugin hangs, or is that slow"
                return Part("pipeline", WARN, text, values)
        if problem:
            return Part("pipeline", WARN, problem, values)
        text = f"{rate:.1f} results per second" if self._node.inputs.opened is not None else "idle"
        return Part("pipeline", OK, text, values)

    def _transforms(self) -> Part:
        values = {"target_frame": self._node.perception.config.target_frame, **self._node.reports.facts("transform")}
        names = ("transform", "gravity", "prompt")
        return self._problems("transforms", "available at the images' stamps", *names, values=values)

    def _problems(self, part: str, fine: str, *names: str, values: dict[str, Any] | None = None) -> Part:
        """What the reports say under these names."""
        problems = [text for text in map(self._node.reports.current, names) if text]
        return Part(part, WARN if problems else OK, "; ".join(problems) or fine, values or {})
