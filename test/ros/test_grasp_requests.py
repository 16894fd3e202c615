# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a caller may ask of grasps, member by member, and what their messages say, against the truth. World: z up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from rclpy.serialization import deserialize_message, serialize_message
from seg_perception.msg import Grasp, GraspRequest
from std_msgs.msg import Header
from table_scene import ball, box, cylinder, look

from seg_perception.config import load_config
from seg_perception.fusion import fuse
from seg_perception.grasping.gripper import load_cup, load_jaws
from seg_perception.pipeline import Pipeline
from seg_perception.ros.calls import BadRequestError
from seg_perception.ros.grasp_requests import plan
from seg_perception.ros.messages import objects_message
from seg_perception.scene import GraspKind, GraspStatus, Object3D, Scene, Status

VIEW = look([box((0.10, 0.05, 0.06), x=-0.12, yaw=0.5), cylinder(0.03, 0.10, x=0.02), ball(0.03, x=0.13, y=0.02)])
T = VIEW.T_world_camera
BOX, CAN, BALL = range(3)
UP = np.array([0.0, 0.0, 1.0])


def scene() -> Scene:
    objects = fuse(VIEW.frame, VIEW.instances, None, (VIEW.table,))
    return Scene(VIEW.frame, VIEW.instances, tuple(replace(o, id=7 + i) for i, o in enumerate(objects)), VIEW.table)


def pipeline(*planners: str, **grasping: Any) -> Pipeline:
    tree = {"grasping": {"planners": list(planners or ["antipodal"]), **grasping}}
    config = load_config(tree)
    return Pipeline(None, None, [p.create() for p in config.grasping.planners], config)


BOTH = pipeline("antipodal", "suction")
JAWS = pipeline()


def rotation_to_camera(frame: str) -> np.ndarray:
    """The frames a caller may name: the camera's own, and the world's."""
    return {"": np.eye(3), "camera": np.eye(3), "world": T[:3, :3].T}[frame]


def ask(on: Pipeline = JAWS, rows: tuple[int, ...] = (BOX,), count: int = 0, **members: Any) -> list[Object3D]:
    request = GraspRequest()
    axis, frame = members.pop("axis", (0.0, 0.0, 0.0)), members.pop("frame", "")
    v = request.approach_axis.vector
    v.x, v.y, v.z = axis
    request.approach_axis.header.frame_id = frame
    for name, value in members.items():
        setattr(request, name, value)
    planned = plan(scene(), on, list(rows), count, request, rotation_to_camera)
    return [planned.objects[row] for row in rows]


def grasps(*args: Any, **members: Any) -> tuple:
    (obj,) = ask(*args, **members)
    assert obj.grasp_status is GraspStatus.FOUND, obj.grasp_text
    return obj.grasps


def approaches(found: tuple) -> np.ndarray:
    """Directions, world."""
    return np.array([T[:3, :3] @ g.T_camera_grasp[:3, 2] for g in found])


# -- the members -------------------------------------------------------------------------------------------------------


def test_only_the_rows_asked_for_are_planned_and_old_grasps_go() -> None:
    full = JAWS.plan(scene())
    assert all(o.grasps for o in full)
    planned = plan(full, JAWS, [CAN], 2, GraspRequest(), rotation_to_camera)
    assert [len(o.grasps) for o in planned] == [0, 2, 0]
    assert [o.grasp_status.name for o in planned] == ["NOT_REQUESTED", "FOUND", "NOT_REQUESTED"]


@pytest.mark.parametrize(("count", "given"), [(0, 3), (1, 1), (5, 5)])
def test_max_per_object_also_above_what_is_configured(count: int, given: int) -> None:
    assert len(grasps(pipeline("antipodal", antipodal={"max_grasps": 3}), count=count)) == given


MINE = "{name: mine, stroke: 0.07, finger_width: 0.02, finger_thickness: 0.01, finger_length: 0.05, tip_beyond_tcp: 0, palm_size: [0.05, 0.1, 0.08]}"  # noqa: E501


def test_a_gripper_by_name_path_or_mapping(tmp_path) -> None:
    (tmp_path / "own.yaml").write_text(
        MINE.replace("mine", "from_file")[1:-1].replace(", ", "\n").replace("\n0.1\n0.08", ", 0.1, 0.08")
    )
    for text, name, stroke in (
        ("franka_hand", "franka_hand", 0.08),
        (str(tmp_path / "own.yaml"), "from_file", 0.07),
        (MINE, "mine", 0.07),
        (MINE[1:-1].replace(", ", "\n").replace("\n0.1\n0.08", ", 0.1, 0.08"), "mine", 0.07),
    ):
        found = grasps(gripper=text)
        assert {g.gripper for g in found} == {name}
        assert max(g.width for g in found) <= stroke


