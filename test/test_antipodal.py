# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Antipodal grasps of known solids: where, how wide, from which side, what never happens. World: z up, metres."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from table_scene import View, ball, box, heap, in_world, look, plan_on

from seg_perception.fusion import fuse
from seg_perception.geometry import transform_points
from seg_perception.grasping import plan_grasps, success
from seg_perception.grasping.antipodal import Antipodal
from seg_perception.grasping.gripper import load_jaws
from seg_perception.grasping.surroundings import scene_points
from seg_perception.masks import Masks
from seg_perception.plugins import GraspPlanner
from seg_perception.scene import Collision, GraspKind, Instances, Object3D, Status

GRIPPER = load_jaws("robotiq_2f_85")
DOWN = np.array([0.0, 0.0, 1.0])


def plan(view: View, row: int = 0, **config):
    return plan_on(view, row, Antipodal(replace(Antipodal.Config(), **config)))


class TestBox:
    """A box of 10 x 5 x 6 cm, turned by 0.5 rad."""

    view = look([box((0.10, 0.05, 0.06), x=0.05, y=0.03, yaw=0.5)])

    @pytest.fixture
    def best(self):
        return plan(self.view)[0]

    def test_across_its_narrow_side_about_its_middle(self, best):
        x, y, z = in_world(self.view, best)[:3, :3].T
        assert_allclose(abs(y @ [-np.sin(0.5), np.cos(0.5), 0]), 1, atol=5e-3)
        assert_allclose(x, np.cross(y, z), atol=1e-9)
        assert z[2] < -0.5
        assert_allclose(in_world(self.view, best)[:2, 3], [0.05, 0.03], atol=0.012)
        assert_allclose(best.object_width, 0.05, atol=0.003)
        assert best.object_width < best.width <= GRIPPER.stroke

    def test_every_field(self, best):
        assert best.kind == GraspKind.PARALLEL_JAW
        assert (best.planner, best.gripper) == ("antipodal", "robotiq_2f_85")
        assert 0.8 < best.score <= 1
        assert_allclose(best.T_camera_grasp[:3, 3], best.contacts.mean(axis=0))
        closing = best.T_camera_grasp[:3, 1]
        assert_allclose(best.contacts[1] - best.contacts[0], best.object_width * closing, atol=1e-9)
        assert_allclose(best.normals, [-closing, closing], atol=0.2)
        assert_allclose(self.view.T_world_camera[:3, :3] @ best.retreat_direction, [0, 0, 1], atol=1e-9)
        assert best.max_force == GRIPPER.max_force
        assert best.collision in (Collision.FREE, Collision.UNSEEN)

    def test_best_first_and_distinct(self):
        grasps = plan(self.view)
        scores = [g.score for g in grasps]
        assert scores == sorted(scores, reverse=True)
        for i, a in enumerate(grasps):
            for b in grasps[:i]:
                A, B = a.T_camera_grasp, b.T_camera_grasp
                apart = np.linalg.norm(A[:3, 3] - B[:3, 3]) >= 0.015
                turned = abs(A[:3, 1] @ B[:3, 1]) <= np.cos(np.radians(25))
                assert apart or turned or A[:3, 2] @ B[:3, 2] <= np.cos(np.radians(25))

    def test_at_most_max_grasps_and_none_below_min_score(self):
        assert len(plan(self.view, max_grasps=2)) == 2
        answer = plan(self.view, min_score=1.0)
        assert not len(answer)
        assert "unlikely to hold" in answer.reason

    def test_without_scene_points_collision_is_unknown(self):
        (obj,) = fuse(self.view.frame, self.view.instances, None, (self.view.table,))
        grasp = Antipodal().plan(obj, np.empty((0, 3)), self.view.frame.gravity, obj.support)[0]
        assert grasp.collision == Collision.UNKNOWN
        assert np.isnan(grasp.clearance)


class TestShapes:
    def test_ball(self):
        view = look([ball(0.032, 0.03, 0.02)], noise=0.0015)
        assert_allclose(in_world(view, plan(view)[0])[:2, 3], [0.03, 0.02], atol=0.014)

    def test_a_card_cannot_be_held(self):
        answer = plan(look([box((0.08, 0.05, 0.003))]))
        assert not len(answer)
        assert "too flat" in answer.reason

    def test_wider_than_the_stroke(self):
        answer = plan(look([box((0.16, 0.11, 0.05), yaw=0.2)]))
        assert not len(answer)
        assert "wider than the stroke" in answer.reason
        assert answer.rejected["wider than the stroke"] > 10
        assert plan(look([box((0.16, 0.11, 0.05), yaw=0.2)]), gripper="robotiq_2f_140")[0].object_width > 0.1

    def test_the_rim_of_a_wide_tray(self):
        """Walls 6 mm thick around a floor seen to lie deep: the jaws take a wall, one finger inside."""
        walls = [box((0.006, 0.20, 0.05), x=s * 0.1) for s in (-1, 1)]
        walls += [box((0.2, 0.006, 0.05), y=s * 0.1) for s in (-1, 1)]
        view = look([*walls, box((0.19, 0.19, 0.003))], eye=(0, -0.2, 0.7))
        view = replace(view, instances=Instances.of(Masks.from_label_image((view.labels > 0).astype(np.uint16), 1)))
        best = plan(view)[0]
        assert best.object_width < 0.02
        assert_allclose(np.abs(in_world(view, best)[:2, 3]).max(), 0.1, atol=0.01)


