# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A simulated RGB-D camera over a table, with its exact ground truth on `ground_truth/label_image`.

ros2 run seg_perception sim_camera --ros-args -p motion:=moving -p width:=1280 -p height:=720
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from seg_perception.ros.camera import Camera, Shot
from seg_perception.ros.process import run_node
from seg_perception.sim import SimCamera


class SimCameraNode(Camera):
    """Plays the simulator's loop of rendered frames. Parameters: width, height, motion, noise, seed, loop."""

    def __init__(self) -> None:
        super().__init__("sim_camera")
        declare = self.declare_parameter
        self._camera = SimCamera(
            width=int(declare("width", 640).value),
            height=int(declare("height", 480).value),
            motion=str(declare("motion", "still").value),
            noise=str(declare("noise", "d435").value),
            seed=int(declare("seed", 0).value),
        )
        self._loop = bool(declare("loop", True).value)
        self._camera.start()  # the first round runs as fast as it is rendered, unless it is on disk already
        self.play(self._shots_of_loop(), with_truth=True)

    def _shots_of_loop(self) -> Iterator[Shot]:
        rounds = itertools.count() if self._loop else range(1)
        indices = itertools.chain.from_iterable(range(len(self._camera)) for _ in rounds)
        for count, k in enumerate(indices):
            shot = self._camera.frame(k)
            yield Shot(f"{count % 1000:03d}", shot.frame, shot.instances, shot.T_world_camera)

    def destroy_node(self) -> None:
        self._camera.stop()
        super().destroy_node()


def main(arguments: list[str] | None = None) -> int:
    return run_node(SimCameraNode, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
