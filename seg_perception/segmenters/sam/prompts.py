# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a promptable network is asked for one object by: a box, points on it, points that are not on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.scene import Instances

ON, OFF = 1, 0  # labels of points


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """One object, in pixels of the original image.

    `box` (4,) `x_min, y_min, x_max, y_max`; `points` (P, 2) x, y; `labels` (P,) 1 = on the object, 0 = not on it (all 1
    when left out). Raises ValueError when there is neither box nor point, or numbers do not fit.
    """

    box: NDArray[np.float32] | None = None
    points: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 2), np.float32))
    labels: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        points = np.asarray(self.points, np.float32).reshape(-1, 2)
        labels = np.full(len(points), ON, np.float32) if self.labels is None else np.asarray(self.labels, np.float32)
        box = None if self.box is None else np.asarray(self.box, np.float32)
        if labels.shape != (len(points),) or not np.isin(labels, (OFF, ON)).all():
            raise ValueError(f"prompt: expected a label 0 or 1 for each of {len(points)} points, got {labels.tolist()}")
        if box is not None and (box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= box[:2]).any()):
            raise ValueError(f"prompt: expected a box x_min, y_min, x_max, y_max with an area, got {box.tolist()}")
        if not np.isfinite(points).all():
            raise ValueError(f"prompt: expected finite points, got {points.tolist()}")
        if box is None and not (labels == ON).any():
            raise ValueError("prompt: expected a box or a point on the object, got neither")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "box", box)


def prompts_of(instances: Instances, boxes: bool, points: int) -> list[Prompt]:
    """One prompt per row: its box, and up to `points` points well inside its mask."""
    prompts = []
    rois = instances.masks.rois
    for i, box in enumerate(instances.boxes):
        inner = inner_points(instances, i, points, rois[i])
        if not len(inner) and not boxes:
            inner = (box[None, :2] + box[None, 2:] - 1) / 2  # a detector without masks: the box's centre
        prompts.append(Prompt(box if boxes else None, inner))
    return prompts


def inner_points(instances: Instances, i: int, count: int, roi: NDArray[np.int32] | None = None) -> NDArray[np.float32]:
    """Up to `count` points of mask i, x, y: each as far from the edge and from those before it as can be.

    Pass row i of its `rois` as `roi` when asking for many masks: computing it goes over the spans of all.
    """
    roi = instances.masks.rois[i] if roi is None else roi
    if count == 0 or roi[2] == 0:
        return np.empty((0, 2), np.float32)
    inside = np.pad(instances.masks.crop(i, roi), 1).astype(np.uint8)
    points: list[tuple[float, float]] = []
    for _ in range(count):
        distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
        y, x = np.unravel_index(int(distance.argmax()), distance.shape)
        if distance[y, x] == 0:
            break
        points.append((float(roi[0] + x - 1), float(roi[1] + y - 1)))
        cv2.circle(inside, (int(x), int(y)), max(1, round(float(distance[y, x]) / 2)), 0, -1)
    return np.array(points, np.float32).reshape(-1, 2)


def grid_prompts(
    height: int, width: int, per_side: int, roi: tuple[float, float, float, float] | None = None
) -> list[Prompt]:
    """`per_side` x `per_side` single points, evenly over the image or the `roi` in it, row by row."""
    x0, y0, x1, y1 = np.clip(roi or (0, 0, width, height), 0, (width, height, width, height))
    steps = (np.arange(per_side) + 0.5) / per_side
    return [Prompt(points=np.array([[x0 + x * (x1 - x0), y0 + y * (y1 - y0)]])) for y in steps for x in steps]