def test_a_gripper_goes_to_the_planners_of_its_kind() -> None:
    assert {g.planner for g in grasps(BOTH, gripper="suction_20")} == {"suction"}
    assert {g.gripper for g in grasps(BOTH, gripper="suction_20")} == {"suction_20"}
    assert {g.planner for g in grasps(BOTH, gripper="franka_hand")} == {"antipodal"}


def test_several_cups_to_choose_from() -> None:
    cups = {g.gripper for g in grasps(BOTH, gripper="suction_10,suction_16", count=40)}
    assert cups <= {"suction_10", "suction_16"}
    (obj,) = ask(BOTH, gripper="suction_16, suction_40", rows=(BALL,), count=40)
    assert {g.gripper for g in obj.grasps} <= {"suction_16", "suction_40"}


def test_kind() -> None:
    assert {g.kind for g in grasps(BOTH, kind=Grasp.SUCTION)} == {GraspKind.SUCTION}
    assert {g.kind for g in grasps(BOTH, kind=Grasp.PARALLEL_JAW)} == {GraspKind.PARALLEL_JAW}
    assert {g.kind for g in grasps(BOTH, count=40)} == set(GraspKind)


def test_planners_also_such_as_are_not_configured_with_the_configured_gripper() -> None:
    franka = pipeline("antipodal", antipodal={"gripper": "franka_hand"})
    found = grasps(franka, planners=["top_down"])
    assert {(g.planner, g.gripper) for g in found} == {("top_down", "franka_hand")}
    assert {g.planner for g in grasps(franka, planners=["suction"])} == {"suction"}
    assert {g.planner for g in grasps(BOTH, planners=["antipodal"])} == {"antipodal"}


def test_min_score_may_be_above_or_below_the_configured_one() -> None:
    strict = pipeline("antipodal", antipodal={"min_score": 0.9})
    best = grasps(count=20)[0].score
    middle = 0.5 * (best + grasps(count=20)[-1].score)
    kept = grasps(count=20, min_score=middle)
    assert 0 < len(kept) < len(grasps(count=20))
    assert min(g.score for g in kept) >= middle - 1e-6
    lower = grasps(strict, count=20, min_score=0.3)
    assert len(lower) > len(grasps(strict, count=20))
    assert min(g.score for g in lower) < 0.9
    (obj,) = ask(min_score=1.0)
    assert obj.grasp_status is GraspStatus.NONE
    assert "below min_score" in obj.grasp_text


@pytest.mark.parametrize("frame", ["world", "camera"])
@pytest.mark.parametrize("lean", [0.0, 0.5, 0.9])
def test_approach_axis_in_any_frame_and_the_cone_around_it(frame: str, lean: float) -> None:
    """From the free side, leaning by so much from straight down."""
    axis = np.array([np.sin(lean), 0.0, -np.cos(lean)])
    given = axis if frame == "world" else T[:3, :3].T @ axis
    found = grasps(axis=(3.0 * given).tolist(), frame=frame, max_approach_angle=0.3, count=20)
    assert (np.arccos(np.clip(approaches(found) @ axis, -1, 1)) <= 0.3 + 1e-3).all()


def test_without_an_angle_the_configured_cone_is_around_the_axis() -> None:
    axis = np.array([-np.sin(0.9), 0.0, -np.cos(0.9)])
    narrow = pipeline("antipodal", antipodal={"max_approach_angle": 15.0})
    found = grasps(narrow, axis=axis.tolist(), frame="world", count=20)
    assert (np.arccos(np.clip(approaches(found) @ axis, -1, 1)) <= np.radians(15.0) + 1e-3).all()


def test_a_wider_cone_than_the_configured_one_and_any() -> None:
    straight = pipeline("suction", suction={"max_approach_angle": 5.0})
    leans = np.arccos(-approaches(grasps(straight, rows=(BALL,), count=50)) @ UP)
    assert leans.max() < np.radians(5.0) + 1e-3
    wide = np.arccos(-approaches(grasps(straight, rows=(BALL,), count=50, max_approach_angle=float(np.pi))) @ UP)
    assert wide.max() > np.radians(15.0)


def test_an_axis_from_below_has_no_grasp_and_says_so() -> None:
    (obj,) = ask(axis=[0.0, 0.0, 1.0], frame="world", max_approach_angle=0.5)
    assert obj.grasp_status is GraspStatus.NONE
    assert "leans more than 80 deg" in obj.grasp_text
    (obj,) = ask(BOTH, axis=[1.0, 0.0, 0.0], frame="world", max_approach_angle=0.02, kind=Grasp.SUCTION)
    assert obj.grasp_status is GraspStatus.NONE


