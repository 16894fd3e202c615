# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception models convert`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from seg_perception.backends.trt.half import convert_to_half
from seg_perception.cli.console import add_json, write_result
from seg_perception.cli.models.shared import told
from seg_perception.options import ConfigError
from seg_perception.zoo.annotation import copy_sidecar
from seg_perception.zoo.onnx_file import read_onnx


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="ONNX file in float32")
    parser.add_argument(
        "--fp16", action="store_true", required=True, help="to float16; inputs and outputs stay float32"
    )
    parser.add_argument("--output", type=Path, metavar="OUT", help="(FILE with _fp16 at its end)")
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    source = options.file
    about = read_onnx(source)
    if about.precision != "float32":
        raise ConfigError(f"{source.name}: expected a model in float32, got one in {about.precision}")
    target = options.output or source.with_name(f"{source.stem}_fp16.onnx")
    if target.exists() and target.samefile(source):
        raise ConfigError(f"{target}: is the file itself: choose another --output")
    with told(), tempfile.TemporaryDirectory(dir=target.parent, prefix=".convert-") as folder:
        part = Path(folder) / target.name
        convert_to_half(source, part)
        part.replace(target)
    copy_sidecar(source, target, "in float16")
    result = {"file": str(source), "output": str(target), "bytes": [source.stat().st_size, target.stat().st_size]}
    if options.json:
        write_result(result, options.json)
    if options.json != "-":
        before, after = (size / 1e6 for size in result["bytes"])
        print(f"{target}: written, {after:.1f} MB of {before:.1f} MB; compare: "
              f"seg-perception models verify {target} --reference {source}")  # fmt: skip
    return 0
