# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Injects every fault, over real DDS, and writes the table in docs/reliability.md from what was seen.

source scripts/env; python benchmark/fault_table.py [--check]

It takes about two and a half minutes and ends with 1 if a fault's test fails or the node takes longer than two seconds
to recover; `--check` only says so and leaves the page as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from seg_perception.zoo.machine import this_machine

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
TESTS = ROOT / "test" / "ros"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
LIMIT = 2.0  # s to recover in
VARIABLE = "SEG_PERCEPTION_FAULT_ROWS"  # as test/ros/fault_rows.py has it
HEADINGS = {
    "camera": "The camera",
    "stamps": "Its stamps",
    "color images": "Color images",
    "depth images": "Depth images",
    "camera_info": "Calibration",
    "transforms": "Transforms",
    "time": "Time",
    "plugins": "Models and plugins",
    "disk": "The disk",
    "others": "Others on the network",
    "signals": "SIGINT and SIGTERM",
}


def modules() -> list[Path]:
    """The tests that inject faults."""
    return [TESTS / "test_node_faults.py", *sorted(TESTS.glob("test_fault_*.py"))]


def measure() -> tuple[list[dict[str, Any]], int]:
    """Runs the tests; the rows that they wrote, and pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        environment = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", **os.environ, VARIABLE: str(path)}
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-m", "fault", *map(str, modules())]
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines], code


def markdown(rows: Iterable[dict[str, Any]], seen: str) -> str:
    """The tables, group by group."""
    rows = list(rows)
    out = [seen]
    for group, heading in HEADINGS.items():
        own = [row for row in rows if row["group"] == group]
        signals = group == "signals"
        out += ["", f"### {heading}", ""]
        titles = ["while the node is", "who waits is told", "it ends with", "outcome"]
        if not signals:
            titles = ["fault", "what the user sees", "published meanwhile", "recovers", "s", "outcome"]
        out += [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
        for row in own:
            name = row["fault"] + (f" (STAND-IN: {row['stand_in']})" if row["stand_in"] else "")
            cells = [name, row["said"], row["afterwards"], row["outcome"]]
            if not signals:
                seconds = "" if row["recovery"] is None else f"{row['recovery']:.2f}"
                cells[2:3] = [row["published"], row["afterwards"], seconds]
            out.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(out)


def where() -> str:
    """On what it was seen; no date."""
    import rclpy

    return (
        f"Seen over {rclpy.get_rmw_implementation_identifier()} on {this_machine()}. The camera films at 30 Hz, "
        "before a real network at 10 Hz. `s`: from the first good frame to its result with 3D."
    )


def faults(rows: Iterable[dict[str, Any]]) -> list[str]:
    """What is not as it should be, a line each."""
    out = []
    for row in rows:
        name = f"{row['group']}: {row['fault']}"
        if row["outcome"] != "passed":
            out.append(f"{name}: {row['outcome']}")
        elif row["recovery"] is not None and row["recovery"] > LIMIT:
            out.append(f"{name}: took {row['recovery']:.1f} s to recover, the limit is {LIMIT:g} s")
        if row["group"] not in HEADINGS:
            out.append(f"{name}: no such group")
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="leave the page as it is")
    options = parser.parse_args()
    seen = where()
    rows, code = measure()
    wrong = faults(rows)
    print("\n".join(wrong) or f"{len(rows)} faults, all as they should be")
    if not options.check and rows:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n\n{markdown(rows, seen)}\n\n{END}{after}", encoding="utf-8")
        print(f"wrote {PAGE.relative_to(ROOT)}")
    return 1 if wrong or code else 0


if __name__ == "__main__":
    sys.exit(main())