class TestApproaches:
    shelf = look([box((0.05, 0.05, 0.06)), box((0.30, 0.30, 0.02), y=0.08, z=0.11)], eye=(0, -0.5, 0.35))

    def test_leans_towards_the_camera_where_something_covers_it(self):
        """A board floats over the box: straight down it is in the way, along the line of sight it is not."""
        straight = plan(self.shelf, max_approach_angle=0)
        assert not len(straight)
        assert "hits neighbours" in straight.reason
        leaning = plan(self.shelf)
        assert len(leaning)
        assert all(in_world(self.shelf, g)[1, 2] > 0.2 for g in leaning)  # away from the camera, which is at -y

    @pytest.mark.parametrize("most", [0.0, 20.0, 50.0])
    def test_never_leans_more_than_allowed(self, most):
        for view in (self.shelf, TestBox.view):
            for grasp in plan(view, max_approach_angle=most):
                assert in_world(view, grasp)[2, 2] <= -np.cos(np.radians(most)) + 1e-9


class TestUnseen:
    def test_what_is_hidden_lowers_the_score_and_is_told(self):
        """A block stands before the box: what is behind the block, where a finger would go, nobody has seen."""
        target = box((0.05, 0.03, 0.05))
        free = plan(look([target], eye=(0, -0.6, 0.35)))
        hidden = plan(look([target, box((0.02, 0.03, 0.12), x=0.07, y=-0.08)], eye=(-0.03, -0.6, 0.35)))
        at = [g for g in hidden if abs(g.T_camera_grasp[0, 1]) > 0.8]
        assert at
        assert max(g.score for g in at) < max(g.score for g in free if abs(g.T_camera_grasp[0, 1]) > 0.8)


@settings(max_examples=20, deadline=None)
@example(1043)  # a point within the object's rim, and within a finger that comes close
@given(st.integers(0, 10**6))
def test_never_into_the_support_never_too_wide_never_into_a_neighbour_never_from_below(seed):
    rng = np.random.default_rng(seed)
    solids = heap(rng, 0.12)
    view = look(solids, eye=(rng.uniform(-0.3, 0.3), -0.4, 0.6), noise=0.001 * rng.integers(2))
    objects = fuse(view.frame, view.instances, None, (view.table,))
    surroundings = scene_points(view.frame, view.instances.masks)
    for row, obj in enumerate(objects):
        others = surroundings.without(row)
        for grasp in Antipodal().plan(obj, others, view.frame.gravity, obj.support):
            T = in_world(view, grasp)
            assert T[2, 2] < -0.6  # never from below
            assert grasp.object_width < grasp.width <= GRIPPER.stroke + 1e-9
            assert 0 <= grasp.score <= 1
            assert lowest(T, grasp.width) >= 0.003 - 1e-6
            local = transform_points(np.linalg.inv(grasp.T_camera_grasp), others[view.table.heights(others) > 0.006])
            beside = np.abs(local[:, 1]) - grasp.width / 2
            finger = (
                (np.abs(local[:, 0]) < GRIPPER.finger_width / 2) & (beside > 0) & (beside < GRIPPER.finger_thickness)
            )
            assert not (finger & (local[:, 2] < GRIPPER.tip_beyond_tcp)).any()
            palm = np.abs(local[:, :2]) < np.array(GRIPPER.palm_size[:2]) / 2
            assert not (palm.all(axis=1) & (local[:, 2] < GRIPPER.tip_beyond_tcp - GRIPPER.finger_length)).any()


def lowest(T, width):
    """Height of the gripper's lowest corner over the table."""
    outer = width / 2 + GRIPPER.finger_thickness
    tips = [[x * GRIPPER.finger_width / 2, y * outer, GRIPPER.tip_beyond_tcp] for x in (-1, 1) for y in (-1, 1)]
    half = np.array(GRIPPER.palm_size) / 2
    face = GRIPPER.tip_beyond_tcp - GRIPPER.finger_length
    palm = [[x * half[0], y * half[1], face] for x in (-1, 1) for y in (-1, 1)]
    return transform_points(T, np.array(tips + palm))[:, 2].min()


