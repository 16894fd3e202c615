# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How far fused objects are from the truth of rendered scenes: the table in docs/fusion.md.

python benchmark/fusion_quality.py [--views 4] [--random 8]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from seg_perception.fusion import fuse
from seg_perception.masks import Masks
from seg_perception.scene import Instances
from seg_perception.sim import SimCamera, SimScene, random_scene, visible_truth
from seg_perception.support import SupportConfig, find_supports

NEAR = 0.005  # m; nearer points count as the same
LEAST = 200  # px; smaller objects are left out


def measure(camera: SimCamera, k: int, bleed: int) -> Iterator[list[float]]:
    """Per object of frame k, masks `bleed` px too wide: errors of centroid and largest extent m, precision, recall,
    95th percentile of the points' distances m."""
    taken, exact = camera.frame(k), camera.exact(k)
    masks = Masks.from_label_image(taken.instances, len(taken.objects))
    supports = find_supports(taken.frame, SupportConfig(), masks)
    kernel = np.ones((2 * bleed + 1, 2 * bleed + 1), np.uint8)
    wide = np.stack([cv2.dilate(mask.astype(np.uint8), kernel) for mask in masks.dense()])
    for truth, obj in zip(taken.objects, fuse(taken.frame, Instances.from_masks(wide), None, supports), strict=True):
        if truth.pixels < LEAST or not obj.status.has_3d:
            continue
        mean, surface = visible_truth(exact, taken.frame.intrinsics, truth.label)
        extents = np.ptp(surface @ obj.box.T_camera_box[:3, :3], axis=0)
        away = cKDTree(surface).query(obj.points)[0]
        found = cKDTree(obj.points).query(surface)[0]
        yield [
            float(np.linalg.norm(obj.centroid - mean)),
            float(np.abs(obj.box.size - extents).max()),
            float((away < NEAR).mean()),
            float((found < NEAR).mean()),
            float(np.quantile(away, 0.95)),
        ]


def camera_of(noise: str, scene: SimScene | None) -> SimCamera:
    return SimCamera(motion="moving", noise=noise, scene=scene, cache=False)


def row(name: str, bleed: int, rows: NDArray[np.float64], limits: tuple[float, float]) -> str:
    """One line of the table; `limits` m are the goals for centroid and extents."""
    centroid, extent, precision, recall, error = rows.T
    met = ((centroid <= limits[0]) & (extent <= limits[1])).mean()
    return (
        f"| {name} | {bleed} px | {len(rows)} "
        f"| {np.median(centroid) * 1e3:.1f} / {centroid.max() * 1e3:.1f} "
        f"| {np.median(extent) * 1e3:.1f} / {np.quantile(extent, 0.9) * 1e3:.1f} / {extent.max() * 1e3:.1f} "
        f"| {met:.0%} | {precision.mean():.3f} | {recall.mean():.3f} | {np.median(error) * 1e3:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--views", type=int, default=4, help="views of the demo scene, around the table")
    parser.add_argument("--random", type=int, default=8, help="random scenes of 10 objects, one view each")
    args = parser.parse_args()
    print(
        "| depth | mask wider by | objects | centroid median / max | extents median / 90 % / max [mm] | in goal ",
        end="",
    )
    print("| precision | recall | 95 % of points within [mm] |")
    print("|---" * 9 + "|")
    for noise in ("none", "d435", "kinect"):
        limits = (0.003, 0.004) if noise == "none" else (0.006, 0.008)
        shots = [
            (SimCamera(motion="moving", noise=noise, cache=False), 60 * v // args.views) for v in range(args.views)
        ]
        scenes = [random_scene(seed) for seed in range(args.random)]
        shots += [(SimCamera(motion="moving", noise=noise, scene=s, cache=False), 7 * i) for i, s in enumerate(scenes)]
        for bleed in (0, 3):
            rows = np.array([r for camera, k in shots for r in measure(camera, k, bleed)])
            print(row(noise, bleed, rows, limits), flush=True)


if __name__ == "__main__":
    main()
