# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Replays a folder of RGB-D frames as a camera, at a rate, in a loop or once.

ros2 run seg_perception folder_camera --ros-args -p folder:=PATH -p rate:=5.0 -p loop:=false
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from seg_perception.folder import RgbdFolder
from seg_perception.ros.camera import Camera, Shot
from seg_perception.ros.process import run_node


class FolderCameraNode(Camera):
    """Plays recorded frames. Parameters: folder, loop."""

    def __init__(self) -> None:
        super().__init__("folder_camera", depth_encoding="32FC1")  # loses nothing of what was recorded
        folder = str(self.declare_parameter("folder", "").value)
        self._loop = bool(self.declare_parameter("loop", True).value)
        if not folder:
            raise ValueError("folder: expected a folder of RGB-D frames, e.g. --ros-args -p folder:=PATH")
        self._folder = RgbdFolder(folder)
        self.play(self._shots_of_folder(), self._folder.has_truth)

    def _shots_of_folder(self) -> Iterator[Shot]:
        for _ in itertools.count() if self._loop else range(1):
            for record in self._folder:
                labels = None if record.instances is None else record.instances.astype(np.uint16)
                yield Shot(record.name, record.frame, labels)


def main(arguments: list[str] | None = None) -> int:
    return run_node(FolderCameraNode, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
