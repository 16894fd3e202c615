# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Recordings are calibrated as the node calibrates its topics; whole files are read back in ros/test_node_watch.py."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from seg_perception.recordings import RecordingError, _calibration

FILE, TOPIC = Path("a.mcap"), "/camera/color/image_raw"


def info(**members):
    known = {
        "header": SimpleNamespace(frame_id="camera"),
        "width": 640,
        "height": 480,
        "k": [600.0, 0, 320, 0, 601, 240, 0, 0, 1],
        "p": [0.0] * 12,
        "d": [],
        "distortion_model": "plumb_bob",
        "roi": SimpleNamespace(width=0, height=0, x_offset=0, y_offset=0),
        "binning_x": 0,
        "binning_y": 0,
    }
    return SimpleNamespace(**known | members)


def test_four_coefficients_of_plumb_bob_are_not_a_fisheye():
    beside = {"/camera/color/camera_info": info(d=[0.1, -0.2, 0.001, 0.002]), "/other/camera_info": info()}
    found = _calibration(FILE, beside, TOPIC, (640, 480))
    assert (found.fx, found.fy, found.cx, found.cy) == (600, 601, 320, 240)
    assert found.distortion == (0.1, -0.2, 0.001, 0.002, 0.0)


def test_what_cannot_be_is_named_with_its_file():
    with pytest.raises(RecordingError, match=r"a\.mcap: camera_info of 'camera': uncalibrated: K has fx=0"):
        _calibration(FILE, {"/camera/color/camera_info": info(k=[0.0] * 9)}, TOPIC, (640, 480))
    with pytest.raises(RecordingError, match=r"expected a camera_info of 1280x720 .* found /a/camera_info 640x480"):
        _calibration(FILE, {"/a/camera_info": info()}, TOPIC, (1280, 720))
