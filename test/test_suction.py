# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Suction grasps of known solids: where the cup seals, from where it comes, what stops it. World: z up, metres."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from table_scene import View, ball, box, cylinder, in_world, look, plan_on

from seg_perception.fusion import fuse
from seg_perception.geometry import transform_points
from seg_perception.grasping.gripper import SuctionCup, load_cup, load_gripper, shipped_grippers
from seg_perception.grasping.suction import Suction
from seg_perception.grasping.surroundings import scene_points
from seg_perception.grasping.weight import columns
from seg_perception.plugins import GraspPlanner
from seg_perception.scene import Collision, GraspKind, Object3D, Status

CUP = load_cup("suction_16")
CHOICE = ["suction_6", "suction_10", "suction_16"]


def plan(view: View, row: int = 0, **config):
    return plan_on(view, row, Suction(replace(Suction.Config(), **config)))


class TestBox:
    """A box of 10 x 5 x 6 cm whose top is at 0.06 m."""

    view = look([box((0.10, 0.05, 0.06), x=0.05, y=0.03, yaw=0.5)])

    def test_flat_on_the_top_near_the_middle(self):
        best = plan(self.view)[0]
        T = in_world(self.view, best)
        assert_allclose(T[:2, 3], [0.05, 0.03], atol=0.01)
        assert_allclose(T[2, 3], 0.06, atol=0.002)
        assert_allclose(T[:3, 2], [0, 0, -1], atol=0.03)
        assert_allclose(T[:3, 0], np.cross(T[:3, 1], T[:3, 2]), atol=1e-9)

    def test_every_field(self):
        best = plan(self.view)[0]
        assert best.kind == GraspKind.SUCTION
        assert (best.planner, best.gripper, best.width) == ("suction", "suction_16", 0.0)
        assert 0.5 < best.score <= 1
        assert best.max_force == CUP.max_force
        assert_allclose(best.contacts[0], best.T_camera_grasp[:3, 3])
        assert_allclose(best.normals[0], -best.T_camera_grasp[:3, 2], atol=0.05)
        assert np.isnan(best.contacts[1]).all()
        assert best.collision == Collision.FREE
        assert_allclose(self.view.T_world_camera[:3, :3] @ best.retreat_direction, [0, 0, 1], atol=1e-9)

    def test_the_lip_stays_on_the_face(self):
        """No part of the lip beyond the edges of the face it is on, all grasps of it."""
        for grasp in plan(self.view):
            T = in_world(self.view, grasp)
            turn = np.linspace(0, 2 * np.pi, 16)
            rim = transform_points(T, CUP.cup_radius * np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1))
            c, s = np.cos(0.5), np.sin(0.5)
            local = (rim - [0.05, 0.03, 0.03]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
            assert (np.abs(local) < np.array([0.05, 0.025, 0.03]) + 0.002).all()

    def test_best_first_and_distinct(self):
        grasps = plan(self.view)
        scores = [g.score for g in grasps]
        assert scores == sorted(scores, reverse=True)
        places = np.array([g.T_camera_grasp[:3, 3] for g in grasps])
        apart = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(len(places))
        assert apart.min() >= 0.015

    def test_same_bits_in_two_processes(self):
        code = """
import sys; sys.path.insert(0, "test")
from test_suction import CHOICE, TestBox, plan
print([(g.T_camera_grasp.tobytes().hex(), g.score.hex(), g.gripper) for g in plan(TestBox.view, gripper=CHOICE)])
"""
        a, b = (subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in "ab")
        assert a.stdout == b.stdout
        assert len(a.stdout) > 100

    def test_without_scene_points_collision_is_unknown(self):
        (obj,) = fuse(self.view.frame, self.view.instances, None, (self.view.table,))
        grasp = Suction().plan(obj, np.empty((0, 3)), self.view.frame.gravity, obj.support)[0]
        assert grasp.collision == Collision.UNKNOWN
        assert np.isnan(grasp.clearance)


class TestSeal:
    def test_a_large_ball_seals_a_small_one_does_not(self):
        assert len(plan(look([ball(0.04)])))
        answer = plan(look([ball(0.012)]), gripper="suction_20")
        assert not len(answer)
        assert "beyond the edge" in answer.reason or "too curved" in answer.reason

    @pytest.mark.parametrize(("cup", "seals"), [("suction_10", True), ("suction_40", False)])
    def test_the_wall_of_a_can_seals_under_a_small_lip_only(self, cup, seals):
        """Radius 25 mm: a lip of 5 mm gaps by 0.25 mm between its sides, one of 20 mm by 4 mm. Low: a tall can is too
        heavy for the small one."""
        view = look([cylinder(0.025, 0.05)], eye=(0, -0.6, 0.3))
        walls = [g for g in plan(view, gripper=cup) if in_world(view, g)[2, 2] > -0.5]
        assert bool(walls) == seals

    def test_too_small_for_the_cup(self):
        answer = plan(look([box((0.015, 0.015, 0.05))]), gripper="suction_40")
        assert not len(answer)
        assert "beyond the edge" in answer.reason

    def test_steeper_than_allowed(self):
        """Of a cylinder's wall only what leans less than the limit is taken: its lid."""
        view = look([cylinder(0.035, 0.06)], eye=(0, -0.6, 0.3))
        assert any(in_world(view, g)[2, 2] > -0.5 for g in plan(view, max_approach_angle=90))
        assert all(in_world(view, g)[2, 2] < -0.85 for g in plan(view, max_approach_angle=30))


class TestChoice:
    def test_a_thin_rod_takes_the_small_cup_and_a_heavy_box_the_large_one(self):
        rod = look([box((0.10, 0.012, 0.012))])
        assert plan(rod, gripper=CHOICE)[0].gripper == "suction_6"
        assert plan(look([box((0.08, 0.08, 0.08))]), gripper=CHOICE)[0].gripper == "suction_16"

    def test_a_list_and_names_with_commas_are_the_same(self):
        view = TestBox.view
        a, b = (plan(view, gripper=choice) for choice in (CHOICE, "suction_6, suction_10,suction_16"))
        assert [g.T_camera_grasp.tobytes() for g in a] == [g.T_camera_grasp.tobytes() for g in b]

    def test_a_choice_is_of_cups(self):
        with pytest.raises(ValueError, match="expected a suction cup"):
            Suction(Suction.Config(gripper=["suction_6", "robotiq_2f_85"]))
        with pytest.raises(ValueError, match="empty list"):
            Suction(Suction.Config(gripper=[]))


class TestWeight:
    def test_the_columns_of_a_box_are_the_box(self):
        """6 x 4 x 5 cm at x = 0.1 m: its top and two sides are seen."""
        view = look([box((0.06, 0.04, 0.05), x=0.1)])
        (obj,) = fuse(view.frame, view.instances, None, (view.table,))
        volume, middle = columns(np.asarray(obj.points, np.float64), -view.frame.gravity)
        assert_allclose(volume, 0.06 * 0.04 * 0.05, rtol=0.2)
        assert_allclose(transform_points(view.T_world_camera, middle)[:2], [0.1, 0.0], atol=0.004)

    def test_the_weight_of_an_l_lies_towards_its_longer_leg(self):
        level = np.mgrid[0:0.1:0.002, 0:0.1:0.002].reshape(2, -1).T
        legs = level[(level[:, 0] < 0.02) | (level[:, 1] < 0.02) & (level[:, 0] < 0.05)]
        points = np.concatenate([np.column_stack([legs, np.full(len(legs), z)]) for z in (0.0, 0.03)])
        _, middle = columns(points, np.array([0.0, 0.0, 1.0]))
        assert_allclose(middle[:2], legs.mean(axis=0), atol=0.002)


class TestNeighbours:
    def test_something_above_blocks(self):
        view = look([box((0.06, 0.06, 0.05)), box((0.30, 0.30, 0.02), y=0.08, z=0.10)], eye=(0, -0.5, 0.3))
        for grasp in plan(view):
            assert in_world(view, grasp)[2, 2] > -0.7  # from the side only

    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 10**6))
    def test_never_into_a_neighbour_or_the_table_never_from_below(self, seed):
        rng = np.random.default_rng(seed)
        solids = [
            box(tuple(rng.uniform(0.03, 0.1, 3)), *rng.uniform(-0.1, 0.1, 2), rng.uniform(0, 3)) for _ in range(5)
        ]
        view = look(solids, eye=(rng.uniform(-0.3, 0.3), -0.4, 0.6), noise=0.001 * rng.integers(2))
        surroundings = scene_points(view.frame, view.instances.masks)
        for row, obj in enumerate(fuse(view.frame, view.instances, None, (view.table,))):
            others = surroundings.without(row)
            planner = Suction(Suction.Config(gripper=CHOICE))
            for grasp in planner.plan(obj, others, view.frame.gravity, obj.support):
                cup = load_cup(grasp.gripper)
                T = in_world(view, grasp)
                assert T[2, 2] < 0.0
                assert 0 <= grasp.score <= 1
                local = transform_points(
                    np.linalg.inv(grasp.T_camera_grasp), others[view.table.heights(others) > 0.004]
                )
                aside = np.hypot(local[:, 0], local[:, 1])
                assert not ((aside < cup.cup_radius) & (local[:, 2] < 0)).any()
                assert not ((aside < cup.body_radius) & (local[:, 2] < -cup.cup_length)).any()
                turn = np.linspace(0, 2 * np.pi, 16)
                circle = np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)
                lip = transform_points(T, cup.cup_radius * circle)
                body = transform_points(T, cup.body_radius * circle - [0, 0, cup.cup_length])
                assert np.concatenate([lip, body])[:, 2].min() > -0.002


