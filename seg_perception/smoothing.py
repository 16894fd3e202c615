# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Boxes and centroids of objects at rest, averaged over the last frames of each id; what moves is as measured.

Sensor noise makes the box of a thing at rest tremble by millimetres and its yaw by degrees, and a box that is nearly as
deep as it is wide turns by a quarter from frame to frame. A robot's goal must not. Averaging a thing that moves would
put it where it was, so each average ends as soon as the newest measurement leaves it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import invert
from seg_perception.options import option
from seg_perception.scene import Frame, Grasp, GraspKind, Object3D, OrientedBox

KEPT_IDS = 1000
AS_GOOD = 1.08  # a footprint this much larger than the least one is as good a box
QUARTERS = np.array([[[c, -s, 0], [s, c, 0], [0, 0, 1.0]] for c, s in ((1, 0), (0, -1), (-1, 0), (0, 1))])
NEAR_GRASP = (0.01, float(np.cos(np.deg2rad(12.0))))  # m, cosine: the same grasp again


@dataclass(frozen=True)
class SmoothingConfig:
    """How the 3D of an object that rests is averaged over its last frames; needs a tracker."""

    frames: int = option(5, "averaged at most; 1 = each frame for itself", ge=1, le=100, live=True)
    reset_distance: float = option(
        0.004, "a centroid this far from the average, or a size this different, has moved or changed: begin anew",
        unit="m", ge=0, le=0.1, live=True,
    )  # fmt: skip
    reset_angle: float = option(10.0, "a box turned by more begins anew", unit="deg", ge=0, le=45, live=True)
    grasp_margin: float = option(
        0.05, "the grasp that was best stays first while its score is at most this much lower", ge=0, le=1, live=True
    )


class Averages(NamedTuple):
    """Of N objects, in the fixed frame: `centroids` (N, 3) m, `boxes` (N, 4, 4) T_fixed_box, `sizes` (N, 3) m, `counts`
    (N,) measurements in each."""

    centroids: NDArray[np.float64]
    boxes: NDArray[np.float64]
    sizes: NDArray[np.float64]
    counts: NDArray[np.int64]

    def rows(self, index: Any) -> Averages:
        return Averages(*(column[index] for column in self))


