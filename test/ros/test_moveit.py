# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Grasps and objects for MoveIt 2, with its real messages; skipped where moveit_msgs is not installed. World: z up."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from rclpy.serialization import deserialize_message, serialize_message
from seg_perception.msg import Grasp, SegmentedObject, SegmentedObjectArray
from std_msgs.msg import Header

from seg_perception.geometry import transform
from seg_perception.grasping.gripper import load_gripper
from seg_perception.ros.poses import pose_from_matrix

pytest.importorskip("moveit_msgs.msg", reason="moveit_msgs is not installed")
moveit: Any = importlib.import_module("seg_perception.ros.moveit")
HEADER = Header(frame_id="base_link")
DOWN = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])  # approach down, closing along -y


def over_the_wire(message: Any) -> Any:
    return deserialize_message(serialize_message(message), type(message))


def xyz(value: Any) -> list[float]:
    return [value.x, value.y, value.z]


def jaw_grasp(gripper: str = "franka_hand") -> Grasp:
    """From above at 0.5, 0.1, 0.2 m, a thing 40 mm wide, jaws 60 mm apart, 0.12 m of approach and 0.15 m of lift."""
    grasp = Grasp(kind=Grasp.PARALLEL_JAW, object_id=17, rank=2, gripper=gripper)
    grasp.pose = pose_from_matrix(transform(DOWN, [0.5, 0.1, 0.2]))
    grasp.pregrasp_pose = pose_from_matrix(transform(DOWN, [0.5, 0.1, 0.32]))
    grasp.retreat_direction.z = 1.0
    grasp.score, grasp.width, grasp.object_width, grasp.max_force = 0.9, 0.06, 0.04, 30.0
    grasp.retreat_distance = 0.15
    return grasp


def test_a_grasp_of_the_franka_hand() -> None:
    out = over_the_wire(moveit.moveit_grasp(jaw_grasp(), HEADER, load_gripper("franka_hand")))
    assert out.id == "seg_17_2"
    assert out.grasp_pose.header.frame_id == "base_link"
    assert_allclose(xyz(out.grasp_pose.pose.position), [0.5, 0.1, 0.2 + 0.1034], atol=1e-9)  # the hand is above
    q = out.grasp_pose.pose.orientation
    assert_allclose([abs(q.x), q.y, q.z, q.w], [1, 0, 0, 0], atol=1e-9)
    assert out.grasp_quality == pytest.approx(0.9)
    assert list(out.pre_grasp_posture.joint_names) == ["fr3_finger_joint1", "fr3_finger_joint2"]
    assert_allclose(out.pre_grasp_posture.points[0].positions, [0.03, 0.03])  # 60 mm between them
    assert_allclose(out.grasp_posture.points[0].positions, [0.018, 0.018])  # 4 mm less than the thing is wide
    assert_allclose(out.grasp_posture.points[0].effort, [30.0, 30.0])
    assert list(out.pre_grasp_posture.points[0].effort) == []
    assert xyz(out.pre_grasp_approach.direction.vector) == pytest.approx([0, 0, -1])
    assert out.pre_grasp_approach.direction.header.frame_id == "base_link"
    assert out.pre_grasp_approach.desired_distance == pytest.approx(0.12)
    assert xyz(out.post_grasp_retreat.direction.vector) == pytest.approx([0, 0, 1])
    assert out.post_grasp_retreat.desired_distance == pytest.approx(0.15)
    assert 0 < out.post_grasp_retreat.min_distance < 0.15
    assert xyz(out.post_place_retreat.direction.vector) == pytest.approx([0, 0, 1])
    assert out.max_contact_force == pytest.approx(30.0)
    assert list(out.allowed_touch_objects) == ["seg_17"]


def test_a_robotiq_closes_along_its_link_s_x_and_by_an_angle() -> None:
    out = moveit.moveit_grasp(jaw_grasp("robotiq_2f_85"), HEADER, load_gripper("robotiq_2f_85"))
    q = out.grasp_pose.pose.orientation
    x_axis = np.array([1 - 2 * (q.y**2 + q.z**2), 2 * (q.x * q.y + q.w * q.z), 2 * (q.x * q.z - q.w * q.y)])
    assert_allclose(abs(x_axis), [0, 1, 0], atol=1e-4)  # the grasp closes along the base's y
    assert_allclose(xyz(out.grasp_pose.pose.position), [0.5, 0.1, 0.352], atol=1e-6)
    (opened,) = out.pre_grasp_posture.points[0].positions
    (closed,) = out.grasp_posture.points[0].positions
    assert 0.2 < opened < 0.4 < closed < 0.6  # 60 and 36 mm between the table's rows


def test_a_cup_has_no_joints() -> None:
    cup = {"kind": "suction", "name": "cup", "cup_radius": 0.01, "cup_length": 0.01, "body_radius": 0.01}
    cup["moveit"] = {"parent_link": "tool0", "tcp": [0.0, 0.0, 0.1, 0.0, 0.0, 0.0]}
    grasp = jaw_grasp("cup")
    grasp.kind, grasp.width, grasp.object_width = Grasp.SUCTION, 0.0, 0.0
    out = moveit.moveit_grasp(grasp, HEADER, load_gripper(cup))
    assert out.grasp_posture.joint_names == []
    assert_allclose(xyz(out.grasp_pose.pose.position), [0.5, 0.1, 0.3], atol=1e-9)


