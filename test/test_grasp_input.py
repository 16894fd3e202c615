# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What planners and plan_grasps say to input they cannot use: one line that names it, or no grasp and the reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from table_scene import box, look

from seg_perception.fusion import fuse
from seg_perception.grasping import plan_grasps
from seg_perception.grasping.antipodal import Antipodal
from seg_perception.grasping.gripper import load_gripper
from seg_perception.grasping.suction import Suction
from seg_perception.grasping.surroundings import scene_points
from seg_perception.grasping.top_down import TopDown
from seg_perception.scene import GraspPlan, Intrinsics, Object3D, Plane, Status

VIEW = look([box((0.10, 0.05, 0.06), yaw=0.5)])
(OBJ,) = fuse(VIEW.frame, VIEW.instances, None, (VIEW.table,))
POINTS = np.asarray(OBJ.points)
OTHERS = scene_points(VIEW.frame, VIEW.instances.masks).without(0)
DEPTH, MASK, GRAVITY = VIEW.frame.depth, VIEW.labels == 1, VIEW.frame.gravity
PLANNERS = [Antipodal(), TopDown(), Suction()]
NO_POINT = np.full((50, 3), np.nan)


def with_points(points: Any) -> Object3D:
    return replace(OBJ, points=points)


def plan(planner: Any, **changes: Any) -> GraspPlan:
    given = {"obj": OBJ, "scene_points": OTHERS, "gravity": GRAVITY, "support": OBJ.support}
    return planner.plan(**{**given, **changes})


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda p: type(p).__name__)
class TestPlanners:
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"gravity": GRAVITY.tolist()},
            {"gravity": 9.81 * GRAVITY},
            {"obj": with_points(POINTS.astype(np.float64))},
            {"obj": with_points(np.asfortranarray(POINTS)), "scene_points": np.asfortranarray(OTHERS)},
            {"scene_points": OTHERS.tolist()},
            {"scene_points": NO_POINT},
            {"scene_points": np.full((50, 3), np.inf)},
            {"scene_points": np.empty((0, 3))},
            {"scene_points": np.empty(0)},
            {"scene_points": []},
            {"obj": with_points(np.where(np.arange(len(POINTS))[:, None] % 3 == 0, np.inf, POINTS))},
            {"obj": Object3D(Status.OK, points=POINTS), "support": None},
            {"support": Plane(np.array([1.0, 0.0, 0.0]), 0.0)},  # a wall: carries nothing
        ],
    )
    def test_odd_but_good(self, planner: Any, changes: dict[str, Any]) -> None:
        answer = plan(planner, **changes)
        assert len(answer) > 0
        assert answer.reason == ""
        assert all(np.isfinite(g.T_camera_grasp).all() and np.isfinite(g.score) for g in answer)

    @pytest.mark.parametrize(
        ("points", "reason"),
        [
            (np.empty((0, 3)), "0 points, at least"),
            (np.empty(0), "0 points, at least"),
            (POINTS * np.nan, "0 points, at least"),
            (POINTS[:1], "1 points, at least"),
        ],
    )
    def test_nothing_to_grasp(self, planner: Any, points: Any, reason: str) -> None:
        answer = plan(planner, obj=with_points(points))
        assert len(answer) == 0
        assert answer.reason.startswith(reason)

    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            ({"gravity": np.zeros(3)}, "gravity: expected 3 numbers with a direction, got [0.0, 0.0, 0.0]"),
            ({"gravity": [np.nan, 0, 1]}, "gravity: expected 3 numbers"),
            ({"gravity": [np.inf, 0, 1]}, "gravity: expected 3 numbers"),
            ({"gravity": [0, 1]}, "gravity: expected 3 numbers"),
            ({"gravity": np.eye(3)}, "gravity: expected 3 numbers"),
            ({"gravity": "down"}, "gravity: expected 3 numbers with a direction, got 'down'"),
            ({"gravity": None}, "gravity: expected 3 numbers"),
            ({"scene_points": np.zeros((50, 2))}, "scene_points: expected (P, 3) m, got (50, 2) float64"),
            ({"scene_points": np.zeros((9, 3), complex)}, "scene_points: expected (P, 3) m, got (9, 3) complex128"),
            ({"scene_points": None}, "scene_points: expected (P, 3) m, got () object"),
            ({"obj": with_points(np.zeros((640, 480, 3)))}, "points: expected (P, 3) m, got (640, 480, 3) float64"),
        ],
    )
    def test_refused_in_one_line(self, planner: Any, changes: dict[str, Any], line: str) -> None:
        with pytest.raises(ValueError, match="expected") as caught:
            plan(planner, **changes)
        assert line in str(caught.value)
        assert "\n" not in str(caught.value)


