# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The tabletop segmenter on scenes with known answers, and on labelled real frames."""

import json

import cv2
import numpy as np
import pytest
from box_world import ROOM, Box, camera, look, seen, table
from numpy.testing import assert_allclose

from seg_perception.config import load_config
from seg_perception.evaluation import average, drop_depth, overlap_table, score_frame
from seg_perception.scene import Frame, Instances, Intrinsics
from seg_perception.segmenters.tabletop import Tabletop, TabletopConfig
from seg_perception.sim import SimCamera

THREE = (
    Box((-0.2, 0.05, 0.0), (0.10, 0.06, 0.20), 1, yaw=20),
    Box((0.05, -0.05, 0.0), (0.08, 0.08, 0.05), 2, yaw=45),
    Box((0.25, 0.15, 0.0), (0.20, 0.12, 0.08), 3, yaw=-10),
)


def overlaps(found: Instances, labels: np.ndarray) -> np.ndarray:
    """Best IoU of each labelled object; as many instances as objects are asserted."""
    table_, _ = overlap_table(found.masks, labels)
    assert len(found) == len(table_), f"{len(found)} instances for {len(table_)} objects"
    return table_.max(axis=1)


@pytest.mark.parametrize("noise", [0.0, 0.0015])
def test_boxes_on_a_table_in_a_room(noise):
    T = camera()
    frame, labels = look((*ROOM, table(), *THREE), T, noise=noise)
    found = Tabletop().segment(frame)
    assert (overlaps(found, labels) > 0.9).all()
    assert found.class_names == ("object",) * 3
    assert (found.class_ids == -1).all()
    assert ((found.scores > 0.5) & (found.scores <= 1)).all()
    assert (found.support_ids == 0).all()
    world = found.supports[0].transformed(T)
    assert_allclose(world.normal, [0, 0, 1], atol=5e-3)
    assert_allclose(world.heights([0.0, 0.0, 0.0]), 0, atol=2e-3)


@pytest.mark.parametrize(
    ("size", "focal", "eye"),
    [
        ((320, 240), 280, (0, -0.75, 0.55)),
        ((848, 480), 610, (0, -0.6, 0.7)),
        ((1280, 720), 920, (0, -1.3, 1.0)),
        ((640, 480), 570, (0, -0.35, 0.3)),
    ],
)
def test_resolutions_and_distances(size, focal, eye):
    intrinsics = Intrinsics(*size, focal, focal, size[0] / 2, size[1] / 2)
    frame, labels = look((*ROOM, table(), *THREE[:2]), camera(eye), intrinsics, noise=0.0015)
    assert (overlaps(Tabletop().segment(frame), labels) > 0.85).all()


@pytest.mark.parametrize("noise", [0.0, 0.001])
@pytest.mark.parametrize(
    "eye", [(0, -1.0, 0.25), (0, -1.2, 0.15), (0, 0, 1.2), (0, -2.2, 1.2)], ids=["low", "grazing", "top", "far"]
)
def test_views_in_which_faces_are_seen_edge_on(eye, noise):
    frame, labels = look((*ROOM, table(), *THREE), camera(eye), noise=noise)
    assert (overlaps(Tabletop().segment(frame), labels) > 0.85).all()


def test_a_camera_held_upside_down():
    T = camera(roll=180)
    frame, labels = look((*ROOM, table(), *THREE), T, noise=0.001)
    frame = seen(frame, gravity=T[:3, :3].T @ [0.0, 0.0, -1.0])  # else the wall might be a table
    assert (overlaps(Tabletop().segment(frame), labels) > 0.9).all()
    frame, labels = look((ROOM[0], table(), *THREE), T, noise=0.001)
    assert (overlaps(Tabletop().segment(frame), labels) > 0.9).all()


