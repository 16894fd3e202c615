# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node through its lifecycle many times: configure, activate, frames, deactivate, cleanup. Nothing may grow.

python benchmark/lifecycle_cycles.py [--cycles 1000] [--config tabletop]; exits with 1 on growth or a failed transition.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from seg_perception.msg import SegmentedObjectArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tqdm import tqdm

from seg_perception.process import Usage, usage
from seg_perception.ros.camera import camera_info, depth_image
from seg_perception.ros.conversions import encode_image, stamp_from_ns
from seg_perception.ros.lifecycle_node import SegPerceptionNode
from seg_perception.sim import SimCamera

WARM = 0.2  # share of the cycles before the first sample that counts
LIMIT = 2.0  # percent of memory
FRAME_TIMEOUT = 20.0  # s


class Film:
    """A camera and a listener on real topics."""

    def __init__(self) -> None:
        self.node = rclpy.create_node("film")
        qos = QoSProfile(depth=2)
        self._publishers = [
            self.node.create_publisher(kind, topic, qos)
            for kind, topic in (
                (CameraInfo, "color/camera_info"), (CameraInfo, "depth/camera_info"),
                (Image, "depth/image_rect"), (Image, "color/image_raw"),
            )
        ]  # fmt: skip
        self.results = 0
        self.node.create_subscription(SegmentedObjectArray, "seg_perception/objects", self._on_objects, 5)
        self._frame = SimCamera(160, 120, frames=1).frame(0).frame

    def _on_objects(self, message: SegmentedObjectArray) -> None:
        self.results += 1

    def until(self, count: int) -> bool:
        """Publishes frames until `count` results have come; False if they do not."""
        wanted, end = self.results + count, time.monotonic() + FRAME_TIMEOUT
        while self.results < wanted:
            if time.monotonic() > end:
                return False
            stamp = stamp_from_ns(self.node.get_clock().now().nanoseconds)
            header = Header(stamp=stamp, frame_id="camera_color_optical_frame")
            info = camera_info(self._frame.intrinsics, header)
            images = depth_image(self._frame.depth, "16UC1", header), encode_image(self._frame.color, "rgb8", header)
            for publisher, message in zip(self._publishers, (info, info, *images), strict=True):
                publisher.publish(message)
            time.sleep(0.02)
        return True


def run(cycles: int, config: str = "tabletop", frames: int = 1, quiet: bool = False) -> list[str]:
    """What went wrong, a line each."""
    rclpy.init()
    node = SegPerceptionNode(
        parameter_overrides=[Parameter("config", value=config), Parameter("autostart", value=False)]
    )
    film = Film()
    executor = SingleThreadedExecutor()
    for one in (node, film.node):
        executor.add_node(one)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    samples: list[Usage] = []
    faults: list[str] = []
    try:
        for cycle in tqdm(range(cycles), unit="cycle", disable=quiet or None):
            faults = _cycle(node, film, executor, frames)
            if faults:
                return [f"cycle {cycle}: {fault}" for fault in faults]
            now = usage()
            assert now is not None
            samples.append(now)
        faults = grown(samples)
    finally:
        executor.shutdown()
        thread.join(5.0)
        node.destroy_node()
        film.node.destroy_node()
        rclpy.shutdown()
    return faults


def _cycle(node: SegPerceptionNode, film: Film, executor: SingleThreadedExecutor, frames: int) -> list[str]:
    for trigger in (node.trigger_configure, node.trigger_activate):
        if _in_executor(executor, trigger) != TransitionCallbackReturn.SUCCESS:
            return [node.problem]
    if not film.until(frames):
        return [f"no result within {FRAME_TIMEOUT:g} s"]
    for trigger in (node.trigger_deactivate, node.trigger_cleanup):
        if _in_executor(executor, trigger) != TransitionCallbackReturn.SUCCESS:
            return [node.problem]
    return []


def _in_executor(executor: SingleThreadedExecutor, function: Callable[[], object]) -> object:
    """What `function` returns, called where the node's callbacks run."""
    done, results = threading.Event(), []

    def call() -> None:
        results.append(function())
        done.set()

    executor.create_task(call)
    done.wait(60.0)
    return results[0] if results else None


def grown(samples: Sequence[Usage]) -> list[str]:
    """What there is more of at the end than after warming up."""
    taken = samples[round(WARM * len(samples)) :]
    part = max(1, len(taken) // 5)
    first, last = taken[:part], taken[-part:]
    memory = [float(np.median([u.memory for u in half])) for half in (first, last)]
    percent = 100 * (memory[1] / memory[0] - 1)
    print(f"{len(samples)} cycles: memory {memory[0]:.0f} to {memory[1]:.0f} MB ({percent:+.1f} %), "
          f"threads {first[0].threads} to {last[-1].threads}, files {first[0].files} to {last[-1].files}")  # fmt: skip
    faults = [f"memory grew by {percent:.1f} %, at most {LIMIT:g} is allowed"] if percent > LIMIT else []
    for name in ("threads", "files"):
        more = min(getattr(u, name) for u in last) - max(getattr(u, name) for u in first)
        faults += [f"{more} more {name}"] if more > 0 else []
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--config", default="tabletop")
    options = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    faults = run(options.cycles, options.config)
    for fault in faults:
        print(f"FAILED: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
