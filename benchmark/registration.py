# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What it costs to move depth into the color image, and to look whether depth is aligned: the tables in
docs/registration.md. One thread; CPU time, so that other processes count little.

python benchmark/registration.py [--repeat 30]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy.spatial.transform import Rotation

from seg_perception.alignment import AlignmentCheck
from seg_perception.geometry import transform
from seg_perception.registration import register_depth
from seg_perception.scene import Frame, Intrinsics
from seg_perception.sim import demo_scene, look_at, render, sensor_depth
from seg_perception.zoo.machine import this_machine

T_WORLD_COLOR = look_at([0.0, -0.72, 0.60])
TURN = Rotation.from_euler("xyz", [0.3, -0.4, 0.2], degrees=True).as_matrix()
T_COLOR_DEPTH = transform(TURN, [-0.015, 0.0003, 0.0004])  # a D435's, about
LENSES = {
    "perfect": (),
    "rational, 8": (0.45, -0.2, 0.0008, 0.0004, -0.03, 0.4, -0.15, -0.04),
    "equidistant, 4": (-0.02, 0.004, -0.001, 0.0002),
}


def camera(width: int, height: int, focal: float, lens: tuple[float, ...] = ()) -> Intrinsics:
    return Intrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2, lens)


def milliseconds(action: Callable[[], object], repeat: int) -> float:
    """Median CPU time of one call."""
    action()
    times = []
    for _ in range(repeat):
        start = time.thread_time()
        action()
        times.append(time.thread_time() - start)
    return float(np.median(times)) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=30)
    repeat = parser.parse_args().repeat
    print(f"{this_machine()}\n")
    print(
        "| depth | color | color's lens | exact depth [ms] | a D435's depth, with holes [ms] |\n|---|---|---|---|---|"
    )
    small, large = camera(848, 480, 424.0), camera(1280, 720, 640.0)
    for depth_camera, width, height, focal in (
        (camera(640, 480, 383.0), 640, 480, 610.0),
        (small, 1280, 720, 910.0),
        (large, 1280, 720, 910.0),
        (small, 1920, 1080, 1365.0),
    ):
        exact = render(demo_scene(), depth_camera, T_WORLD_COLOR @ T_COLOR_DEPTH).depth
        noisy = sensor_depth(exact, depth_camera, 1)
        for name, lens in LENSES.items():
            if name != "perfect" and (width, depth_camera) != (1280, small):
                continue
            color_camera = camera(width, height, focal, lens)
            took = [
                milliseconds(lambda d=d, k=depth_camera, c=color_camera: register_depth(d, k, c, T_COLOR_DEPTH), repeat)
                for d in (exact, noisy)
            ]
            sizes = f"{depth_camera.width}x{depth_camera.height} | {width}x{height}"
            print(f"| {sizes} | {name} | {took[0]:.1f} | {took[1]:.1f} |", flush=True)
    print("\n| one look at the alignment | [ms] | per frame at 30 Hz [ms] |\n|---|---|---|")
    for k in (camera(640, 480, 610.0), camera(1280, 720, 910.0)):
        seen = render(demo_scene(), k, T_WORLD_COLOR)
        frame, check = Frame(seen.color, sensor_depth(seen.depth, k, 1), k), AlignmentCheck()
        took = milliseconds(lambda f=frame, c=check: c.look(f), repeat)
        print(f"| {k.width}x{k.height} | {took:.1f} | {took / 30:.2f} |")


if __name__ == "__main__":
    main()
