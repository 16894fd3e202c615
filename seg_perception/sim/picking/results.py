# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What trials add up to: rates with their intervals, reasons of failure, calibration; as numbers and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from seg_perception.sim.picking.trial import Outcome

LISTED = 40  # kinds of things in a table at most
BINS, FEWEST = 10, 50  # of the calibration; bins with fewer grasps are merged with the next


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a rate (95 % by default). (0, 1) without a trial."""
    if not trials:
        return 0.0, 1.0
    rate, zz = successes / trials, z * z / trials
    middle, half = rate + zz / 2, z * np.sqrt(rate * (1 - rate) / trials + zz / trials / 4)
    return float(max(0.0, (middle - half) / (1 + zz))), float(min(1.0, (middle + half) / (1 + zz)))


def summarise(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per scene kind and planner, of the first grasp of each target."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    every: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        key = record["scene"], record["planner"]
        every.setdefault(key, []).append(record)
        if record["rank"] == 0:
            groups.setdefault(key, []).append(record)
    return [{"scene": s, "planner": p, **_row(first), **_calibration(every[s, p])} for (s, p), first in groups.items()]


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as tables: rates, reasons, kinds of things."""
    names = [f"{row['scene']}, {row['planner']}" for row in rows]
    lines = [
        "| scenes | planner | targets | picked | 95 % interval | planning ms, median and p95 | calibration error |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["interval"]
        times = f"{row['milliseconds']['median']:.1f}, {row['milliseconds']['p95']:.1f}"
        error = "-" if row["calibration_error"] is None else f"{row['calibration_error']:.3f} of {row['executed']}"
        lines.append(
            f"| {row['scene']} | {row['planner']} | {row['targets']} | {100 * row['rate']:.1f} % "
            f"| {100 * low:.1f} to {100 * high:.1f} % | {times} | {error} |"
        )
    failures = [o.value for o in Outcome if not o.success and any(o.value in row["outcomes"] for row in rows)]
    lines += ["", f"| failure | {' | '.join(names)} |", "|---" * (len(rows) + 1) + "|"]
    lines += [f"| {f} | {' | '.join(str(row['outcomes'].get(f, 0)) for row in rows)} |" for f in failures]
    things = sorted({thing for row in rows for thing in row["things"]})
    if len(things) > LISTED:  # mesh files, nearly each another one
        return "\n".join(lines) + "\n"
    lines += ["", f"| picked of | {' | '.join(names)} |", "|---" * (len(rows) + 1) + "|"]
    for thing in things:
        cells = (row["things"].get(thing, (0, 0)) for row in rows)
        lines.append(f"| {thing} | {' | '.join(f'{a} of {b}' for a, b in cells)} |")
    return "\n".join(lines) + "\n"


def _row(first: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    picked = sum(r["picked"] for r in first)
    milliseconds = [r["milliseconds"] for r in first]
    things = Counter(r["thing"] for r in first)
    return {
        "targets": len(first),
        "scenes": len({r["seed"] for r in first}),
        "picked": picked,
        "rate": picked / len(first),
        "interval": wilson(picked, len(first)),
        "outcomes": dict(Counter(r["outcome"] for r in first)),
        "things": {t: (sum(r["picked"] for r in first if r["thing"] == t), n) for t, n in sorted(things.items())},
        "milliseconds": {"median": float(np.median(milliseconds)), "p95": float(np.percentile(milliseconds, 95))},
    }


def _calibration(executed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Expected calibration error over all executed grasps, and its bins: mean score, rate, count."""
    scored = sorted(
        (r["score"], bool(r["picked"])) for r in executed if r.get("score") is not None and r["score"] == r["score"]
    )
    bins: list[list[tuple[float, bool]]] = []
    for k in range(BINS):
        bins.append([s for s in scored if k / BINS <= s[0] < (k + 1) / BINS or (k + 1 == BINS and s[0] >= 1.0)])
    merged: list[list[tuple[float, bool]]] = []
    for part in bins:
        if merged and len(merged[-1]) < FEWEST:
            merged[-1] = merged[-1] + part
        else:
            merged.append(part)
    if len(merged) > 1 and len(merged[-1]) < FEWEST:
        last = merged.pop()
        merged[-1] = merged[-1] + last
    if len(scored) < FEWEST:
        return {"executed": len(scored), "calibration_error": None, "calibration": []}
    table = [(float(np.mean([s for s, _ in b])), float(np.mean([p for _, p in b])), len(b)) for b in merged if b]
    error = sum(n * abs(score - rate) for score, rate, n in table) / len(scored)
    return {"executed": len(scored), "calibration_error": error, "calibration": table}
