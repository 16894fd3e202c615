# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Fusion and grasps on rendered scenes: how far centroids and visible extents are from the exact surface."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree

from seg_perception.fusion import fuse
from seg_perception.grasping.surroundings import scene_points
from seg_perception.grasping.top_down import TopDown
from seg_perception.masks import Masks
from seg_perception.scene import Collision, Instances
from seg_perception.sim import SimCamera, visible_truth
from seg_perception.support import SupportConfig, find_supports

TOO_WIDE = ("parcel", "book")  # 15 cm both, the gripper opens 8.5 cm
FRAMES = (0, 20, 40)  # of a loop of 60 around the table


@pytest.fixture(scope="module", params=["none", "d435", "kinect"])
def shots(request):
    """Frames with one kind of depth noise: what fusion makes of the exact masks, and the truth."""
    camera = SimCamera(motion="moving", noise=request.param, frames=60, cache=False)
    out = []
    for k in FRAMES:
        taken, exact = camera.frame(k), camera.exact(k)
        instances = Instances.of(Masks.from_label_image(taken.instances, len(taken.objects)))
        supports = find_supports(taken.frame, SupportConfig(), instances.masks)
        objects = fuse(taken.frame, instances, None, supports)
        out.append((request.param, taken, exact, instances, supports, objects))
    return out


def visible(shot):
    """Every object with its exact seen surface, (name, object, mean (3,), points (M, 3))."""
    _, taken, exact, _, _, objects = shot
    for truth, obj in zip(taken.objects, objects, strict=True):
        if truth.pixels >= 200:
            yield (truth.name, obj, *visible_truth(exact, taken.frame.intrinsics, truth.label))


def test_centroids_and_visible_extents(shots):
    limits = {"none": (0.003, 0.004), "d435": (0.006, 0.008), "kinect": (0.009, 0.012)}[shots[0][0]]
    count = 0
    for shot in shots:
        for name, obj, mean, surface in visible(shot):
            assert obj.status.has_3d, (name, obj.status_text)
            extents = np.ptp(surface @ obj.box.T_camera_box[:3, :3], axis=0)
            assert np.linalg.norm(obj.centroid - mean) <= limits[0], name
            assert np.abs(obj.box.size - extents).max() <= limits[1], (name, obj.box.size, extents)
            count += 1
    assert count >= 30


def test_points_are_the_surface_even_under_bleeding_masks(shots):
    """Masks 3 px too wide all round: precision, recall (5 mm) and the 95th percentile of the points' distances."""
    precision, recall, error = [], [], []
    for shot in shots:
        _, taken, _, instances, supports, _ = shot
        wide = [cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8)) for mask in instances.masks.dense()]
        bled = fuse(taken.frame, Instances.from_masks(np.stack(wide)), None, supports)
        for (_, _, _, surface), obj in zip(visible((*shot[:5], bled)), bled, strict=True):
            away = cKDTree(surface).query(obj.points)[0]
            precision.append((away < 0.005).mean())
            recall.append((cKDTree(obj.points).query(surface[::3])[0] < 0.005).mean())
            error.append(np.quantile(away, 0.95))
    assert np.mean(precision) >= 0.97
    assert np.mean(recall) >= 0.95
    assert np.median(error) <= 0.004


def test_what_the_gripper_spans_gets_a_grasp(shots):
    for _, taken, _, instances, _, objects in shots:
        surroundings = scene_points(taken.frame, instances.masks)
        for row, (truth, obj) in enumerate(zip(taken.objects, objects, strict=True)):
            plan = TopDown().plan(obj, surroundings.without(row), taken.frame.gravity, obj.support)
            assert bool(plan.grasps) == (truth.name not in TOO_WIDE), (truth.name, plan.reason)
            for grasp in plan:
                assert grasp.collision == Collision.FREE
                tips = taken.T_world_camera @ grasp.T_camera_grasp @ [0, 0, 0.008, 1]
                assert tips[2] > 0.0  # the table