class Smoother:
    """The averages by id. Without `Frame.T_fixed_camera` the last one known holds, else the camera rests."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, ...]] = {}  # a row of Averages each, seen last at the end
        self._grasps: dict[int, NDArray[np.float64]] = {}  # T_fixed_grasp of the best one
        self._T_fixed_camera = np.eye(4)

    def reset(self) -> None:
        self._known.clear()
        self._grasps.clear()

    def smooth(self, frame: Frame, objects: Sequence[Object3D], config: SmoothingConfig) -> list[Object3D]:
        """The objects, those that rest with centroid and box averaged."""
        if frame.T_fixed_camera is not None:
            self._T_fixed_camera = frame.T_fixed_camera
        out = list(objects)
        rows = [i for i, obj in enumerate(objects) if obj.status.has_3d]
        if config.frames == 1 or not rows:
            return out
        T, back = self._T_fixed_camera, invert(self._T_fixed_camera)
        new = _measured([objects[i] for i in rows], T)
        before = [self._known.pop(objects[i].id, None) for i in rows]
        again = [k for k, row in enumerate(before) if row is not None]
        if again:
            old = Averages(*map(np.array, zip(*(before[k] for k in again), strict=True)))
            clouds = [objects[rows[k]].points for k in again]
            blended, rests = _blended(old, _turned_like(old, new.rows(again), clouds, T, config), config)
            for column, values in zip(new, blended, strict=True):
                column[again] = values
            centroids = blended.centroids @ back[:3, :3].T + back[:3, 3]
            boxes = back @ blended.boxes
            for j, k in enumerate(again):
                if rests[j]:
                    box = OrientedBox(boxes[j], blended.sizes[j])
                    out[rows[k]] = objects[rows[k]].changed(centroid=centroids[j], box=box)
                else:
                    self._grasps.pop(objects[rows[k]].id, None)
        self._known.update(zip((objects[i].id for i in rows), zip(*new, strict=True), strict=True))
        for stale in list(itertools.islice(self._known, max(0, len(self._known) - KEPT_IDS))):
            del self._known[stale]
            self._grasps.pop(stale, None)
        return out

    def steady(self, objects: Sequence[Object3D], config: SmoothingConfig) -> list[Object3D]:
        """The objects, each with the grasp that was best in the frame before still first, if it is nearly the best."""
        if config.frames == 1:
            return list(objects)
        return [self._steady(obj, config.grasp_margin) if obj.grasps else obj for obj in objects]

    def _steady(self, obj: Object3D, margin: float) -> Object3D:
        grasps, first, known = list(obj.grasps), 0, self._grasps.get(obj.id)
        if known is not None:
            alike = [i for i, g in enumerate(grasps) if _alike(known, self._T_fixed_camera @ g.T_camera_grasp, g)]
            if alike and not grasps[alike[0]].score < grasps[0].score - margin:
                first = alike[0]
        grasps.insert(0, grasps.pop(first))
        if obj.id in self._known:
            self._grasps[obj.id] = self._T_fixed_camera @ grasps[0].T_camera_grasp
        return obj.changed(grasps=tuple(grasps)) if first else obj


def _measured(objects: Sequence[Object3D], T: NDArray) -> Averages:
    return Averages(
        np.array([o.centroid for o in objects]) @ T[:3, :3].T + T[:3, 3],
        T @ np.array([o.box.T_camera_box for o in objects]),
        np.array([o.box.size for o in objects], np.float64),
        np.ones(len(objects), np.int64),
    )


def _turned_like(
    old: Averages, new: Averages, clouds: Sequence[NDArray], T: NDArray, config: SmoothingConfig
) -> Averages:
    """Names the new boxes' x and y as the old ones': a quarter turn is the same box, and so, of a thing that is nearly
    round, is any turn. `clouds` (M, 3) m each, camera frame."""
    R = new.boxes[:, :3, :3]
    agreement = old.boxes[:, :3, :3].transpose(0, 2, 1) @ R
    turn = np.arctan2(agreement[:, 1, 0] - agreement[:, 0, 1], agreement[:, 0, 0] + agreement[:, 1, 1])
    quarter = np.round(turn / (np.pi / 2)).astype(int) % 4
    R = R @ QUARTERS[quarter]
    sizes = np.where((quarter % 2 == 1)[:, None], new.sizes[:, [1, 0, 2]], new.sizes)
    boxes = new.boxes.copy()
    boxes[:, :3, :3] = R
    least = np.cos(np.deg2rad(config.reset_angle))
    upright = np.einsum("ni,ni->n", old.boxes[:, :3, 2], R[:, :, 2]) >= least
    for i in np.flatnonzero(upright & (_cosines(old.boxes, boxes) < least)):
        if len(clouds[i]):
            boxes[i], sizes[i] = _along_old_axes(old.boxes[i], boxes[i], sizes[i], clouds[i], T)
    return new._replace(boxes=boxes, sizes=sizes)


def _along_old_axes(
    old_box: NDArray, box: NDArray, size: NDArray, cloud: NDArray, T: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pose and size of the box along the old one's axes, if it is as tight; else as they are."""
    axes, z = old_box[:3, :2], old_box[:3, 2]
    along = cloud @ (T[:3, :3].T @ np.concatenate([axes, box[:3, :2]], axis=1)).astype(np.float32)
    low, high = along.min(axis=0).astype(float), along.max(axis=0).astype(float)
    beyond = float((size[:2] - (high - low)[2:]).mean()) / 2  # a box may reach beyond the cleaned points
    low, high = low[:2] - beyond, high[:2] + beyond
    if float(np.prod(high - low)) > AS_GOOD * float(np.prod(size[:2])):
        return box, size
    turned = old_box.copy()
    turned[:3, 3] = axes @ ((low + high) / 2 + axes.T @ T[:3, 3]) + z * (z @ box[:3, 3])
    return turned, np.append(high - low, size[2])


def _blended(old: Averages, new: Averages, config: SmoothingConfig) -> tuple[Averages, NDArray[np.bool_]]:
    """The averages with the new measurements in them, and which objects rest; the others begin anew."""
    rests = np.linalg.norm(new.centroids - old.centroids, axis=1) <= config.reset_distance
    rests &= np.abs(new.sizes - old.sizes).max(axis=1) <= 2 * config.reset_distance
    rests &= _cosines(old.boxes, new.boxes) >= np.cos(np.deg2rad(config.reset_angle))
    counts = np.where(rests, np.minimum(old.counts + 1, config.frames), 1)
    weights = (1 / counts)[:, None]
    boxes = old.boxes + weights[:, :, None] * (new.boxes - old.boxes)
    U, _, Vt = np.linalg.svd(boxes[:, :3, :3])  # the rotation nearest to the mean of two that are near each other
    boxes[:, :3, :3] = U @ Vt
    boxes[~rests] = new.boxes[~rests]
    centroids = old.centroids + weights * (new.centroids - old.centroids)
    return Averages(centroids, boxes, old.sizes + weights * (new.sizes - old.sizes), counts), rests


def _cosines(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Of the angles between the rotations of poses (N, 4, 4), (N,)."""
    return (np.einsum("nij,nij->n", a[:, :3, :3], b[:, :3, :3]) - 1) / 2


def _alike(old: NDArray, new: NDArray, grasp: Grasp) -> bool:
    """Whether it is the same grasp, up to exchanging the two fingers, or turning a cup about its axis."""
    if float(np.linalg.norm(old[:3, 3] - new[:3, 3])) > NEAR_GRASP[0] or old[:3, 2] @ new[:3, 2] < NEAR_GRASP[1]:
        return False
    return grasp.kind == GraspKind.SUCTION or abs(float(old[:3, 1] @ new[:3, 1])) >= NEAR_GRASP[1]
