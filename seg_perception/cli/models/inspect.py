# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception models inspect`."""

from __future__ import annotations

import argparse

from seg_perception.cli.console import add_json, write_result
from seg_perception.cli.models.shared import add_subject
from seg_perception.zoo.inspection import inspect, summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_subject(parser)
    parser.add_argument("--no-support", action="store_true", help="do not ask the runtimes: quicker")
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    about = inspect(options.file, options.segmenter, options.decoder, not options.no_support)
    if options.json:
        write_result(about, options.json)
    if options.json != "-":
        print(summary(about))
    return 0
