# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The types that the stages hand to each other: what they accept, what they refuse, and with which words."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from seg_perception.masks import Masks
from seg_perception.scene import (
    Frame,
    Grasp,
    GraspKind,
    GraspPlan,
    Instances,
    Intrinsics,
    Object3D,
    OrientedBox,
    Plane,
    Scene,
    Status,
)

COLOR = np.zeros((4, 6, 3), np.uint8)
DEPTH = np.ones((4, 6), np.float32)
K = Intrinsics(6, 4, 5.0, 5.0, 2.5, 1.5)


def test_a_frame_takes_slices_in_any_memory_order():
    bgr = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    frame = Frame(bgr[..., ::-1], np.asfortranarray(DEPTH), K)
    assert frame.color.flags.c_contiguous
    assert frame.depth.flags.c_contiguous
    assert frame.color[0, 0].tolist() == [2, 1, 0]


class TestIntrinsics:
    def test_matrix(self):
        assert K.matrix.tolist() == [[5, 0, 2.5], [0, 5, 1.5], [0, 0, 1]]

    @pytest.mark.parametrize("count", [0, 4, 5, 8])
    def test_distortion_counts(self, count):
        assert replace(K, distortion=[0.1] * count).is_distorted == (count > 0)
        assert not replace(K, distortion=[0.0] * count).is_distorted

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"fx": 0.0}, "uncalibrated camera publishes zeros"),
            ({"fy": float("nan")}, "finite"),
            ({"distortion": (float("inf"),) * 5}, "finite"),
            ({"width": 0}, "0x4"),
            ({"distortion": (0.1, 0.2)}, "0, 4, 5 or 8 distortion coefficients, got 2"),
        ],
    )
    def test_refused(self, changes, message):
        with pytest.raises(ValueError, match=message):
            replace(K, **changes)

    def test_hashable_so_that_rays_are_cached(self):
        assert hash(replace(K, distortion=[0.1] * 5)) == hash(replace(K, distortion=(0.1,) * 5))


class TestFrame:
    def test_why_no_3d(self):
        frame = Frame(COLOR, DEPTH, K)
        assert frame.no_3d is None
        assert replace(frame, depth=None).no_3d[0] == Status.NO_DEPTH_IMAGE
        assert replace(frame, intrinsics=None).no_3d[0] == Status.BAD_INTRINSICS
        told = replace(frame, withheld=Status.DEPTH_MISALIGNED, withheld_text="other size").no_3d
        assert told == (Status.DEPTH_MISALIGNED, "other size")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"color": COLOR[..., 0]}, r"color: expected \(H, W, 3\) uint8 RGB, got \(4, 6\)"),
            ({"color": COLOR.astype(float)}, "float64"),
            ({"depth": DEPTH.astype(np.uint16)}, r"depth: expected \(4, 6\) float32 metres .* uint16"),
            ({"depth": DEPTH[:3]}, r"got \(3, 6\)"),
            ({"intrinsics": replace(K, width=640)}, "for a 640x4 image, but the color image is 6x4"),
            ({"ignore": np.zeros((2, 2), bool)}, "ignore"),
            ({"gravity": np.zeros(3)}, "gravity: expected 3 numbers with a direction"),
            ({"gravity": np.array([0, np.nan, 1])}, "gravity"),
        ],
    )
    def test_refused(self, changes, message):
        with pytest.raises(ValueError, match=message):
            replace(Frame(COLOR, DEPTH, K), **changes)

    def test_gravity_is_made_unit(self):
        assert_allclose(Frame(COLOR, gravity=np.array([0, 9.81, 0])).gravity, [0, 1, 0])

    def test_frozen(self):
        with pytest.raises(FrozenInstanceError):
            Frame(COLOR).stamp_ns = 1


