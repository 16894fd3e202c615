# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception models verify`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seg_perception.cli.console import add_json, write_result
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
from seg_perception.zoo.runtimes import Runtime, runtimes_for
from seg_perception.zoo.verification import Verdict, verify

COLUMNS = ("runtime", "verdict", "outputs off by", "instances", "missing", "extra", "mean IoU", "least IoU",
           "pixels off", "scores off")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_subject(parser)
    add_images(parser, 8)
    add_runtimes(parser)
    parser.add_argument(
        "--reference", type=Path, metavar="FILE", help="the ONNX file that FILE was made of, to compare it with"
    )
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    origin = options.reference or options.file
    if origin.suffix.lower() == ".xml":
        raise ConfigError(f"{origin.name}: only OpenVINO reads it: name the ONNX file it was made of with --reference")
    subject = subject_of(options, origin)
    file = options.file.absolute() if options.reference else None
    if file is not None and not file.is_file():
        raise ConfigError(f"no such model file: {file}")
    reference = runtimes_for(subject.path)[0]
    tried = options.runtime or _all_but(reference, file or subject.path, same_file=file is None)
    images = images_of(options)
    with told():
        verdicts = verify(subject, tried, images, reference, file)
    wrong = any(verdict.wrong for verdict in verdicts)
    result = {
        "file": str(options.file),
        "reference": {"file": str(subject.path), "runtime": reference.name},
        "images": {"source": images.source, "names": images.names},
        "verdicts": [_record(verdict) for verdict in verdicts],
        "ok": not wrong,
    }
    if options.json:
        write_result(result, options.json)
    if options.json != "-":
        print(f"{options.file.name}, {len(images)} images of {images.source}, against {reference.name}"
              f"{f' on {subject.path.name}' if file else ''}")  # fmt: skip
        print(verdict_table(verdicts))
    return int(wrong)


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """The table, and below it why some did not run."""
    rows = [(v.runtime, v.verdict, *_cells(v)) for v in verdicts]
    reasons = [f"{v.runtime}: {v.reason}" for v in verdicts if v.reason]
    return "\n".join([table(COLUMNS, rows), *reasons])


def _record(verdict: Verdict) -> dict[str, Any]:
    agreement = verdict.agreement
    more = {} if agreement is None else {**asdict(agreement), "missing": agreement.missing, "extra": agreement.extra}
    return {"runtime": verdict.runtime, "verdict": verdict.verdict, "reason": verdict.reason, **more}


def _cells(verdict: Verdict) -> tuple[str, ...]:
    a = verdict.agreement
    if a is None:
        return ("-",) * (len(COLUMNS) - 2)
    iou = (f"{value:.4f}" if a.matched else "-" for value in (a.mean_iou, a.least_iou))
    counts = (str(a.expected), str(a.missing), str(a.extra))
    off = (number(value, 2) if a.matched else "-" for value in (a.pixels, a.scores))
    return (number(a.outputs), *counts, *iou, *off)


def _all_but(reference: Runtime, path: Path, same_file: bool) -> list[Runtime]:
    found = [runtime for runtime in runtimes_for(path) if not same_file or runtime != reference]
    if not found:
        raise ConfigError(f"{path.name}: no other runtime than {reference.name} is installed: nothing to compare")
    return found
