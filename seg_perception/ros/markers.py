# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""RViz markers of the objects: boxes, labels and the best grasp's gripper, in the colors of the overlay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from seg_perception.draw import label_colors
from seg_perception.grasping.gripper import Gripper, SuctionCup, load_gripper, load_grippers, shipped_grippers
from seg_perception.grasping.gripper_shape import gripper_triangles
from seg_perception.msg import Grasp, SegmentedObject, SegmentedObjectArray
from seg_perception.options import Selected

BOXES, LABELS, GRIPPERS = "boxes", "labels", "grippers"
BOX_ALPHA = 0.35
TEXT_HEIGHT = 0.025  # m
SOME_JAWS = Gripper("unknown", 0.1, 0.01, 0.005, 0.05, 0.0, (0.02, 0.1, 0.02))  # for a planner that names no gripper
SOME_CUP = SuctionCup("unknown", 0.012, 0.02, 0.01)


class Markers:
    """Remembers what is shown, so that it can be taken away: markers stay until they are deleted."""

    def __init__(self, by_class: bool = False) -> None:
        self._by_class = by_class
        self._shown: set[tuple[str, int]] | None = None
        self._planners: Sequence[Selected] = ()
        self._grippers: dict[str, Gripper | SuctionCup] = {}

    def reset(self) -> None:
        """The next update begins by deleting everything, also what an earlier node left."""
        self._shown = None

    def update(self, msg: SegmentedObjectArray, planners: Sequence[Selected] = ()) -> MarkerArray:
        """Markers that turn what is shown into the objects of `msg`. id = object id, ns = kind.

        Grippers look as the `planners` describe them, others as those that ship under their name.
        """
        if planners is not self._planners:
            self._planners, self._grippers = planners, grippers_of(planners)
        header = Header(stamp=msg.header.stamp, frame_id=msg.header.frame_id)
        seen = [obj for obj in msg.objects if obj.status < SegmentedObject.NO_DEPTH_IMAGE]
        colors = label_colors([obj.class_id if self._by_class else obj.id for obj in seen]) / 255.0
        markers = []
        for obj, color in zip(seen, colors.tolist(), strict=True):
            markers += [_box(header, obj, color), _label(header, obj)]
            if obj.grasps:
                markers.append(_gripper(header, obj.id, obj.grasps[0], self._gripper_of(obj.grasps[0]), color))
        shown = {(marker.ns, marker.id) for marker in markers}
        if self._shown is None:
            gone = [Marker(header=header, action=Marker.DELETEALL)]
        else:
            gone = [Marker(header=header, ns=ns, id=i, action=Marker.DELETE) for ns, i in sorted(self._shown - shown)]
        self._shown = shown
        return MarkerArray(markers=gone + markers)

    def _gripper_of(self, grasp: Grasp) -> Gripper | SuctionCup:
        name = grasp.gripper
        if name not in self._grippers:
            some = SOME_CUP if grasp.kind == Grasp.SUCTION else SOME_JAWS
            self._grippers[name] = load_gripper(name) if name in shipped_grippers() else some
        return self._grippers[name]


def grippers_of(planners: Sequence[Selected]) -> dict[str, Gripper | SuctionCup]:
    """What those planners plan for, by name."""
    sources = [getattr(planner.config, "gripper", None) for planner in planners]
    return {gripper.name: gripper for source in sources if source is not None for gripper in load_grippers(source)}


def marker_id(object_id: int) -> int:
    """A uint32 object id as a marker's int32: the same 32 bits."""
    return object_id - 2**32 if object_id >= 2**31 else object_id


def _box(header: Header, obj: SegmentedObject, color: list[float]) -> Marker:
    marker = Marker(header=header, ns=BOXES, id=marker_id(obj.id), type=Marker.CUBE, pose=obj.box_pose)
    size = obj.box_size
    marker.scale.x, marker.scale.y, marker.scale.z = (max(s, 0.001) for s in (size.x, size.y, size.z))  # RViz refuses 0
    marker.color = _color(color, BOX_ALPHA)
    return marker


def _label(header: Header, obj: SegmentedObject) -> Marker:
    marker = Marker(header=header, ns=LABELS, id=marker_id(obj.id), type=Marker.TEXT_VIEW_FACING)
    q, center = obj.box_pose.orientation, obj.box_pose.position
    up = np.array([2 * (q.x * q.z + q.w * q.y), 2 * (q.y * q.z - q.w * q.x), 1 - 2 * (q.x * q.x + q.y * q.y)])  # box z
    lift = obj.box_size.z / 2 + TEXT_HEIGHT
    marker.pose.position.x, marker.pose.position.y, marker.pose.position.z = (
        np.array([center.x, center.y, center.z]) + lift * up
    ).tolist()
    marker.text = f"{obj.id} {obj.class_name} {obj.score:.2f}"
    marker.scale.z = TEXT_HEIGHT
    marker.color = _color([1.0, 1.0, 1.0], 1.0)
    return marker


def _gripper(header: Header, object_id: int, grasp: Grasp, gripper: Gripper | SuctionCup, color: list[float]) -> Marker:
    marker = Marker(header=header, ns=GRIPPERS, id=marker_id(object_id), type=Marker.TRIANGLE_LIST, pose=grasp.pose)
    corners = gripper_triangles(gripper, grasp.width).reshape(-1, 3)
    marker.points = [Point(x=x, y=y, z=z) for x, y, z in corners.tolist()]
    marker.scale.x = marker.scale.y = marker.scale.z = 1.0
    marker.color = _color(color, 1.0)
    return marker


def _color(rgb: list[float], alpha: float) -> ColorRGBA:
    return ColorRGBA(r=float(rgb[0]), g=float(rgb[1]), b=float(rgb[2]), a=alpha)
