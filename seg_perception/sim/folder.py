# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Simulated frames as a folder of RGB-D frames, the format that the demo, `run` and `evaluate` read."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from seg_perception.sim.camera import SimCamera

DEPTH_UNIT = 0.0001  # m: exact depth stays exact to 0.05 mm, up to 6.5 m


def write_folder(path: Path, camera: SimCamera, count: int | None = None) -> None:
    """Writes `count` frames of the loop (default all): meta.json, frames/NAME_rgb.png, _depth.png, _instances.png.

    Depth is uint16 in DEPTH_UNIT, 0 = none or over 6.5 m. meta.json also holds each frame's T_world_camera and objects.
    """
    frames = path / "frames"
    frames.mkdir(parents=True, exist_ok=True)
    k = camera.intrinsics
    listed = []
    for i in range(len(camera) if count is None else count):
        shot = camera.frame(i)
        name = f"sim{i:04d}"
        depth = np.nan_to_num(shot.frame.depth, nan=0.0) / DEPTH_UNIT
        depth = np.where(depth < 65535.5, np.round(depth), 0).astype(np.uint16)
        _write(frames / f"{name}_rgb.png", shot.frame.color[..., ::-1])
        _write(frames / f"{name}_depth.png", depth)
        _write(frames / f"{name}_instances.png", shot.instances)
        objects = [
            {
                "label": o.label,
                "name": o.name,
                "pixels": o.pixels,
                "size": o.box.size.tolist(),
                "T_camera_box": o.box.T_camera_box.tolist(),
            }
            for o in shot.objects
        ]
        listed.append({"name": name, "T_world_camera": shot.T_world_camera.tolist(), "objects": objects})
    calibration = {"width": k.width, "height": k.height, "fx": k.fx, "fy": k.fy, "cx": k.cx, "cy": k.cy}
    meta = {**calibration, "depth_scale_to_m": DEPTH_UNIT, "ignore_invalid_depth": False, "frames": listed}
    (path / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")


def _write(path: Path, picture: np.ndarray) -> None:
    if not cv2.imwrite(str(path), picture):
        raise OSError(f"cannot write {path}")
