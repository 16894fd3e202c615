# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Transforms at the stamp of an image, waited for and woken by their arrival."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.time import Time

from seg_perception.ros.poses import matrix_from_transform

LATEST = 0  # stamp that asks tf2 for the newest transform


class TransformError(Exception):
    """No transform; one line with tf2's reason."""


class Transforms:
    """tf2's buffer behind one question. The buffer is made on first use, so that nothing is needed without frames."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._buffer: Any = None
        self._absent = ""  # why there is no tf2
        self._listener: Any = None
        self._lock = threading.Lock()

    def use(self, buffer: Any) -> None:
        """Takes another buffer, with tf2_ros.Buffer's `lookup_transform`, `wait_for_transform_async` and `clear`."""
        self._buffer = buffer

    def listen(self) -> None:
        """Starts to collect transforms. Raises TransformError where tf2_ros is not installed."""
        with self._lock:
            if self._buffer is not None:
                return
            if self._absent:
                raise TransformError(self._absent)
            try:
                import tf2_ros
            except ImportError as error:
                self._absent = f"tf2_ros is not installed: transforms need it ({error})"
                raise TransformError(self._absent) from error
            self._buffer = tf2_ros.Buffer()
            self._listener = tf2_ros.TransformListener(self._buffer, self._node, spin_thread=False)

    def lookup(self, target: str, source: str, stamp_ns: int, timeout: float = 0.0) -> NDArray[np.float64]:
        """T_target_source (4, 4) at the stamp, waiting up to `timeout` s wall time. Raises TransformError."""
        if target == source:
            return np.eye(4)
        self.listen()
        stamp = Time(nanoseconds=stamp_ns, clock_type=self._node.get_clock().clock_type)
        deadline = time.monotonic() + timeout
        while True:
            try:
                return matrix_from_transform(self._buffer.lookup_transform(target, source, stamp).transform)
            except Exception as error:
                left = deadline - time.monotonic()
                if left <= 0:
                    text = " ".join(str(error).split()) or type(error).__name__
                    raise TransformError(
                        f"no transform from '{source}' to '{target}' at the image's stamp: {text}"
                    ) from error
                self._wait(target, source, stamp, left)

    def _wait(self, target: str, source: str, stamp: Time, seconds: float) -> None:
        """Until the transform arrives, at most `seconds`."""
        arrived = threading.Event()
        future = self._buffer.wait_for_transform_async(target, source, stamp)
        future.add_done_callback(lambda _: arrived.set())
        arrived.wait(seconds)
        future.cancel()

    def clear(self) -> None:
        """Forgets all transforms that are not static."""
        if self._buffer is not None:
            self._buffer.clear()
