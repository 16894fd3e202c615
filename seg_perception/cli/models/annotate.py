# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception models annotate`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from seg_perception.cli.console import add_json, write_result
from seg_perception.cli.models.shared import pairs
from seg_perception.zoo.annotation import annotate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="model file; of a SAM its encoder")
    parser.add_argument("--family", metavar="NAME", help="e.g. mask2former; docs/models.md lists them")
    parser.add_argument("--names", metavar="A,B,...", help="class names in order of id, or @FILE with one in each line")
    parser.add_argument("--licence", metavar="TEXT", help="of the weights")
    parser.add_argument("--source", metavar="TEXT", help="where the file came from")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any other key, e.g. decoding.background=0"
    )
    parser.add_argument("--segmenter", default="", metavar="NAME", help="the plugin that reads it")
    parser.add_argument("--embed", action="store_true", help="into the metadata of the ONNX file as well")
    parser.add_argument("--decoder", type=Path, metavar="FILE", help="the decoder of a SAM")
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    given = {key: getattr(options, key) for key in ("family", "licence", "source") if getattr(options, key)}
    if options.names:
        given["names"] = _names(options.names)
    changes = {**pairs(options.set), **given}
    path, subject = annotate(options.file, changes, options.segmenter, options.decoder, options.embed)
    result: dict[str, Any] = {"sidecar": str(path), "segmenter": subject.plugin}
    if options.json:
        write_result(result, options.json)
    if options.json != "-":
        print(f"{path}: written; {options.file.name} is read by the segmenter {subject.plugin}")
    return 0


def _names(text: str) -> list[str]:
    if text.startswith("@"):
        return [line.strip() for line in Path(text[1:]).read_text(encoding="utf-8").splitlines() if line.strip()]
    return [name.strip() for name in text.split(",")]
