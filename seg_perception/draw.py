# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Overlay pictures: tinted masks with crisp outlines, oriented boxes, the best grasps as little grippers, labels."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from seg_perception.geometry import project, transform_points
from seg_perception.scene import Frame, Grasp, GraspKind, Object3D, OrientedBox, Scene, Status

GOLDEN = 0.6180339887498949  # successive hues this far apart never come close to each other
TINT = 0.42  # share of the object's color in its masked pixels
GRIPPER = (255, 255, 255)
EDGE = (18, 18, 18)
WORDS = {
    Status.NO_DEPTH_IMAGE: "no depth image",
    Status.NO_VALID_DEPTH: "no depth",
    Status.TOO_FEW_POINTS: "few points",
    Status.TOO_NEAR: "too near",
    Status.TOO_FAR: "too far",
    Status.DEPTH_MISALIGNED: "depth misaligned",
    Status.BAD_INTRINSICS: "bad intrinsics",
    Status.NO_TRANSFORM: "no transform",
    Status.EMPTY_MASK: "empty mask",
    Status.NOT_PROCESSED: "not processed",
}
BOX_EDGES = np.array([(a, a | 1 << axis) for axis in range(3) for a in range(8) if not a & 1 << axis])
SHIFT = 4  # bits of subpixel position in cv2's drawing calls
FAR = 1 << 20  # px; what projects beyond this is not drawn


def label_colors(keys: ArrayLike) -> NDArray[np.uint8]:
    """One vivid RGB color per key, (N, 3); a key (an id, a label or a class) has the same color everywhere."""
    numbers = np.asarray(keys, np.int64).reshape(-1)
    return np.array([_color_of(int(k)) for k in numbers], np.uint8).reshape(-1, 3)


def overlay(
    color: NDArray[np.uint8],
    scene: Scene,
    *,
    by_class: bool = False,
    boxes: bool = True,
    grasps: bool = True,
    labels: bool = True,
) -> NDArray[np.uint8]:
    """A copy of `color` (H, W, 3) uint8 RGB with the scene drawn on it; colors by object id, or by class.

    Where masks overlap the nearer object is on top. Objects without 3D have mask and label only, the label says why.
    """
    height, width = color.shape[:2]
    picture = np.ascontiguousarray(color).copy()
    if not len(scene):
        return picture
    keys = scene.instances.class_ids if by_class else [o.id or i + 1 for i, o in enumerate(scene.objects)]
    colors = label_colors(keys)
    thick = max(1, round(height / 400))
    order = _far_to_near(scene.objects)
    owners = scene.instances.masks.label_image(order)
    _tint(picture, owners, colors, TINT, thick)
    for row in order:
        obj, shade = scene.objects[row], tuple(int(c) for c in colors[row])
        if obj.status.has_3d and boxes:
            _draw_box(picture, scene.frame, obj.box, shade, thick)
    taken = np.zeros((height, width), np.bool_)  # where no label may go
    for row in order:
        obj, shade = scene.objects[row], tuple(int(c) for c in colors[row])
        if obj.grasps and grasps:
            _draw_grasp(picture, taken, scene.frame, obj.grasps[0], shade, thick)
    if labels and height >= 120 and width >= 160:
        _draw_labels(picture, taken, owners, scene, colors, order[::-1])
    return picture


def label_text(name: str, obj: Object3D) -> str:
    """What stands beside an object: class, id, and its distance from the camera in metres or why there is none."""
    head = f"{name} #{obj.id}" if name != "object" else f"#{obj.id}"
    distance = float(np.linalg.norm(obj.centroid)) if obj.status.has_3d else 0.0
    return f"{head} {distance:.2f} m" if obj.status.has_3d else f"{head} {WORDS[obj.status]}"