def test_min_clearance() -> None:
    far = max(g.clearance for g in grasps(count=20))
    assert np.isfinite(far)
    assert min(g.clearance for g in grasps(count=20, min_clearance=0.9 * far)) >= 0.9 * far
    (obj,) = ask(min_clearance=far + 0.01)
    assert "below min_clearance" in obj.grasp_text


@pytest.mark.parametrize("planner", ["antipodal", "top_down", "suction"])
def test_distances(planner: str) -> None:
    found = grasps(planners=[planner], pregrasp_distance=0.17, retreat_distance=0.06)
    assert_allclose([g.pregrasp_distance for g in found], 0.17, atol=1e-6)
    assert_allclose([g.retreat_distance for g in found], 0.06, atol=1e-6)
    assert_allclose([g.pregrasp_distance for g in grasps(planners=[planner])], 0.1)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"kind": 9}, "kind: expected one of [0, 1, 2], got 9"),
        ({"kind": Grasp.SUCTION}, "kind: no planner here grasps with a suction cup (grasping.planners: antipodal)"),
        ({"planners": ["antipodl"]}, "planners: no planner 'antipodl' (known: antipodal, suction, top_down)"),
        ({"planners": ["os:system"]}, "planners: no planner 'os:system'"),
        ({"gripper": "robotiq"}, "no gripper 'robotiq' (known: franka_hand"),
        ({"gripper": "suction_16"}, "gripper: no planner here grasps with a suction cup"),
        ({"gripper": "/nowhere/own.yaml"}, "gripper '/nowhere/own.yaml': no such file"),
        ({"gripper": "{stroke: 0.1"}, "gripper: not valid YAML"),
        ({"gripper": "{stroke: 0.1}"}, "gripper: missing finger_width"),
        ({"min_score": 1.5}, "min_score: expected 0 to 1, got 1.5"),
        ({"min_score": -0.1}, "min_score: expected 0 to 1"),
        ({"min_clearance": -1.0}, "min_clearance: expected 0 to inf"),
        ({"max_approach_angle": 4.0}, "max_approach_angle: expected 0 to 3.142, got 4"),
        ({"axis": (float("nan"), 0.0, 1.0)}, "approach_axis: expected finite numbers"),
        ({"pregrasp_distance": 3.0}, "pregrasp_distance: expected 0 to 1, got 3"),
        ({"retreat_distance": -0.1}, "retreat_distance: expected 0 to 1"),
    ],
)
def test_requests_that_make_no_sense(members: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        ask(**members)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_not_a_number_means_as_configured() -> None:
    members = dict.fromkeys(
        ("min_score", "min_clearance", "max_approach_angle", "pregrasp_distance", "retreat_distance"), float("nan")
    )
    assert [g.score for g in grasps(**members)] == [g.score for g in grasps()]


def test_without_3d_the_reason_is_kept() -> None:
    blind = scene()
    objects = (Object3D(Status.NO_VALID_DEPTH, "no depth", id=7), *blind.objects[1:])
    planned = plan(replace(blind, objects=objects), JAWS, [0], 1, GraspRequest(), rotation_to_camera)
    assert planned.objects[0].grasp_text == "no 3D: NO_VALID_DEPTH"


# -- the message against the truth -------------------------------------------------------------------------------------


def distance_to(row: int, point: np.ndarray) -> float:
    """From a point (3,), world, to the surface of solid `row`, m."""
    if row == BALL:
        return abs(np.linalg.norm(point - [0.13, 0.02, 0.03]) - 0.03)
    if row == CAN:
        r, z = np.hypot(point[0] - 0.02, point[1]), point[2]
        out = np.array([r - 0.03, max(z - 0.10, -z)])
    else:
        c, s = np.cos(0.5), np.sin(0.5)
        local = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ (point - [-0.12, 0.0, 0.03])
        out = np.abs(local) - [0.05, 0.025, 0.03]
    return float(np.linalg.norm(np.maximum(out, 0.0)) if out.max() > 0 else -out.max())


def outward(row: int, point: np.ndarray) -> np.ndarray:
    """The surface's normal there, world: where the distance grows, from outside."""
    step = 1e-4
    if row == BALL:
        return (point - [0.13, 0.02, 0.03]) / np.linalg.norm(point - [0.13, 0.02, 0.03])
    if row == CAN and point[2] < 0.10 - step:
        return np.array([point[0] - 0.02, point[1], 0.0]) / np.hypot(point[0] - 0.02, point[1])
    return np.full(3, np.nan)


def numbers(value: Any) -> np.ndarray:
    return np.array([value.x, value.y, value.z])


def rotation(pose: Any) -> np.ndarray:
    q = pose.orientation
    x, y, z, w = q.x, q.y, q.z, q.w
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def messages(on: Pipeline, count: int, **members: Any) -> dict[int, list[Grasp]]:
    """Grasps per row as a consumer gets them, in the world frame."""
    request = GraspRequest(**members)
    planned = plan(scene(), on, [BOX, CAN, BALL], count, request, rotation_to_camera)
    message = objects_message(planned, Header(frame_id="world"), "camera", T)
    message = deserialize_message(serialize_message(message), type(message))
    return {obj.id - 7: list(obj.grasps) for obj in message.objects}


@pytest.mark.parametrize("planner", ["antipodal", "top_down"])
def test_every_field_of_a_jaw_s_grasp_is_true(planner: str) -> None:
    jaws = load_jaws("robotiq_2f_85")
    found = messages(pipeline(planner), 5, pregrasp_distance=0.13, retreat_distance=0.21)
    assert all(found.values())
    for row, of_row in found.items():
        assert [g.rank for g in of_row] == list(range(len(of_row)))
        for g in of_row:
            assert (g.kind, g.object_id, g.planner, g.gripper) == (1, row + 7, planner, jaws.name)
            R, at = rotation(g.pose), numbers(g.pose.position)
            assert rotation(g.pregrasp_pose) == pytest.approx(R)
            assert_allclose(numbers(g.pregrasp_pose.position), at - 0.13 * R[:, 2], atol=1e-6)
            assert_allclose(numbers(g.retreat_direction), UP, atol=1e-6)
            assert (g.retreat_distance, g.max_force) == (pytest.approx(0.21), jaws.max_force)
            contacts = np.array([numbers(c) for c in g.contacts])
            assert_allclose(contacts.mean(axis=0), at, atol=1e-6)
            assert_allclose(contacts[1] - contacts[0], g.object_width * R[:, 1], atol=1e-6)  # -y finger first
            assert g.object_width < g.width <= jaws.stroke + 1e-6
            assert 0 < g.score <= 1
            assert g.collision in (Grasp.COLLISION_FREE, Grasp.COLLISION_UNSEEN)
            assert g.clearance > 0 or np.isnan(g.clearance)
        # the best one, upright: what it touches is the object's surface, and it faces the pads
        best = of_row[0]
        contacts = np.array([numbers(c) for c in best.contacts])
        normals = np.array([numbers(n) for n in best.normals])
        assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-6)
        for contact, normal in zip(contacts, normals, strict=True):
            assert distance_to(row, contact) < 0.004, (row, contact)
            truth = outward(row, contact)
            if np.isfinite(truth).all():
                level = 0.95 if row == CAN else 0.75  # the contour's: it knows no slope along the approach
                assert normal @ truth > level, (row, normal, truth)