class TestAlone:
    def ask(self, **changes: Any) -> GraspPlan:
        given = {"depth_m": DEPTH, "mask": MASK, "intrinsics": VIEW.frame.intrinsics, "gravity": GRAVITY}
        return plan_grasps(**{**given, **changes})

    @pytest.mark.parametrize("kind", ["parallel", "suction"])
    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"depth_m": DEPTH * np.nan}, "no 3D: NO_VALID_DEPTH: none of "),
            ({"depth_m": -DEPTH}, "no 3D: NO_VALID_DEPTH: none of "),
            ({"depth_m": np.full_like(DEPTH, np.inf)}, "no 3D: TOO_FAR"),
            ({"depth_m": np.nan_to_num(DEPTH * 1000).astype(np.uint16)}, "no 3D: TOO_FAR"),  # millimetres
            ({"mask": np.zeros_like(MASK)}, "no 3D: EMPTY_MASK"),
            ({"mask": np.full(MASK.shape, np.nan)}, "no 3D: EMPTY_MASK"),
        ],
    )
    def test_no_grasp_and_the_reason(self, kind: str, changes: dict[str, Any], reason: str) -> None:
        answer = self.ask(kind=kind, **changes)
        assert len(answer) == 0
        assert answer.reason.startswith(reason)

    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            ({"intrinsics": np.eye(3)}, "intrinsics: expected Intrinsics(width, height, fx, fy, cx, cy), got ndarray"),
            ({"intrinsics": None}, "intrinsics: expected Intrinsics(width, height, fx, fy, cx, cy), got NoneType"),
            ({"intrinsics": Intrinsics(320, 240, 300, 300, 160, 120)}, "intrinsics: for a 320x240 image"),
            ({"mask": MASK[None]}, "mask: expected (480, 640) like depth_m, got (1, 480, 640)"),
            ({"depth_m": DEPTH[None]}, "depth_m: expected (H, W) m, got (1, 480, 640)"),
            ({"gripper": 12}, "gripper: expected a name, a path or a mapping, got 12"),
            ({"gripper": None}, "gripper: expected a name, a path or a mapping, got None"),
            ({"gripper": []}, "gripper: expected a name, a path or a mapping"),
            ({"kind": "suction", "gripper": "franka_hand"}, "gripper 'franka_hand': expected a suction cup"),
        ],
    )
    def test_refused_in_one_line(self, changes: dict[str, Any], line: str) -> None:
        with pytest.raises(ValueError, match=r"expected|for a") as caught:
            self.ask(**changes)
        assert line in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_mask_with_nan_is_the_mask_without_them(self) -> None:
        assert self.ask(mask=np.where(MASK, 1.0, np.nan))[0].score == self.ask()[0].score

    def test_several_cups(self) -> None:
        cups = {g.gripper for g in self.ask(kind="suction", gripper="suction_10,suction_16")}
        assert cups
        assert cups <= {"suction_10", "suction_16"}


JAWS = {
    "stroke": 0.05,
    "finger_width": 0.02,
    "finger_thickness": 0.01,
    "finger_length": 0.06,
    "tip_beyond_tcp": 0.005,
    "palm_size": [0.06, 0.1, 0.1],
}
HAND = {"parent_link": "tool0", "tcp": [0, 0, 0.1, 0, 0, 0], "joints": ["j"], "opening": [[0.05, 0.0], [0.0, 0.8]]}


def test_the_joints_of_a_hand_between_its_rows() -> None:
    hand = load_gripper({**JAWS, "moveit": HAND}).moveit
    assert hand.positions(0.0) == [0.8]
    assert hand.positions(0.05) == [0.0]
    assert hand.positions(0.025) == pytest.approx([0.4])
    assert hand.positions(0.2) == [0.0]
    two = {**HAND, "joints": ["a", "b"], "opening": [[0.05, 0.02, -0.02], [0.0, 0.0, 0.0]]}
    assert load_gripper({**JAWS, "moveit": two}).moveit.positions(0.025) == pytest.approx([0.01, -0.01])
    turned = load_gripper({**JAWS, "moveit": {**HAND, "tcp": [0.01, 0, 0.1, 0.1, 0.2, 0.3]}}).moveit.T_parent_tcp
    assert turned[:3, 3].tolist() == [0.01, 0, 0.1]
    assert np.allclose(turned[:3, :3] @ turned[:3, :3].T, np.eye(3))
    assert turned[2, 0] == pytest.approx(-np.sin(0.2))  # pitch about y lowers x
    assert np.arctan2(turned[1, 0], turned[0, 0]) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"parent_link": ""}, "moveit.parent_link: expected the name of a link, got ''"),
        ({"tcp": [0, 0, 0.1]}, "moveit.tcp: expected 6 numbers, x y z roll pitch yaw, got [0, 0, 0.1]"),
        ({"tcp": [0, 0, "a", 0, 0, 0]}, "moveit.tcp: expected 6 numbers"),
        ({"joints": "j"}, "moveit.joints: expected a list of names, got 'j'"),
        ({"opening": []}, "moveit.opening: expected two or more rows"),
        ({"opening": [[0.05, 0.0]]}, "moveit.opening: expected two or more rows"),
        ({"opening": [[0.05, 0.0], [0.05, 0.1]]}, "moveit.opening: expected two or more rows of different width"),
        ({"opening": [[0.05, 0.0, 1.0], [0.0, 0.1, 1.0]]}, "moveit.opening: expected 2 numbers"),
        ({"link": "x"}, "moveit: unknown key 'link'; known: parent_link, tcp, joints, opening"),
    ],
)
def test_bad_moveit_sections(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match="gripper 'custom': moveit") as caught:
        load_gripper({**JAWS, "moveit": {**HAND, **changes}})
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("value", "line"), [(3, "expected a mapping of parent_link, tcp"), ({}, "missing parent_link")]
)
def test_a_moveit_section_that_is_none(value: Any, line: str) -> None:
    with pytest.raises(ValueError, match=f"moveit: {line}"):
        load_gripper({**JAWS, "moveit": value})
