# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Grippers as surfaces and pictures of them at their grasps: where the steel is, in metres and pixels."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose
from table_scene import box, look

from seg_perception.cli import main
from seg_perception.config import load_config
from seg_perception.fusion import fuse
from seg_perception.grasp_view import PAPER, SIDE, VIEWS, grasp_rows, render
from seg_perception.grasping.gripper import load_gripper, shipped_grippers
from seg_perception.grasping.gripper_shape import SIDES, STEM, gripper_triangles
from seg_perception.pipeline import Pipeline
from seg_perception.scene import GraspStatus, Scene
from seg_perception.sim import SimCamera, write_folder

VIEW = look([box((0.10, 0.05, 0.06)), box((0.20, 0.20, 0.05), x=0.3)])


def volume(triangles: np.ndarray) -> float:
    """Inside a closed surface that is wound counterclockwise from outside."""
    return float(np.einsum("ij,ij->", triangles[:, 0], np.cross(triangles[:, 1], triangles[:, 2]))) / 6


@pytest.mark.parametrize("name", shipped_grippers("parallel"))
def test_jaws_are_two_fingers_and_a_palm(name: str) -> None:
    g = load_gripper(name)
    triangles = gripper_triangles(g, 0.04)
    solid = 2 * g.finger_width * g.finger_thickness * g.finger_length + np.prod(g.palm_size)
    assert volume(triangles) == pytest.approx(solid)
    tips = triangles[np.isclose(triangles[..., 2], g.tip_beyond_tcp).all(axis=1)].reshape(-1, 3)
    assert_allclose(np.unique(np.abs(tips[:, 1])), [0.02, 0.02 + g.finger_thickness], atol=1e-12)
    assert_allclose(np.abs(tips[:, 0]), g.finger_width / 2)


@pytest.mark.parametrize("name", shipped_grippers("suction"))
def test_a_cup_is_a_cone_and_a_mount(name: str) -> None:
    g = load_gripper(name)
    triangles = gripper_triangles(g)
    area = SIDES / 2 * np.sin(2 * np.pi / SIDES)  # of a polygon in the unit circle
    r, back = g.cup_radius, min(g.cup_radius, g.body_radius)
    solid = area * (g.body_radius**2 * STEM + g.cup_length * (r * r + r * back + back * back) / 3)
    assert volume(triangles) == pytest.approx(solid)
    assert triangles[..., 2].max() == 0.0


def test_render_shows_the_nearer_one() -> None:
    """A wall of red points at depth 0, a square of steel before its right half, another behind its left half."""
    y, x = np.mgrid[-0.05:0.05:200j, -0.05:0.05:200j]
    wall = np.column_stack([x.ravel(), y.ravel(), np.zeros(x.size)])
    red = np.tile([200.0, 0.0, 0.0], (x.size, 1))

    def square(x0: float, x1: float, z: float) -> list:
        a, b, c, d = ([x0, -0.04, z], [x1, -0.04, z], [x1, 0.04, z], [x0, 0.04, z])
        return [[a, b, c], [a, c, d]]

    steel = np.array(square(0.01, 0.04, -0.02) + square(-0.04, -0.01, 0.02))
    picture = render(wall, red, steel, np.eye(3), np.zeros(3), SIDE / 0.2).astype(int)
    row = picture[SIDE // 2]

    def pixel(metres: float) -> np.ndarray:
        return row[round(SIDE / 2 + metres * SIDE / 0.2)]

    assert pixel(0.09).tolist() == list(PAPER)
    assert pixel(-0.025).tolist() == [200, 0, 0]  # the steel is behind
    assert pixel(0.025)[2] > pixel(0.025)[0] > 0  # the steel is before, and red shines through
    assert pixel(0.045).tolist() == [200, 0, 0]


def test_views_are_rotations() -> None:
    for axes in VIEWS.values():
        assert_allclose(axes @ axes.T, np.eye(3))
        assert np.linalg.det(axes) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def planned() -> tuple[Scene, dict]:
    config = load_config({})
    objects = fuse(VIEW.frame, VIEW.instances, None, (VIEW.table,))
    scene = Scene(VIEW.frame, VIEW.instances, tuple(replace(o, id=i + 1) for i, o in enumerate(objects)), VIEW.table)
    pipeline = Pipeline(None, None, [p.create() for p in config.grasping.planners], config)
    return pipeline.plan(scene), {"robotiq_2f_85": load_gripper("robotiq_2f_85")}


def test_a_strip_per_object_with_the_jaws_beside_it_or_the_reason(planned) -> None:
    scene, grippers = planned
    assert [o.grasp_status for o in scene] == [GraspStatus.FOUND, GraspStatus.NONE]  # one is 20 cm wide
    picture = grasp_rows(scene, [0, 1], grippers)
    strip = len(picture) // 2
    assert picture.shape[1] == SIDE * (1 + len(VIEWS))
    front = picture[:SIDE, SIDE : 2 * SIDE].astype(int)
    steel = (front[..., 2] - front[..., 0] > 40) & (front[..., 2] > 100)
    columns = np.flatnonzero(steel[: SIDE * 3 // 4].any(axis=0))
    fingers = steel.sum(axis=0)[columns]
    assert len(columns) > 0
    assert (fingers > 0).all()
    lower, reason = picture[strip : strip + SIDE, SIDE:], picture[strip + SIDE :]
    assert (lower == PAPER).all()  # nothing to see from three sides
    assert (reason != PAPER).any()


def test_the_command(tmp_path, capsys) -> None:
    write_folder(tmp_path / "frames", SimCamera(320, 240, frames=1, cache=False), 1)
    out = tmp_path / "out"
    arguments = ["grasps", str(tmp_path / "frames"), "--gripper", "franka_hand", "--objects", "2", "--output", str(out)]
    assert main(arguments) == 0
    (path,) = out.glob("*.png")
    assert cv2.imread(str(path)).shape[1] == SIDE * 4
    assert "with grasps" in capsys.readouterr().out
    assert main(["grasps", str(tmp_path / "frames"), "--gripper", "suction_16", "--output", str(out)]) == 1
    line = capsys.readouterr().err
    assert "no planner here works with a SuctionCup (try --set grasping.planners=[suction])" in line