def test_grippers_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="the grasp was planned for 'franka_hand'"):
        moveit.moveit_grasp(jaw_grasp(), HEADER, load_gripper("robotiq_2f_85"))
    with pytest.raises(ValueError, match="no moveit section"):
        moveit.moveit_grasp(jaw_grasp("suction_16"), HEADER, load_gripper("suction_16"))


# -- the planning scene ------------------------------------------------------------------------------------------------


def message(*ids: int, status: int = SegmentedObject.OK) -> SegmentedObjectArray:
    """Boxes of 6 x 4 x 10 cm standing on z = 0.05, 10 cm apart along x."""
    msg = SegmentedObjectArray(header=HEADER, has_support=True)
    msg.support = np.array([0.0, 0.0, 1.0, -0.05])
    for i in ids:
        obj = SegmentedObject(id=i, status=status)
        obj.box_pose = pose_from_matrix(transform(translation=[0.1 * i, 0.0, 0.10]))
        obj.box_size.x, obj.box_size.y, obj.box_size.z = 0.06, 0.04, 0.10
        obj.centroid.x, obj.centroid.z = 0.1 * i, 0.12
        msg.objects.append(obj)
    return msg


def changes(scene: Any) -> dict[str, bytes]:
    return {o.id: o.operation for o in scene.world.collision_objects}


def test_boxes_come_move_and_go() -> None:
    objects = moveit.CollisionObjects()
    first = over_the_wire(objects.update(message(1, 3), padding=0.005))
    assert first.is_diff
    assert first.robot_state.is_diff
    assert changes(first) == {"seg_1": moveit.ADD, "seg_3": moveit.ADD, "seg_support": moveit.ADD}
    box = first.world.collision_objects[0]
    assert box.header.frame_id == "base_link"
    assert list(box.primitives[0].dimensions) == pytest.approx([0.07, 0.05, 0.11])
    assert xyz(box.primitive_poses[0].position) == pytest.approx([0.1, 0.0, 0.1])
    assert xyz(box.pose.position) == [0, 0, 0]
    assert box.pose.orientation.w == 1.0
    assert changes(objects.update(message(1))) == {
        "seg_1": moveit.ADD,
        "seg_3": moveit.REMOVE,
        "seg_support": moveit.ADD,
    }
    blind = message(1, status=SegmentedObject.NO_VALID_DEPTH)
    assert changes(objects.update(blind))["seg_1"] == moveit.REMOVE
    assert "seg_1" not in changes(objects.update(blind))


def test_the_support_is_a_slab_under_the_objects() -> None:
    support = moveit.CollisionObjects().update(message(1, 5)).world.collision_objects[-1]
    assert support.id == "seg_support"
    length, width, thick = support.primitives[0].dimensions
    position = xyz(support.primitive_poses[0].position)
    assert position == pytest.approx([0.3, 0.0, 0.05 - thick / 2])  # its top is z = 0.05, in the middle of both
    assert length == width == pytest.approx(2 * (0.2 + 0.5))
    assert not changes(moveit.CollisionObjects().update(SegmentedObjectArray(header=HEADER)))


def attached(operation: bytes, *ids: str, diff: bool = True) -> Any:
    messages = importlib.import_module("moveit_msgs.msg")
    scene = messages.PlanningScene(is_diff=True)
    scene.robot_state.is_diff = diff
    for i in ids:
        held = messages.AttachedCollisionObject(link_name="tool0")
        held.object.id, held.object.operation = i, operation
        scene.robot_state.attached_collision_objects.append(held)
    return scene


def test_what_the_robot_holds_is_never_put_back() -> None:
    objects = moveit.CollisionObjects()
    objects.update(message(1, 2))
    objects.heard(attached(moveit.ADD, "seg_1"))
    assert set(changes(objects.update(message(1, 2)))) == {"seg_2", "seg_support"}
    assert set(changes(objects.update(message(2)))) == {"seg_2", "seg_support"}  # nor removed from the hand
    objects.heard(attached(moveit.REMOVE, "seg_1"))
    assert changes(objects.update(message(1, 2)))["seg_1"] == moveit.ADD
    objects.heard(attached(moveit.ADD, "seg_2"))
    objects.heard(attached(moveit.ADD, diff=False))  # the whole state: nothing is held
    assert "seg_2" in changes(objects.update(message(2)))


# -- the node ----------------------------------------------------------------------------------------------------------


def test_the_node_publishes_them_to_who_listens() -> None:
    from rig import RED, NodeProcess, Rig

    rig = Rig("/moveit")
    process = NodeProcess(RED, "moveit.padding:=0.01", namespace="/moveit")
    try:
        heard: list[Any] = []
        rig.listen(moveit.PlanningScene, "seg_perception/collision_objects", heard)
        rig.film(lambda: heard, timeout=60.0, what="a planning scene")
        (brick,) = [o for o in heard[-1].world.collision_objects if o.id != "seg_support"]
        assert brick.id == f"seg_{rig.objects[-1].objects[0].id}"
        assert xyz(brick.primitive_poses[0].position) == pytest.approx(
            xyz(rig.objects[-1].objects[0].box_pose.position), abs=2e-3
        )
        size = xyz(rig.objects[-1].objects[0].box_size)
        assert list(brick.primitives[0].dimensions) == pytest.approx([s + 0.02 for s in size], abs=2e-3)
        assert "seg_support" in changes(heard[-1])
    finally:
        assert process.stop() == 0, process.log
        rig.close()
    assert "Traceback" not in process.log
