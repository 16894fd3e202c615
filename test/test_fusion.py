# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Fusion against known truth: sizes, places and axes in metres, and each status provoked."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose
from table_scene import VGA, ball, box, cylinder, look

from seg_perception.fusion import FusionConfig, fuse
from seg_perception.geometry import project, ray_table
from seg_perception.masks import Masks, from_coco, to_coco
from seg_perception.scene import Instances, Intrinsics, Status

ROOT = Path(__file__).resolve().parents[1]


def fused(view, config=None, **changes):
    return fuse(replace(view.frame, **changes), view.instances, config, (view.table,))


def square(size=40, depth=0.5, shape=(120, 160)):
    """A flat patch before nothing: a frame without depth but for a square of `size` px at `depth` m."""
    from seg_perception.scene import Frame

    z = np.full(shape, np.nan, np.float32)
    z[20 : 20 + size, 30 : 30 + size] = depth
    mask = np.zeros(shape, bool)
    mask[20 : 20 + size, 30 : 30 + size] = True
    frame = Frame(np.zeros((*shape, 3), np.uint8), z, Intrinsics(shape[1], shape[0], 150, 150, 80, 60))
    return frame, Instances.from_masks(mask[None])


@pytest.fixture(scope="module")
def view():
    return look([box(TestKnownBox.size, x=0.03, y=0.02, yaw=0.4)])


class TestKnownBox:
    size = (0.10, 0.06, 0.20)

    def test_size_and_height(self, view):
        (obj,) = fused(view)
        assert obj.status == Status.OK
        assert obj.status_text == ""
        assert_allclose(obj.box.size, self.size, atol=0.002)
        assert_allclose(obj.height_above_support, 0.20, atol=0.001)
        assert obj.box_completed
        assert obj.support is view.table

    def test_axes_and_place(self, view):
        (obj,) = fused(view)
        T_world_box = view.T_world_camera @ obj.box.T_camera_box
        assert_allclose(T_world_box[:3, 3], [0.03, 0.02, 0.10], atol=0.0015)
        assert_allclose(T_world_box[:3, 2], [0, 0, 1], atol=1e-6)  # along the support's normal
        assert_allclose(abs(T_world_box[:3, 0] @ [np.cos(0.4), np.sin(0.4), 0]), 1, atol=1e-3)  # x the longer side
        assert_allclose(np.linalg.det(T_world_box[:3, :3]), 1)

    def test_points_lie_on_the_surface_and_project_into_the_mask(self, view):
        (obj,) = fused(view)
        truth = view.true_points(0)
        assert len(obj.points) > 0.9 * len(truth)
        pixels = np.round(project(VGA, obj.points)).astype(int)
        assert (view.labels[pixels[:, 1], pixels[:, 0]] == 1).all()
        assert_allclose(obj.points[:, 2], view.exact[pixels[:, 1], pixels[:, 0]], atol=1e-6)
        assert (obj.colors == view.frame.color[pixels[:, 1], pixels[:, 0]]).all()

    def test_centroid_is_the_mean_of_what_is_seen(self, view):
        (obj,) = fused(view)
        assert_allclose(obj.centroid, view.true_points(0).mean(axis=0), atol=0.001)

    def test_without_support_gravity_sets_the_axes(self, view):
        (obj,) = fuse(view.frame, view.instances)
        assert obj.support is None
        assert np.isnan(obj.height_above_support)
        assert not obj.box_completed
        assert_allclose(obj.box.T_camera_box[:3, 2], -view.frame.gravity, atol=1e-9)
        assert_allclose(obj.box.size, self.size, atol=0.003)

    def test_without_anything_the_smallest_box(self, view):
        (obj,) = fuse(replace(view.frame, gravity=None), view.instances)
        assert_allclose(np.prod(obj.box.size), np.prod(self.size), rtol=0.6)

    def test_distorted_lens(self, view):
        lens = replace(VGA, distortion=(-0.30, 0.10, 0.001, -0.001, 0.0))
        bent = look([box((0.1, 0.06, 0.05), x=-0.20, y=0.17, yaw=0.4)], intrinsics=lens)
        (obj,) = fused(bent)
        assert_allclose(obj.box.size, (0.1, 0.06, 0.05), atol=0.002)
        (wrong,) = fuse(replace(bent.frame, intrinsics=VGA), bent.instances, None, (bent.table,))
        assert np.abs(wrong.box.size - (0.1, 0.06, 0.05)).max() > 0.002  # the test would notice


