# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception bench`: times of this machine, row by row, and the page made of them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from seg_perception.cli.console import add_config, add_json, positive, progress, say, write_result

COMMANDS = {
    "kernels": "masks to points and moments: ours, the floor, NumPy, OpenCV, PyTorch, in one thread",
    "stages": "all that comes after inference: decoding, fusion, messages",
    "node": "camera, node and an empty node as processes: latency, pairs, memory",
    "scaling": "stages by instances and resolution, nodes by cameras",
    "clouds": "precision and recall of clouds against rendered truth",
    "soak": "many frames in one process: what grows makes it fail",
    "report": "a page of results, with the goals beside the numbers",
}
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # read when NumPy is loaded

Rows = list[dict[str, Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, line in COMMANDS.items():
        sub = commands.add_parser(name, help=line, description=f"{line[0].upper()}{line[1:]}.", allow_abbrev=False)
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
        if name != "report":
            add_json(sub)
    add = commands.choices
    for name, seconds in (("kernels", 15), ("stages", 8)):
        add[name].add_argument("--instances", type=_counts, metavar="N,N", help="rows (1,20,100,300)")
        add[name].add_argument("--seconds", type=positive, default=seconds, metavar="S", help=f"per row ({seconds})")
    for name, seconds in (("node", 60), ("scaling", 10)):
        _add_node(add[name], seconds)
    add["node"].add_argument("--cameras", type=positive, default=1, metavar="N", help="each with a node of its own (1)")
    add["scaling"].add_argument("--no-cameras", action="store_true", help="instances and resolution only")
    add["clouds"].add_argument("--views", type=positive, default=4, metavar="N", help="of the demo's table (4)")
    add["clouds"].add_argument("--random", type=positive, default=8, metavar="N", help="crowded tables (8)")
    add["soak"].add_argument("--frames", type=positive, default=100_000, metavar="N", help="how many (100000)")
    add["soak"].add_argument("--grasps", action="store_true", help="plan grasps for every frame too")
    add["soak"].add_argument("--no-messages", action="store_true", help="make no ROS messages, also where ROS is")
    add["report"].add_argument("files", nargs="+", type=Path, metavar="FILE", help="what --json wrote")


def _add_node(parser: argparse.ArgumentParser, seconds: int) -> None:
    add_config(parser)
    parser.add_argument("--seconds", type=positive, default=seconds, metavar="S", help=f"per run ({seconds})")
    parser.add_argument("--rate", type=float, default=30.0, metavar="HZ", help="of the camera (30)")
    parser.add_argument("--size", type=_size, default=(1280, 720), metavar="WxH", help="of the images (1280x720)")
    parser.add_argument("--source", default="", metavar="FOLDER", help="RGB-D frames instead of simulated ones")
    parser.add_argument("--model", metavar="FILE", help="a network instead of the tabletop segmenter: config yolo")
    parser.add_argument(
        "--network-ms",
        type=float,
        metavar="MS",
        help="no network but a recording of 20 objects that waits so long, as for a GPU: what the node itself takes",
    )
    parser.add_argument("--grasps", action="store_true", help="plan grasps for every frame too")


def execute(options: argparse.Namespace) -> int:
    if options.benchmark == "report":
        from seg_perception.bench.page import page

        print(page(options.files))
        return 0
    if options.benchmark in ("kernels", "stages", "scaling", "soak") and "numpy" not in sys.modules:
        os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    return _run(options, *_runner(options))


def _run(options: argparse.Namespace, settings: Mapping[str, Any], runner: Callable[[Rows], None]) -> int:
    """Measures, and says what was measured, also after a ctrl-C: so far as it got."""
    from seg_perception.bench.document import document, machine
    from seg_perception.bench.tables import markdown

    rows: Rows = []
    on = machine()  # its load is what others do, not what this does
    complete = False
    try:
        runner(rows)
        complete = True
    finally:
        if rows:
            result = document(options.benchmark, on, settings, rows, complete)
            if options.json:
                write_result(result, options.json)
            if options.json != "-":
                print(markdown(result))
    return _verdict(options.benchmark, rows)


def _verdict(benchmark: str, rows: Rows) -> int:
    """1 where a soak has found that something grows."""
    if benchmark != "soak":
        return 0
    from seg_perception.bench.soak import faults

    found = [fault for row in rows for fault in faults(row)]
    for fault in found:
        say(f"soak: {fault}")
    return int(bool(found))


def _runner(options: argparse.Namespace) -> tuple[dict[str, Any], Callable[[Rows], None]]:
    """The settings, and what runs with them."""
    from seg_perception.bench import clouds, kernels, node, scaling, soak, stages

    if options.benchmark in ("kernels", "stages"):
        module: Any = {"kernels": kernels, "stages": stages}[options.benchmark]
        counts = options.instances or module.COUNTS
        about = {"instances": list(counts), "seconds": options.seconds}
        return about, lambda rows: module.run(rows, progress, counts, options.seconds)
    if options.benchmark == "clouds":
        about = {"views": options.views, "random": options.random}
        return about, lambda rows: clouds.run(rows, progress, options.views, options.random)
    if options.benchmark == "soak":
        about = {"frames": options.frames, "grasps": options.grasps, "messages": not options.no_messages}
        return about, lambda rows: soak.run(
            rows, progress, options.frames, options.grasps, None, not options.no_messages
        )
    setup, about = _setup(options)
    if options.benchmark == "node":
        return about, lambda rows: node.run(rows, progress, setup)
    return about, lambda rows: scaling.run(rows, progress, None if options.no_cameras else setup)


def _setup(options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    from seg_perception.bench.node import Setup
    from seg_perception.config import load_config, to_mapping

    overrides = [*options.set, *([f"segmenter.model={Path(options.model).resolve()}"] if options.model else [])]
    names = options.config or (["yolo"] if options.model else ["tabletop"])
    tree = to_mapping(load_config(*names, overrides=overrides))
    setup = Setup(
        seconds=options.seconds,
        rate=options.rate,
        width=options.size[0],
        height=options.size[1],
        nodes=getattr(options, "cameras", 1),
        source=options.source,
        grasps=options.grasps,
        network=None if options.network_ms is None else 1e-3 * options.network_ms,
        config=tree,
    )
    about = {
        "config": names,
        "overrides": options.set,
        "model": Path(options.model).name if options.model else "",
        "source": Path(options.source).name if options.source else "simulated",
        **({"network_ms": options.network_ms} if options.network_ms is not None else {}),
        "grasps": options.grasps,
    }
    return setup, about


def _counts(text: str) -> tuple[int, ...]:
    return tuple(positive(word) for word in text.split(","))


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return positive(width), positive(height)
