# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the sub-commands of `models` share: the file meant, the images, a table, and progress that can be cancelled."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from seg_perception.backends.progress import Progress, watching
from seg_perception.cli.console import EVERY, positive, say
from seg_perception.cli.interrupt import check
from seg_perception.zoo.runtimes import Runtime, parse_runtime
from seg_perception.zoo.samples import Samples, samples
from seg_perception.zoo.subject import Subject, recognise

BAR = "{desc} {percentage:3.0f}% |{bar}| {postfix}"


def add_subject(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="model file; of a SAM its encoder")
    parser.add_argument("--segmenter", default="", metavar="NAME", help="the plugin that reads it (as recognised)")
    parser.add_argument("--decoder", type=Path, metavar="FILE", help="the decoder of a SAM (the one of the same name)")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the segmenter, e.g. score_threshold=0.5"
    )


def subject_of(options: argparse.Namespace, path: Path | None = None) -> Subject:
    """The model of `add_subject`'s arguments."""
    return recognise(path or options.file, options.segmenter, options.decoder, pairs(options.option))


def add_images(parser: argparse.ArgumentParser, count: int, required: bool = False) -> None:
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        required=required,
        help="photographs, or RGB-D frames" + ("" if required else " (default: a simulated table)"),
    )
    parser.add_argument("--count", type=positive, default=count, metavar="N", help=f"images of them ({count})")


def images_of(options: argparse.Namespace) -> Samples:
    """The images of `add_images`' arguments."""
    return samples(options.images, options.count)


def add_runtimes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runtime",
        action="append",
        type=_runtime,
        metavar="RUNTIME",
        help="NAME, NAME:PRECISION or {plugin: NAME, KEY: VALUE ...}; may be repeated (default: all that there are)",
    )


def pairs(texts: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE texts as a nested mapping; dots in a key go deeper, values are YAML."""
    out: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"expected KEY=VALUE, got '{text}'")
        *path, last = key.split(".")
        inner = out
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = yaml.safe_load(value)
    return out


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, the first one to the left."""
    lines = [tuple(columns), *map(tuple, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    cells = [
        [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))] for line in lines
    ]
    return "\n".join("  ".join(row).rstrip() for row in cells)


@contextmanager
def told() -> Iterator[None]:
    """Inside, what is told of progress is a bar on stderr; a plain line now and then where that is no terminal. Ctrl-C
    ends it."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=1.0, leave=False, dynamic_ncols=True, bar_format=BAR) as bar:

            def show(progress: Progress) -> None:
                bar.set_description_str(progress.text, refresh=False)
                bar.n = bar.n if math.isnan(progress.fraction) else progress.fraction
                bar.set_postfix_str("" if math.isnan(progress.eta) else f"{progress.eta:.0f} s left", refresh=False)
                bar.refresh()
                check()

            with watching(show):
                yield
        return
    last = time.monotonic()

    def write(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last > EVERY:
            last = time.monotonic()
            say(progress.text if math.isnan(progress.fraction) else f"{progress.text} ({progress.fraction:.0%})")
        check()

    with watching(write):
        yield


def number(value: float, digits: int = 3) -> str:
    """To so many digits, whole numbers in full."""
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if 10**digits <= abs(value) < 1e9 else f"{value:.{digits}g}"


def _runtime(text: str) -> Runtime:
    try:
        return parse_runtime(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
