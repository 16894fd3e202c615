# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated camera is the truth others are measured against, so it is measured against geometry here."""

from __future__ import annotations

import itertools
import json

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from seg_perception.geometry import invert, project, transform_points, unproject
from seg_perception.scene import Intrinsics
from seg_perception.sim import (
    Rendering,
    SimCamera,
    SimScene,
    color_intrinsics,
    demo_scene,
    look_at,
    random_scene,
    render,
    sensor_depth,
    visible_truth,
    write_folder,
)
from seg_perception.sim.noise import SENSORS
from seg_perception.sim.objects import CATALOGUE, Body, mug
from seg_perception.sim.shapes import Look, box, ellipsoid, lathe

CAMERA = Intrinsics(320, 240, 300.0, 300.0, 159.5, 119.5)
SMALL = color_intrinsics(160, 120)
VIEW = look_at([0.25, -0.5, 0.45], [0.0, 0.0, 0.04])
GRIPPER_OPENING = 0.085  # m


def surface_points(picture: Rendering, label: int, T_world_camera: np.ndarray, body: Body) -> np.ndarray:
    """The seen surface of one body, in its own frame."""
    points = visible_truth(picture, CAMERA, label)[1]
    return transform_points(invert(body.T_world_body) @ T_world_camera, points)


def small_camera(motion: str = "still", **more) -> SimCamera:
    return SimCamera(160, 120, motion, **{"cache": False, **more})


# -- rendering against geometry --------------------------------------------------------------------------------------


def test_plane_is_where_it_is():
    slab = Body("slab", (box((3.0, 3.0, 0.1), Look(), centre=(0, 0, -0.05)),))
    picture = render(SimScene((), (slab,)), CAMERA, VIEW)
    v, u = np.nonzero(np.isfinite(picture.depth))
    assert len(u) == CAMERA.width * CAMERA.height
    heights = transform_points(VIEW, unproject(CAMERA, np.stack([u, v], 1), picture.depth[v, u]))[:, 2]
    assert_allclose(heights, 0.0, atol=1e-6)


def test_nothing_is_nan():
    ball = Body("ball", (ellipsoid((0.05, 0.05, 0.05), Look()),))
    picture = render(SimScene((ball,)), CAMERA, VIEW)
    assert_array_equal(np.isnan(picture.depth), picture.instances == 0)


def test_box_faces():
    body = Body("box", (box((0.10, 0.06, 0.20), Look(), centre=(0, 0, 0.1)),)).at(0.05, 0.02, yaw=33)
    points = surface_points(render(SimScene((body,)), CAMERA, VIEW), 1, VIEW, body) - [0, 0, 0.1]
    outside = np.abs(points) - [0.05, 0.03, 0.10]
    assert_allclose(outside.max(axis=1), 0.0, atol=1e-6)
    assert len(np.unique(outside.argmax(axis=1))) == 3  # top and two sides


def test_ellipsoid_and_cylinder_surfaces():
    lemon = Body("lemon", (ellipsoid((0.04, 0.03, 0.025), Look()),)).at(-0.1, 0.0, yaw=50)
    can = Body("can", (lathe([(0, 0), (0.04, 0), (0.04, 0.12), (0, 0.12)], Look()),)).at(0.08, 0.0, yaw=10)
    picture = render(SimScene((lemon, can)), CAMERA, VIEW)
    on_lemon = surface_points(picture, 1, VIEW, lemon) / [0.04, 0.03, 0.025]
    assert_allclose(np.linalg.norm(on_lemon, axis=1), 1.0, atol=2e-5)
    on_can = surface_points(picture, 2, VIEW, can)
    side = np.abs(np.hypot(on_can[:, 0], on_can[:, 1]) - 0.04) < 1e-6
    lid = np.abs(on_can[:, 2] - 0.12) < 1e-6
    assert (side | lid).all()
    assert side.any()
    assert lid.any()


