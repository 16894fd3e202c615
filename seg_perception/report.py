# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""objects.json: one record per frame, the same whether it comes from the command line or from the ROS demo.

    frames: [
      name        the frame's name, as in overlay_NAME.png
      stamp_ns    of the color image
      latency     s, from the image to the result: processing here, camera stamp to arrival in the demo
      frame       frame_id that every 3D value of this record is in
      model       what found the instances
      timings     s per stage
      objects: [
        id, class_id, class, score
        status, status_text      OK or PARTIAL = has 3D; else why there is none
        box_2d                   px: x_min, y_min, x_max, y_max
        centroid                 m: x, y, z
        box                      center m, quaternion x y z w, size m
        height_above_support     m
        valid_depth_ratio        0..1
        points                   how many
        grasp_status, grasp_text what became of its grasps
        grasp                    the best one: kind, position m, quaternion x y z w, width m, score, planner, gripper
      ]
    ]

What is not known is null: JSON has no NaN.
"""

from __future__ import annotations

import json
import math
import os
import re
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seg_perception.geometry import quaternion_from_matrix
from seg_perception.scene import Grasp, GraspKind, GraspStatus, Object3D, Scene, Status


def scene_record(scene: Scene, name: str, latency: float) -> dict[str, Any]:
    """The record of a scene; `latency` s."""
    rows = scene.instances
    return _plain(
        {
            "name": name,
            "stamp_ns": scene.frame.stamp_ns,
            "latency": latency,
            "frame": scene.frame.frame_id,
            "model": scene.model,
            "timings": dict(scene.timings),
            "objects": [
                _object_of(obj, rows.class_ids[i], rows.class_names[i], rows.scores[i], rows.boxes[i])
                for i, obj in enumerate(scene.objects)
            ],
        }
    )


def message_record(message: Any, name: str, latency: float) -> dict[str, Any]:
    """The same record of a `SegmentedObjectArray`; `latency` s."""
    stamp = message.header.stamp
    return _plain(
        {
            "name": name,
            "stamp_ns": stamp.sec * 1_000_000_000 + stamp.nanosec,
            "latency": latency,
            "frame": message.header.frame_id,
            "model": message.model,
            "timings": dict(zip(("wait", "segment", "fuse", "grasp"), message.timings, strict=True)),
            "objects": [_object_of_message(obj) for obj in message.objects],
        }
    )


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def summary(records: Sequence[Mapping[str, Any]]) -> str:
    """What the records say, in two or three lines."""
    if not records:
        return "no frames"
    objects = [obj for record in records for obj in record["objects"]]
    milliseconds = [1000 * record["latency"] for record in records if record["latency"] is not None]
    line = (
        f"{_counted(len(records), 'frame')}, {_counted(len(objects), 'object')} "
        f"({len(objects) / len(records):.1f} a frame), "
        f"{sum(obj['grasp'] is not None for obj in objects)} with a grasp"
    )
    if milliseconds:
        line += f"; {np.median(milliseconds):.0f} ms a frame (median), {np.percentile(milliseconds, 95):.0f} ms (p95)"
    without = Counter(obj["status"] for obj in objects if not Status[obj["status"]].has_3d)
    return line + "".join(f"\nwithout 3D: {count} {status}" for status, count in without.most_common())


def write_report(path: str | Path, records: Sequence[Mapping[str, Any]], **about: Any) -> None:
    """Writes `{"frames": records, **about}`; a reader sees the old file or the whole new one, never a part."""
    write_json(path, {**about, "frames": list(records)})


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as JSON in one step; NaN and infinities become null. Makes the folder."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_text(to_json(value) + "\n", encoding="utf-8")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def to_json(value: Any) -> str:
    """`value` as JSON text; arrays become lists on one line, NaN and infinities null, numbers keep seven digits."""
    text = json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\[\n[^\[\]{}\"]*\]", lambda numbers: f"[{' '.join(numbers[0][1:-1].split())}]", text)


def _object_of(obj: Object3D, class_id: int, name: str, score: float, box_2d: np.ndarray) -> dict[str, Any]:
    T = obj.box.T_camera_box
    box = {"center": T[:3, 3], "quaternion": quaternion_from_matrix(T[:3, :3]), "size": obj.box.size}
    return {
        "id": obj.id,
        "class_id": class_id,
        "class": name,
        "score": score,
        "status": obj.status.name,
        "status_text": obj.status_text,
        "box_2d": box_2d,
        "centroid": obj.centroid if obj.status.has_3d else None,
        "box": box if obj.status.has_3d else None,
        "height_above_support": obj.height_above_support,
        "valid_depth_ratio": obj.valid_depth_ratio,
        "points": len(obj.points),
        "grasp_status": obj.grasp_status.name,
        "grasp_text": obj.grasp_text,
        "grasp": _grasp_of(obj.grasps[0]) if obj.grasps else None,
    }


def _grasp_of(grasp: Grasp) -> dict[str, Any]:
    T = grasp.T_camera_grasp
    return {
        "kind": grasp.kind.name,
        "position": T[:3, 3],
        "quaternion": quaternion_from_matrix(T[:3, :3]),
        "width": grasp.width,
        "score": grasp.score,
        "planner": grasp.planner,
        "gripper": grasp.gripper,
    }


def _object_of_message(obj: Any) -> dict[str, Any]:
    has_3d = Status(obj.status).has_3d
    box = {**_pose(obj.box_pose, "center"), "size": _xyz(obj.box_size)}
    return {
        "id": obj.id,
        "class_id": obj.class_id,
        "class": obj.class_name,
        "score": obj.score,
        "status": Status(obj.status).name,
        "status_text": obj.status_text,
        "box_2d": obj.box,
        "centroid": _xyz(obj.centroid) if has_3d else None,
        "box": box if has_3d else None,
        "height_above_support": obj.height_above_support,
        "valid_depth_ratio": obj.valid_depth_ratio,
        "points": obj.point_count,
        "grasp_status": GraspStatus(obj.grasp_status).name,
        "grasp_text": obj.grasp_text,
        "grasp": _grasp_of_message(obj.grasps[0]) if obj.grasps else None,
    }


def _grasp_of_message(grasp: Any) -> dict[str, Any]:
    return {
        "kind": GraspKind(grasp.kind).name,
        **_pose(grasp.pose, "position"),
        "width": grasp.width,
        "score": grasp.score,
        "planner": grasp.planner,
        "gripper": grasp.gripper,
    }


def _pose(pose: Any, name: str) -> dict[str, Any]:
    return {name: _xyz(pose.position), "quaternion": [*_xyz(pose.orientation), pose.orientation.w]}


def _xyz(vector: Any) -> list[float]:
    return [vector.x, vector.y, vector.z]


def _plain(value: Any) -> Any:
    """`value` in JSON's own types; NaN and infinities become None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray | array):
        return [_plain(item) for item in value]
    return value
