# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Projection, transforms and boxes: conventions and identities, in metres and pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from seg_perception.geometry import (
    invert,
    matrix_from_quaternion,
    oriented_box,
    project,
    quaternion_from_matrix,
    ray_table,
    rotation_with_z,
    smallest_rectangle,
    transform,
    transform_points,
    unproject,
    unproject_pixels,
)
from seg_perception.scene import Intrinsics, Plane

PINHOLE = Intrinsics(640, 480, 600.0, 610.0, 321.0, 238.0)
LENSES = {
    "none": (),
    "equidistant": (0.05, -0.01, 0.004, -0.001),
    "plumb_bob": (-0.25, 0.08, 0.001, -0.0007, -0.01),
    "rational": (0.4, -0.2, 0.0005, -0.0003, 0.02, 0.7, -0.1, 0.01),
}


@pytest.fixture(params=LENSES.values(), ids=LENSES)
def camera(request):
    return replace(PINHOLE, distortion=request.param)


class TestProjection:
    def test_there_and_back(self, camera):
        u, v = np.meshgrid(np.linspace(5, 634, 30), np.linspace(5, 474, 25))
        pixels = np.stack([u, v], axis=-1)
        depth = np.linspace(0.3, 2.0, 750).reshape(25, 30)
        points = unproject(camera, pixels, depth)
        assert_allclose(points[..., 2], depth)  # depth is along z, not along the ray
        assert_allclose(project(camera, points), pixels, atol=1e-3)

    def test_by_hand(self):
        assert_allclose(project(PINHOLE, [0.1, -0.2, 0.5]), [321 + 120, 238 - 244])
        assert_allclose(unproject(PINHOLE, [321 + 60, 238], 2.0), [0.2, 0, 2])

    def test_plumb_bob_by_hand(self):
        camera = replace(PINHOLE, distortion=(0.1, 0.0, 0.0, 0.0, 0.0))
        assert_allclose(project(camera, [0.2, 0.0, 1.0]), [321 + 600 * 0.2 * (1 + 0.1 * 0.04), 238])

    def test_equidistant_by_hand(self):
        camera = replace(PINHOLE, distortion=(0.0, 0.0, 0.0, 1e-12))
        assert_allclose(project(camera, [1.0, 0.0, 1.0]), [321 + 600 * np.pi / 4, 238], atol=1e-6)

    def test_behind_the_camera_is_nan(self, camera):
        pixels = project(camera, [[0.1, 0, -1.0], [0.1, 0, 0.0], [0, 0, 1.0]])
        assert np.isnan(pixels[:2]).all()
        assert np.isfinite(pixels[2]).all()

    def test_ray_table_has_every_pixels_centre(self, camera):
        table = ray_table(camera)
        assert table.shape == (480, 640, 2)
        assert table.dtype == np.float32
        assert_allclose(table[100, 500], unproject_pixels(camera, [500, 100]), atol=1e-6)
        assert not table.flags.writeable
        assert ray_table(replace(camera)) is table  # computed once


class TestTransforms:
    def test_names_say_which_way(self):
        """T_world_camera @ p_camera = p_world: a camera 1 m up that looks down sees the table's origin 1 m ahead."""
        T_world_camera = transform([[1, 0, 0], [0, -1, 0], [0, 0, -1]], [0, 0, 1])
        assert_allclose(transform_points(T_world_camera, [[0, 0, 1.0], [0.1, 0.2, 0.8]]), [[0, 0, 0], [0.1, -0.2, 0.2]])

    def test_inverse(self):
        T = transform(Rotation.random(random_state=1).as_matrix(), [1, 2, 3])
        assert_allclose(invert(T) @ T, np.eye(4), atol=1e-12)
        assert_allclose(invert(T), np.linalg.inv(T), atol=1e-12)

    def test_points_keep_their_type(self):
        assert transform_points(np.eye(4), np.zeros((2, 3), np.float32)).dtype == np.float32
        assert transform_points(np.eye(4), np.zeros((0, 3))).shape == (0, 3)

    def test_plane_moves_with_its_points(self):
        plane = Plane(np.array([0.0, 0.0, 2.0]), -0.5)  # scaled to unit length; 0.5 m ahead
        T = transform(Rotation.random(random_state=2).as_matrix(), [0.3, -0.1, 0.7])
        points = np.random.default_rng(0).normal(size=(20, 3))
        assert_allclose(plane.transformed(T).heights(transform_points(T, points)), plane.heights(points), atol=1e-12)

    @given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1))
    def test_quaternion_round_trip(self, q):
        R = matrix_from_quaternion(q)
        assert_allclose(R, Rotation.from_quat(q).as_matrix(), atol=1e-9)  # x y z w
        back = quaternion_from_matrix(R)
        assert back[3] >= 0
        assert_allclose(matrix_from_quaternion(back), R, atol=1e-9)

    def test_quaternion_of_half_turns(self):
        for axis in np.eye(3):
            R = Rotation.from_rotvec(np.pi * axis).as_matrix()
            assert_allclose(matrix_from_quaternion(quaternion_from_matrix(R)), R, atol=1e-9)

    @pytest.mark.parametrize("bad", [[0, 0, 0, 0], [np.nan, 0, 0, 1], [np.inf, 0, 0, 1]])
    def test_no_quaternion(self, bad):
        with pytest.raises(ValueError, match="quaternion"):
            matrix_from_quaternion(bad)

    @pytest.mark.parametrize("hint", [None, [0, 1, 0], [0, 0, 1]])
    def test_rotation_with_z(self, hint):
        R = rotation_with_z([0, 0, 3.0], hint)
        assert_allclose(R[:, 2], [0, 0, 1])
        assert_allclose(R.T @ R, np.eye(3), atol=1e-12)
        assert_allclose(np.linalg.det(R), 1)
        if hint == [0, 1, 0]:
            assert_allclose(R[:, 0], [0, 1, 0])


