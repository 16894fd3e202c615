# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Where the depth camera is in the color camera's frame: as the configuration says, else as TF does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header

from seg_perception.config import Config
from seg_perception.geometry import invert, matrix_from_quaternion, transform
from seg_perception.ros.conversions import stamp_ns
from seg_perception.ros.transforms import Transforms

MOVED = 1_000_000  # ns between the two stamps in which a camera's own motion does not count


def T_color_depth(color: Header, depth: Header, config: Config, transforms: Transforms) -> NDArray[np.float64]:
    """The depth camera's pose in the color camera's frame, (4, 4). Raises TransformError after `tf_timeout`.

    Where the stamps differ and `target_frame` is set, the camera's own motion between them is in it.
    """
    stamp, depth_stamp, wait = stamp_ns(color.stamp), stamp_ns(depth.stamp), config.tf_timeout
    if config.depth.extrinsic:
        *position, qx, qy, qz, qw = config.depth.extrinsic
        return transform(matrix_from_quaternion((qx, qy, qz, qw)), position)
    fixed = config.target_frame
    if fixed and abs(stamp - depth_stamp) > MOVED:
        T_fixed_depth = transforms.lookup(fixed, depth.frame_id, depth_stamp, wait)
        return invert(transforms.lookup(fixed, color.frame_id, stamp, wait)) @ T_fixed_depth
    return transforms.lookup(color.frame_id, depth.frame_id, stamp, wait)
