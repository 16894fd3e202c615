# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""RGB-D in; per-object masks, point clouds, oriented boxes and grasps out.

Begin with `from seg_perception import Frame, Intrinsics, Pipeline, load_config`.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

# The generated ROS messages (seg_perception.msg, seg_perception.srv) live in another folder under the same name.
__path__ = pkgutil.extend_path(__path__, __name__)

if TYPE_CHECKING:
    from seg_perception.config import Config, ConfigError, load_config
    from seg_perception.fusion import fuse
    from seg_perception.masks import Masks
    from seg_perception.pipeline import Pipeline
    from seg_perception.scene import Frame, Grasp, Instances, Intrinsics, Object3D, Plane, Scene, Status

_HOME = {
    "config": ("Config", "ConfigError", "load_config"),
    "fusion": ("fuse",),
    "masks": ("Masks",),
    "pipeline": ("Pipeline",),
    "scene": ("Frame", "Grasp", "Instances", "Intrinsics", "Object3D", "Plane", "Scene", "Status"),
}

__all__ = [
    "Config",
    "ConfigError",
    "Frame",
    "Grasp",
    "Instances",
    "Intrinsics",
    "Masks",
    "Object3D",
    "Pipeline",
    "Plane",
    "Scene",
    "Status",
    "fuse",
    "load_config",
]


def __getattr__(name: str) -> Any:
    """Public names load on first use, so that a node that only wants `seg_perception.msg` does not pay for numba."""
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