class TestBoxes:
    def cloud(self, size=(0.20, 0.06, 0.10), seed=1, n=3000):
        """Points that fill a turned box, its corners among them, and the box's pose."""
        rng = np.random.default_rng(seed)
        local = np.concatenate([rng.uniform(-0.5, 0.5, (n, 3)), np.indices((2, 2, 2)).reshape(3, -1).T - 0.5]) * size
        T = transform(Rotation.random(random_state=seed).as_matrix(), [0.1, -0.2, 0.9])
        return transform_points(T, local), T

    @pytest.mark.parametrize("seed", range(5))
    def test_known_box(self, seed):
        points, T = self.cloud(seed=seed)
        box = oriented_box(points, T[:3, 2])
        assert_allclose(box.size, [0.20, 0.06, 0.10], atol=1e-9)  # x the longer side of the footprint
        assert_allclose(box.T_camera_box[:3, 3], T[:3, 3], atol=1e-9)
        assert_allclose(box.T_camera_box[:3, 2], T[:3, 2], atol=1e-12)
        assert_allclose(np.abs(box.T_camera_box[:3, 0] @ T[:3, 0]), 1, atol=1e-9)
        assert_allclose(np.linalg.det(box.T_camera_box[:3, :3]), 1)

    def test_without_up(self):
        points, _ = self.cloud(n=20000)
        assert_allclose(np.sort(oriented_box(points).size), [0.06, 0.10, 0.20], rtol=0.05)

    def test_corners(self):
        points, T = self.cloud()
        box = oriented_box(points, T[:3, 2])
        corners = transform_points(invert(box.T_camera_box), box.corners)
        assert_allclose(np.abs(corners), np.tile(box.size / 2, (8, 1)))
        assert_allclose(corners[1] - corners[0], [box.size[0], 0, 0], atol=1e-12)  # bit 0 is x
        assert_allclose(corners[4] - corners[0], [0, 0, box.size[2]], atol=1e-12)  # bit 2 is z

    def test_outliers_stay_outside(self):
        points, T = self.cloud(n=20000)
        stray = np.concatenate([points, transform_points(T, np.array([[0, 0, -0.6], [0, 0, 0.5]]))])
        assert_allclose(oriented_box(stray, T[:3, 2], outliers=0.001).size, [0.20, 0.06, 0.10], atol=0.003)
        assert_allclose(oriented_box(stray, T[:3, 2]).size[2], 1.1)

    @pytest.mark.parametrize(
        "points", [[[1, 2, 3]], [[1, 2, 3]] * 4, [[0, 0, 1], [1, 0, 1]], [[0, 0, 0], [1, 1, 1], [2, 2, 2]]]
    )
    def test_degenerate(self, points):
        for up in (None, [0, 0, 1]):
            box = oriented_box(np.array(points, float), up)
            assert np.isfinite(box.size).all()
            assert np.isfinite(box.T_camera_box).all()
            assert_allclose(np.linalg.norm(box.size), np.linalg.norm(np.ptp(points, axis=0)), atol=1e-9)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 10**6), st.integers(3, 400), st.booleans())
    def test_smallest_rectangle_against_all_hull_edges(self, seed, n, on_grid):
        rng = np.random.default_rng(seed)
        xy = rng.integers(-4, 5, (n, 2)).astype(float) if on_grid else rng.normal(size=(n, 2)) * rng.uniform(0.1, 3, 2)
        if np.linalg.matrix_rank(xy - xy[0]) < 2:
            return
        hull = xy[ConvexHull(xy).vertices]
        edges = np.diff(np.concatenate([hull, hull[:1]]), axis=0)
        areas = []
        for angle in np.arctan2(edges[:, 1], edges[:, 0]):
            turned = hull @ [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            areas.append(np.ptp(turned, axis=0).prod())
        angle, (low, high) = smallest_rectangle(xy)
        assert 0 <= angle < np.pi / 2 + 1e-9
        assert_allclose((high - low).prod(), min(areas), rtol=1e-9, atol=1e-12)
        turned = xy @ [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        assert_allclose([turned.min(axis=0), turned.max(axis=0)], [low, high], atol=1e-9)

    def test_many_points_lose_nothing_that_matters(self):
        xy = np.random.default_rng(0).uniform(-0.5, 0.5, (200_000, 2)) * [0.1, 0.06]
        _angle, (low, high) = smallest_rectangle(xy)
        assert_allclose(np.sort(high - low), [0.06, 0.1], atol=1e-3)
