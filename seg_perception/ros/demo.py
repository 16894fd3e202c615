# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The demo: a camera and the node as two real processes, and this one that shows what arrives on the topics.

Started by `scripts/demo`, which sets everything up first.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
import yaml
from tqdm import tqdm

from seg_perception.config import ConfigError, load_config, to_mapping
from seg_perception.files import shipped
from seg_perception.folder import RgbdFolder
from seg_perception.ros.viewer import Viewer

UNHURRIED = {
    "grasping": {"budget": 0.0}
}  # every object is planned, however slow the machine; the config may say otherwise
FIRST_RESULT = 180.0  # s; the very first start compiles the numba kernels
NEXT_RESULT = 30.0  # s without a result while frames are due


class DemoError(RuntimeError):
    """The demo cannot go on; one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo; 0 when every frame asked for came back as a result."""
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        config = load_config(UNHURRIED, options.config, overrides=options.set)
        count = _frames_due(options)
        return run(config, options, count)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (ConfigError, DemoError, OSError, ValueError) as error:
        if options.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1


def run(config: Any, options: argparse.Namespace, count: int | None) -> int:
    """Starts the processes, collects `count` results (None = until ctrl-C), writes pictures and objects.json."""
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rclpy.init(args=[])
    with tempfile.TemporaryDirectory() as scratch, Processes() as processes:
        tree = Path(scratch) / "config.yaml"
        tree.write_text(yaml.safe_dump(to_mapping(config)), encoding="utf-8")
        viewer = Viewer(output)
        try:
            processes.start("node", "seg_perception.ros.node", {"config": str(tree)}, debug=options.debug)
            processes.start("camera", *_camera(options), remaps={"objects": "/seg_perception/objects"})
            if not options.no_view:
                processes.start_rviz()
            _collect(viewer, processes, count)
        except KeyboardInterrupt:
            if count is not None:
                raise
        finally:
            viewer.finish()
            viewer.destroy_node()
            rclpy.try_shutdown()
    print(viewer.summary())
    return 0


def _collect(viewer: Viewer, processes: Processes, count: int | None) -> None:
    patience, last_progress, done = FIRST_RESULT, time.monotonic(), 0
    with tqdm(total=count, unit="frame", disable=None, desc="results") as bar:
        while count is None or viewer.complete < count:
            rclpy.spin_once(viewer, timeout_sec=0.2)
            if viewer.complete > done:
                bar.update(viewer.complete - done)
                done, patience, last_progress = viewer.complete, NEXT_RESULT, time.monotonic()
                if bar.disable:
                    print(viewer.last_line, flush=True)
                else:
                    bar.set_postfix_str(viewer.last_line)
                continue
            ended = processes.ended()
            if ended and not (ended == "camera" and processes.succeeded("camera")):
                raise DemoError(f"the {ended} process ended early, see its lines above")
            if ended and time.monotonic() - last_progress > 3.0:
                missing = f"{viewer.complete} of {count} results"
                raise DemoError(f"the camera has sent all its frames, but only {missing} arrived")
            if time.monotonic() - last_progress > patience:
                raise DemoError(f"no result for {patience:.0f} s; the node says: {viewer.complaint or 'nothing'}")


class Processes:
    """The demo's child processes; leaving the context ends all of them, first asking, then insisting."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Processes:
        return self

    def start(
        self,
        name: str,
        module: str,
        parameters: dict[str, Any],
        remaps: dict[str, str] | None = None,
        debug: bool = False,
    ) -> None:
        """`python -m module` with ROS parameters and remaps; in its own session, ctrl-C comes to us alone."""
        command = [sys.executable, "-m", module, *(["--debug"] if debug else []), "--ros-args"]
        for key, value in parameters.items():
            command += ["-p", f"{key}:={yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}"]
        for key, value in (remaps or {}).items():
            command += ["-r", f"{key}:={value}"]
        self._running[name] = subprocess.Popen(command, start_new_session=True)

    def start_rviz(self) -> None:
        """RViz with our view, where there is an RViz and a screen."""
        rviz = shutil.which("rviz2")
        if rviz is None or not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            print(
                "no rviz2 or no screen here: look at the pictures in the output folder instead (--no-view says so too)"
            )
            return
        view = str(shipped("rviz", "perception.rviz"))
        self._running["rviz"] = subprocess.Popen([rviz, "-d", view], start_new_session=True)

    def ended(self) -> str:
        """The name of a process that is no longer there (RViz may be closed), else ''."""
        return next((n for n, p in self._running.items() if n != "rviz" and p.poll() is not None), "")

    def succeeded(self, name: str) -> bool:
        return self._running[name].poll() == 0

    def __exit__(self, *_: object) -> None:
        for how, patience in ((signal.SIGINT, 10.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
            alive = [p for p in self._running.values() if p.poll() is None]
            for process in alive:
                process.send_signal(how)
            deadline = time.monotonic() + patience
            for process in alive:
                try:
                    process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    continue


def _camera(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    if options.source == "sim":
        return "seg_perception.ros.sim_camera", {"rate": 30.0}
    folder = {"folder": options.source, "loop": False, "lock_step": True, "rate": 30.0}
    return "seg_perception.ros.folder_camera", folder


def _frames_due(options: argparse.Namespace) -> int | None:
    if options.source == "sim":
        return options.frames
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
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {value}")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
