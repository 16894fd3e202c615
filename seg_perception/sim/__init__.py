# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A simulated RGB-D tabletop camera with exact ground truth; needs no GL, no GPU, no display and no ROS.

camera = SimCamera(640, 480, motion="still", noise="d435")
shot = camera.frame(0)          # shot.frame, shot.instances, shot.T_world_camera, shot.objects
"""

from seg_perception.sim.camera import ObjectTruth, SimCamera, SimFrame, color_intrinsics, visible_truth
from seg_perception.sim.folder import write_folder
from seg_perception.sim.motion import look_at
from seg_perception.sim.noise import sensor_depth
from seg_perception.sim.render import Rendering, render
from seg_perception.sim.scene import SimScene, demo_scene, random_scene

__all__ = [
    "ObjectTruth",
    "Rendering",
    "SimCamera",
    "SimFrame",
    "SimScene",
    "color_intrinsics",
    "demo_scene",
    "look_at",
    "random_scene",
    "render",
    "sensor_depth",
    "visible_truth",
    "write_folder",
]
