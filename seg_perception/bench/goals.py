# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the numbers should be: each goal looks into the results and says what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seg_perception.bench import Row
from seg_perception.bench.soak import LIMITS

Rows = Mapping[str, Sequence[Row]]  # by benchmark
KEEPS_UP = 0.97  # of the rate that camera and backend allow


@dataclass(frozen=True)
class Goal:
    """`measure` finds the number in a row, None where it is not known; it has to be at most, or at least, `limit`."""

    benchmark: str
    text: str
    measure: Callable[[Row], float | None]
    limit: float
    unit: str = ""
    at_least: bool = False
    where: tuple[tuple[str, Any], ...] = ()

    def found(self, rows: Rows) -> list[float]:
        """The number in each row that the goal is about."""
        chosen = [r for r in rows.get(self.benchmark, ()) if all(r.get(key) == value for key, value in self.where)]
        return [value for value in map(self.measure, chosen) if value is not None]

    def reached(self, rows: Rows) -> bool | None:
        """None: not measured."""
        values = self.found(rows)
        if not values:
            return None
        return min(values) >= self.limit if self.at_least else max(values) <= self.limit

    @property
    def wanted(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}{f' {self.unit}' if self.unit else ''}"


def _value(key: str) -> Callable[[Row], float | None]:
    return lambda row: row.get(key)


def _ratio(key: str, other: str) -> Callable[[Row], float | None]:
    return lambda row: row[key] / row[other] if row.get(key) and row.get(other) else None


def _added(row: Row) -> float | None:
    over, empty = row["over_inference_ms"]["p95"], row["empty_node_ms"]["p95"]
    return over - empty if over is not None and empty is not None else None


def _share(key: str, other: str) -> Callable[[Row], float | None]:
    return lambda row: 100 * row[key] / row[other] if row.get(key) is not None and row.get(other) else None


def _rate_kept(row: Row) -> float | None:
    """Percent of the rate that the camera, or the inference alone, allows."""
    rate, inference = row.get("result_rate_hz"), row["inference_ms"]["p50"]
    return 100 * rate / min(row["rate_hz"], 1e3 / inference) if rate and inference else None


TWENTY, HUNDRED = (("instances", 20),), (("instances", 100),)
BLED = tuple(
    (("noise", noise), ("bleed_px", 3)) for noise in ("d435", "kinect")
)  # masks 3 px too wide, depth as real sensors see it

GOALS = (
    Goal("kernels", "decode, labels, points, moments, 20 instances", _value("ours_ms"), 1.0, "ms", where=TWENTY),
    Goal("kernels", "the same, 100 instances", _value("ours_ms"), 1.5, "ms", where=HUNDRED),
    Goal("kernels", "times faster than PyTorch per region, 20", _ratio("torch_ms", "ours_ms"), 8, "", True, TWENTY),
    Goal("kernels", "times faster than expert NumPy, 20", _ratio("numpy_ms", "ours_ms"), 3, "", True, TWENTY),
    Goal(
        "kernels",
        "times the dense deprojection of the same pixels, 20",
        _ratio("ours_ms", "floor_ms"),
        5,
        "",
        False,
        TWENTY,
    ),
    Goal(
        "stages",
        "all after inference up to serialized messages, 20 instances",
        _value("total_ms"),
        3.0,
        "ms",
        where=TWENTY,
    ),
    Goal("stages", "the same, 100 instances", _value("total_ms"), 5.0, "ms", where=HUNDRED),
    Goal("node", "pairs that arrive", _share("pairs_received", "pairs_sent"), 100, "%", True),
    Goal("node", "results, of the rate that camera and backend allow", _rate_kept, 100 * KEEPS_UP, "%", True),
    Goal("node", "latency over inference, more than an empty node's, p95", _added, 4.0, "ms"),
    Goal("node", "oldest published frame, in periods of the results", _value("oldest_periods"), 2.0),
    Goal("node", "resident memory", _value("node_rss_mb"), 600, "MB"),
    *(
        Goal("clouds", f"precision, {w[0][1]} noise, masks 3 px too wide", _value("precision"), 0.98, "", True, w)
        for w in BLED
    ),
    *(
        Goal("clouds", f"recall, {w[0][1]} noise, masks 3 px too wide", _value("recall"), 0.95, "", True, w)
        for w in BLED
    ),
    *(
        Goal(
            "clouds",
            f"p95 of the points' errors, {w[0][1]} noise, masks 3 px too wide",
            _value("p95_mm"),
            2.6,
            "mm",
            False,
            w,
        )
        for w in BLED
    ),
    *(
        Goal(
            "clouds",
            f"median error of the boxes' dimensions, {w[0][1]} noise, masks 3 px too wide",
            _value("box_median_mm"),
            4.0,
            "mm",
            False,
            w,
        )
        for w in BLED
    ),
    Goal("soak", "frames in one process", _value("frames"), 100_000, "", True),
    Goal("soak", "growth of resident memory", _value("rss_growth_percent"), LIMITS["rss_growth_percent"], "%"),
    Goal("soak", "growth of threads", _value("threads_growth"), 0),
    Goal("soak", "growth of open files", _value("fds_growth"), 0),
    Goal(
        "soak", "growth of the time per frame", _value("latency_growth_percent"), LIMITS["latency_growth_percent"], "%"
    ),
)
