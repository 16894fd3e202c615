# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception pick-bench`: grasps carried out in physics, with your gripper."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import yaml

from seg_perception.cli.console import add_config, positive, progress, say
from seg_perception.config import load_config, to_mapping
from seg_perception.grasping.gripper import load_grippers
from seg_perception.options import Selected
from seg_perception.plugins import require
from seg_perception.report import to_json, write_json
from seg_perception.sim.noise import NOISE_MODELS
from seg_perception.sim.picking.bench import MASKS, Settings, Trial, bench_of, run
from seg_perception.sim.picking.gallery import grid
from seg_perception.sim.picking.results import markdown, summarise
from seg_perception.sim.picking.scenes import SCENES, SPLITS

SHOWN = 24  # failures in a picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--planner",
        type=_words,
        metavar="NAMES",
        help="compared on the same scenes, e.g. top_down,antipodal (config's)",
    )
    parser.add_argument(
        "--gripper", metavar="NAME", help="a shipped gripper or a .yaml file, for the planners of its kind (theirs)"
    )
    parser.add_argument(
        "--scenes", type=_words, default=list(SCENES), metavar="KINDS", help=f"of {','.join(SCENES)} (all)"
    )
    parser.add_argument("--trials", type=positive, default=60, metavar="N", help="targets per kind of scene (60)")
    parser.add_argument(
        "--per-object", type=positive, default=1, metavar="N", help="grasps tried per target; the first counts (1)"
    )
    parser.add_argument("--split", choices=SPLITS, default="development", help="held_out: never while tuning")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first N seeds of the split (0)")
    parser.add_argument(
        "--masks", choices=MASKS, default="truth", help="true masks, or those of the configured segmenter (truth)"
    )
    parser.add_argument("--segmenter", metavar="NAME", help="use this segmenter's masks, e.g. tabletop")
    parser.add_argument("--noise", choices=NOISE_MODELS, default="d435", help="depth sensor (d435)")
    parser.add_argument(
        "--things", type=_words, default=[], metavar="KINDS", help="only these kinds, e.g. mug,bowl (all)"
    )
    parser.add_argument("--meshes", metavar="FOLDER", default="", help="things from .obj and .stl files, in metres")
    parser.add_argument(
        "--bound", action="store_true", help="also look for any grasp that works, with the truth at hand (slow)"
    )
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="processes (1)")
    add_config(parser)
    parser.add_argument(
        "--output", default="output/pick", metavar="DIR", help="for pick.json, pick.md, failures_*.png (output/pick)"
    )
    parser.add_argument("--json", action="store_true", help="print what pick.json holds, less the trials, not tables")


def execute(options: argparse.Namespace) -> int:
    result = run_to_result(options)
    print(to_json({**result, "trials": None}) if options.json else markdown(result["rows"]), end="")
    return 0


def run_to_result(options: argparse.Namespace) -> dict[str, Any]:
    """Runs what the arguments ask for, leaves the files, returns what pick.json holds."""
    mujoco = require("mujoco", "sim")
    settings = settings_of(options)
    result: dict[str, Any] = {
        "split": settings.split,
        "skip": settings.skip,
        "masks": options.segmenter or settings.masks,
        "noise": settings.noise,
        "gripper": ", ".join(dict.fromkeys(g.name for g in bench_of(settings.config).grippers.values())),
        "mujoco": mujoco.__version__,
        "rows": [],
        "trials": [],
    }
    trials: list[Trial] = []
    try:
        for _ in progress(_targets(settings, options.jobs, trials), _total(settings), "pick", "target"):
            pass
    finally:  # what is there by now is kept, also after ctrl-C
        if trials:
            result |= _deliver(result, trials, Path(options.output))
    return result


def settings_of(options: argparse.Namespace) -> Settings:
    """What the arguments ask for."""
    overrides = list(options.set)
    if options.planner:
        overrides.append(f"grasping.planners=[{', '.join(options.planner)}]")
    if options.segmenter:
        overrides.append(f"segmenter.plugin={options.segmenter}")
    config = load_config(*(options.config or []), overrides=overrides)
    if options.gripper:  # jaws for the planners that have jaws, a cup for those that have cups
        kind = type(load_grippers(options.gripper)[0])
        names = [p.plugin for p in config.grasping.planners if isinstance(load_grippers(_gripper(p))[0], kind)]
        if not names:
            raise ValueError(f"gripper '{options.gripper}': no planner here works with a {kind.__name__}")
        overrides += [f"grasping.{name}.gripper={options.gripper}" for name in names]
        config = load_config(*(options.config or []), overrides=overrides)
    return Settings(
        config=yaml.safe_dump(to_mapping(config), sort_keys=False),
        scenes=tuple(options.scenes),
        trials=options.trials,
        split=options.split,
        skip=options.skip,
        masks="segmenter" if options.segmenter else options.masks,
        noise=options.noise,
        things=tuple(options.things),
        meshes=options.meshes,
        per_object=options.per_object,
        bound=options.bound,
    )


def _gripper(planner: Selected) -> Any:
    if not hasattr(planner.config, "gripper"):
        raise ValueError(f"planner '{planner.plugin}' has no option 'gripper': nobody knows what it grasps with")
    return planner.config.gripper


def _targets(settings: Settings, jobs: int, trials: list[Trial]) -> Any:
    """One item per target, its trials added to `trials`."""
    for found in run(settings, jobs):
        trials += found
        yield from dict.fromkeys(t.record["target"] for t in found)


def _total(settings: Settings) -> int:
    return settings.trials * len(settings.scenes)


def _deliver(about: dict[str, Any], trials: list[Trial], output: Path) -> dict[str, Any]:
    records = [t.record for t in trials]
    rows = summarise(records)
    result = {**about, "rows": rows, "trials": records}
    write_json(output / "pick.json", result)
    (output / "pick.md").write_text(markdown(rows), encoding="utf-8")
    for row in rows:
        key = (row["scene"], row["planner"])
        mine = [t for t in trials if (t.record["scene"], t.record["planner"]) == key and t.record["rank"] == 0]
        failed = [t.tile for t in mine if t.tile is not None][:SHOWN]
        if failed:
            name = f"failures_{'_'.join(key).replace(' ', '_')}.png"
            cv2.imwrite(str(output / name), grid(failed)[..., ::-1])
    say(f"{len(records)} grasps are in {output}: pick.json, pick.md, failures_*.png")
    return result


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]