class TestDegenerate:
    obj = Object3D(
        Status.OK,
        points=np.random.default_rng(0)
        .uniform([-0.02, -0.02, 0.50], [0.02, 0.02, 0.5001], (900, 3))
        .astype(np.float32),
    )
    down = np.array([0.0, 0.0, 1.0])

    def test_a_patch_without_anything_else(self):
        best = Suction().plan(self.obj, np.empty((0, 3)), self.down)[0]
        assert_allclose(best.T_camera_grasp[:3, 2], [0, 0, 1], atol=0.01)

    def test_no_points(self):
        answer = Suction().plan(Object3D(Status.NO_VALID_DEPTH), np.empty((0, 3)), self.down)
        assert (len(answer), answer.reason) == (0, "0 points, at least 12 needed")

    def test_nan_points_are_left_out(self):
        points = self.obj.points.copy()
        points[::3] = np.nan
        for grasp in Suction().plan(replace(self.obj, points=points), np.full((50, 3), np.nan), self.down):
            assert np.isfinite(grasp.T_camera_grasp).all()

    @pytest.mark.parametrize("gravity", [[0, 0, 0], [np.nan, 0, 1]])
    def test_bad_gravity(self, gravity):
        with pytest.raises(ValueError, match="gravity"):
            Suction().plan(self.obj, np.empty((0, 3)), np.array(gravity, float))

    def test_jaws_are_no_cup(self):
        with pytest.raises(ValueError, match=r"'franka_hand': expected a suction cup .* got parallel jaws"):
            Suction(Suction.Config(gripper="franka_hand"))

    def test_is_a_planner(self):
        assert isinstance(Suction(), GraspPlanner)


