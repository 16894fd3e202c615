# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node with a STAND-IN of tf2's buffer, since tf2_ros is not among the ROS wheels. It has the four methods that the
node uses and is fed by geometry_msgs/TransformStamped on `stand_in_tf`; no chains, no interpolation, no extrapolation.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.task import Future
from rclpy.time import Time

from seg_perception.ros.conversions import stamp_ns
from seg_perception.ros.node import main


class StandInBuffer:
    """Transforms by (target, source) and exact stamp."""

    def __init__(self, node: Node) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], dict[int, TransformStamped]] = {}
        self._waiting: list[tuple[str, str, int, Future]] = []
        node.create_subscription(TransformStamped, "stand_in_tf", self.set_transform, 100)

    def set_transform(self, message: TransformStamped) -> None:
        stamp = stamp_ns(message.header.stamp)
        with self._lock:
            self._known.setdefault((message.header.frame_id, message.child_frame_id), {})[stamp] = message
            done = [w for w in self._waiting if w[:3] == (message.header.frame_id, message.child_frame_id, stamp)]
        for _, _, _, future in done:
            future.set_result(True)

    def lookup_transform(self, target: str, source: str, time: Time, timeout: Any = None) -> TransformStamped:
        with self._lock:
            known = self._known.get((target, source))
            if not known:
                raise LookupError(f'"{target}" passed to lookupTransform argument target_frame does not exist.')
            if time.nanoseconds == 0:
                return known[max(known)]
            if time.nanoseconds not in known:
                raise LookupError("Lookup would require extrapolation into the future.")
            return known[time.nanoseconds]

    def wait_for_transform_async(self, target: str, source: str, time: Time) -> Future:
        future: Future = Future()
        with self._lock:
            self._waiting.append((target, source, time.nanoseconds, future))
        try:
            self.lookup_transform(target, source, time)
        except LookupError:
            return future
        future.set_result(True)
        return future

    def clear(self) -> None:
        with self._lock:
            self._known.clear()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], StandInBuffer))
