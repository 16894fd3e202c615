# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What moves in a simulated loop: the camera, or the things and the light. Phase 0..1 runs once around, no jump."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seg_perception.geometry import transform
from seg_perception.sim.scene import SimScene

MOTIONS = ("still", "moving")
REST_EYE = np.array([0.0, -0.72, 0.60])  # m, world
TARGET = np.array([0.0, 0.0, 0.02])


def look_at(eye: ArrayLike, target: ArrayLike = TARGET) -> NDArray[np.float64]:
    """T_world_camera (4, 4, optical frame) of a level camera at `eye` (3,) m that looks at `target`."""
    origin = np.asarray(eye, np.float64)
    z = np.asarray(target, np.float64) - origin
    z /= np.linalg.norm(z)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    return transform(np.stack([x, np.cross(z, x), z], axis=1), origin)


def orbit(phase: float) -> NDArray[np.float64]:
    """T_world_camera on a closed path around the table: 24 degrees to both sides, out by a tenth, up and down."""
    a = 2 * np.pi * phase
    turn = np.deg2rad(24.0) * np.sin(a)
    eye = REST_EYE * (1.05 - 0.05 * np.cos(a)) + np.array([0.0, 0.0, 0.05 * np.sin(2 * a)])
    c, s = np.cos(turn), np.sin(turn)
    return look_at([c * eye[0] - s * eye[1], s * eye[0] + c * eye[1], eye[2]])


def moved_scene(scene: SimScene, phase: float) -> SimScene:
    """The scene with its mug turned, its ball rolled, its soda can pushed, where it has them, and the light changed."""
    a = 2 * np.pi * phase
    poses = {b.name: b.T_world_body for b in scene.objects}
    if "mug" in poses:
        poses["mug"] = poses["mug"] @ _turn(2, np.deg2rad(40.0) * np.sin(a))
    if "ball" in poses:
        radius, way = 0.034, 0.035 * np.sin(a)
        spin = transform(translation=[0, 0, radius]) @ _turn(1, way / radius) @ transform(translation=[0, 0, -radius])
        poses["ball"] = transform(translation=[way, 0, 0]) @ poses["ball"] @ spin
    if "soup_can" in poses:
        poses["soup_can"] = transform(translation=[0.0, 0.02 * (np.cos(a) - 1), 0.0]) @ poses["soup_can"]
    lights = scene.lights.copy()
    lights["power"][0] *= 1.0 + 0.12 * np.sin(a + 1.0)
    return replace(scene.moved(poses), lights=lights)


def _turn(axis: int, angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    R = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    R[i, i] = R[j, j] = c
    R[i, j], R[j, i] = -s, s
    return transform(R)
