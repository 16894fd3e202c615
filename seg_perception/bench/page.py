# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""docs/performance.md, made of what the benchmarks wrote."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seg_perception.bench import Row
from seg_perception.bench.goals import GOALS, Goal
from seg_perception.bench.tables import about_machine, cell, table
from seg_perception.options import ConfigError

BUSY = 0.5  # load per core, from others, from which on times are too long

HEAD = """# Performance

Made by `seg-perception bench report benchmark/results/*.json` from what the commands below wrote; `benchmark/run_all`
does all of it. Nothing here is typed by hand. Times are medians in one thread unless said; kernels and stages are CPU
time of the thread, so that other work on the machine does not count; nodes are timed by the clock.
"""
SECTIONS = {
    "kernels": (
        "From a YOLO's outputs and a depth image to label image, points and moments, 1280x720. All methods in turn, on "
        "the same arrays, after a check that they agree. floor = dense deprojection of as many pixels, memory read = "
        "depth and label image once. NumPy, OpenCV and PyTorch work region by region, as well as they can "
        "(`seg_perception/bench/peers.py`). With cleaning = all of fusion, as the product does it. Ultralytics' masks "
        "are its `process_mask_native` alone, where installed.",
        ("instances", "threads", "pixels", "ours_ms", "floor_ms", "memory_read_ms", "numpy_ms", "opencv_ms", "torch_ms",
         "with_cleaning_ms", "ultralytics_masks_ms"),
    ),
    "stages": (
        "The product's own path after inference: decode = scores, NMS and masks; fuse = supports, clean points, boxes, "
        "ids; messages = main message, label image and object cloud, serialized. No grasps. The parts of fuse are by "
        "the clock.",
        ("instances", "threads", "decode_ms", "fuse_ms", "fuse_parts_ms", "messages_ms", "total_ms"),
    ),
    "node": (
        "A camera, the node, an empty node that only subscribes the same pair and answers, and a listener, each a "
        "process, over DDS. Latency is from the image's stamp to the result in the listener's hands.",
        (),
    ),
    "scaling": (
        "Stages with more instances and larger images; then as many cameras, each with a node of its own.",
        (),
    ),
    "clouds": (
        "Fused clouds of rendered scenes against the truth, by depth noise and by how much too wide masks are; "
        "docs/fusion.md tells how.",
        ("noise", "bleed_px", "objects", "precision", "recall", "p95_mm", "box_median_mm", "centroid_median_mm"),
    ),
    "soak": (
        "Frames of 160x120 through the whole pipeline in one process, tracker and messages included.",
        (),
    ),
}  # fmt: skip
CAMERA_COLUMNS = (
    "cameras", "camera_of", "pairs_sent", "pairs_received", "results", "result_rate_hz", "latency_ms", "inference_ms",
    "node_cpu_s", "node_rss_mb",
)  # fmt: skip
STAGE_COLUMNS = ("instances", "width", "height", "decode_ms", "fuse_ms", "messages_ms", "total_ms")


def page(files: Sequence[Path]) -> str:
    """The whole page. Raises ConfigError for a file that no benchmark wrote."""
    results = [_read(path) for path in files]
    by_name: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for result in results:
        by_name[result["benchmark"]].append(result)
    rows = {name: [row for result in found for row in result["rows"]] for name, found in by_name.items()}
    parts = [HEAD, *_busy(results), "## Goals\n", _goals(rows)]
    for name, (text, columns) in SECTIONS.items():
        if name in by_name:
            parts += [f"\n## {name.capitalize()}\n", f"{_wrapped(text)}\n"]
            parts += [_section(result, columns) for result in by_name[name]]
    return "\n".join([*parts, "\n## Machines and code\n", *(_origin(result) for result in results)])


def _busy(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A warning for results of a machine that had other work."""
    loads = {
        r["benchmark"]: r["machine"]["load"] for r in results if r["machine"]["load"] > BUSY * r["machine"]["cores"]
    }
    if not loads:
        return []
    told = ", ".join(f"{name} {load:.1f}" for name, load in loads.items())
    return [f"**The machine was busy with other work (load when it began: {told}): its times are too long.**\n"]


def _goals(rows: Mapping[str, Sequence[Row]]) -> str:
    lines = ["| benchmark | what | goal | measured | |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(_goal(goal, rows) for goal in GOALS)])


def _goal(goal: Goal, rows: Mapping[str, Sequence[Row]]) -> str:
    said = {True: "reached", False: "**not reached**", None: "not measured"}[goal.reached(rows)]
    found = ", ".join(map(cell, goal.found(rows))) or "–"
    return f"| {goal.benchmark} | {goal.text} | {goal.wanted} | {found} | {said} |"


def _section(result: Mapping[str, Any], columns: Sequence[str]) -> str:
    settings = ", ".join(f"{key} {cell(value)}" for key, value in result["settings"].items() if value not in ("", []))
    lines = [f"`seg-perception bench {result['benchmark']}`: {settings}."]
    if not result["complete"]:
        lines.append("**Interrupted: not all was measured.**")
    rows: list[Row] = result["rows"]
    if result["benchmark"] == "scaling":
        cameras = [row for row in rows if row["varies"] == "cameras"]
        lines += [f"\n{table([row for row in rows if row not in cameras], STAGE_COLUMNS)}"]
        lines += [f"\n{table(cameras, CAMERA_COLUMNS)}"] if cameras else []
    else:
        lines.append(f"\n{table(rows, columns)}")
    return "\n".join([*lines, ""])


def _origin(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    code = machine["code"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    state = f"commit {code['commit']}, {code['changed_files']} files changed since" if code else "not from git"
    return f"- {result['benchmark']}, {result['date']}: {about_machine(machine)}; {state}; {versions}"


def _read(path: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = {"benchmark", "complete", "date", "machine", "settings", "rows"} - result.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if missing:
        raise ConfigError(f"{path}: not a benchmark's result: no {', '.join(sorted(missing))}")
    return result


def _wrapped(text: str) -> str:
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 118:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{word}"
    return "\n".join(lines)
