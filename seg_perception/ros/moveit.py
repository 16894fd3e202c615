# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Grasps and objects as MoveIt 2 takes them. Import this only where moveit_msgs is installed (Humble and later)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from geometry_msgs.msg import PoseStamped, Vector3, Vector3Stamped
from moveit_msgs.msg import CollisionObject, GripperTranslation, PlanningScene
from moveit_msgs.msg import Grasp as MoveItGrasp
from numpy.typing import NDArray
from shape_msgs.msg import SolidPrimitive
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from seg_perception.geometry import invert, rotation_with_z, transform
from seg_perception.grasping.gripper import Gripper, SuctionCup
from seg_perception.grasping.moveit_hand import MoveItHand
from seg_perception.msg import Grasp, SegmentedObject, SegmentedObjectArray
from seg_perception.ros.poses import matrix_from_pose, pose_from_matrix

SUPPORT_ID = "seg_support"
SUPPORT_THICKNESS, SUPPORT_BEYOND = 0.02, 0.5  # m, of the support's box, and how far it reaches beyond the objects
LEAST = 0.5  # share of the approach and of the retreat that must be possible
SQUEEZE = 0.004  # m, the jaws are told to close by so much more than the object is wide
ADD, REMOVE = CollisionObject.ADD, CollisionObject.REMOVE


def object_id(number: int) -> str:
    """The name of an object in MoveIt's planning scene."""
    return f"seg_{number}"


def moveit_grasp(grasp: Grasp, header: Header, gripper: Gripper | SuctionCup) -> MoveItGrasp:
    """A grasp of ours, with poses in `header.frame_id`, as moveit_msgs/Grasp.

    Its pose is that of the end effector's parent link, its directions are in `header.frame_id`. Raises ValueError when
    the gripper is another one or says nothing about MoveIt.
    """
    hand = gripper.moveit
    if gripper.name != grasp.gripper:
        raise ValueError(f"gripper '{gripper.name}': the grasp was planned for '{grasp.gripper}'")
    if hand is None:
        raise ValueError(
            f"gripper '{gripper.name}': its file has no moveit section (parent_link, tcp, joints, opening)"
        )
    T_frame_tcp = matrix_from_pose(grasp.pose)
    parent = PoseStamped(header=header, pose=pose_from_matrix(T_frame_tcp @ invert(hand.T_parent_tcp)))
    closed = max(0.0, grasp.object_width - SQUEEZE)
    up = np.array([grasp.retreat_direction.x, grasp.retreat_direction.y, grasp.retreat_direction.z])
    back = np.array([getattr(grasp.pregrasp_pose.position, k) - getattr(grasp.pose.position, k) for k in "xyz"])
    return MoveItGrasp(
        id=f"{object_id(grasp.object_id)}_{grasp.rank}",
        pre_grasp_posture=_posture(hand, grasp.width),
        grasp_posture=_posture(hand, closed, grasp.max_force),
        grasp_pose=parent,
        grasp_quality=float(np.nan_to_num(grasp.score)),
        pre_grasp_approach=_translation(header, T_frame_tcp[:3, 2], float(np.linalg.norm(back))),
        post_grasp_retreat=_translation(header, up, grasp.retreat_distance),
        post_place_retreat=_translation(header, -T_frame_tcp[:3, 2], float(np.linalg.norm(back))),
        max_contact_force=grasp.max_force,
        allowed_touch_objects=[object_id(grasp.object_id)],
    )


def _posture(hand: MoveItHand, width: float, effort: float = 0.0) -> JointTrajectory:
    """The joints at an opening; nothing for a hand without joints."""
    if not hand.joints:
        return JointTrajectory()
    point = JointTrajectoryPoint(positions=hand.positions(width))
    point.effort = [float(effort)] * len(hand.joints) if effort else []
    point.time_from_start.sec = 1
    return JointTrajectory(joint_names=list(hand.joints), points=[point])


def _translation(header: Header, direction: NDArray[np.float64], distance: float) -> GripperTranslation:
    x, y, z = direction.tolist()
    return GripperTranslation(
        direction=Vector3Stamped(header=header, vector=Vector3(x=x, y=y, z=z)),
        desired_distance=float(distance),
        min_distance=float(LEAST * distance),
    )


# -- the planning scene ------------------------------------------------------------------------------------------------


class CollisionObjects:
    """The objects' boxes and their support as diffs of a planning scene. Remembers what is there, to take it away."""

    def __init__(self) -> None:
        self._shown: set[str] = set()
        self._attached: set[str] = set()

    def reset(self) -> None:
        """Nothing is shown: who listens from now on has not heard of what was."""
        self._shown = set()

    def heard(self, scene: PlanningScene) -> None:
        """What MoveIt says the robot holds: that is its own, and never put back into the world."""
        state = scene.robot_state
        if not state.is_diff:
            self._attached.clear()
        for attached in state.attached_collision_objects:
            change = self._attached.discard if attached.object.operation == REMOVE else self._attached.add
            change(attached.object.id)

    def update(self, msg: SegmentedObjectArray, padding: float = 0.0) -> PlanningScene:
        """The diff that turns what is shown into the objects of `msg` that have 3D, and their support.

        Boxes of objects are larger by `padding` m on every side.
        """
        header = msg.header
        solid = [o for o in msg.objects if o.status < SegmentedObject.NO_DEPTH_IMAGE]
        boxes = [_object_box(header, o, padding) for o in solid if object_id(o.id) not in self._attached]
        if msg.has_support:
            boxes.append(_support_box(header, np.asarray(msg.support, np.float64), solid))
        shown = {box.id for box in boxes}
        gone = [
            CollisionObject(header=header, id=i, operation=REMOVE)
            for i in sorted(self._shown - shown - self._attached)  # what was taken up left the world by itself
        ]
        self._shown = shown
        scene = PlanningScene(is_diff=True)
        scene.robot_state.is_diff = True
        scene.world.collision_objects = gone + boxes
        return scene


def _object_box(header: Header, obj: SegmentedObject, padding: float) -> CollisionObject:
    size = [max(s, 0.001) + 2 * padding for s in (obj.box_size.x, obj.box_size.y, obj.box_size.z)]
    return _box(header, object_id(obj.id), matrix_from_pose(obj.box_pose), size)


def _support_box(header: Header, plane: NDArray[np.float64], objects: Collection[SegmentedObject]) -> CollisionObject:
    """A slab whose top is the plane, under all objects; without any, below the frame's origin."""
    normal, d = plane[:3], plane[3]
    feet = np.array([[getattr(o.centroid, k) for k in "xyz"] for o in objects]).reshape(-1, 3)
    middle = (feet.min(axis=0) + feet.max(axis=0)) / 2 if len(feet) else np.zeros(3)
    reach = float(np.linalg.norm(feet - middle, axis=1).max()) if len(feet) else 0.0
    top = middle - (middle @ normal + d) * normal
    side = 2 * (reach + SUPPORT_BEYOND)
    T = transform(rotation_with_z(normal), top - SUPPORT_THICKNESS / 2 * normal)
    return _box(header, SUPPORT_ID, T, [side, side, SUPPORT_THICKNESS])


def _box(header: Header, name: str, T: NDArray[np.float64], size: list[float]) -> CollisionObject:
    """MoveIt takes the shape's pose for the object's where `pose` is the identity, and old versions ignore `pose`."""
    shape = SolidPrimitive(type=SolidPrimitive.BOX, dimensions=[float(s) for s in size])
    return CollisionObject(
        header=header, id=name, primitives=[shape], primitive_poses=[pose_from_matrix(T)], operation=ADD
    )