def test_stacked_boxes_are_two_objects_and_the_upper_stands_on_the_lower():
    lower, upper = Box((0, 0.05, 0), (0.24, 0.18, 0.10), 1), Box((0.02, 0.06, 0.10), (0.10, 0.10, 0.08), 2, yaw=15)
    T = camera()
    frame, labels = look((*ROOM, table(), lower, upper), T, noise=0.001)
    found = Tabletop().segment(frame)
    assert (overlaps(found, labels) > 0.9).all()
    below, above = np.argsort(found.masks.areas)[::-1]
    heights = [-found.supports[found.support_ids[i]].transformed(T).d for i in (below, above)]
    assert_allclose(heights, [0.0, 0.10], atol=3e-3)


def test_boxes_that_touch_at_an_inner_edge():
    corner = (Box((-0.08, 0.1, 0), (0.16, 0.06, 0.14), 1), Box((0.06, 0.0, 0), (0.06, 0.14, 0.09), 2))
    frame, labels = look((*ROOM, table(), *corner), camera(), noise=0.001)
    assert (overlaps(Tabletop().segment(frame), labels) > 0.85).all()


def test_one_box_seen_on_both_sides_of_another():
    behind, front = Box((0, 0.15, 0), (0.36, 0.08, 0.10), 1), Box((0, -0.1, 0), (0.08, 0.08, 0.24), 2)
    frame, labels = look((*ROOM, table(), behind, front), camera(), noise=0.001)
    assert (overlaps(Tabletop().segment(frame), labels) > 0.85).all()


def test_objects_on_two_tables_and_not_the_furniture_on_the_floor():
    cabinet = Box((1.3, 0.8, -0.75), (0.4, 0.4, 0.6))
    boxes = (
        *ROOM, cabinet, table(size=(0.6, 0.8), at=(-0.4, 0.0)), table(-0.2, (0.6, 0.8), (0.4, 0.0)),
        Box((-0.4, 0.0, 0.0), (0.10, 0.08, 0.12), 1, 30), Box((0.4, 0.0, -0.2), (0.10, 0.08, 0.12), 2, 30),
    )  # fmt: skip
    T = camera((0.0, -1.0, 0.9))
    frame, labels = look(boxes, T, noise=0.001)
    found = Tabletop().segment(frame)
    table_, _ = overlap_table(found.masks, labels)
    assert table_.shape == (2, 2)
    assert (table_.max(axis=1) > 0.85).all()
    for label in (1, 2):
        row = int(table_[label - 1].argmax())
        plane = found.supports[found.support_ids[row]].transformed(T)
        assert_allclose(plane.heights([0.0, 0.0, 0.0 if label == 1 else -0.2]), 0, atol=3e-3)


def test_a_wall_against_the_table_is_no_object():
    wall = Box((0, 0.5, -0.75), (3.0, 0.1, 2.5))
    frame, labels = look((*ROOM, table(size=(1.2, 0.9)), wall, *THREE), camera(), noise=0.001)
    assert (overlaps(Tabletop().segment(frame), labels) > 0.9).all()


def test_an_open_box_and_its_bottom_are_one_object():
    angles = np.radians(np.arange(0, 360, 15))
    staves = [Box((0.08 * np.cos(a), 0.08 * np.sin(a), 0), (0.006, 0.025, 0.07), 1, np.degrees(a)) for a in angles]
    pot = (*staves, Box((0, 0, 0), (0.13, 0.13, 0.004), 1))
    frame, labels = look((*ROOM, table(), *pot), camera(), noise=0.0005)
    assert overlaps(Tabletop().segment(frame), labels) > 0.85


def test_a_thin_book_is_found():
    book = Box((0.0, 0.0, 0.0), (0.21, 0.15, 0.012), 1, yaw=25)
    frame, labels = look((*ROOM, table(), book), camera(), noise=0.0005)
    assert overlaps(Tabletop().segment(frame), labels) > 0.85


def test_scattered_dropout_costs_little():
    frame, labels = look((*ROOM, table(), *THREE), camera(), noise=0.0015)
    holed = seen(frame, depth=drop_depth(frame.depth, 0.2))
    assert (overlaps(Tabletop().segment(holed), labels) > 0.88).all()