def test_mug_is_hollow_and_its_handle_has_a_hole():
    cup = mug().at(0.0, 0.0)
    above = look_at([0.0, -1e-4, 0.6], [0.0, 0.0, 0.0])
    picture = render(SimScene((cup,)), CAMERA, above)
    assert_allclose(picture.depth[119:121, 159:161], 0.6 - 0.006, atol=2e-4)  # its floor, not its rim
    beside = look_at([0.0, -0.5, 0.047], [0.0, 0.0, 0.047])
    labels = render(SimScene((cup,)), CAMERA, beside).instances
    hole, handle = project(CAMERA, transform_points(invert(beside), np.array([[0.047, 0, 0.047], [0.0625, 0, 0.047]])))
    assert labels[round(hole[1]), round(hole[0])] == 0
    assert labels[round(handle[1]), round(handle[0])] == 1


def test_labels_are_the_pixels_whose_centre_the_body_covers():
    body = Body("box", (box((0.12, 0.08, 0.06), Look(), centre=(0, 0, 0.03)),)).at(0.0, 0.0, yaw=20)
    labels = render(SimScene((body,)), CAMERA, VIEW).instances
    corners = project(CAMERA, transform_points(invert(VIEW), body.box.corners)).astype(np.float32)
    outline = cv2.convexHull(corners)
    for v, u in itertools.product(range(0, CAMERA.height), range(0, CAMERA.width)):
        distance = cv2.pointPolygonTest(outline, (float(u), float(v)), True)
        if abs(distance) > 1e-3:
            assert (labels[v, u] == 1) == (distance > 0), (u, v, distance)


def test_the_nearest_body_owns_the_pixel():
    scene = demo_scene()
    T = look_at([0.1, -0.6, 0.3])
    whole = render(scene, SMALL, T)
    alone = np.stack([render(SimScene((body,)), SMALL, T).depth for body in scene.objects])
    room = render(SimScene((), scene.furniture), SMALL, T).depth
    layers = np.where(np.isnan(alone), np.inf, alone)
    nearest = np.where(layers.min(axis=0) < room, layers.argmin(axis=0) + 1, 0)
    assert_array_equal(whole.instances, nearest)
    assert_array_equal(whole.depth, np.minimum(layers.min(axis=0), room))


def test_distorted_lens_sees_the_same_box():
    bent = Intrinsics(320, 240, 300.0, 300.0, 159.5, 119.5, (-0.3, 0.1, 0.001, -0.002, 0.0))
    body = Body("box", (box((0.10, 0.06, 0.10), Look(), centre=(0, 0, 0.05)),)).at(-0.16, -0.14, yaw=10)
    picture = render(SimScene((body,)), bent, VIEW)
    v, u = np.nonzero(picture.instances)
    points = transform_points(VIEW, unproject(bent, np.stack([u, v], 1), picture.depth[v, u]))
    outside = np.abs(transform_points(invert(body.box.T_camera_box), points)) - body.box.size / 2
    assert_allclose(outside.max(axis=1), 0.0, atol=1e-5)
    assert abs(np.nonzero(render(SimScene((body,)), CAMERA, VIEW).instances)[1].min() - u.min()) > 3  # px


# -- truth about objects ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", CATALOGUE, ids=lambda make: make.__name__)
def test_true_box_is_tight(make):
    body = make().at(0.02, -0.01, yaw=25)
    low, high = body.bounds
    seen = []
    for eye in (
        [0.3, -0.5, 0.4],
        [-0.4, 0.4, 0.3],
        [0.001, 0.0, 0.7],
        [0.5, 0.01, 0.09],
        [0.0, 0.5, 0.05],
        [-0.5, 0.02, 0.05],
    ):
        T = look_at(eye, [0.02, -0.01, 0.05])
        seen.append(surface_points(render(SimScene((body,)), CAMERA, T), 1, T, body))
    points = np.concatenate(seen)
    assert (points >= low - 1e-6).all()
    assert (points <= high + 1e-6).all()
    assert_allclose(points.max(axis=0), high, atol=2.5e-3)  # a pixel is 1.7 mm there
    assert_allclose(points.min(axis=0)[:2], low[:2], atol=2.5e-3)
    assert_allclose(body.lowest, 0.0, atol=1e-12)


