#!/usr/bin/env python3
# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the published batches of the pick benchmark and writes benchmark/pick/results.json and docs/picking.md's tables.

source scripts/env; benchmark/pick/publish.py --split held_out --trials 150 --jobs 2 --skip 0
benchmark/pick/publish.py --batches cup,cups ...     only these, the others stay as they were
benchmark/pick/publish.py --tables                   only writes the tables again
The batch `meshes` wants `--mesh-folder FOLDER`, as benchmark/pick/meshes.py leaves it.
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
JAWS = ["--planner", "antipodal"]
THREE_CUPS = "grasping.suction.gripper=[suction_6, suction_10, suction_16]"
BATCHES = {
    "jaws": ("Jaws, true masks", [*JAWS]),
    "tabletop": ("Jaws, masks of `tabletop`", [*JAWS, "--scenes", "clutter", "--segmenter", "tabletop"]),
    "meshes": ("Jaws, things from mesh files", [*JAWS, "--scenes", "single"]),
    "cups": ("A choice of three cups, true masks", ["--planner", "suction", "--set", THREE_CUPS]),
    "cup": ("One cup, true masks", ["--planner", "suction"]),
    "calibration": ("Calibration: seven grasps of each target", [*JAWS, "--per-object", "7", "--skip", "400"]),
    "baselines": ("Baselines, true masks", ["--planner", "top_down,seg_perception.sim.picking.pca:Pca"]),
}
"""By name: the heading and the arguments. Batches with the same seeds see the same scenes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="no run, only the tables from results.json")
    parser.add_argument("--batches", default=",".join(BATCHES), help="which of them (all)")
    parser.add_argument("--mesh-folder", default="", help="for the batch `meshes`")
    known, shared = parser.parse_known_args()
    if not known.tables:
        for name in known.batches.split(","):
            title, own = BATCHES[name]
            if name == "meshes":
                own = [*own, "--meshes", known.mesh_folder]
            command = argparse.ArgumentParser()
            add_arguments(command)
            result = run_to_result(command.parse_args(["--output", f"output/pick/{name}", *shared, *own]))
            keep(name, {"title": title, **{k: v for k, v in result.items() if k != "trials"}})
    write_tables(published())


def published() -> dict[str, dict]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}


def keep(name: str, batch: dict) -> None:
    batches = {**published(), name: batch}
    write_json(RESULTS, {known: batches[known] for known in BATCHES if known in batches})


def write_tables(batches: dict[str, dict]) -> None:
    parts = [BEGIN, ""]
    for batch in batches.values():
        seeds = f"{batch['split'].replace('_', '-').capitalize()} seeds from number {batch['skip']} on"
        about = f"{seeds}, {batch['gripper']}, noise of a {batch['noise']}, MuJoCo {batch['mujoco']}."
        parts += [f"### {batch['title']}", "", about, "", markdown(batch["rows"])]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + "\n".join([*parts, END]) + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    with Interruptible():
        main()
