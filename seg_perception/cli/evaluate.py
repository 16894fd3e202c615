# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception evaluate`: masks against the instances images of a folder, and what they cost."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from seg_perception.cli.console import add_config, add_json, positive, progress, warm_up, write_result
from seg_perception.config import load_config
from seg_perception.evaluation import FrameScore, average, drop_depth, score_frame
from seg_perception.folder import FolderError, RgbdFolder
from seg_perception.pipeline import Pipeline

ROWS = (
    ("weighted overlap", "weighted_overlap"),
    ("mean IoU", "mean_iou"),
    ("precision at IoU 0.5", "precision_50"),
    ("recall", "recall_50"),
    ("F", "f_50"),
    ("precision at IoU 0.75", "precision_75"),
    ("recall", "recall_75"),
    ("F", "f_75"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="RGB-D frames with frames/NAME_instances.png (0 = none, 1..N)")
    add_config(parser)
    parser.add_argument("--frames", type=positive, metavar="N", help="only the first N")
    parser.add_argument(
        "--dropout", type=_share, default=0.0, metavar="SHARE", help="remove that share of depth pixels first"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the dropout (0)")
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    folder = RgbdFolder(options.folder)
    if not folder.has_truth:
        raise FolderError(f"{folder.path}: nothing to score against: every frame needs frames/NAME_instances.png")
    pipeline = Pipeline.from_config(load_config(*(options.config or ["tabletop"]), overrides=options.set))
    warm_up(pipeline, folder.intrinsics.width, folder.intrinsics.height)
    count = min(len(folder), options.frames or len(folder))
    rows: list[dict[str, Any]] = []
    scores: list[FrameScore] = []
    about = {"folder": str(folder.path), "dropout": options.dropout, "seed": options.seed}
    try:
        for k, record in enumerate(progress(islice(folder, count), count, "evaluate")):
            assert record.instances is not None
            assert record.frame.depth is not None
            # Judged on the recorded pixels, also on those that dropout takes away: the same task in both cases.
            ignore = np.isnan(record.frame.depth) if folder.ignore_invalid_depth else None
            frame = record.frame
            if options.dropout:
                frame = replace(frame, depth=drop_depth(record.frame.depth, options.dropout, options.seed + k))
            start = time.perf_counter()
            scene = pipeline.process(frame)
            total_ms = 1000 * (time.perf_counter() - start)
            scores.append(score_frame(scene.instances.masks, record.instances, ignore))
            times = {"segment_ms": 1000 * scene.instances.seconds, "total_ms": total_ms}
            rows.append({"name": record.name, **scores[-1].to_dict(), **times})
    finally:  # also after ctrl-C: it says of how many frames
        if rows:
            _deliver(about, scores, rows, options.json)
    return 0


def _deliver(about: dict[str, Any], scores: list[FrameScore], rows: list[dict[str, Any]], out: str | None) -> None:
    times = {key: _median_p95([row[key] for row in rows]) for key in ("segment_ms", "total_ms")}
    result = {**about, **average(scores), **times, "per_frame": rows}
    if out:
        write_result(result, out)
    if out != "-":
        print(_table(result))


def _table(result: dict[str, Any]) -> str:
    lines = [f"{result['frames']} frames, {result['objects']} labelled objects, {result['predictions']} masks"]
    lines += [f"{title:>22}  {result[key]:.3f}" for title, key in ROWS]
    for title, key in (("segmenter", "segment_ms"), ("whole frame", "total_ms")):
        lines.append(f"{title:>22}  {result[key]['median']:.1f} ms median, {result[key]['p95']:.1f} ms p95")
    return "\n".join(lines)


def _median_p95(milliseconds: Sequence[float]) -> dict[str, float]:
    return {"median": float(np.median(milliseconds)), "p95": float(np.percentile(milliseconds, 95))}


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a share of 0 to 1, got {text}")
    return value
