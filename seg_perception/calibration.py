# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From a camera_info message, of a topic or of a recording, to intrinsics. Needs no ROS: fields are read by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from seg_perception.scene import Intrinsics


def intrinsics_from_info(info: Any, rectified: bool = False) -> Intrinsics:
    """Intrinsics of the image that `info` comes with: K and D, or P without distortion where it is `rectified`.

    Region of interest and binning are applied as image_geometry does (an all-zero ROI is the whole image, whatever
    `do_rectify` says). Raises ValueError for a camera that is not calibrated or has an unsupported lens model.
    """
    m = np.asarray(info.p, np.float64).reshape(3, 4) if rectified else np.asarray(info.k, np.float64).reshape(3, 3)
    fx, fy, cx, cy = float(m[0, 0]), float(m[1, 1]), float(m[0, 2]), float(m[1, 2])
    if not np.isfinite([fx, fy, cx, cy]).all() or fx <= 0 or fy <= 0:
        raise ValueError(
            f"camera_info of '{info.header.frame_id}': uncalibrated: {'P' if rectified else 'K'} has "
            f"fx={fx:g} fy={fy:g} cx={cx:g} cy={cy:g}, expected finite numbers and fx, fy > 0"
        )
    roi = info.roi
    width, height = (roi.width, roi.height) if roi.width and roi.height else (info.width, info.height)
    bin_x, bin_y = max(1, info.binning_x), max(1, info.binning_y)
    return Intrinsics(
        width // bin_x,
        height // bin_y,
        fx / bin_x,
        fy / bin_y,
        (cx - roi.x_offset) / bin_x,
        (cy - roi.y_offset) / bin_y,
        () if rectified else _distortion(info),
    )


def _distortion(info: Any) -> tuple[float, ...]:
    """D by its count, since drivers mislabel the model; a perfect lens is ()."""
    d = tuple(float(value) for value in info.d)
    if not any(d):  # NaN counts as a value and is refused by Intrinsics
        return ()
    if len(d) == 4 and info.distortion_model in ("plumb_bob", "rational_polynomial"):
        return (*d, 0.0)  # k1 k2 p1 p2, as OpenCV's calibration gives with k3 fixed; 4 alone means equidistant
    if len(d) in (12, 14):
        if any(d[8:]):
            raise ValueError(
                f"camera_info of '{info.header.frame_id}': thin prism and tilt coefficients are not supported, "
                f"got D={list(d)}"
            )
        return d[:8]
    return d
