# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""RViz markers of the objects: boxes, labels and the best grasp's gripper, in the colors of the overlay."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from seg_perception.draw import label_colors
from seg_perception.msg import Grasp, SegmentedObject, SegmentedObjectArray

BOXES, LABELS, GRIPPERS = "boxes", "labels", "grippers"
BOX_ALPHA = 0.35
TEXT_HEIGHT = 0.025  # m
LINE_WIDTH = 0.006  # m
FINGER = 0.05  # m, drawn length of a finger
STEM = 0.06  # m, drawn length of what holds palm or cup
CUP_RADIUS = 0.012  # m


class Markers:
    """Remembers what is shown, so that it can be taken away: markers stay until they are deleted."""

    def __init__(self, by_class: bool = False) -> None:
        self._by_class = by_class
        self._shown: set[tuple[str, int]] | None = None

    def reset(self) -> None:
        """The next update begins by deleting everything, also what an earlier node left."""
        self._shown = None

    def update(self, msg: SegmentedObjectArray) -> MarkerArray:
        """Markers that turn what is shown into the objects of `msg`. id = object id, ns = kind."""
        header = Header(stamp=msg.header.stamp, frame_id=msg.header.frame_id)
        seen = [obj for obj in msg.objects if obj.status < SegmentedObject.NO_DEPTH_IMAGE]
        colors = label_colors([obj.class_id if self._by_class else obj.id for obj in seen]) / 255.0
        markers = []
        for obj, color in zip(seen, colors.tolist(), strict=True):
            markers += [_box(header, obj, color), _label(header, obj)]
            if obj.grasps:
                markers.append(_gripper(header, obj.id, obj.grasps[0], color))
        shown = {(marker.ns, marker.id) for marker in markers}
        if self._shown is None:
            gone = [Marker(header=header, action=Marker.DELETEALL)]
        else:
            gone = [Marker(header=header, ns=ns, id=i, action=Marker.DELETE) for ns, i in sorted(self._shown - shown)]
        self._shown = shown
        return MarkerArray(markers=gone + markers)


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


def _gripper(header: Header, object_id: int, grasp: Grasp, color: list[float]) -> Marker:
    marker = Marker(header=header, ns=GRIPPERS, id=marker_id(object_id), type=Marker.LINE_LIST, pose=grasp.pose)
    lines = _cup_lines() if grasp.kind == Grasp.SUCTION else _jaw_lines(grasp.width)
    marker.points = [Point(x=x, y=y, z=z) for x, y, z in lines.reshape(-1, 3).tolist()]
    marker.scale.x = LINE_WIDTH
    marker.color = _color(color, 1.0)
    return marker


def _jaw_lines(width: float) -> NDArray[np.float64]:
    """Two fingers, a palm and a stem, (4, 2, 3) m in the grasp frame: fingertips at z = 0, closing along y."""
    half = width / 2
    return np.array(
        [
            [[0, -half, 0], [0, -half, -FINGER]],
            [[0, half, 0], [0, half, -FINGER]],
            [[0, -half, -FINGER], [0, half, -FINGER]],
            [[0, 0, -FINGER], [0, 0, -FINGER - STEM]],
        ],
        np.float64,
    )


def _cup_lines() -> NDArray[np.float64]:
    """A ring and a stem, (L, 2, 3) m in the grasp frame: the contact is at z = 0."""
    turn = np.linspace(0, 2 * np.pi, 9)
    ring = np.stack([CUP_RADIUS * np.cos(turn), CUP_RADIUS * np.sin(turn), np.zeros(9)], axis=1)
    stem = np.array([[[0, 0, 0], [0, 0, -FINGER - STEM]]], np.float64)
    return np.concatenate([np.stack([ring[:-1], ring[1:]], axis=1), stem])


def _color(rgb: list[float], alpha: float) -> ColorRGBA:
    return ColorRGBA(r=float(rgb[0]), g=float(rgb[1]), b=float(rgb[2]), a=alpha)
