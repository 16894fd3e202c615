# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Depth moved into another camera's image, against exact pictures from that camera and against geometry."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from seg_perception.geometry import invert, project, transform, transform_points, unproject
from seg_perception.registration import register_depth
from seg_perception.scene import Intrinsics
from seg_perception.sim import demo_scene, look_at, render

T_WORLD_COLOR = look_at([0.0, -0.72, 0.60])
# A D435's cameras: 15 mm apart, turned by a few tenths of a degree, the depth image wider and coarser.
T_COLOR_DEPTH = transform(
    Rotation.from_euler("xyz", [0.3, -0.4, 0.2], degrees=True).as_matrix(), [-0.015, 0.0003, 0.0004]
)
COLOR = (640, 360, 455.0, 456.0, 321.0, 181.0)
DEPTH = (424, 240, 212.0, 212.5, 211.5, 119.5)
LENSES = {
    "perfect": ((), ()),
    "plumb_bob": ((0.12, -0.22, 0.001, -0.0006, 0.09), (-0.05, 0.06, -0.0004, 0.0003, -0.02)),
    "rational": ((0.45, -0.2, 0.0008, 0.0004, -0.03, 0.4, -0.15, -0.04), (0.1, 0.02, 0, 0, 0.001, 0.12, 0.01, 0)),
    "equidistant": ((-0.02, 0.004, -0.001, 0.0002), (0.03, -0.004, 0.0006, 0.0)),
}


def interiors(labels: np.ndarray, depth: np.ndarray, margin: int = 5) -> np.ndarray:
    """(H, W) bool: on an object, at least `margin` px from its outline, from steps of its depth and from its edges."""
    square = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    same = cv2.erode(labels.astype(np.uint16), square) == cv2.dilate(labels.astype(np.uint16), square)
    bends = np.maximum(*(np.abs(np.roll(depth, 1, i) + np.roll(depth, -1, i) - 2 * depth) for i in (0, 1)))
    return (labels > 0) & same & (cv2.dilate(bends, square) < 2e-3)


@pytest.mark.parametrize("lens", LENSES)
def test_agrees_with_the_picture_from_the_color_camera(lens: str) -> None:
    color, depth = Intrinsics(*COLOR, LENSES[lens][0]), Intrinsics(*DEPTH, LENSES[lens][1])
    truth = render(demo_scene(), color, T_WORLD_COLOR)
    seen = render(demo_scene(), depth, T_WORLD_COLOR @ T_COLOR_DEPTH).depth
    registered = register_depth(seen, depth, color, T_COLOR_DEPTH)
    inside = interiors(truth.instances, truth.depth)
    assert set(truth.instances[inside]) == set(range(1, 13))
    assert inside.sum() > 15_000
    error = np.abs(registered - truth.depth)
    assert error[inside].max() < 1e-3  # m; a hole would be NaN and fail
    slope = np.hypot(*np.gradient(truth.depth))  # m per px: a shift by s px changes depth by s * slope
    steep = inside & (slope > 0.5e-3)
    assert steep.sum() > 10_000
    assert (error[steep] / slope[steep]).max() < 0.5  # px
    everywhere = np.isfinite(registered)
    assert everywhere.mean() > 0.95
    assert (error[everywhere] > 5e-3).mean() < 0.02  # outlines, half a depth pixel wide


def test_the_same_camera_changes_nothing() -> None:
    camera = Intrinsics(60, 50, 80.0, 80.0, 30.2, 24.9, (0.1, -0.05, 0.001, 0.001, 0.0))
    rng = np.random.default_rng(1)
    depth = rng.uniform(0.3, 2.0, (50, 60)).astype(np.float32)
    depth[:, 30:] = np.linspace(0.5, 0.9, 30, dtype=np.float32)
    depth[rng.uniform(size=depth.shape) < 0.4] = np.nan  # lonely pixels too
    registered = register_depth(depth, camera, camera, np.eye(4))
    assert_allclose(registered[1:-1, 1:-1], depth[1:-1, 1:-1], rtol=2e-4)  # NaN where it is NaN


@pytest.mark.parametrize("side", [1, -1])
def test_the_near_hides_the_far_and_nothing_is_stretched_between(side: int) -> None:
    camera = Intrinsics(200, 100, 200.0, 200.0, 99.5, 49.5)
    depth = np.full((100, 200), 1.0, np.float32)  # a wall, and a square before it
    depth[30:70, 80:120] = 0.5
    T = transform(translation=[-0.05 * side, 0, 0])  # the square moves by 20 px, the wall by 10
    registered = register_depth(depth, camera, camera, T)[:, ::side]
    assert_allclose(registered[31:69, 61:99], 0.5, atol=1e-6)
    assert np.isnan(registered[31:69, 101:109]).all()  # behind the square for the depth camera
    assert_allclose(registered[31:69, 111:189], 1.0, atol=1e-6)
    assert np.isnan(registered[:, 191:]).all()  # beyond the depth image
    values = np.unique(np.round(registered[np.isfinite(registered)], 6))
    assert_allclose(values, [0.5, 1.0])


