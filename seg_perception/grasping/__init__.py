# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Grasp planners and gripper descriptions.

from seg_perception.grasping import plan_grasps
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seg_perception.grasping.alone import plan_grasps

__all__ = ["plan_grasps"]


def __getattr__(name: str) -> Any:
    """Loaded on first use: the planners import what `plan_grasps` needs, and need not wait for it."""
    if name in __all__:
        from seg_perception.grasping import alone

        return getattr(alone, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
