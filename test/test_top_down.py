# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Top-down grasps of known solids: where the jaws close, how wide, how low, what stops them. World: z up, metres."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from table_scene import View, ball, box, cylinder, heap, in_world, look, plan_on

from seg_perception.fusion import fuse
from seg_perception.geometry import transform_points
from seg_perception.grasping.gripper import Gripper, load_gripper, shipped_grippers
from seg_perception.grasping.planning import pick_order, plan_object
from seg_perception.grasping.surroundings import scene_points
from seg_perception.grasping.top_down import TopDown
from seg_perception.masks import Masks
from seg_perception.plugins import GraspPlanner
from seg_perception.scene import Collision, GraspKind, GraspStatus, Instances, Object3D, Scene, Status

GRIPPER = load_gripper("robotiq_2f_85")


def plan(view: View, row: int = 0, **config):
    return plan_on(view, row, TopDown(replace(TopDown.Config(), **config)))


@pytest.fixture(scope="module")
def best():
    return plan(TestBox.view)[0]


class TestBox:
    """A box of 10 x 5 x 6 cm, turned by 0.5 rad."""

    view = look([box((0.10, 0.05, 0.06), x=0.05, y=0.03, yaw=0.5)])

    def test_frame_convention(self, best):
        T = in_world(self.view, best)
        x, y, z = T[:3, :3].T
        assert_allclose(z, [0, 0, -1], atol=1e-9)  # approach
        assert_allclose(abs(y @ [-np.sin(0.5), np.cos(0.5), 0]), 1, atol=2e-3)  # closing, across the narrow side
        assert_allclose(x, np.cross(y, z), atol=1e-9)

    def test_place_and_width(self, best):
        T = in_world(self.view, best)
        assert_allclose(T[:2, 3], [0.05, 0.03], atol=0.008)
        assert_allclose(best.object_width, 0.05, atol=0.002)
        assert best.object_width < best.width <= GRIPPER.stroke

    def test_tool_centre_is_between_the_contacts(self, best):
        assert_allclose(best.T_camera_grasp[:3, 3], best.contacts.mean(axis=0))
        closing = best.T_camera_grasp[:3, 1]
        assert_allclose(best.contacts[1] - best.contacts[0], best.object_width * closing, atol=1e-9)
        assert_allclose(best.normals, [-closing, closing], atol=0.05)

    def test_as_deep_as_the_fingers_reach(self, best):
        tip = in_world(self.view, best)[2, 3] - GRIPPER.tip_beyond_tcp
        assert_allclose(tip, max(0.003, 0.06 - GRIPPER.finger_length + 0.005), atol=0.002)

    def test_every_field(self, best):
        assert best.kind == GraspKind.PARALLEL_JAW
        assert (best.planner, best.gripper) == ("top_down", "robotiq_2f_85")
        assert 0 < best.score <= 1
        assert best.pregrasp_distance == 0.1
        assert_allclose(self.view.T_world_camera[:3, :3] @ best.retreat_direction, [0, 0, 1], atol=1e-9)
        assert best.retreat_distance == 0.1
        assert best.max_force == GRIPPER.max_force
        assert best.collision == Collision.FREE
        lifted = self.view.T_world_camera @ best.T_camera_pregrasp
        assert_allclose(lifted[:3, 3] - in_world(self.view, best)[:3, 3], [0, 0, 0.1], atol=1e-9)

    def test_best_first_and_distinct(self):
        grasps = plan(self.view)
        scores = [g.score for g in grasps]
        assert scores == sorted(scores, reverse=True)
        places = np.array([g.T_camera_grasp for g in grasps]).reshape(len(grasps), -1)
        assert len(np.unique(places.round(4), axis=0)) == len(grasps) <= 10

    def test_same_input_same_grasps(self):
        a, b = plan(self.view), plan(self.view)
        assert [g.T_camera_grasp.tobytes() for g in a] == [g.T_camera_grasp.tobytes() for g in b]

    def test_without_scene_points_collision_is_unknown(self):
        (obj,) = fuse(self.view.frame, self.view.instances, None, (self.view.table,))
        grasp = TopDown().plan(obj, np.empty((0, 3)), self.view.frame.gravity, obj.support)[0]
        assert grasp.collision == Collision.UNKNOWN
        assert np.isnan(grasp.clearance)

    def test_without_a_support_the_objects_own_end_stops_the_tips(self):
        (obj,) = fuse(self.view.frame, self.view.instances)
        grasp = TopDown().plan(
            obj, scene_points(self.view.frame, self.view.instances.masks).without(0), self.view.frame.gravity
        )[0]
        assert in_world(self.view, grasp)[2, 3] - GRIPPER.tip_beyond_tcp > 0.002
        assert_allclose(grasp.object_width, 0.05, atol=0.002)