class TestDegenerate:
    obj = Object3D(
        Status.OK,
        points=np.random.default_rng(0).uniform([-0.02, -0.02, 0.48], [0.02, 0.02, 0.52], (200, 3)).astype(np.float32),
    )

    def test_no_points(self):
        answer = Antipodal().plan(Object3D(Status.NO_VALID_DEPTH), np.empty((0, 3)), DOWN)
        assert not len(answer)
        assert answer.reason == "0 points, at least 10 needed"

    def test_nan_points_are_left_out(self):
        points = self.obj.points.copy()
        points[::3] = np.nan
        for scene in (np.full((50, 3), np.nan), np.empty((0, 3), np.float32)):
            for grasp in Antipodal().plan(replace(self.obj, points=points), scene, DOWN):
                assert np.isfinite(grasp.T_camera_grasp).all()
                assert np.isfinite(grasp.score)

    @pytest.mark.parametrize("gravity", [[0, 0, 0], [np.nan, 0, 1], [np.inf, 0, 0], [0, 1]])
    def test_bad_gravity(self, gravity):
        with pytest.raises(ValueError, match="gravity"):
            Antipodal().plan(self.obj, np.empty((0, 3)), np.array(gravity, float))

    def test_a_cup_is_no_jaw(self):
        with pytest.raises(ValueError, match="gripper 'suction_20': expected parallel jaws, got a suction cup"):
            Antipodal(Antipodal.Config(gripper="suction_20"))

    def test_is_a_planner(self):
        assert isinstance(Antipodal(), GraspPlanner)


def test_same_bits_in_two_processes():
    code = """
import sys; sys.path.insert(0, "test")
from table_scene import ball, box, look
from test_antipodal import plan
import hashlib
digest = hashlib.sha256()
view = look([box((0.10, 0.05, 0.06), yaw=0.5), ball(0.03, 0.09, 0.02)], noise=0.001)
plans = [plan(view, row) for row in (0, 1)]
assert all(len(p) for p in plans)
for grasp in (g for p in plans for g in p):
    digest.update(grasp.T_camera_grasp.tobytes() + grasp.score.hex().encode())
print(digest.hexdigest())
"""
    answers = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert answers[0] == answers[1] != ""


def test_more_evidence_against_it_makes_a_grasp_less_likely():
    view = TestBox.view
    (obj,) = fuse(view.frame, view.instances, None, (view.table,))
    planner = Antipodal()
    others = scene_points(view.frame, view.instances.masks).without(0)
    task = planner.task(obj, others, -view.frame.gravity, obj.support)
    known = task.candidates(view.frame.gravity).known[:1]
    worse = np.repeat(known, 3, axis=0)
    worse[0, success.e.FOREIGN_HIDDEN] = 0.5
    worse[1, success.e.CLEARANCE] = 0.0005
    worse[2, success.e.TOUCH] = 0.2
    assert (success.probability(worse, 0.6) < success.probability(known, 0.6)).all()


class TestAlone:
    view = TestBox.view

    def ask(self, **changes):
        given = {
            "depth_m": self.view.frame.depth,
            "mask": self.view.labels == 1,
            "intrinsics": self.view.frame.intrinsics,
        }
        return plan_grasps(**{**given, "gravity": self.view.frame.gravity, **changes})

    def test_a_mask_and_depth_are_enough(self):
        best = self.ask()[0]
        assert_allclose(in_world(self.view, best)[:2, 3], [0.05, 0.03], atol=0.012)
        assert_allclose(best.object_width, 0.05, atol=0.003)
        assert self.ask(mask=(self.view.labels == 1).astype(np.uint8) * 255)[0].score == best.score
        assert self.ask(gripper="franka_hand")[0].gripper == "franka_hand"

    def test_suction(self):
        best = self.ask(kind="suction")[0]
        assert best.kind == GraspKind.SUCTION
        assert_allclose(in_world(self.view, best)[2, 3], 0.06, atol=0.003)

    def test_no_depth_no_grasp(self):
        assert "no 3D: NO_VALID_DEPTH" in self.ask(depth_m=np.zeros((480, 640))).reason
        assert "no 3D: EMPTY_MASK" in self.ask(mask=np.zeros((480, 640), bool)).reason

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"gravity": [0, 0, 0]}, "gravity: expected 3 numbers"),
            ({"mask": np.zeros((2, 2))}, r"mask: expected \(480, 640\) like depth_m, got \(2, 2\)"),
            ({"depth_m": np.zeros(3)}, r"depth_m: expected \(H, W\)"),
            ({"kind": "magnet"}, "kind: expected parallel or suction, got 'magnet'"),
            ({"gripper": "suction_20"}, "expected parallel jaws"),
            ({"gripper": "franka_hand", "kind": "suction"}, "expected a suction cup"),
            ({"gripper": {"stroke": 0.1}}, "missing finger_width"),
        ],
    )
    def test_bad_input_is_one_clear_line(self, changes, message):
        with pytest.raises(ValueError, match=message) as caught:
            self.ask(**changes)
        assert "\n" not in str(caught.value)
