# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception grasps`: pictures of a gripper at its grasps, to see whether planner and gripper file are right."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

import cv2

from seg_perception.cli.console import add_config, positive, progress, say
from seg_perception.config import Config, load_config
from seg_perception.folder import RgbdFolder
from seg_perception.grasp_view import grasp_rows
from seg_perception.grasping.gripper import Gripper, SuctionCup, load_grippers
from seg_perception.grasping.planning import pick_order
from seg_perception.options import Selected
from seg_perception.pipeline import Pipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="FOLDER", help="meta.json, frames/NAME_rgb.png or .jpg, frames/NAME_depth.png"
    )
    parser.add_argument(
        "--gripper", metavar="NAME", help="a shipped gripper or a .yaml file, for the planners of its kind (theirs)"
    )
    parser.add_argument("--objects", type=positive, default=6, metavar="N", help="at most, in pick order (6)")
    parser.add_argument("--frames", type=positive, metavar="N", help="only the first N")
    add_config(parser)
    parser.add_argument("--output", default="output/grasps", metavar="DIR", help="for NAME.png (output/grasps)")


def execute(options: argparse.Namespace) -> int:
    folder = RgbdFolder(options.folder)
    config = config_of(options)
    pipeline = Pipeline.from_config(config)
    grippers = {g.name: g for p in config.grasping.planners for g in _grippers(p)}
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    count = min(len(folder), options.frames or len(folder))
    written = 0
    for record in progress(islice(folder, count), count, "grasps"):
        scene = pipeline.process(record.frame)
        rows = pick_order(scene)[: options.objects]
        cv2.imwrite(str(output / f"{record.name}.png"), grasp_rows(scene, rows, grippers)[..., ::-1])
        written += 1
        found = sum(bool(o.grasps) for o in scene)
        print(f"{record.name}: {len(scene)} objects, {found} with grasps")
    say(f"{written} pictures are in {output}")
    return 0


def config_of(options: argparse.Namespace) -> Config:
    """What the arguments ask for; the gripper goes to the planners of its kind."""
    files = options.config or ["tabletop"]
    config = load_config(*files, overrides=options.set)
    if not options.gripper:
        return config
    kind = type(load_grippers(options.gripper)[0])
    names = [p.plugin for p in config.grasping.planners if isinstance(next(iter(_grippers(p)), None), kind)]
    if not names:
        planner = "suction" if kind is SuctionCup else "antipodal"
        raise ValueError(
            f"gripper '{options.gripper}': no planner here works with a {kind.__name__} "
            f"(try --set grasping.planners=[{planner}])"
        )
    chosen = [f"grasping.{name}.gripper={options.gripper}" for name in names]
    return load_config(*files, overrides=[*options.set, *chosen])


def _grippers(planner: Selected) -> tuple[Gripper | SuctionCup, ...]:
    source: Any = getattr(planner.config, "gripper", None)
    return () if source is None else load_grippers(source)