class TestShapes:
    @pytest.mark.parametrize("eye", [(0, -0.45, 0.6), (0.3, 0.3, 0.5), (0, 0.001, 0.7)])
    @pytest.mark.parametrize("noise", [0.0, 0.0015])
    def test_ball(self, eye, noise):
        """Its far side is not seen; the jaws must still close about its middle."""
        view = look([ball(0.032, 0.03, 0.02)], eye=eye, noise=noise)
        best = plan(view)[0]
        assert_allclose(in_world(view, best)[:2, 3], [0.03, 0.02], atol=0.012)
        assert best.width > 0.064

    def test_cylinder(self):
        view = look([cylinder(0.033, 0.12, 0.0, 0.05)])
        best = plan(view)[0]
        assert_allclose(in_world(view, best)[:2, 3], [0, 0.05], atol=0.004)
        assert_allclose(best.object_width, 0.066, atol=0.003)

    def test_flat_things_are_held_above_the_table(self):
        view = look([box((0.08, 0.05, 0.012))])
        best = plan(view)[0]
        assert_allclose(in_world(view, best)[2, 3] - GRIPPER.tip_beyond_tcp, 0.003, atol=0.001)

    def test_a_card_cannot_be_held(self):
        answer = plan(look([box((0.08, 0.05, 0.003))]))
        assert not len(answer)
        assert "too flat" in answer.reason

    def test_wider_than_the_stroke(self):
        answer = plan(look([box((0.16, 0.11, 0.05), yaw=0.2)]))
        assert not len(answer)
        assert "wider than the stroke" in answer.reason
        assert "> 85 mm" in answer.reason
        assert answer.rejected["wider than the stroke"] > 10

    def test_the_larger_gripper_spans_it(self):
        best = plan(look([box((0.16, 0.11, 0.05), yaw=0.2)]), gripper="robotiq_2f_140")[0]
        assert_allclose(best.object_width, 0.11, atol=0.005)
        assert best.gripper == "robotiq_2f_140"

    def test_the_rim_of_a_wide_tray(self):
        """Walls 6 mm thick around a floor seen to lie deep: the jaws take a wall, one finger inside."""
        walls = [box((0.006, 0.20, 0.05), x=s * 0.1) for s in (-1, 1)] + [
            box((0.2, 0.006, 0.05), y=s * 0.1) for s in (-1, 1)
        ]
        view = look([*walls, box((0.19, 0.19, 0.003))], eye=(0, -0.2, 0.7))
        tray = replace(view, labels=(view.labels > 0).astype(np.uint16))
        tray = replace(tray, instances=Instances.of(Masks.from_label_image(tray.labels, 1)))
        best = plan(tray)[0]
        assert best.object_width < 0.02
        assert_allclose(np.abs(in_world(tray, best)[:2, 3]).max(), 0.1, atol=0.008)