def test_a_moving_camera_and_reuse():
    segmenter = Tabletop()
    for angle in np.radians([0, 40, 80, 120, 160]):
        eye = (0.9 * np.sin(angle), -0.9 * np.cos(angle), 0.6)
        frame, labels = look(
            (Box((0, 0, -0.85), (8, 8, 0.1)), table(), *THREE), camera(eye, (0.02, 0.05, 0)), noise=0.001
        )
        assert (overlaps(segmenter.segment(frame), labels) > 0.85).all()


def test_the_robot_is_never_an_object():
    frame, labels = look((*ROOM, table(), *THREE), camera())
    found = Tabletop().segment(seen(frame, ignore=labels == 2))
    assert len(found) == 2
    assert not (found.masks.dense().any(axis=0) & (labels == 2)).any()


def test_frames_without_anything():
    frame, _ = look((*ROOM, table(), *THREE), camera())
    segmenter = Tabletop()
    assert len(segmenter.segment(seen(frame, depth=None))) == 0
    assert len(segmenter.segment(seen(frame, intrinsics=None))) == 0
    for value in (np.nan, 0.0, np.inf, -np.inf, -1.0, 50.0):
        assert len(segmenter.segment(seen(frame, depth=np.full_like(frame.depth, value)))) == 0
    rough = np.random.default_rng(0).uniform(0.3, 3.0, frame.depth.shape).astype(np.float32)
    assert len(segmenter.segment(seen(frame, depth=rough))) == 0
    wall, _ = look((Box((0, 0.5, -1), (8, 0.1, 3)),), camera((0, -0.5, 0.3), (0, 0.5, 0.3)))
    assert len(segmenter.segment(wall)) == 0
    empty, _ = look((*ROOM, table()), camera(), noise=0.0015)
    assert len(segmenter.segment(empty)) == 0
    tiny = Frame(np.zeros((3, 5, 3), np.uint8), np.ones((3, 5), np.float32), Intrinsics(5, 3, 5.0, 5.0, 2.0, 1.0))
    assert len(segmenter.segment(tiny)) == 0


def test_odd_values_within_good_depth():
    frame, labels = look((*ROOM, table(), *THREE), camera())
    depth = frame.depth.copy()
    depth[::7, ::5] = np.inf
    depth[3::7, 2::5] = 0.0
    depth[5::7, 4::5] = -np.inf
    assert (overlaps(Tabletop().segment(seen(frame, depth=depth)), labels) > 0.85).all()


def test_the_shipped_config_is_this_segmenter():
    config = load_config("tabletop")
    assert config.segmenter.plugin == "tabletop"
    assert isinstance(config.segmenter.create(), Tabletop)
    assert config.segmenter.config.support == TabletopConfig().support


@pytest.mark.parametrize("motion", ["still", "moving"])
def test_every_object_of_the_simulated_scene(motion):
    for index in (0, 30) if motion == "moving" else (0,):
        shot = SimCamera(motion=motion, noise="d435").frame(index)
        found = Tabletop().segment(shot.frame)
        table_, _ = overlap_table(found.masks, shot.instances)
        assert table_.shape[0] == 12
        missed = [o.name for o, iou in zip(shot.objects, table_.max(axis=1), strict=True) if iou < 0.5]
        assert len(missed) <= (motion == "moving"), missed
        assert len(found) <= 13


def mosd(data_dir):
    """Name, frame and instances of the labelled frames."""
    folder = data_dir / "mosd"
    meta = json.loads((folder / "meta.json").read_text())
    intrinsics = Intrinsics(*(meta[k] for k in ("width", "height", "fx", "fy", "cx", "cy")))
    for entry in meta["frames"]:
        base = str(folder / "frames" / entry["name"])
        depth = cv2.imread(base + "_depth.png", cv2.IMREAD_UNCHANGED).astype(np.float32) * np.float32(
            meta["depth_scale_to_m"]
        )
        depth[depth == 0] = np.nan
        color = cv2.imread(base + "_rgb.jpg")[..., ::-1].copy()
        yield Frame(color, depth, intrinsics), cv2.imread(base + "_instances.png", cv2.IMREAD_UNCHANGED)


