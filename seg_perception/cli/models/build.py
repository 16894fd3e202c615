# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception models build`."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from seg_perception.backends.host import cache_folder
from seg_perception.cli.console import add_json, write_result
from seg_perception.cli.models.shared import pairs, told
from seg_perception.options import select

BUILDING = ("tensorrt", "openvino")  # those that keep what they made


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="ONNX file")
    parser.add_argument("--runtime", choices=BUILDING, default="tensorrt", help="for which one (tensorrt)")
    parser.add_argument("--precision", metavar="NAME", help="e.g. fp16; the runtime's default is the model's own")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the runtime, e.g. workspace=512"
    )
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    section = {"plugin": options.runtime, **pairs(options.option)}
    if options.precision:
        section["precision"] = options.precision
    chosen = select("backends", section, options.runtime)
    start = time.monotonic()
    with told():
        changes = {"model": str(options.file.absolute())}
        if hasattr(chosen.config, "on_engine_missing"):
            changes["on_engine_missing"] = "build"
        backend = replace(chosen, config=replace(chosen.config, **changes)).create()
    seconds = time.monotonic() - start
    folder = getattr(chosen.config, "cache", "")
    folder = folder if isinstance(folder, str) and folder else str(cache_folder(options.runtime))
    result = {"file": str(options.file), "runtime": options.runtime, "seconds": seconds, "folder": folder}
    result["inputs"] = [spec.name for spec in backend.inputs]
    if options.json:
        write_result(result, options.json)
    if options.json != "-":
        print(f"{options.file.name}: ready for {options.runtime} after {seconds:.1f} s, kept in {folder}")
    return 0