class TestNeighbours:
    def test_walls_at_both_narrow_sides_turn_the_grasp(self):
        """Nothing but walls 8 mm beside the long faces: the jaws must close along the long side, or not at all."""
        target = box((0.07, 0.05, 0.05))
        walls = [box((0.12, 0.02, 0.06), y=s * 0.043) for s in (-1, 1)]
        view = look([target, *walls], eye=(0, -0.15, 0.7))
        free = look([target], eye=(0, -0.15, 0.7))
        along_y = lambda view, g: abs(in_world(view, g)[1, 1])  # noqa: E731
        assert along_y(free, plan(free)[0]) > 0.99
        blocked = plan(view)
        assert all(along_y(view, g) < 0.5 for g in blocked)
        assert blocked.rejected["hits neighbours"] > 0

    def test_boxed_in_on_all_sides(self):
        walls = [box((0.14, 0.02, 0.07), y=s * 0.045) for s in (-1, 1)]
        walls += [box((0.02, 0.05, 0.07), x=s * 0.055) for s in (-1, 1)]
        answer = plan(look([box((0.07, 0.05, 0.05)), *walls], eye=(0, -0.1, 0.7)))
        assert not len(answer)
        assert "hits neighbours" in answer.reason

    def test_something_on_top_blocks(self):
        view = look([box((0.10, 0.06, 0.05)), box((0.06, 0.09, 0.05), z=0.05)], eye=(0, -0.2, 0.7))
        for grasp in plan(view):
            closing, place = in_world(view, grasp)[:2, 1], in_world(view, grasp)[:2, 3]
            assert abs(place[0]) > 0.03 or abs(closing[0]) > 0.7

    def test_clearance_is_the_distance_to_the_neighbour(self):
        view = look([box((0.07, 0.04, 0.06)), box((0.2, 0.02, 0.03), y=0.09)], eye=(0, -0.2, 0.7))
        best = plan(view)[0]
        T = in_world(view, best)
        outer = abs(T[1, 1]) * (best.width / 2 + GRIPPER.finger_thickness)
        assert_allclose(best.clearance, 0.08 - T[1, 3] - outer, atol=0.006)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_never_into_the_support_never_too_wide_never_into_a_neighbour(seed):
    rng = np.random.default_rng(seed)
    solids = heap(rng, 0.15)
    view = look(solids, eye=(rng.uniform(-0.3, 0.3), -0.4, 0.6), noise=0.001 * rng.integers(2))
    objects = fuse(view.frame, view.instances, None, (view.table,))
    surroundings = scene_points(view.frame, view.instances.masks)
    for row, obj in enumerate(objects):
        others = surroundings.without(row)
        for grasp in TopDown().plan(obj, others, view.frame.gravity, obj.support):
            T = in_world(view, grasp)
            assert T[2, 2] < -0.999999  # never from below
            assert grasp.object_width < grasp.width <= GRIPPER.stroke + 1e-9
            assert T[2, 3] - GRIPPER.tip_beyond_tcp >= 0.003 - 1e-6
            assert grasp.collision == Collision.FREE
            local = transform_points(np.linalg.inv(grasp.T_camera_grasp), others[view.table.heights(others) > 0.006])
            outer = grasp.width / 2 + GRIPPER.finger_thickness
            beside = np.abs(local[:, 1])
            in_finger = (np.abs(local[:, 0]) < GRIPPER.finger_width / 2) & (beside > grasp.width / 2) & (beside < outer)
            assert not (in_finger & (local[:, 2] < GRIPPER.tip_beyond_tcp)).any()
            palm = np.abs(local[:, :2]) < np.array(GRIPPER.palm_size[:2]) / 2
            above = local[:, 2] < GRIPPER.tip_beyond_tcp - GRIPPER.finger_length
            assert not (palm.all(axis=1) & above).any()


class TestDegenerate:
    obj = Object3D(
        Status.OK,
        points=np.random.default_rng(0).uniform([-0.02, -0.02, 0.48], [0.02, 0.02, 0.52], (200, 3)).astype(np.float32),
    )

    def test_no_points(self):
        answer = TopDown().plan(Object3D(Status.NO_VALID_DEPTH), np.empty((0, 3)), np.array([0, 0, 1.0]))
        assert not len(answer)
        assert "points" in answer.reason

    def test_nan_points_are_left_out(self):
        points = self.obj.points.copy()
        points[::3] = np.nan
        scene = np.full((50, 3), np.nan)
        for grasp in TopDown().plan(replace(self.obj, points=points), scene, np.array([0, 0, 1.0])):
            assert np.isfinite(grasp.T_camera_grasp).all()

    @pytest.mark.parametrize("gravity", [[0, 0, 0], [np.nan, 0, 1], [np.inf, 0, 0], [0, 1]])
    def test_bad_gravity(self, gravity):
        with pytest.raises(ValueError, match="gravity"):
            TopDown().plan(self.obj, np.empty((0, 3)), np.array(gravity, float))

    def test_is_a_planner(self):
        assert isinstance(TopDown(), GraspPlanner)


class TestAsking:
    view = look([box((0.10, 0.05, 0.06)), cylinder(0.03, 0.15, 0.15, 0.05), box((0.16, 0.12, 0.05), x=-0.2)])

    def scene(self):
        objects = fuse(self.view.frame, self.view.instances, None, (self.view.table,))
        return Scene(self.view.frame, self.view.instances, tuple(objects), self.view.table)

    def test_statuses(self):
        scene = self.scene()
        points = scene_points(scene.frame, scene.instances.masks)
        planned = [
            plan_object(o, [TopDown()], points.without(i), scene.frame.gravity, 2) for i, o in enumerate(scene.objects)
        ]
        assert [o.grasp_status for o in planned] == [GraspStatus.FOUND, GraspStatus.FOUND, GraspStatus.NONE]
        assert [len(o.grasps) for o in planned] == [2, 2, 0]
        assert "wider" in planned[2].grasp_text
        empty = plan_object(Object3D(Status.TOO_FAR), [TopDown()], points.points, scene.frame.gravity, 2)
        assert empty.grasp_status == GraspStatus.NO_3D
        assert "TOO_FAR" in empty.grasp_text

    def test_highest_first_and_those_without_3d_last(self):
        scene = self.scene()
        assert pick_order(scene)[0] == 1
        lost = (replace(scene.objects[1], status=Status.TOO_FAR), *scene.objects[:1], scene.objects[2])
        assert pick_order(replace(scene, objects=lost))[-1] == 0

    def test_covered_after_what_covers(self):
        scene = self.scene()
        covered = replace(scene.objects[1], occluded_ratio=0.5)
        assert pick_order(replace(scene, objects=(scene.objects[0], covered, scene.objects[2])))[-1] == 1