class TestCompletion:
    """A camera that looks straight down sees a lid; whether the box goes on to the support is the user's to say."""

    view = look([box((0.08, 0.05, 0.06))], eye=(0.001, 0, 0.6), target=(0, 0, 0))

    def test_only_what_is_seen_by_default(self):
        (obj,) = fused(self.view)
        assert not obj.box_completed
        assert obj.box.size[2] < 0.002
        assert_allclose(obj.box.size[:2], [0.08, 0.05], atol=0.002)
        assert_allclose(obj.height_above_support, 0.06, atol=0.001)

    def test_down_to_the_support_when_asked(self):
        (obj,) = fused(self.view, FusionConfig(complete_gap=1.0))
        assert obj.box_completed
        assert_allclose(obj.box.size, [0.08, 0.05, 0.06], atol=0.002)
        assert_allclose((self.view.T_world_camera @ obj.box.T_camera_box)[2, 3], 0.03, atol=0.001)


class TestCovariance:
    def test_sound_and_largest_along_the_ray_for_few_noisy_pixels(self):
        view = look([box((0.03, 0.03, 0.03))], noise=0.002)
        (obj,) = fused(view)
        C = obj.covariance
        assert_allclose(C, C.T)
        assert (np.linalg.eigvalsh(C) > 0).all()
        assert 1e-4 < np.sqrt(np.trace(C)) < 5e-3  # m

    def test_grows_with_distance_squared(self):
        near, far = (square(40, depth)[0] for depth in (0.5, 1.0))
        (a,), (b,) = (fuse(f, square()[1]) for f in (near, far))
        assert_allclose(b.covariance[2, 2] / a.covariance[2, 2], 16, rtol=0.3)


class TestCleaning:
    def test_bleed_onto_the_table_is_cut(self):
        view = look([box((0.10, 0.06, 0.08), yaw=0.3), cylinder(0.03, 0.1, 0.15, 0.05)])
        dense = view.instances.masks.dense().astype(np.uint8)
        wide = np.stack([cv2.dilate(mask, np.ones((7, 7), np.uint8)) for mask in dense])
        for i, obj in enumerate(fuse(view.frame, Instances.from_masks(wide), None, (view.table,))):
            exact = fused(view)[i]
            assert_allclose(obj.box.size, exact.box.size, atol=0.004)
            assert_allclose(obj.centroid, exact.centroid, atol=0.002)
            assert view.table.heights(obj.points).min() > 0.0005

    def test_bleed_onto_a_wall_is_cut_without_a_support(self):
        frame, _instances = square(40, 0.5)
        wall = np.where(np.isfinite(frame.depth), frame.depth, np.float32(0.8))
        wide = np.zeros((1, *wall.shape), bool)
        wide[0, 16:64, 26:74] = True
        (obj,) = fuse(replace(frame, depth=wall), Instances.from_masks(wide))
        assert_allclose(obj.points[:, 2], 0.5)
        assert_allclose(obj.box.size[:2], 39 / 150 * 0.5, atol=1e-3)

    def test_flying_pixels_are_dropped(self):
        frame, instances = square(40, 0.5)
        depth = frame.depth.copy()
        depth[20:60, 69] = np.linspace(0.52, 0.7, 40)  # a column that hangs between object and background
        depth[30, 40] = 0.9
        (obj,) = fuse(replace(frame, depth=depth), instances)
        assert obj.points[:, 2].max() < 0.53
        assert_allclose(obj.box.size[2], 0, atol=0.03)

    def test_a_stray_cluster_is_no_part(self):
        frame, instances = square(40, 0.5)
        depth = frame.depth.copy()
        depth[20:30, 30:40] = 0.75
        (obj,) = fuse(replace(frame, depth=depth), instances)
        assert (obj.points[:, 2] == 0.5).all()

    def test_a_step_in_the_object_is_a_part(self):
        frame, instances = square(40, 0.5)
        depth = frame.depth.copy()
        depth[20:60, 50:70] = 0.54
        (obj,) = fuse(replace(frame, depth=depth), instances)
        assert_allclose(np.unique(obj.points[:, 2]), [0.5, 0.54])

    def test_both_sides_of_an_occluder_are_one_object(self):
        view = look([box((0.20, 0.04, 0.06)), box((0.03, 0.03, 0.12), y=-0.08)])
        rear = fused(view)[0]
        assert_allclose(rear.box.size[0], 0.20, atol=0.003)
        assert rear.occluded_ratio > 0.1
        assert fused(view)[1].occluded_ratio < 0.02

    def test_scattered_dropout_keeps_the_box(self):
        view = look([box((0.10, 0.06, 0.08), yaw=0.3)])
        holes = np.where(np.random.default_rng(1).random(view.exact.shape) < 0.2, np.nan, view.exact).astype(np.float32)
        (obj,) = fused(view, depth=holes)
        assert_allclose(obj.box.size, (0.10, 0.06, 0.08), atol=0.003)
        assert_allclose(obj.valid_depth_ratio, 0.8, atol=0.03)

    def test_ignored_pixels_are_no_object(self):
        frame, instances = square(40, 0.5)
        robot = np.zeros(frame.depth.shape, bool)
        robot[:, :50] = True
        (obj,) = fuse(replace(frame, ignore=robot), instances)
        assert project(frame.intrinsics, obj.points)[:, 0].min() > 49.5
        assert obj.valid_depth_ratio == 1.0

    def test_noise(self):
        sizes = [(0.10, 0.06, 0.20), (0.08, 0.05, 0.04), (0.05, 0.05, 0.03)]
        places = [(-0.15, 0.05, 0.3), (0.05, -0.05, 0.8), (0.10, 0.15, 0.0)]
        view = look([box(size, *place) for size, place in zip(sizes, places, strict=True)], noise=0.0015)
        for i, obj in enumerate(fused(view)):
            assert_allclose(obj.box.size, sizes[i], atol=0.008)
            assert_allclose(obj.centroid, view.true_points(i).mean(axis=0), atol=0.006)