@pytest.mark.parametrize("turn", [0, 35, 90, 180])
def test_a_finer_turned_image_has_no_holes(turn: int) -> None:
    depth_camera = Intrinsics(64, 64, 60.0, 60.0, 31.5, 31.5)
    color_camera = Intrinsics(200, 200, 260.0, 255.0, 99.0, 101.0)
    T = transform(Rotation.from_euler("zx", [turn, 5], degrees=True).as_matrix(), [0.01, -0.02, 0.03])
    normal, distance = np.array([0.4, -0.3, 1.0]), 0.8  # a slanted plane, normal . p = distance
    v, u = np.mgrid[:64, :64]
    rays = unproject(depth_camera, np.stack([u, v], -1), np.ones((64, 64)))
    registered = register_depth((distance / (rays @ normal)).astype(np.float32), depth_camera, color_camera, T)
    normal_there = T[:3, :3] @ normal
    v, u = np.mgrid[:200, :200]
    rays = unproject(color_camera, np.stack([u, v], -1), np.ones((200, 200)))
    expected = (distance + normal_there @ T[:3, 3]) / (rays @ normal_there)
    seen = project(depth_camera, transform_points(invert(T), rays * expected[..., None]))
    covered = ((seen > 0.5) & (seen < 62.5)).all(axis=-1)
    assert covered.sum() > 20_000
    assert_allclose(registered[covered], expected[covered], atol=2e-5)  # NaN would fail
    outside = ((seen < -0.6) | (seen > 63.6)).any(axis=-1)
    assert np.isnan(registered[outside]).all()


def test_a_coarser_image_takes_the_nearest_surface() -> None:
    depth_camera, color_camera = Intrinsics(320, 240, 300.0, 300.0, 160, 120), Intrinsics(64, 48, 60.0, 60.0, 32, 24)
    depth = np.full((240, 320), 2.0, np.float32)
    depth[:, 159:162] = 1.0  # a pole of 3 px, that is 0.6 px there
    registered = register_depth(depth, depth_camera, color_camera, np.eye(4))
    assert_allclose(registered[2:-2, 32], 1.0)
    assert_allclose(registered[2:-2, 5:31], 2.0)


def test_what_cannot_be_seen_is_not_drawn() -> None:
    camera = Intrinsics(40, 30, 40.0, 40.0, 20, 15)
    wall = np.full((30, 40), 1.0, np.float32)
    facing = transform(np.diag([-1.0, 1.0, -1.0]), [0, 0, 2.0])  # beyond the wall, looking back: its rear
    assert np.isnan(register_depth(wall, camera, camera, facing)).all()
    behind = transform(translation=[0, 0, -1.5])
    assert np.isnan(register_depth(wall, camera, camera, behind)).all()
    for nothing in (np.nan, np.inf, -np.inf, 0.0, -1.0):
        assert np.isnan(register_depth(np.full_like(wall, nothing), camera, camera, np.eye(4))).all()


@pytest.mark.parametrize("k1", [-0.35, -0.5])  # r (1 + k1 r^2) turns beyond the image's corners, and within them
def test_a_lens_that_folds_back_does_not_fold_the_picture(k1: float) -> None:
    color = Intrinsics(100, 80, 100.0, 100.0, 50, 40, (k1, 0.0, 0.0, 0.0, 0.0))
    depth_camera = Intrinsics(160, 120, 40.0, 40.0, 80, 60)  # sees to r = 2.5
    radius = np.hypot(*np.mgrid[-60:60, -80:80]) / 40.0
    depth = np.where(radius < 0.9, 3.0, 1.0).astype(np.float32)  # the near part does not show in the color image
    registered = register_depth(depth, depth_camera, color, np.eye(4))
    assert np.nanmin(registered) > 2.8
    assert np.isfinite(registered[40, 10:90]).all()


def test_depth_of_another_size_than_its_calibration_is_refused() -> None:
    camera = Intrinsics(40, 30, 40.0, 40.0, 20, 15)
    with pytest.raises(ValueError, match="expected 40x30 as calibrated, got 20x15"):
        register_depth(np.ones((15, 20), np.float32), camera, camera, np.eye(4))
