# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception models`: what can be done with model files. One sub-command, one module."""

from __future__ import annotations

import argparse
import importlib

COMMANDS = {
    "list": "the model files here, the plugins that use them, the models known by name",
    "inspect": "what a file is: family, inputs, outputs, precision, which runtimes take it",
    "annotate": "write the sidecar, which says what a file cannot",
    "verify": "run every runtime on sample images and compare outputs and masks",
    "bench": "latency and throughput of each runtime on this machine",
    "build": "prepare a model for a runtime ahead of time",
    "convert": "a copy in float16",
    "quantize": "a copy in int8, and the accuracy that it costs",
    "pull": "fetch a model, checked by its SHA-256",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="models_command", required=True, metavar="COMMAND")
    for name, line in COMMANDS.items():
        sub = commands.add_parser(name, help=line, description=f"{line[0].upper()}{line[1:]}.", allow_abbrev=False)
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
        importlib.import_module(f"{__name__}.{name}").add_arguments(sub)


def execute(options: argparse.Namespace) -> int:
    code: int = importlib.import_module(f"{__name__}.{options.models_command}").execute(options)
    return code
