# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of grasps: the real gripper at its grasp on the cloud, from the camera and, to scale, from three sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.draw import label_colors, label_text, overlay
from seg_perception.geometry import ray_table
from seg_perception.grasping.gripper import Gripper, SuctionCup
from seg_perception.grasping.gripper_shape import gripper_triangles
from seg_perception.scene import Collision, Frame, Grasp, Object3D, Scene

SIDE, FOOT = 260, 40  # px, of a tile, and of the lines under a row
REACH = 0.12  # m around the middle that a tile shows, at least
HAND = 0.05  # m of the palm that need not be seen; and of the hand to all sides
AROUND = 0.3  # m around the grasp, points farther away are left out
MOST = 200_000  # points drawn
PAPER, INK, STEEL = (250, 250, 248), (40, 40, 40), np.array([70.0, 110.0, 190.0])
THROUGH = 0.35  # share of what lies behind the gripper that shines through
LIGHT = np.array([0.35, -0.5, -0.8])  # direction of the light in the picture: right, down, into it
TINT = 0.55  # share of the object's own color in its points
VIEWS = {  # name -> the grasp's axes that point right, down and into the picture
    "front": np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], np.float64),
    "side": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float64),
    "along the approach": np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], np.float64),
}


def grasp_rows(scene: Scene, rows: Sequence[int], grippers: dict[str, Gripper | SuctionCup]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: a strip for each object of `rows`, its best grasp from the camera and from three sides, or the
    reason why it has none. `grippers` by name, as the grasps name them."""
    strips = [_strip(scene, row, grippers) for row in rows]
    return np.concatenate(strips) if strips else np.full((FOOT, SIDE, 3), PAPER, np.uint8)


def _strip(scene: Scene, row: int, grippers: dict[str, Gripper | SuctionCup]) -> NDArray[np.uint8]:
    obj = scene.objects[row]
    out = np.full((SIDE + FOOT, (1 + len(VIEWS)) * SIDE, 3), PAPER, np.uint8)
    out[:SIDE, :SIDE] = _from_camera(scene, row)
    lines = [f"{label_text(scene.instances.class_names[row], obj)}:  {obj.grasp_text or obj.grasp_status.name}"]
    if obj.grasps:
        grasp = obj.grasps[0]
        gripper = grippers[grasp.gripper]
        points, colors = _cloud(scene, row, grasp)
        shape = gripper_triangles(gripper, grasp.width)
        own = (np.asarray(obj.points, np.float64) - grasp.T_camera_grasp[:3, 3]) @ grasp.T_camera_grasp[:3, :3]
        low = np.minimum(own.min(axis=0), [-HAND, -HAND, shape[..., 2].min() + HAND])  # most of the gripper too
        high = np.maximum(own.max(axis=0), [HAND, HAND, 0.02])
        middle, reach = (low + high) / 2, max(REACH, 1.1 * float((high - low).max()) / 2)
        for k, (name, axes) in enumerate(VIEWS.items(), start=1):
            tile = render(points, colors, shape, axes, middle, SIDE / (2 * reach))
            _ruler(tile, SIDE / (2 * reach))
            cv2.putText(tile, name, (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.4, INK, 1, cv2.LINE_AA)
            out[:SIDE, k * SIDE : (k + 1) * SIDE] = tile
        lines = _lines(lines[0].partition(":")[0], obj, grasp)
    for k, line in enumerate(lines):
        at = (6, SIDE + 15 + 17 * k)
        cv2.putText(out, line, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)
    return out


def _lines(head: str, obj: Object3D, grasp: Grasp) -> list[str]:
    mm = f"opens {1e3 * grasp.width:.0f} mm, closes to {1e3 * grasp.object_width:.0f} mm, " if grasp.width else ""
    clear = f"{1e3 * grasp.clearance:.0f} mm clear" if np.isfinite(grasp.clearance) else "nothing near"
    way = {Collision.FREE: "seen to be free", Collision.UNSEEN: "partly unseen"}.get(grasp.collision, "not checked")
    score = f"{grasp.score:.2f}" if np.isfinite(grasp.score) else "unknown"
    return [
        f"{head}: {grasp.planner}, {grasp.gripper}, score {score}, best of {len(obj.grasps)}",
        f"{mm}{clear}, way {way}, pre-grasp {1e3 * grasp.pregrasp_distance:.0f} mm",
    ]


def _from_camera(scene: Scene, row: int) -> NDArray[np.uint8]:
    """The color image around the object, with it and its grasp drawn."""
    one = replace(scene, instances=scene.instances[[row]], objects=(scene.objects[row],))
    picture = overlay(scene.frame.color, one, boxes=False, labels=False)
    x, y, w, h = scene.instances.masks.rois[row].tolist()
    half = max(w, h) * 0.9 + 20
    to_tile = np.array([[1, 0, half - x - w / 2], [0, 1, half - y - h / 2]]) * SIDE / (2 * half)
    tile: NDArray[np.uint8] = cv2.warpAffine(picture, to_tile, (SIDE, SIDE), flags=cv2.INTER_AREA)
    return tile


def _cloud(scene: Scene, row: int, grasp: Grasp) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the camera sees around the grasp, in the grasp's frame, (P, 3) m and RGB (P, 3); the object tinted."""
    frame: Frame = scene.frame
    assert frame.depth is not None  # there is a grasp, so there was depth
    assert frame.intrinsics is not None
    depth = frame.depth.astype(np.float64)
    points = np.dstack([ray_table(frame.intrinsics) * depth[..., None], depth]).reshape(-1, 3)
    T = grasp.T_camera_grasp
    local = (points - T[:3, 3]) @ T[:3, :3]
    near = np.flatnonzero((np.abs(local) < AROUND).all(axis=1))  # False for NaN
    near = near[:: max(1, -(-len(near) // MOST))]
    colors = frame.color.reshape(-1, 3)[near].astype(np.float64)
    inside = scene.instances.masks[[row]].dense()[0].reshape(-1)[near]
    tint = label_colors([scene.objects[row].id or row + 1])[0]
    colors[inside] = (1 - TINT) * colors[inside] + TINT * tint
    return local[near], colors


def render(
    points: NDArray[np.float64],
    colors: NDArray[np.float64],
    triangles: NDArray[np.float64],
    axes: NDArray[np.float64],
    middle: NDArray[np.float64],
    scale: float,
) -> NDArray[np.uint8]:
    """(SIDE, SIDE, 3) RGB, orthographic, `scale` px per m: points as they are, triangles shaded and half transparent.

    `axes` (3, 3) are the directions to the right, down and into the picture; `middle` (3,) is its middle.
    """
    picture = np.full((SIDE, SIDE, 3), PAPER, np.float64)
    depth = np.full((SIDE, SIDE), np.inf)
    seen = (points - middle) @ axes.T * scale + [SIDE / 2, SIDE / 2, 0.0]
    _splat(picture, depth, seen, colors, max(1, round(scale * 0.0012)))
    corners = (triangles - middle) @ axes.T * scale + [SIDE / 2, SIDE / 2, 0.0]
    nearest = np.full((SIDE, SIDE), np.inf)
    which = np.full((SIDE, SIDE), -1, np.int64)
    _fill(nearest, which, corners)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    shade = STEEL * (0.55 + 0.45 * np.abs(normals @ LIGHT / np.linalg.norm(LIGHT)))[:, None]
    shown = (which >= 0) & (nearest < depth)
    picture[shown] = THROUGH * picture[shown] + (1 - THROUGH) * shade[which[shown]]
    return np.clip(picture, 0, 255).astype(np.uint8)


def _ruler(tile: NDArray[np.uint8], scale: float) -> None:
    """Five centimetres, at the lower left."""
    end = 8 + round(0.05 * scale)
    cv2.line(tile, (8, SIDE - 10), (end, SIDE - 10), INK, 2)
    cv2.putText(tile, "50 mm", (end + 5, SIDE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.36, INK, 1, cv2.LINE_AA)


@njit(cache=True, nogil=True)
def _splat(picture, depth, seen, colors, radius):  # type: ignore[no-untyped-def]
    height, width = depth.shape
    for i in range(len(seen)):
        u, v = int(np.floor(seen[i, 0] + 0.5)), int(np.floor(seen[i, 1] + 0.5))
        for y in range(max(0, v - radius), min(height, v + radius + 1)):
            for x in range(max(0, u - radius), min(width, u + radius + 1)):
                if seen[i, 2] < depth[y, x]:
                    depth[y, x] = seen[i, 2]
                    picture[y, x] = colors[i]


@njit(cache=True, nogil=True)
def _fill(nearest, which, corners):  # type: ignore[no-untyped-def]
    """The nearest triangle of each pixel and its depth."""
    height, width = nearest.shape
    for t in range(len(corners)):
        a, b, c = corners[t, 0], corners[t, 1], corners[t, 2]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
        if abs(area) < 1e-9:
            continue
        x0, x1 = max(0, int(np.floor(min(a[0], b[0], c[0])))), min(width - 1, int(np.ceil(max(a[0], b[0], c[0]))))
        y0, y1 = max(0, int(np.floor(min(a[1], b[1], c[1])))), min(height - 1, int(np.ceil(max(a[1], b[1], c[1]))))
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                wb = ((x - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (y - a[1])) / area
                wc = ((b[0] - a[0]) * (y - a[1]) - (x - a[0]) * (b[1] - a[1])) / area
                if wb < 0 or wc < 0 or wb + wc > 1:
                    continue
                z = a[2] + wb * (b[2] - a[2]) + wc * (c[2] - a[2])
                if z < nearest[y, x]:
                    nearest[y, x] = z
                    which[y, x] = t
