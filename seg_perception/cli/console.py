# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the commands share: arguments, progress, JSON out."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from seg_perception.cli.interrupt import check

T = TypeVar("T")
SLOW = 3.0  # s of warming up after which that is said
EVERY = 5.0  # s between the plain lines of progress where there is no terminal


def add_config(parser: argparse.ArgumentParser) -> None:
    """--config and --set."""
    parser.add_argument(
        "--config",
        action="append",
        metavar="FILE",
        help="YAML file, or the name of a shipped one; may be repeated, later ones win",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_pair,
        metavar="KEY=VALUE",
        help="override one value, e.g. fusion.max_depth=1.5",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json [OUT]."""
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="OUT", help="write the result as JSON to OUT, or to stdout"
    )


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {value}")
    return value


def write_result(value: Any, out: str) -> None:
    """`value` as JSON into the file `out`; "-" is stdout."""
    from seg_perception.report import to_json, write_json  # here, since `doctor` must start without NumPy

    if out == "-":
        print(to_json(value))
    else:
        write_json(out, value)


def say(line: str) -> None:
    """A line for the person at the terminal, on stderr."""
    print(line, file=sys.stderr, flush=True)


def warm_up(pipeline: Any, width: int, height: int) -> None:
    """Compiles what the first frame would wait for; says so if that takes long, or if nothing can be found here."""
    if getattr(pipeline.segmenter, "waits_for_prompts", False):
        say("segmenter.prompts: live finds nothing here, where nobody asks; detector or grid looks for everything")
    patience = threading.Timer(SLOW, say, ["warming up; the very first run compiles kernels, for about a minute"])
    patience.daemon = True
    patience.start()
    try:
        pipeline.warm_up(width, height)
    finally:
        patience.cancel()


def progress(items: Iterable[T], total: int, label: str, unit: str = "frame") -> Iterator[T]:
    """`items`, with a bar on stderr; a plain line now and then where stderr is not a terminal. Ctrl-C ends it."""
    if sys.stderr.isatty():
        from tqdm import tqdm  # here, so that `doctor` can say that it is missing

        for item in tqdm(items, total=total, desc=label, unit=unit, leave=False):
            yield item
            check()
        return
    last = time.monotonic()
    for k, item in enumerate(items):
        yield item
        check()
        if time.monotonic() - last > EVERY:
            last = time.monotonic()
            say(f"{label}: {k + 1} of {total} {unit}s")


def _pair(text: str) -> str:
    if not text.partition("=")[0].strip() or "=" not in text:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, e.g. fusion.min_depth=0.2, got '{text}'")
    return text
