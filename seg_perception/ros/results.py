# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Results that are kept for `~/get_grasps`: a scene with all that its messages need."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo

from seg_perception.scene import Scene


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One finished frame. `frame_id` is the frame of the 3D output, `T_header_image` (4, 4) leads there, None if the
    transform was not to be had."""

    scene: Scene
    frame_id: str
    T_header_image: NDArray[np.float64] | None
    in_workspace: tuple[bool, ...]
    ages: tuple[int, ...]
    camera_info: CameraInfo | None
    depth_delay: float  # s, depth stamp minus color stamp, NaN = no depth
    sequence: int
    waited: float  # s, from the color image's arrival to its segmentation
    frames: int = 1  # fused into the depth image

    @property
    def stamp_ns(self) -> int:
        return self.scene.frame.stamp_ns

    @property
    def ids(self) -> frozenset[int]:
        return frozenset(o.id for o in self.scene.objects)


class History:
    """The newest results of the stream, and apart those that calls returned: a stream would soon push them out.

    They are kept for planning, which looks at depth only: color images are let go.
    """

    def __init__(self, keep: int) -> None:
        self._lock = threading.Lock()
        self._stream: deque[Result] = deque(maxlen=keep)
        self._returned: deque[Result] = deque(maxlen=keep)

    def add(self, result: Result) -> None:
        """The stream's newest one."""
        with self._lock:
            self._stream.append(_without_color(result))

    def returned(self, result: Result) -> None:
        """A call got this one: keep it for the next call."""
        with self._lock:
            self._returned.append(_without_color(result))

    def newest(self, ids: Collection[int] = ()) -> Result | None:
        """The newest result, or the newest one that holds most of `ids`."""
        with self._lock:
            kept = sorted([*self._stream, *self._returned], key=lambda r: r.stamp_ns)
        if not kept or not ids:
            return kept[-1] if kept else None
        return max(kept, key=lambda r: (len(r.ids.intersection(ids)), r.stamp_ns))

    def clear(self) -> None:
        with self._lock:
            self._stream.clear()
            self._returned.clear()


def _without_color(result: Result) -> Result:
    frame = result.scene.frame
    black = np.broadcast_to(np.uint8(0), frame.color.shape)  # one byte of memory
    return replace(result, scene=replace(result.scene, frame=replace(frame, color=black)))