class TestInstances:
    def three(self):
        masks = Masks.from_label_image(np.array([[1, 1, 2], [3, 0, 2]]))
        return Instances.of(masks, [0.9, 0.5, 0.7], [4, -1, 2])

    def test_defaults(self):
        found = self.three()
        assert found.class_names == ("class_4", "object", "class_2")
        assert found.boxes.tolist() == [[0, 0, 2, 1], [2, 0, 3, 2], [0, 1, 1, 2]]
        assert found.support_ids.tolist() == [-1, -1, -1]

    def test_rows(self):
        rows = self.three()[np.array([True, False, True])]
        assert_allclose(rows.scores, [0.9, 0.7])
        assert rows.class_names == ("class_4", "class_2")
        assert rows.masks.areas.tolist() == [2, 1]
        assert len(self.three()[1]) == 1
        assert self.three()[[2, 0]].class_ids.tolist() == [2, 4]

    def test_from_masks(self):
        found = Instances.from_masks(np.eye(3)[:, None, :], scores=[1, 2, 3], class_names="abc")
        assert found.class_names == ("a", "b", "c")
        assert found.boxes[1].tolist() == [1, 0, 2, 1]

    def test_empty(self):
        found = Instances.empty(4, 6)
        assert len(found) == 0
        assert found.boxes.shape == (0, 4)
        assert found.masks.dense().shape == (0, 4, 6)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"scores": np.zeros(2)}, r"scores: expected \(3,\) for 3 masks, got \(2,\)"),
            ({"boxes": np.zeros((3, 5))}, r"boxes: expected \(3, 4\)"),
            ({"class_names": ("a",)}, "class_names: expected 3 for 3 masks, got 1"),
            ({"support_ids": np.array([0, 0, 0])}, "support_ids: 0, but there are 0 supports"),
        ],
    )
    def test_refused(self, changes, message):
        with pytest.raises(ValueError, match=message):
            replace(self.three(), **changes)


def test_plane_heights():
    plane = Plane(np.array([0, 0, -2.0]), 0.8)  # 0.8 m ahead, up is towards the camera
    assert_allclose(plane.heights([[0, 0, 0.7], [5, 5, 0.8]]), [0.1, 0], atol=1e-12)
    assert_allclose(plane.coefficients, [0, 0, -1, 0.8])
    with pytest.raises(ValueError, match="plane normal"):
        Plane(np.zeros(3), 0.0)


def test_box_corners_in_the_order_of_bits():
    corners = OrientedBox(np.eye(4), np.array([2.0, 4.0, 6.0])).corners
    assert corners[0].tolist() == [-1, -2, -3]
    assert corners[1].tolist() == [1, -2, -3]
    assert corners[2].tolist() == [-1, 2, -3]
    assert corners[7].tolist() == [1, 2, 3]


def test_pregrasp_is_back_along_the_approach():
    T = np.eye(4)
    T[:3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]  # approach = +x of the camera
    grasp = Grasp(T, 0.05, 0.5, GraspKind.PARALLEL_JAW, pregrasp_distance=0.08)
    assert_allclose(grasp.T_camera_pregrasp[:3, 3], [-0.08, 0, 0])
    assert_allclose(T[:3, 3], 0)  # the grasp itself stays


def test_plan_is_a_sequence():
    grasps = tuple(Grasp(np.eye(4), 0.05, s, GraspKind.SUCTION) for s in (0.9, 0.1))
    plan = GraspPlan(grasps, "", {"too flat": 2})
    assert len(plan) == 2
    assert plan[0] is grasps[0]
    assert list(plan[:1]) == [grasps[0]]
    assert not GraspPlan()


def test_object_without_3d_is_empty():
    obj = Object3D(Status.TOO_FAR)
    assert obj.points.shape == (0, 3)
    assert np.isnan(obj.centroid).all()
    assert not obj.status.has_3d
    assert Status.PARTIAL.has_3d


def test_scene_has_one_object_per_instance():
    frame, found = Frame(COLOR, DEPTH, K), Instances.from_masks(np.ones((2, 4, 6)))
    scene = Scene(frame, found, (Object3D(Status.OK, points=np.ones((3, 3), np.float32)), Object3D(Status.TOO_FAR)))
    assert len(scene) == 2
    assert [o.status for o in scene] == [Status.OK, Status.TOO_FAR]
    assert scene.points.shape == (3, 3)
    with pytest.raises(ValueError, match="1 objects for 2 instances"):
        Scene(frame, found, (Object3D(Status.OK),))