class TestStatus:
    def check(self, depth, status, *words, config=None, instances=None, **changes):
        frame, own = square()
        (obj,) = fuse(replace(frame, depth=depth(frame.depth.copy()), **changes), instances or own, config)
        assert obj.status == status
        for word in words:
            assert word in obj.status_text
        assert "\n" not in obj.status_text
        assert obj.status.has_3d == (len(obj.points) > 0)
        assert np.isfinite(obj.centroid).all() == obj.status.has_3d
        assert np.isfinite(obj.box.size).all()
        return obj

    def test_no_depth_image(self):
        self.check(lambda z: None, Status.NO_DEPTH_IMAGE, "no depth")

    def test_bad_intrinsics(self):
        self.check(lambda z: z, Status.BAD_INTRINSICS, "calibration", intrinsics=None)

    def test_withheld(self):
        reason = {"withheld": Status.NO_TRANSFORM, "withheld_text": "no transform to base"}
        self.check(lambda z: z, Status.NO_TRANSFORM, "no transform to base", **reason)

    def test_no_valid_depth(self):
        self.check(lambda z: z * np.nan, Status.NO_VALID_DEPTH, "1600")
        self.check(lambda z: z * 0, Status.NO_VALID_DEPTH, "1600")

    @pytest.mark.parametrize("nearer", [0.1, -np.inf])
    def test_too_near(self, nearer):
        self.check(lambda z: np.where(z > 0, nearer, z).astype(np.float32), Status.TOO_NEAR, "1600 of 1600", "0.15 m")

    @pytest.mark.parametrize("farther", [2.5, np.inf])
    def test_too_far(self, farther):
        self.check(lambda z: np.where(z > 0, farther, z).astype(np.float32), Status.TOO_FAR, "1600 of 1600", "2 m")

    def test_too_few_points(self):
        def few(z):
            z[24:] = np.nan
            z[:, 35:] = np.nan
            return z

        self.check(few, Status.TOO_FEW_POINTS, "20 pixels with depth", "30 needed")

    def test_nothing_left_after_cleaning(self):
        rng = np.random.default_rng(0)
        noise = lambda z: np.where(z > 0, rng.uniform(0.3, 1.9, z.shape), z).astype(np.float32)  # noqa: E731
        self.check(noise, Status.TOO_FEW_POINTS, "of 1600 pixels with depth")

    def test_empty_mask(self):
        self.check(lambda z: z, Status.EMPTY_MASK, "no pixel", instances=Instances.of(Masks.empty(120, 160, 1)))

    def test_all_ignored(self):
        self.check(lambda z: z, Status.EMPTY_MASK, "1600", "ignore", ignore=np.ones((120, 160), bool))

    def test_partial_for_little_depth(self):
        def third(z):
            z[32:] = np.nan
            return z

        obj = self.check(third, Status.PARTIAL, "30%", config=FusionConfig(min_valid_ratio=0.5))
        assert_allclose(obj.valid_depth_ratio, 0.3)

    def test_partial_at_the_range_limit(self):
        def split(z):
            z[20:40] = 1.99
            z[40:60] = 2.01
            return z

        self.check(split, Status.PARTIAL, "50%", "beyond 2 m")

    def test_partial_at_the_border(self):
        mask = np.zeros((1, 120, 160), bool)
        mask[0, :60, 30:70] = True
        obj = self.check(lambda z: np.full_like(z, 0.5), Status.PARTIAL, "border", instances=Instances.from_masks(mask))
        assert obj.touches_border


