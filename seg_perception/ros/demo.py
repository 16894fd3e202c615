# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The demo: a camera and the node as two real processes, and this one that shows what arrives on the topics.

Started by `scripts/demo`, which sets everything up first. What is heavy is imported once signals are heard.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_perception.process import end

if TYPE_CHECKING:
    from seg_perception.ros.viewer import Viewer

UNHURRIED = {"grasping": {"budget": 0.0}}  # every object is planned, however slow the machine; the config may differ
FIRST_RESULT = 240.0  # s; the very first start compiles the numba kernels
NEXT_RESULT = 40.0  # s without a result while frames are due
EXPLAIN = 8.0  # s without a first result, after which we say what takes so long
INTERRUPTED = 130  # exit code


class DemoError(RuntimeError):
    """The demo cannot go on; one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo; 0 when every frame asked for came back as a result, 130 when it was stopped before."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    options = _parse(arguments)
    try:
        return run(options, stop)
    except (DemoError, OSError, ValueError) as error:  # ConfigError and FolderError are ValueErrors
        if options.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1


def run(options: argparse.Namespace, stop: threading.Event) -> int:
    """Starts the processes, collects results (without --frames from a simulated camera: until stopped), and writes
    pictures and objects.json."""
    import rclpy
    import yaml
    from rclpy.signals import SignalHandlerOptions

    from seg_perception.config import load_config, to_mapping
    from seg_perception.ros.viewer import Viewer

    config = load_config(UNHURRIED, options.config, overrides=options.set)
    count = _frames_due(options)
    output = Path(options.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(f"--output {output}: {error.strerror}") from error
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    with tempfile.TemporaryDirectory() as scratch, Processes() as processes:
        tree = Path(scratch) / "config.yaml"
        tree.write_text(yaml.safe_dump(to_mapping(config)), encoding="utf-8")
        viewer = Viewer(output, once=options.source != "sim", limit=count)
        try:
            processes.start("node", "seg_perception.ros.node", {"config": str(tree)}, options.debug)
            processes.start("camera", *_camera(options), options.debug)
            if not options.no_view:
                processes.start_rviz()
            _collect(viewer, processes, count, stop)
        finally:
            viewer.finish()
            viewer.destroy_node()
            rclpy.try_shutdown()
    if viewer.tally.frames or not stop.is_set():
        print(viewer.summary())
    if stop.is_set():
        print("stopped", file=sys.stderr)
    return INTERRUPTED if stop.is_set() and (count is not None or not viewer.tally.frames) else 0


def _collect(viewer: Viewer, processes: Processes, count: int | None, stop: threading.Event) -> None:
    import rclpy
    from tqdm import tqdm

    done, began = 0, time.monotonic()
    last_progress, explained = began, False
    with tqdm(total=count, unit="frame", disable=None, desc="results") as bar:
        while not stop.is_set() and (count is None or done < count):
            rclpy.spin_once(viewer, timeout_sec=0.1)
            now = time.monotonic()
            if viewer.complete > done:
                bar.update(viewer.complete - done)
                done, last_progress = viewer.complete, now
                if bar.disable:
                    print(viewer.last_line, flush=True)
                else:
                    bar.set_postfix_str(viewer.last_line)
                continue
            if not done and not explained and now - began > EXPLAIN:
                explained = True
                bar.write("waiting for the first result; the very first start compiles for a minute or two", sys.stdout)
            _check(viewer, processes, count, done, now - last_progress)


def _check(viewer: Viewer, processes: Processes, count: int | None, done: int, silence: float) -> None:
    """Raises DemoError when nothing more can be expected."""
    ended = processes.ended()
    if ended and not (ended == "camera" and processes.succeeded("camera")):
        raise DemoError(f"the {ended} process ended early, see its lines above")
    if ended and silence > 5.0:
        raise DemoError(f"the camera has sent all its frames, but only {done} of {count} results arrived")
    patience = NEXT_RESULT if done else FIRST_RESULT
    if silence > patience:
        raise DemoError(f"no result for {patience:.0f} s; the node says: {viewer.complaint or 'nothing'}")


class Processes:
    """The demo's child processes; leaving the context ends all of them, first asking, then insisting."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Processes:
        return self

    def start(self, name: str, module: str, parameters: dict[str, Any], debug: bool = False) -> None:
        """`python -m module` with ROS parameters; in its own session, so that ctrl-C comes to us alone."""
        command = [sys.executable, "-m", module, *(["--debug"] if debug else []), "--ros-args"]
        for key, value in parameters.items():
            command += ["-p", f"{key}:={str(value).lower() if isinstance(value, bool) else value}"]
        self._running[name] = subprocess.Popen(command, start_new_session=True)

    def start_rviz(self) -> None:
        """RViz with our view, where there is an RViz and a screen."""
        from seg_perception.files import shipped

        rviz = shutil.which("rviz2")
        if rviz is None or not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            print("no rviz2 or no screen here: look at the pictures in the output folder instead (--no-view)")
            return
        view = str(shipped("rviz", "perception.rviz"))
        self._running["rviz"] = subprocess.Popen([rviz, "-d", view], start_new_session=True)

    def ended(self) -> str:
        """The name of a process that is no longer there (RViz may be closed), else ''."""
        return next((n for n, p in self._running.items() if n != "rviz" and p.poll() is not None), "")

    def succeeded(self, name: str) -> bool:
        return self._running[name].poll() == 0

    def __exit__(self, *_: object) -> None:
        end(self._running.values())


def _camera(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    if options.source == "sim":
        return "seg_perception.ros.sim_camera", {"rate": 30.0}
    folder = {"folder": options.source, "loop": False, "lock_step": True, "rate": 30.0}
    return "seg_perception.ros.folder_camera", folder


def _frames_due(options: argparse.Namespace) -> int | None:
    if options.source == "sim":
        return options.frames
    from seg_perception.folder import RgbdFolder

    available = len(RgbdFolder(options.source))
    return available if options.frames is None else min(options.frames, available)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="sim", help="sim, or a folder of RGB-D frames")
    parser.add_argument("--config", default="tabletop", help="config file or shipped name")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one config value")
    parser.add_argument("--frames", type=_positive, help="stop after so many results (default: all; sim: until ctrl-C)")
    parser.add_argument("--output", default="output", help="where pictures and objects.json go")
    parser.add_argument("--no-view", action="store_true", help="open no window")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got '{text}'")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
