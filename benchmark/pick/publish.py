#!/usr/bin/env python3
# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the published batches of the pick benchmark and writes benchmark/pick/results.json and docs/picking.md's tables.

source scripts/env; benchmark/pick/publish.py --planner top_down --split development --trials 150 --jobs 2
benchmark/pick/publish.py --tables     only writes the tables again
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from seg_perception.cli.interrupt import Interruptible
from seg_perception.cli.pick_bench import add_arguments, run_to_result
from seg_perception.report import write_json
from seg_perception.sim.picking.results import markdown

HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE / "results.json", HERE.parents[1] / "docs" / "picking.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
BATCHES = {
    "True masks": ["--bound"],
    "Masks of `tabletop`": ["--scenes", "clutter", "--segmenter", "tabletop"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="no run, only the tables from results.json")
    known, shared = parser.parse_known_args()
    if not known.tables:
        batches = []
        for title, own in BATCHES.items():
            command = argparse.ArgumentParser()
            add_arguments(command)
            result = run_to_result(command.parse_args([*shared, *own]))
            batches.append({"title": title, **{k: v for k, v in result.items() if k != "trials"}})
            write_json(RESULTS, batches)
    write_tables(json.loads(RESULTS.read_text(encoding="utf-8")))


def write_tables(batches: list[dict]) -> None:
    parts = [BEGIN, ""]
    for batch in batches:
        seeds = f"{batch['split'].replace('_', '-').capitalize()} seeds from number {batch['skip']} on"
        about = f"{seeds}, {batch['gripper']}, noise of a {batch['noise']}, MuJoCo {batch['mujoco']}."
        parts += [f"### {batch['title']}", "", about, "", markdown(batch["rows"])]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + "\n".join([*parts, END]) + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    with Interruptible():
        main()
