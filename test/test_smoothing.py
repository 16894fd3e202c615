# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""3D of objects at rest is steadier than a frame's, and nothing that moves is held back."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from seg_perception.geometry import transform
from seg_perception.scene import Frame, Grasp, GraspKind, Intrinsics, Object3D, OrientedBox, Status
from seg_perception.smoothing import Smoother, SmoothingConfig

FRAME = Frame(np.zeros((48, 64, 3), np.uint8), None, Intrinsics(64, 48, 60.0, 60.0, 32.0, 24.0))
CONFIG = SmoothingConfig()


def turn(yaw):
    """About the view, deg."""
    return Rotation.from_euler("z", yaw, degrees=True).as_matrix()


def thing(at=(0.0, 0.0, 0.6), yaw=0.0, size=(0.06, 0.10, 0.04), points=None, grasps=()):
    """An object with its box at `at` m, turned by `yaw` deg about the view."""
    T = transform(turn(yaw), at)
    cloud = np.zeros((0, 3)) if points is None else points
    return Object3D(
        Status.OK,
        points=cloud.astype(np.float32),
        centroid=np.array(at, float),
        covariance=np.eye(3) * 1e-8,
        box=OrientedBox(T, np.array(size)),
        id=7,
        grasps=grasps,
    )


def smoothed(objects, config=CONFIG, frames=None):
    smoother = Smoother()
    return [smoother.smooth(f, [o], config)[0] for f, o in zip(frames or [FRAME] * len(objects), objects, strict=True)]


def yaw_of(obj):
    return np.rad2deg(np.arctan2(obj.box.T_camera_box[1, 0], obj.box.T_camera_box[0, 0]))


def test_noise_of_a_thing_at_rest_is_averaged():
    rng = np.random.default_rng(0)
    noisy = [
        thing(rng.normal((0, 0, 0.6), 0.0005), rng.normal(0, 1.0), rng.normal((0.06, 0.1, 0.04), 0.0008))
        for _ in range(200)
    ]
    steady = smoothed(noisy)
    for value in (lambda o: o.centroid, lambda o: o.box.size, lambda o: o.box.T_camera_box[:3, 3], yaw_of):
        before, after = (np.std([value(o) for o in objects], axis=0) for objects in (noisy, steady))
        assert (after < 0.6 * before).all()  # five frames of independent noise: 0.45
        assert_allclose(np.mean([value(o) for o in steady], axis=0), value(thing()), atol=0.15)
    R = np.array([o.box.T_camera_box[:3, :3] for o in steady])
    assert_allclose(R @ R.transpose(0, 2, 1), np.broadcast_to(np.eye(3), R.shape), atol=1e-9)


def test_what_moves_is_where_it_was_measured():
    far = CONFIG.reset_distance * 1.5
    for step in (far, far * 4):
        moving = [thing((i * step, 0, 0.6)) for i in range(10)]
        for before, after in zip(moving, smoothed(moving), strict=True):
            assert_allclose(after.centroid, before.centroid)
    creeping = [thing((i * 0.0005, 0, 0.6)) for i in range(40)]
    lag = max(np.linalg.norm(a.centroid - b.centroid) for a, b in zip(creeping, smoothed(creeping), strict=True))
    assert 0 < lag <= CONFIG.reset_distance
    turned = [thing(yaw=y) for y in (0, 0, 0, 25, 25)]
    assert yaw_of(smoothed(turned)[3]) == pytest.approx(25)
    grown = [thing(size=s) for s in ((0.06, 0.1, 0.04), (0.06, 0.1, 0.04), (0.06, 0.1, 0.08))]
    assert smoothed(grown)[2].box.size[2] == pytest.approx(0.08)


def test_a_quarter_turn_is_the_same_box():
    found = smoothed([thing(size=(0.06, 0.063, 0.04)), thing(yaw=91, size=(0.063, 0.06, 0.04)), thing(yaw=179)])
    assert abs(yaw_of(found[1])) < 1
    assert_allclose(found[1].box.size, (0.06, 0.063, 0.04), atol=1e-9)


def test_a_round_thing_does_not_spin():
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    lid = np.stack([0.04 * np.cos(angles), 0.04 * np.sin(angles), np.full(400, 0.6)], axis=1)
    spinning = [thing(yaw=y, size=(0.08, 0.08, 0.0), points=lid) for y in (0, 31, -40, 15)]
    for obj in smoothed(spinning):
        assert abs(yaw_of(obj)) < 1e-6
        assert_allclose(obj.box.size[:2], 0.08, atol=1e-3)
    bar = lid * (0.3, 1, 1)
    turned = smoothed([thing(yaw=y, size=(0.024, 0.08, 0.0), points=bar @ turn(y).T) for y in (0, 31)])
    assert yaw_of(turned[1]) == pytest.approx(31)  # not round: it was turned


def test_a_camera_that_moves_sees_the_same_place():
    rng = np.random.default_rng(1)
    poses = [transform(translation=[0.1 * i, 0, 0]) for i in range(30)]
    frames = [replace(FRAME, T_fixed_camera=T) for T in poses]
    noisy = [thing(rng.normal((0, 0, 0.6), 0.0005) - T[:3, 3]) for T in poses]
    fixed = np.array([o.centroid + T[:3, 3] for o, T in zip(smoothed(noisy, frames=frames), poses, strict=True)])
    assert (fixed[5:].std(axis=0) < 0.0004).all()


def test_one_frame_is_no_average_and_other_ids_are_apart():
    noisy = [thing((0.001 * i, 0, 0.6)) for i in range(3)]
    assert all(a is b for a, b in zip(smoothed(noisy, SmoothingConfig(frames=1)), noisy, strict=True))
    smoother = Smoother()
    smoother.smooth(FRAME, [thing()], CONFIG)
    other = replace(thing((0.001, 0, 0.6)), id=8)
    assert smoother.smooth(FRAME, [other], CONFIG)[0] is other
    without = Object3D(Status.NO_VALID_DEPTH, id=7)
    assert smoother.smooth(FRAME, [without], CONFIG)[0] is without
    smoother.reset()
    again = thing((0.001, 0, 0.6))
    assert smoother.smooth(FRAME, [again], CONFIG)[0] is again


def grasp(x=0.0, yaw=0.0, score=0.9):
    T = transform(turn(yaw), [x, 0, 0.6])
    return Grasp(T, 0.05, score, GraspKind.PARALLEL_JAW)


def test_the_best_grasp_stays_while_it_is_nearly_the_best():
    smoother = Smoother()

    def best(*grasps):
        objects = smoother.smooth(FRAME, [thing(grasps=grasps)], CONFIG)
        return smoother.steady(objects, CONFIG)[0].grasps

    a, b = grasp(0.0), grasp(0.0, yaw=90)
    assert best(a, b)[0] is a
    better = replace(b, score=0.93)
    assert best(better, a) == (a, better)  # within the margin
    turned = grasp(0.004, yaw=183, score=0.9)
    assert best(better, turned)[0] is turned  # the fingers exchanged: the same grasp
    much_better = replace(b, score=0.97)
    assert best(much_better, a)[0] is much_better
    assert best(better, a)[0] is better  # and that one stays now
