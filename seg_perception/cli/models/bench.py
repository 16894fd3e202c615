# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception models bench`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from seg_perception.cli.console import add_json, positive, write_result
from seg_perception.cli.models.shared import (
    add_images,
    add_runtimes,
    add_subject,
    images_of,
    number,
    subject_of,
    table,
    told,
)
from seg_perception.options import ConfigError
from seg_perception.zoo.machine import this_machine
from seg_perception.zoo.runtimes import Runtime, runtimes_for
from seg_perception.zoo.timing import Speed, measure

COLUMNS = ("runtime", "load s", "network ms", "p95 ms", "with masks ms", "images/s", "times the first")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_subject(parser)
    add_images(parser, 4)
    add_runtimes(parser)
    parser.add_argument(
        "--also", action="append", default=[], type=Path, metavar="FILE", help="made of FILE, e.g. in int8; to compare"
    )
    parser.add_argument("--seconds", type=positive, default=5, metavar="S", help="of each measurement (5)")
    parser.add_argument("--callers", type=positive, default=2, metavar="N", help="threads for the throughput (2)")
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    subject = subject_of(options)
    machine = this_machine()
    images = images_of(options)
    with told():
        speeds = measure(subject, _entries(options, subject.path), images, options.seconds, options.callers)
    failed = any(speed.reason and speed.asked for speed in speeds) or not any(speed.calls for speed in speeds)
    result = {
        "file": str(subject.path),
        "machine": asdict(machine),
        "images": images.source,
        "runtimes": [asdict(speed) for speed in speeds],
    }
    if options.json:
        write_result(result, options.json)
    if options.json != "-":
        print(f"{subject.path.name} on {machine}")
        print(speed_table(speeds))
    return int(failed)


def _entries(options: argparse.Namespace, path: Path) -> list[tuple[Runtime, Path]]:
    """Every runtime with the file, then those of the files that were made of it."""
    entries = [(runtime, path) for runtime in options.runtime or runtimes_for(path)]
    for file in options.also:
        if not file.is_file():
            raise ConfigError(f"no such model file: {file}")
        entries += [(runtime, file.absolute()) for runtime in runtimes_for(file)]
    return entries


def speed_table(speeds: Sequence[Speed]) -> str:
    """The table, and below it why some did not run."""
    first = next((speed.median for speed in speeds if speed.calls), float("nan"))
    rows = [
        (
            s.runtime,
            number(s.load),
            *(number(1e3 * value) for value in (s.median, s.p95, s.segment)),
            number(s.throughput),
            number(first / s.median, 2),
        )
        for s in speeds
    ]
    reasons = [f"{s.runtime}: {s.reason}" for s in speeds if s.reason]
    return "\n".join([table(COLUMNS, rows), *reasons])