def test_one_object_per_instance_always():
    view = look([box((0.05, 0.05, 0.05))])
    assert fuse(view.frame, Instances.empty(480, 640)) == []
    rng = np.random.default_rng(0)
    corners = rng.integers(0, [600, 440], (300, 2))
    crops = [np.ones(rng.integers(1, 40, 2), bool) for _ in range(300)]
    many = Instances.of(Masks.from_crops(480, 640, crops, corners))
    for depth in (view.frame.depth, None, np.full((480, 640), np.nan, np.float32)):
        objects = fuse(replace(view.frame, depth=depth), many, None, (view.table,))
        assert len(objects) == 300


def test_wild_depth_never_breaks_it():
    rng = np.random.default_rng(3)
    values = np.array([np.nan, np.inf, -np.inf, 0, -1, 1e-30, 0.5, 0.7, 3e38], np.float32)
    view = look([box((0.1, 0.1, 0.1)), ball(0.04, 0.2, 0.0)])
    depth = values[rng.integers(0, len(values), view.exact.shape)]
    for obj in fused(view, depth=depth):
        assert np.isfinite(obj.points).all()


def test_noisy_depth_is_averaged_and_exact_depth_left_alone():
    """On a flat face nothing but noise is lost, whose deviation falls to a third; exact depth stays bit for bit."""
    apart = {}
    for noise in (0.002, 0.0):
        view = look([box((0.12, 0.12, 0.05))], eye=(0.0, 0.01, 0.6), noise=noise)
        for smooth in (True, False):
            (obj,) = fused(view, FusionConfig(smooth=smooth))
            apart[noise, smooth] = obj
    top = {key: view.table.heights(obj.points) for key, obj in apart.items()}
    assert 0.3 < np.std(top[0.002, True]) / np.std(top[0.002, False]) < 0.6
    assert abs(np.median(top[0.002, True]) - 0.05) < 0.0002
    assert_allclose(apart[0.0, True].points, apart[0.0, False].points, rtol=0, atol=0)


def test_a_lens_whose_coefficients_send_pixels_nowhere():
    """A rational model may have poles in the picture: such pixels are left out."""
    rng = np.random.default_rng(0)
    for _ in range(1000):
        lens = rng.normal(size=8) * [1, 1, 0.01, 0.01, 1, 1, 1, 1]
        small = Intrinsics(64, 48, 30, 30, 32, 24, tuple(lens))
        camera = Intrinsics(640, 480, 300, 300, 320, 240, tuple(lens))
        if np.isfinite(ray_table(small)).all():
            continue
        nowhere = ~np.isfinite(ray_table(camera)).all(axis=2)
        if nowhere.sum() > 500:
            break
    else:
        pytest.fail("no lens found")
    frame = replace(
        square(shape=(480, 640))[0],
        depth=np.full((480, 640), 0.8, np.float32),
        color=np.zeros((480, 640, 3), np.uint8),
        intrinsics=camera,
        gravity=np.array([0.0, 1.0, 0.0]),
    )
    y, x = np.argwhere(nowhere).mean(axis=0).astype(int)
    masks = np.zeros((2, 480, 640), bool)
    masks[0, max(0, y - 60) : y + 60, max(0, x - 60) : x + 60] = True
    masks[1] = nowhere
    some, none = fuse(frame, Instances.from_masks(masks))
    assert not none.status.has_3d
    for values in (some.points, some.centroid, some.box.size, some.box.T_camera_box):
        assert np.isfinite(values).all()