def test_frame_truth_is_in_the_camera_frame():
    camera = small_camera("moving", noise="none")
    shot = camera.frame(9)
    for truth, body in zip(shot.objects, camera.scene.objects, strict=True):
        assert truth.name == body.name
        assert truth.pixels == (shot.instances == truth.label).sum()
        assert_allclose(shot.T_world_camera @ truth.T_camera_object, body.T_world_body, atol=1e-12)
        points = visible_truth(camera.exact(9), camera.intrinsics, truth.label)[1]
        local = transform_points(invert(truth.box.T_camera_box), points)
        assert (np.abs(local) <= truth.box.size / 2 + 1e-6).all(), truth.name
    up = -shot.frame.gravity
    assert_allclose(shot.T_world_camera[:3, :3] @ up, [0, 0, 1], atol=1e-12)


def test_demo_scene_has_what_it_promises():
    scene = demo_scene()
    assert 8 <= len(scene.objects) <= 12
    widths = {b.name: np.sort(b.box.size[:2])[0] for b in scene.objects}
    assert sum(w > GRIPPER_OPENING for w in widths.values()) >= 1
    assert sum(w < GRIPPER_OPENING for w in widths.values()) >= 8
    tops = {b.name: b.box.corners[:, 2].max() for b in scene.objects}
    assert_allclose(scene.objects[scene.label("tea") - 1].lowest, tops["parcel"], atol=1e-12)
    for motion in ("still", "moving"):
        camera = SimCamera(320, 240, motion, noise="none", cache=False)
        for k in range(0, 60, 6):
            shot = camera.frame(k)
            assert all(o.pixels > 150 for o in shot.objects), [(k, o.name, o.pixels) for o in shot.objects]
            rim = np.concatenate([shot.instances[[0, -1]].ravel(), shot.instances[:, [0, -1]].ravel()])
            assert rim.max() == 0, k  # nothing is cut off by the picture's edge
            assert (shot.frame.depth > 2.0).mean() > 0.02  # floor and wall behind the table


def test_random_scenes_stand_apart_on_the_table():
    for seed in range(5):
        scene = random_scene(seed, objects=9, stacked=1, gap=0.01)
        *standing, top = scene.objects
        assert len({b.name for b in scene.objects}) == 9
        assert_allclose([b.lowest for b in standing], 0.0, atol=1e-12)
        assert top.lowest > 0.02
        for a, b in itertools.combinations(standing, 2):
            hulls = [cv2.convexHull(body.box.corners[:, :2].astype(np.float32)) for body in (a, b)]
            assert cv2.intersectConvexConvex(*hulls)[0] == 0, (seed, a.name, b.name)
    assert scene.description == random_scene(4, objects=9, stacked=1, gap=0.01).description
    with pytest.raises(ValueError, match=r"only \d+ fit"):
        random_scene(0, objects=60)


# -- sensor noise ----------------------------------------------------------------------------------------------------


def wall(z: float) -> np.ndarray:
    return np.full((CAMERA.height, CAMERA.width), z, np.float32)


def test_noise_grows_with_the_square_of_depth():
    deviation = [np.nanstd(sensor_depth(wall(z), CAMERA, 3)) for z in (1.0, 2.0, 4.0)]
    sensor = SENSORS["d435"]
    assert_allclose(
        deviation, [z * z * sensor.subpixel / (sensor.focal * sensor.baseline) for z in (1, 2, 4)], rtol=0.15
    )
    assert_allclose(np.nanmean(sensor_depth(wall(1.0), CAMERA, 3)), 1.0, atol=5e-4)


