# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception run`: what the node would publish, as files, without ROS."""

from __future__ import annotations

import argparse
import time
from itertools import islice
from pathlib import Path
from typing import Any

import cv2

from seg_perception.cli.console import add_config, positive, progress, say, warm_up
from seg_perception.config import load_config
from seg_perception.draw import overlay
from seg_perception.pipeline import Pipeline
from seg_perception.recordings import open_frames
from seg_perception.report import scene_record, summary, to_json, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        help="with meta.json, frames/NAME_rgb.png or .jpg, frames/NAME_depth.png; or .mcap files",
    )
    add_config(parser)
    parser.add_argument("--frames", type=positive, metavar="N", help="only the first N")
    parser.add_argument(
        "--output", default="output", metavar="DIR", help="for overlay_NAME.png and objects.json (output)"
    )
    parser.add_argument("--json", action="store_true", help="print what objects.json holds instead of a summary")


def execute(options: argparse.Namespace) -> int:
    folder = open_frames(options.folder)
    pipeline = Pipeline.from_config(load_config(*(options.config or ["tabletop"]), overrides=options.set))
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    count = min(len(folder), options.frames or len(folder))
    warm_up(pipeline, folder.intrinsics.width, folder.intrinsics.height)
    about = {"source": str(folder.path)}
    records: list[dict[str, Any]] = []
    try:
        for record in progress(islice(folder, count), count, "run"):
            start = time.perf_counter()
            scene = pipeline.process(record.frame)
            records.append(scene_record(scene, record.name, time.perf_counter() - start))
            picture = overlay(record.frame.color, scene)
            cv2.imwrite(
                str(output / f"overlay_{record.name}.png"), picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3]
            )
    finally:  # what is there by now is kept, also after ctrl-C
        write_report(output / "objects.json", records, **about)
        say(f"{len(records)} of {count} frames are in {output}: overlay_NAME.png, objects.json")
    print(to_json({**about, "frames": records}) if options.json else summary(records))
    return 0
