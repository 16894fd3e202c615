# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception profile`: learns from good frames what the node's drift warning compares with."""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

from seg_perception.cli.console import add_config, positive, progress, say, warm_up
from seg_perception.config import load_config
from seg_perception.drift import FEATURES, Profile
from seg_perception.pipeline import Pipeline
from seg_perception.recordings import open_frames


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("frames_of", metavar="SOURCE", help="a folder of RGB-D frames or .mcap files, or an .mcap file")
    add_config(parser)
    parser.add_argument("--frames", type=positive, metavar="N", help="only the first N")
    parser.add_argument("--output", default="profile.json", metavar="FILE", help="for drift.profile (profile.json)")


def execute(options: argparse.Namespace) -> int:
    source = open_frames(options.frames_of)
    config = load_config(*(options.config or ["tabletop"]), overrides=[*options.set, "grasping.planners=[]"])
    pipeline = Pipeline.from_config(config)
    count = min(len(source), options.frames or len(source))
    warm_up(pipeline, source.intrinsics.width, source.intrinsics.height)
    records = progress(islice(source, count), count, "profile")
    learned = Profile.learn(pipeline.process(record.frame) for record in records)
    Path(options.output).write_text(json.dumps(learned.as_dict(), indent=1) + "\n", encoding="utf-8")
    for name, known in learned.ranges.items():
        print(f"{name:<20} {known.low:8.3g} to {known.high:8.3g}   {FEATURES[name][0]}")
    say(f"{learned.frames} frames are in {options.output}; the node compares with it: drift.profile: {options.output}")
    return 0