def test_disparity_comes_in_steps():
    sensor = SENSORS["kinect"]
    values = np.unique(sensor_depth(wall(3.0), CAMERA, 0, "kinect"))
    values = values[np.isfinite(values)]
    steps = sensor.focal * sensor.baseline / values / sensor.step
    assert len(values) > 3
    assert_allclose(values, sensor.focal * sensor.baseline / (np.round(steps) * sensor.step), atol=0.00051)
    assert np.diff(values).min() > 0.015  # at 3 m a step of 1/8 px is 26 mm
    assert_allclose(values * 1000, np.round(values * 1000), atol=1e-3)  # whole millimetres


@pytest.mark.parametrize(("model", "side"), [("d435", -1), ("kinect", 1)])
def test_near_things_throw_a_shadow_of_missing_depth(model, side):
    depth = wall(1.2)
    depth[60:180, 140:180] = 0.6
    measured = sensor_depth(depth, CAMERA, 0, model)
    lost = np.isnan(measured[80:160])
    width = CAMERA.fx * SENSORS[model].baseline * (1 / 0.6 - 1 / 1.2)
    shadow = slice(round(140 - width), 140) if side < 0 else slice(180, round(180 + width))
    other = slice(182, 230) if side < 0 else slice(90, 138)
    assert lost[:, shadow].mean() > 0.85  # what is left is fattened or flying edge
    assert lost[:, other].mean() < 0.05


def test_grazing_surfaces_are_lost_and_ranges_kept():
    tilted = Body("slab", (box((30.0, 30.0, 0.1), Look(), centre=(0, 0, -0.05)),))
    scene = SimScene((), (tilted,))
    steep = render(scene, CAMERA, look_at([0, -0.5, 0.5], [0, 0, 0])).depth
    flat = render(scene, CAMERA, look_at([0, -1.0, 0.06], [0, -0.6, 0.0])).depth
    assert np.isnan(sensor_depth(steep, CAMERA, 0)).mean() < 0.01
    middle = sensor_depth(flat, CAMERA, 0)[115:125]  # seen at 8 degrees
    assert np.isnan(middle).mean() > 0.5
    assert np.isnan(sensor_depth(wall(0.2), CAMERA, 0)).all()
    assert np.isnan(sensor_depth(wall(7.0), CAMERA, 0)).all()


def test_no_noise_is_no_noise():
    depth = wall(1.0)
    depth[0, 0] = np.nan
    assert_array_equal(sensor_depth(depth, CAMERA, 0, "none"), depth)
    with pytest.raises(ValueError, match="d435"):
        sensor_depth(depth, CAMERA, 0, "lidar")


# -- the camera's loop -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1280, 720)])
def test_both_resolutions(width, height):
    shot = SimCamera(width, height, cache=False).frame(0)
    assert shot.frame.color.shape == (height, width, 3)
    assert shot.frame.depth.shape == shot.instances.shape
    assert_array_equal(np.unique(shot.instances), np.arange(13))
    parcel = shot.objects[shot_label(shot, "parcel")]
    corners = project(shot.frame.intrinsics, parcel.box.corners)
    u = np.nonzero(shot.instances == parcel.label)[1]
    assert_allclose([u.min(), u.max()], [corners[:, 0].min(), corners[:, 0].max()], atol=1.5)
    assert 0.9 < np.isfinite(shot.frame.depth).mean() < 0.99


def shot_label(shot, name: str) -> int:
    return [o.name for o in shot.objects].index(name)


@pytest.mark.parametrize("motion", ["still", "moving"])
def test_sixty_frames_differ_and_the_loop_closes(motion):
    camera = small_camera(motion, noise="none")
    assert len(camera) == 60
    frames = [camera.frame(k) for k in range(60)]
    pictures = np.stack([f.frame.color for f in frames]).astype(np.int16)
    assert len({f.frame.color.tobytes() for f in frames}) == 60
    steps = np.abs(np.diff(np.concatenate([pictures, pictures[:1]]), axis=0)).mean(axis=(1, 2, 3))
    assert steps[-1] < 1.5 * steps[:-1].max()  # from the last frame to the first it moves on as before
    poses = np.stack([f.T_world_camera for f in frames])
    assert_array_equal(camera.frame(60).T_world_camera, poses[0])
    moves = np.linalg.norm(np.diff(np.concatenate([poses, poses[:1]]), axis=0)[:, :3, 3], axis=1)
    if motion == "moving":
        assert moves.min() > 1e-4
        assert moves.max() < 0.06
        assert np.ptp(poses[:, :3, 3], axis=0)[0] > 0.4
    else:
        assert moves.max() == 0.0


