# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception models quantize`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seg_perception.cli.console import add_json, positive, write_result
from seg_perception.cli.models.shared import add_images, add_subject, images_of, subject_of, told
from seg_perception.cli.models.verify import verdict_table
from seg_perception.zoo.quantization import SUFFIX, quantise
from seg_perception.zoo.runtimes import Runtime, runtimes_for
from seg_perception.zoo.samples import samples
from seg_perception.zoo.verification import verify

RUNNERS = {"openvino": Runtime("openvino", asked=True), "qdq": Runtime("onnxruntime", asked=True)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_subject(parser)
    parser.add_argument("--int8", action="store_true", required=True, help="to int8")
    parser.add_argument(
        "--form", choices=tuple(SUFFIX), default="openvino", help="qdq: an ONNX file for ONNX Runtime and TensorRT"
    )
    add_images(parser, 100, required=True)
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="WHAT",
        help="stays as it is: an operator type (Sigmoid), or a pattern of node names with a slash (/model.23/.*)",
    )
    parser.add_argument("--transformer", action="store_true", help="for networks of attention (ViT, DETR, SAM)")
    parser.add_argument("--check", type=positive, default=16, metavar="N", help="images to compare on (16)")
    parser.add_argument("--output", type=Path, metavar="OUT", help="(FILE with _int8 at its end)")
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    subject = subject_of(options)
    target = options.output or options.file.with_name(f"{options.file.stem}_int8{SUFFIX[options.form]}")
    with told():
        quantise(subject, images_of(options), target.absolute(), options.keep, options.transformer)
        images = samples(options.images, options.check)
        runtime = RUNNERS["openvino" if target.suffix == ".xml" else "qdq"]
        (verdict,) = verify(subject, [runtime], images, runtimes_for(subject.path)[0], target.absolute())
    result: dict[str, Any] = {
        "file": str(options.file),
        "output": str(target),
        "images": images.names,
        "verdict": verdict.verdict,
    }
    result |= {"reason": verdict.reason, "agreement": asdict(verdict.agreement) if verdict.agreement else None}
    if options.json:
        write_result(result, options.json)
    if options.json != "-":
        print(f"{target}: written; on {len(images)} images, against {subject.path.name} in full precision:")
        print(verdict_table([verdict]))
    return int(verdict.wrong)