def test_labelled_real_frames(data_dir):
    segmenter = Tabletop()
    whole, holed = [], []
    for frame, truth in mosd(data_dir):
        ignore = ~np.isfinite(frame.depth)
        whole.append(score_frame(segmenter.segment(frame).masks, truth, ignore))
        lossy = seen(frame, depth=drop_depth(frame.depth, 0.2, seed=0))
        holed.append(score_frame(segmenter.segment(lossy).masks, truth, ignore))
    scores, with_dropout = average(whole), average(holed)
    assert (scores["frames"], scores["objects"]) == (45, 112)
    assert scores["weighted_overlap"] > 0.97
    assert scores["f_50"] > 0.98
    assert with_dropout["weighted_overlap"] > 0.97
    assert with_dropout["f_50"] > 0.98


def turned(frame: Frame, truth: np.ndarray, view: str) -> tuple[Frame, np.ndarray]:
    """The frame mirrored, turned by 180 degrees, or with every second pixel left out."""
    pick = {"mirrored": np.s_[:, ::-1], "upside down": np.s_[::-1, ::-1], "half": np.s_[::2, ::2]}[view]
    k = frame.intrinsics
    cx, cy = (k.width - 1 - k.cx, k.cy if view == "mirrored" else k.height - 1 - k.cy)
    new = Intrinsics(k.width, k.height, k.fx, k.fy, cx, cy)
    if view == "half":
        new = Intrinsics(k.width // 2, k.height // 2, k.fx / 2, k.fy / 2, k.cx / 2, k.cy / 2)
    return Frame(frame.color[pick].copy(), frame.depth[pick].copy(), new), truth[pick]


@pytest.mark.parametrize("view", ["mirrored", "upside down", "half"])
def test_real_frames_seen_otherwise(data_dir, view):
    scores = []
    for frame, truth in list(mosd(data_dir))[::5]:
        other, labels = turned(frame, truth, view)
        scores.append(score_frame(Tabletop().segment(other).masks, labels, ~np.isfinite(other.depth)))
    assert average(scores)["weighted_overlap"] > 0.97
    assert average(scores)["f_50"] > 0.97


# Pixels on the objects of the desk, and on what is none: desk, floor, chairs, walls, things behind.
YCBV = {
    "000001": ([(136, 296), (185, 407), (358, 370), (432, 321), (370, 185)],
        [(74, 74), (210, 148), (494, 407), (593, 370)]),
    "000002": ([(268, 148), (348, 259), (447, 321), (274, 370), (163, 360)],
        [(540, 74), (527, 204), (533, 426), (101, 457)]),
    "000003": ([(222, 260), (228, 396), (432, 310)], [(74, 137), (469, 32), (556, 186), (309, 446)]),
    "000004": ([(323, 260), (385, 372), (280, 402)], [(64, 137), (496, 51), (521, 223), (570, 421)]),
    "000005": ([(240, 89), (173, 212), (309, 286), (271, 373)], [(531, 52), (556, 175), (74, 398), (556, 373)]),
}  # fmt: skip


@pytest.mark.parametrize("name", YCBV)
def test_a_real_room(data_dir, name):
    folder = data_dir / "ycbv"
    meta = json.loads((folder / "meta.json").read_text())
    depth = cv2.imread(str(folder / f"frames/{name}_depth.png"), cv2.IMREAD_UNCHANGED).astype(np.float32)
    depth = np.where(depth > 0, depth * np.float32(meta["depth_scale_to_m"]), np.float32(np.nan))
    intrinsics = Intrinsics(*(meta[k] for k in ("width", "height", "fx", "fy", "cx", "cy")))
    frame = Frame(np.zeros((480, 640, 3), np.uint8), depth, intrinsics)
    found = Tabletop().segment(frame)
    labels = found.masks.label_image()
    objects, background = YCBV[name]
    at_objects = [int(labels[y, x]) for x, y in objects]
    at_background = [int(labels[y, x]) for x, y in background]
    assert 0 not in at_objects, at_objects
    assert not any(at_background), at_background
    assert len(set(at_objects)) >= len(objects) - 1  # in 000002 a can leans on another one
    assert len(found) <= len(objects) + 1
    assert found.supports[0].d < 0.8  # m; the floor is 1.3 m from these cameras