class TestSurroundings:
    view = look([box((0.10, 0.05, 0.06)), cylinder(0.03, 0.15, 0.15, 0.05)])

    def test_owners(self):
        points = scene_points(self.view.frame, self.view.instances.masks)
        assert 10_000 < len(points.points) < 25_000
        heights = self.view.table.heights(points.points)
        assert heights[points.owner == 1].max() > 0.14
        assert heights[points.owner == -1].max() < 0.002
        assert not (points.owner[points.owner >= 0] == 1).all()
        assert len(points.without(1)) == (points.owner != 1).sum()

    def test_nothing_without_3d(self):
        assert not len(scene_points(replace(self.view.frame, depth=None), self.view.instances.masks).points)

    def test_not_the_robot(self):
        robot = np.zeros((480, 640), bool)
        robot[:, :320] = True
        points = scene_points(replace(self.view.frame, ignore=robot), self.view.instances.masks).points
        assert points[:, 0].min() > -0.001


class TestGrippers:
    @pytest.mark.parametrize("name", shipped_grippers("parallel"))
    def test_shipped(self, name):
        gripper = load_gripper(name)
        assert gripper.name == name
        assert 0.05 < gripper.stroke < 0.2

    def test_names(self):
        assert shipped_grippers("parallel") == ["franka_hand", "onrobot_rg2", "robotiq_2f_140", "robotiq_2f_85"]

    def own(self, **changes):
        numbers = {"stroke": 0.05, "finger_width": 0.02, "finger_thickness": 0.01, "finger_length": 0.06}
        return {**numbers, "tip_beyond_tcp": 0.005, "palm_size": [0.06, 0.1, 0.1], **changes}

    def test_mapping_and_path(self, tmp_path):
        gripper = load_gripper(self.own(name="mine"))
        assert gripper == Gripper("mine", 0.05, 0.02, 0.01, 0.06, 0.005, (0.06, 0.1, 0.1))
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(self.own()))
        assert load_gripper(path) == load_gripper(str(path)) == gripper
        assert "50 mm" in plan(TestBox.view, gripper=self.own()).reason

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("robotiq_2f_58", "no gripper 'robotiq_2f_58' .known: franka_hand, .*did you mean 'robotiq_2f_85'"),
            ("/no/such.yaml", "no such file"),
            ({"stroke": 0.05}, "missing finger_width, finger_thickness"),
            ({"strok": 0.05}, "unknown key 'strok'; did you mean 'stroke'"),
            (12, "expected a name, a path or a mapping, got 12"),
            ("", "expected a name"),
        ],
    )
    def test_bad_sources(self, source, message):
        with pytest.raises(ValueError, match=message) as caught:
            load_gripper(source)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"stroke": 85}, "stroke: expected 0.0001 to 1 m, got 85"),
            ({"stroke": "wide"}, "stroke: expected a number in m, got 'wide'"),
            ({"stroke": float("nan")}, "stroke"),
            ({"palm_size": [1, 2]}, r"palm_size: expected \[x, y, z\]"),
            ({"palm_size": 3}, r"palm_size: expected \[x, y, z\]"),
            ({"friction": 0}, "friction"),
            ({"tip_beyond_tcp": 0.5}, "tip_beyond_tcp: expected 0 to 0.06 m"),
        ],
    )
    def test_bad_numbers(self, changes, message):
        with pytest.raises(ValueError, match=message):
            load_gripper(self.own(**changes))

    def test_bad_file(self, tmp_path):
        path = tmp_path / "broken.yaml"
        path.write_text("stroke: [")
        with pytest.raises(ValueError, match="cannot be read"):
            load_gripper(path)
        path.write_text("- 1")
        with pytest.raises(ValueError, match="expected a mapping"):
            load_gripper(path)