def test_every_field_of_a_cup_s_grasp_is_true() -> None:
    cup = load_cup("suction_16")
    found = messages(pipeline("suction"), 3)
    assert found[BOX]
    assert found[CAN]
    for row in (BOX, CAN):
        for g in found[row]:
            R, at = rotation(g.pose), numbers(g.pose.position)
            assert (g.kind, g.width, g.object_width, g.gripper) == (2, 0.0, 0.0, cup.name)
            assert g.max_force == pytest.approx(cup.max_force)
            assert_allclose(numbers(g.contacts[0]), at, atol=1e-6)
            assert g.contacts[1] == g.contacts[0]
            assert g.normals[1] == g.normals[0]
            assert numbers(g.normals[0]) @ R[:, 2] < -np.cos(cup.max_tilt + 0.05)
            assert distance_to(row, at) < 0.002
            assert_allclose(numbers(g.pregrasp_pose.position), at - 0.1 * R[:, 2], atol=1e-6)
            assert g.collision == Grasp.COLLISION_FREE


def test_clearance_is_the_distance_to_the_neighbour() -> None:
    """A wall beside a box: the free side of the fingers is at least that far from it."""
    view = look([box((0.08, 0.04, 0.06)), box((0.02, 0.10, 0.08), x=0.09)])
    objects = fuse(view.frame, view.instances, None, (view.table,))
    seen = Scene(view.frame, view.instances, tuple(replace(o, id=i + 1) for i, o in enumerate(objects)), view.table)
    best = plan(seen, JAWS, [0], 1, GraspRequest(), rotation_to_camera).objects[0].grasps[0]
    where = view.T_world_camera @ best.T_camera_grasp
    assert abs(where[2, 2] + 1) < 0.3
    palm = load_jaws("robotiq_2f_85").palm_size
    along_x = abs(where[0, :3]) @ [palm[0] / 2, palm[1] / 2, 0.0]
    assert best.clearance <= 0.08 - where[0, 3]  # to the wall's face at x = 0.08, from the tool centre point
    assert best.clearance >= 0.08 - where[0, 3] - along_x - 0.01
