# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Messages by columns: the objects and the bytes are those that rclpy makes."""

import numpy as np
import pytest
from geometry_msgs.msg import Pose
from numpy.testing import assert_array_equal
from rclpy.serialization import serialize_message
from seg_perception.msg import Grasp, InstanceMask, SegmentedObject
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from seg_perception.ros.rows import Rows, layout_of


def written(rows: Rows, at: int = 0) -> bytes:
    """The body of a sequence that begins at `at`."""
    out = np.full((at + rows.size + 16) // 8 * 8, 0, np.uint8)
    end = rows.write(out, at)
    assert not out[end:].any()  # nothing beyond
    return out[at:end].tobytes()


def test_numbers_lie_aligned_to_their_size() -> None:
    rows = Rows(RegionOfInterest, 2)
    rows.set("x_offset", np.array([1, 4_000_000_000]))
    rows.set("height", 7)
    rows.set("do_rectify", np.array([True, False]))
    first, second = rows.messages()
    assert (first.x_offset, first.y_offset, first.height, first.width, first.do_rectify) == (1, 0, 7, 0, True)
    assert (second.x_offset, second.do_rectify) == (4_000_000_000, False)
    assert type(second.x_offset) is int
    assert type(second.do_rectify) is bool
    body = np.frombuffer(written(rows) + b"\0" * 3, np.uint32).tolist()
    assert body == [2, 1, 0, 7, 0, 1, 4_000_000_000, 0, 7, 0, 0]


def test_one_message_is_what_rclpy_writes() -> None:
    rows = Rows(Pose, 1)
    rows.set("position", np.array([[0.1, 0.2, 0.3]]))
    rows.set("orientation", np.array([[0.5, -0.5, 0.5, 0.5]]))
    (pose,) = rows.messages()
    assert (pose.position.y, pose.orientation.y, pose.orientation.w) == (0.2, -0.5, 0.5)
    assert written(rows, 4)[4:] == serialize_message(pose)[4:]  # 4: the count, so that the pose begins at 8


def test_texts_words_and_messages_in_messages() -> None:
    rows = Rows(InstanceMask, 3)
    rows.set_each(("area", "image_width"), [(5, 640), (6, 641), (7, 642)])
    rows.words = (np.arange(6, dtype=np.uint32), np.array([0, 2, 2, 6]))
    masks = rows.messages()
    assert [list(mask.counts) for mask in masks] == [[0, 1], [], [2, 3, 4, 5]]
    assert [(mask.area, mask.image_width) for mask in masks] == [(5, 640), (6, 641), (7, 642)]

    grasps = Rows(Grasp, 3)
    grasps.texts = {"planner": ["a", "größer", ""], "gripper": ["x", "y", "z"]}
    grasps.set("contacts", np.arange(18.0).reshape(3, 2, 3))
    objects = Rows(SegmentedObject, 2)
    objects.texts = {"class_name": ["cup", "b"], "status_text": ["", "why"], "grasp_text": ["", ""]}
    objects.set("box", np.array([[1, 2, 3, 4], [5, 6, 7, 8.5]]))
    objects.words = (np.arange(3, dtype=np.uint32), np.array([0, 1, 3]))
    objects.rows = (grasps, [0, 0, 3])
    bare, rich = objects.messages()
    assert bare.grasps == []
    assert [grasp.planner for grasp in rich.grasps] == ["a", "größer", ""]
    assert [point.z for point in rich.grasps[1].contacts] == [8.0, 11.0]
    assert rich.box.dtype == np.float32
    assert_array_equal(rich.box, [5, 6, 7, 8.5])
    assert "größer\0".encode() in written(objects)
    assert len(written(objects, 4)) < objects.size


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(TypeError, match=r"CameraInfo\.d: sequence<double> cannot be written by columns"):
        layout_of(CameraInfo)
