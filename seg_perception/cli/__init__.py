# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The command line `seg-perception`. A command is one module here, `add_arguments` and `execute`, and one line below.

Only the module of the command asked for is imported: `doctor` must run where the rest cannot be imported.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from seg_perception.cli.interrupt import Interruptible, check, seen

COMMANDS = {
    "run": "a folder of RGB-D frames to objects.json and pictures",
    "evaluate": "score a configuration against labelled frames",
    "models": "model files: list, inspect, verify, bench, build, convert, quantize, pull",
    "profile": "learn from good frames what the drift warning compares with",
    "doctor": "check this machine and say what to fix",
    "parameters": "list everything that can be set",
    "bench": "time this machine: kernels, stages, node, scaling, clouds, soak; make a page of it",
    "grasps": "pictures of your gripper at its grasps",
    "pick-bench": "try grasps in physics, with your gripper",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code is 0, 1 = failure, 2 = wrong usage, 130 = interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    chosen = next((word for word in words if word in COMMANDS), "")
    try:
        with Interruptible():
            return _execute(chosen, words)
    except KeyboardInterrupt:
        print("seg-perception: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # the one place where every error ends
        if "--debug" in words:
            raise
        print(f"seg-perception {chosen}: {_line(error)}", file=sys.stderr)
        return 1


def _execute(chosen: str, words: Sequence[str]) -> int:
    try:
        command = importlib.import_module(f"{__name__}.{chosen.replace('-', '_')}") if chosen else None
        options = _parser(chosen, command).parse_args(words)
        assert command is not None  # argparse has seen to it
        code: int = command.execute(options)
        sys.stdout.flush()
    except Exception as error:
        if seen():  # it came inside compiled code and looks like a failure of that
            raise KeyboardInterrupt from error
        raise
    check()
    return code


def _parser(chosen: str, command: ModuleType | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="seg-perception", description="RGB-D in, objects a robot can pick out.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, line in COMMANDS.items():
        sub = commands.add_parser(name, help=line, description=f"{line[0].upper()}{line[1:]}.", allow_abbrev=False)
        sub.add_argument("--debug", action="store_true", help="show tracebacks")
        if command is not None and name == chosen:
            command.add_arguments(sub)
    return parser


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, ValueError | OSError):  # ours, or the system's: they say what is wrong
        return text or type(error).__name__
    return f"unexpected {type(error).__name__}: {text} (--debug shows where)"