def test_it_works_in_a_forked_child_too():
    """Threads do not survive a fork, which is how multiprocessing starts processes by default before Python 3.14."""
    code = (
        "import os, signal, sys; sys.path.insert(0, 'test');"
        "from table_scene import box, look; from seg_perception import fusion;"
        "fusion.SHARE = 100; view = look([box((0.05, 0.03, 0.04)), box((0.05, 0.03, 0.04), 0.12)]);"
        "work = lambda: fusion.fuse(view.frame, view.instances, fusion.FusionConfig(threads=2), (view.table,));"
        "work(); child = os.fork();\nif not child: signal.alarm(60); work(); os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_masks_of_another_size_are_refused():
    view = look([box((0.1, 0.1, 0.1))])
    with pytest.raises(ValueError, match="expected 480x640 like the image, got 240x320"):
        fuse(view.frame, Instances.from_masks(np.ones((1, 240, 320), bool)))


def test_the_support_named_by_the_segmenter_wins():
    view = look([box((0.05, 0.05, 0.05), z=0.0)])
    low = replace(view.table, d=view.table.d + 0.10)  # a plane 10 cm below the table
    named = replace(view.instances, supports=(view.table, low), support_ids=np.array([1], np.int32))
    (obj,) = fuse(view.frame, named, None, named.supports)
    assert obj.support is low
    assert_allclose(obj.height_above_support, 0.15, atol=0.001)
    assert not obj.box_completed


def test_threads_share_the_objects_and_change_nothing(monkeypatch):
    places = [(0.09 * i - 0.18, 0.09 * j - 0.09) for i in range(5) for j in range(3)]
    view = look([box((0.05, 0.03, 0.04), x, y, 0.3 * x) for x, y in places], noise=0.001)
    alone = fused(view, FusionConfig(threads=1))
    monkeypatch.setattr("seg_perception.fusion.SHARE", 100)
    for threads in (0, 2, 3, 16):
        for one, other in zip(alone, fused(view, FusionConfig(threads=threads)), strict=True):
            assert other.status == one.status == Status.OK
            np.testing.assert_array_equal(other.points, one.points)
            np.testing.assert_array_equal(other.colors, one.colors)
            np.testing.assert_array_equal(other.box.T_camera_box, one.box.T_camera_box)
            np.testing.assert_array_equal(other.covariance, one.covariance)


@pytest.mark.parametrize("source", ["crops", "runs", "labels", "coco"])
def test_masks_from_anywhere_give_the_same_objects(source):
    """Dense stacks, crops, run lengths and label images all come to the same spans, and so to the same objects."""
    view = look([box((0.10, 0.06, 0.08), yaw=0.3), cylinder(0.03, 0.1, 0.15, 0.05)])
    masks = view.instances.masks
    if source == "crops":
        other = Masks.from_crops(480, 640, [masks.crop(i) for i in range(2)], masks.rois[:, :2])
    elif source == "runs":
        other = Masks.from_counts(480, 640, masks.rois, [masks.counts(i) for i in range(2)])
    elif source == "labels":
        other = Masks.from_label_image(masks.label_image())
    else:
        other = from_coco(to_coco(masks))
    dense = fuse(view.frame, Instances.from_masks(masks.dense()), None, (view.table,))
    for one, same in zip(dense, fuse(view.frame, Instances.of(other), None, (view.table,)), strict=True):
        np.testing.assert_array_equal(same.points, one.points)
        np.testing.assert_array_equal(same.box.size, one.box.size)