def _color_of(key: int) -> tuple[int, int, int]:
    value = (1.0, 0.85)[key // 13 % 2]
    saturation = (0.85, 0.6)[key // 7 % 2]
    r, g, b = colorsys.hsv_to_rgb(key * GOLDEN % 1.0, saturation, value)
    return round(r * 255), round(g * 255), round(b * 255)


def _far_to_near(objects: tuple[Object3D, ...]) -> list[int]:
    distance = [-float(np.linalg.norm(o.centroid)) if o.status.has_3d else -np.inf for o in objects]
    return np.argsort(distance, kind="stable").tolist()


# -- shapes in 3D ------------------------------------------------------------------------------------------------------


def _draw_box(picture: NDArray, frame: Frame, box: OrientedBox, shade: tuple[int, ...], thick: int) -> None:
    corners = box.corners
    hidden = np.argmax(np.square(corners).sum(axis=1))  # the farthest corner's three edges lie behind the object
    edges = _pixels(frame, corners)[BOX_EDGES]
    behind = (hidden == BOX_EDGES).any(axis=1)
    _lines(picture, edges[behind], tuple(int(c * 0.55) for c in shade), thick)
    _lines(picture, edges[~behind], shade, thick)


def _draw_grasp(
    picture: NDArray, taken: NDArray, frame: Frame, grasp: Grasp, shade: tuple[int, ...], thick: int
) -> None:
    half, palm, stem = grasp.width / 2, -0.045, -0.09  # m along the approach, from the fingertips
    if grasp.kind == GraspKind.SUCTION:
        turn = np.linspace(0, 2 * np.pi, 17)
        path = np.stack([0.015 * np.cos(turn), 0.015 * np.sin(turn), 0 * turn], axis=1)
        handle = np.array([[0, 0, stem], [0, 0, 0]])
    else:
        path = np.array([[0, -half, 0.0], [0, -half, palm], [0, half, palm], [0, half, 0.0]])
        handle = np.array([[0, 0, palm], [0, 0, stem]])
    pixels = _pixels(frame, transform_points(grasp.T_camera_grasp, np.concatenate([path, handle])))
    strokes = np.stack([pixels[:-1], pixels[1:]], axis=1)[np.arange(len(pixels) - 1) != len(path) - 1]
    for tone, width in ((EDGE, 3 * thick + 2), (GRIPPER, 2 * thick)):
        _lines(picture, strokes, tone, width)
    visible = pixels[_drawable(pixels)]
    if not len(visible):
        return
    if grasp.kind != GraspKind.SUCTION:
        for tip in pixels[[0, 3]]:
            _dot(picture, tip, shade, 2 * thick)
    x0, y0, x1, y1 = (max(0, int(v)) for v in (*visible.min(axis=0) - thick, *visible.max(axis=0) + thick + 1))
    taken[y0:y1, x0:x1] = True


def _pixels(frame: Frame, points: NDArray) -> NDArray[np.float64]:
    if frame.intrinsics is None:
        return np.full((len(points), 2), np.nan)
    return project(frame.intrinsics, points)


def _drawable(pixels: NDArray) -> NDArray[np.bool_]:
    return (np.abs(pixels) < FAR).all(axis=-1)  # False for NaN: behind the camera


def _lines(picture: NDArray, strokes: NDArray, tone: tuple[int, ...], width: int) -> None:
    """Straight lines `strokes` (K, 2, 2) px; those that leave the camera's half of the world are left out."""
    ends = np.round(strokes[_drawable(strokes).all(axis=1)] * (1 << SHIFT)).astype(np.int32)
    cv2.polylines(picture, list(ends), False, tone, width, cv2.LINE_AA, SHIFT)


def _dot(picture: NDArray, pixel: NDArray, tone: tuple[int, ...], radius: int) -> None:
    if _drawable(pixel):
        x, y = np.round(pixel * (1 << SHIFT)).astype(int).tolist()
        cv2.circle(picture, (x, y), radius << SHIFT, tone, cv2.FILLED, cv2.LINE_AA, SHIFT)


# -- labels ------------------------------------------------------------------------------------------------------------


def _draw_labels(
    picture: NDArray, taken: NDArray, owners: NDArray, scene: Scene, colors: NDArray[np.uint8], order: list[int]
) -> None:
    """Nearest first, each where it covers least of other objects; a label that finds no free place is left out."""
    scale = max(0.34, picture.shape[0] / 1300)
    rois = scene.instances.masks.rois
    for row in order:
        text = label_text(scene.instances.class_names[row], scene.objects[row])
        (w, h), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        pad = max(2, round(6 * scale))
        places = _places(rois[row].tolist(), w + 2 * pad, h + below + pad, picture.shape)
        free = [p for p in places if not taken[p].any()]
        if free:
            place = min(free, key=lambda p: np.count_nonzero((owners[p] != row + 1) & (owners[p] > 0)))
            taken[place] = True
            _draw_label(picture[place], text, colors[row], scale, pad, below)


def _places(roi: list[int], w: int, h: int, shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """Where a label of `w` x `h` px may go: above, below, beside and on its object."""
    (x, y, roi_w, roi_h), (height, width) = roi, shape[:2]
    middle, centre = x + (roi_w - w) // 2, y + (roi_h - h) // 2
    corners = (
        (middle, y - h - 2),
        (middle, y + roi_h + 2),
        (x + roi_w + 2, centre),
        (x - w - 2, centre),
        (middle, centre),
    )
    inside = [(max(min(left, width - w), 0), max(min(top, height - h), 0)) for left, top in corners]
    return [(slice(top, top + h), slice(left, left + w)) for left, top in inside if w <= width and h <= height]


def _draw_label(patch: NDArray, text: str, shade: NDArray, scale: float, pad: int, below: int) -> None:
    patch[:] = (0.2 * patch + 0.8 * np.array(EDGE)).astype(np.uint8)
    patch[:, : max(2, pad // 2)] = shade
    shown = np.ascontiguousarray(patch)
    origin = (pad + 1, len(patch) - below)
    cv2.putText(shown, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, (245, 245, 245), 1, cv2.LINE_AA)
    patch[:] = shown


@njit(cache=True, nogil=True)
def _tint(picture, labels, colors, alpha, thick):  # type: ignore[no-untyped-def]
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            own = labels[y, x]
            if own == 0:
                continue
            edge = False
            for k in range(1, thick + 1):
                if (x >= k and labels[y, x - k] != own) or (x + k < width and labels[y, x + k] != own):
                    edge = True
                if (y >= k and labels[y - k, x] != own) or (y + k < height and labels[y + k, x] != own):
                    edge = True
            share = 1.0 if edge else alpha
            for c in range(3):
                picture[y, x, c] = np.uint8((1.0 - share) * picture[y, x, c] + share * colors[own - 1, c] + 0.5)