def test_in_a_still_loop_only_some_things_move():
    camera = small_camera(noise="none")
    first, later = camera.frame(0), camera.frame(15)
    moved = {
        a.name
        for a, b in zip(first.objects, later.objects, strict=True)
        if abs(a.T_camera_object - b.T_camera_object).max() > 1e-9
    }
    assert moved == {"mug", "ball", "soup_can"}


def test_same_arguments_same_frames():
    a, b, c = small_camera(seed=1).frame(3), small_camera(seed=1, threads=1).frame(3), small_camera(seed=2).frame(3)
    assert_array_equal(a.frame.color, b.frame.color)
    assert_array_equal(a.frame.depth, b.frame.depth)
    assert (a.frame.depth != c.frame.depth).mean() > 0.2
    assert_array_equal(a.instances, c.instances)


def test_cache_gives_the_same_frames_and_survives_damage(tmp_path):
    fresh = small_camera().frame(0)
    small_camera(cache=tmp_path).frame(0)
    (file,) = tmp_path.rglob("*.*")
    whole = file.read_bytes()
    kept = small_camera(cache=tmp_path)
    kept.exact = lambda k: pytest.fail("rendered although it was kept")
    assert_array_equal(kept.frame(0).frame.color, fresh.frame.color)
    assert_array_equal(kept.frame(0).frame.depth, fresh.frame.depth)
    assert_array_equal(kept.frame(0).instances, fresh.instances)
    middle = len(whole) // 2
    for damaged in (b"", b"no picture", whole[:middle], whole[:middle] + b"\0\1\2\3" + whole[middle + 4 :]):
        file.write_bytes(damaged)
        assert_array_equal(small_camera(cache=tmp_path).frame(0).frame.color, fresh.frame.color)
        assert file.read_bytes() == whole  # mended


def test_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.warns(RuntimeWarning, match="not kept"):
        assert small_camera(cache=tmp_path / "file" / "cache").frame(0).frame.color.any()


def test_background_rendering_fills_the_loop():
    camera = small_camera(frames=4)
    assert camera.ready == 0
    camera.start()
    camera.frame(3)
    camera.wait()
    assert camera.ready == 4
    camera.stop()


def test_folder_holds_the_frames(tmp_path):
    camera = small_camera("moving", frames=3)
    write_folder(tmp_path, camera, 2)
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert (meta["width"], meta["height"], len(meta["frames"])) == (160, 120, 2)
    name = meta["frames"][1]["name"]
    shot = camera.frame(1)
    color, depth, instances = (
        cv2.imread(str(tmp_path / "frames" / f"{name}_{kind}.png"), cv2.IMREAD_UNCHANGED)
        for kind in ("rgb", "depth", "instances")
    )
    assert depth.dtype == np.uint16
    assert_array_equal(color[..., ::-1], shot.frame.color)
    assert_array_equal(instances, shot.instances)
    assert_allclose(depth * meta["depth_scale_to_m"], np.nan_to_num(shot.frame.depth), atol=5.1e-5)
    assert_allclose(meta["frames"][1]["T_world_camera"], shot.T_world_camera)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="motion: expected one of still, moving"):
        SimCamera(motion="fast")
    with pytest.raises(ValueError, match="noise: expected one of none"):
        SimCamera(noise="lidar")
    with pytest.raises(ValueError, match="frames: expected at least 1, got 0"):
        SimCamera(frames=0)