OWN = {"kind": "suction", "cup_radius": 0.01, "cup_length": 0.02, "body_radius": 0.012}


class TestCups:
    @pytest.mark.parametrize("name", shipped_grippers("suction"))
    def test_shipped(self, name):
        cup = load_gripper(name)
        assert isinstance(cup, SuctionCup)
        assert cup.name == name
        assert_allclose(cup.max_force, 50e3 * np.pi * cup.cup_radius**2, rtol=0.02)  # 0.5 bar over its area

    def test_mapping_and_path(self, tmp_path):
        cup = load_cup(OWN)
        assert (cup.cup_radius, cup.cup_length, cup.body_radius, cup.max_tilt) == (0.01, 0.02, 0.012, 0.2)
        path = tmp_path / "mine.yaml"
        path.write_text("kind: suction\ncup_radius: 0.01\ncup_length: 0.02\nbody_radius: 0.012\n")
        assert load_cup(path) == replace(cup, name="mine")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"kind": "magnet"}, "kind: expected parallel or suction, got 'magnet'"),
            ({"cup_radius": 10}, "cup_radius: expected 0.0001 to 1 m, got 10"),
            ({"max_tilt": float("nan")}, "max_tilt: expected a number in rad"),
            ({"stroke": 0.1}, "unknown key 'stroke'"),
            ({"cup_radiu": 0.1}, "unknown key 'cup_radiu'; did you mean 'cup_radius'"),
        ],
    )
    def test_bad_cups(self, changes, message):
        with pytest.raises(ValueError, match=message) as caught:
            load_gripper({**OWN, **changes})
        assert "\n" not in str(caught.value)

    def test_missing(self):
        with pytest.raises(ValueError, match="missing cup_length, body_radius"):
            load_gripper({"kind": "suction", "cup_radius": 0.01})
