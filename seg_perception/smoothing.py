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
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seg_perception.averaging import blend, turn_like
from seg_perception.geometry import invert
from seg_perception.options import option
from seg_perception.scene import Frame, Grasp, GraspKind, Object3D, OrientedBox, Status

KEPT_IDS = 1000
AS_GOOD = 1.08  # a footprint this much larger than the least one is as good a box
NO_3D = int(Status.NO_DEPTH_IMAGE)
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


Index: TypeAlias = NDArray[np.int64] | slice


class Averages(NamedTuple):
    """Of N objects, in the fixed frame: their `ids` (N,), `centroids` (N, 3) m, `boxes` (N, 4, 4) T_fixed_box, `sizes`
    (N, 3) m, `counts` (N,) measurements in each."""

    ids: NDArray[np.int64]
    centroids: NDArray[np.float64]
    boxes: NDArray[np.float64]
    sizes: NDArray[np.float64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, ids: NDArray[np.int64], objects: Sequence[Object3D], T: NDArray[np.float64]) -> Averages:
        """One measurement of each, seen from `T` (4, 4)."""
        n = len(objects)
        boxes = [o.box for o in objects]
        return cls(
            ids,
            np.array([o.centroid for o in objects], np.float64).reshape(n, 3) @ T[:3, :3].T + T[:3, 3],
            T @ np.array([box.T_camera_box for box in boxes], np.float64).reshape(n, 4, 4),
            np.array([box.size for box in boxes], np.float64).reshape(n, 3),
            np.ones(n, np.int64),
        )

    def rows(self, index: Any) -> Averages:
        return Averages(*(column[index] for column in self))

    def places_of(self, ids: NDArray[np.int64]) -> tuple[Index, Index]:
        """The rows that have any of the `ids` (N,), and which of these each has: both everything if they are the
        same."""
        if np.array_equal(self.ids, ids):
            return slice(None), slice(None)
        order = np.argsort(self.ids)
        near = np.searchsorted(self.ids, ids, sorter=order)
        place = np.append(order, -1)[near]
        again = np.flatnonzero(np.append(self.ids, -1)[place] == ids)
        return place[again], again


NOTHING = Averages.of(np.zeros(0, np.int64), [], np.eye(4))


class Smoother:
    """The averages by id. Without `Frame.T_fixed_camera` the last one known holds, else the camera rests."""

    def __init__(self) -> None:
        self._known = NOTHING  # seen last at the end
        self._grasps: dict[int, NDArray[np.float64]] = {}  # T_fixed_grasp of the best one
        self._T_fixed_camera = np.eye(4)

    def reset(self) -> None:
        self._known = NOTHING
        self._grasps.clear()

    def smooth(
        self,
        frame: Frame,
        objects: Sequence[Object3D],
        config: SmoothingConfig,
        ids: NDArray[np.int64] | None = None,
    ) -> list[Object3D]:
        """The objects, under `ids` (N,) if they are given; those that rest with centroid and box averaged."""
        if frame.T_fixed_camera is not None:
            self._T_fixed_camera = frame.T_fixed_camera
        numbers = [o.id for o in objects] if ids is None else ids.tolist()
        changes: list[dict[str, Any]] = [{} for _ in objects] if ids is None else [{"id": i} for i in numbers]
        rows = [i for i, obj in enumerate(objects) if obj.status < NO_3D]
        if config.frames > 1 and rows:
            seen = [objects[i] for i in rows]
            new = Averages.of(np.array([numbers[i] for i in rows]), seen, self._T_fixed_camera)
            for k, centroid, box in self._averaged(new, seen, config):
                changes[rows[k]].update(centroid=centroid, box=box)
        return [obj.changed(**values) if values else obj for obj, values in zip(objects, changes, strict=True)]

    def _averaged(
        self, new: Averages, objects: Sequence[Object3D], config: SmoothingConfig
    ) -> list[tuple[int, NDArray[np.float64], OrientedBox]]:
        """Remembers what is `new` of the objects; of those that rest the place in the list, centroid and box."""
        place, again = self._known.places_of(new.ids)
        members = np.arange(len(new.ids))[again].tolist()
        blended, rests = self._blended(place, new.rows(again), [objects[k] for k in members], config)
        if isinstance(again, slice):  # the same objects in the same order
            self._known = blended
        else:
            for column, values in zip(new, blended, strict=True):
                column[again] = values
            self._known = self._remembered(place, new)
        if not rests.all():
            for moved in blended.ids[~rests].tolist():
                self._grasps.pop(moved, None)
        back, at_rest = invert(self._T_fixed_camera), blended if rests.all() else blended.rows(rests)
        centroids = at_rest.centroids @ back[:3, :3].T + back[:3, 3]
        boxes = map(OrientedBox, back @ at_rest.boxes, at_rest.sizes)
        return list(zip(itertools.compress(members, rests), centroids, boxes, strict=True))

    def _remembered(self, place: NDArray[np.int64], new: Averages) -> Averages:
        """What is known, without the rows `place`, and after it what is new; the last KEPT_IDS of them."""
        others = np.ones(len(self._known.ids), bool)
        others[place] = False
        before = self._known.rows(others)
        known = Averages(*(np.concatenate(columns) for columns in zip(before, new, strict=True)))
        for stale in known.ids[:-KEPT_IDS].tolist():
            self._grasps.pop(stale, None)
        return known.rows(slice(-KEPT_IDS, None))

    def _blended(
        self, place: Index, new: Averages, objects: Sequence[Object3D], config: SmoothingConfig
    ) -> tuple[Averages, NDArray[np.bool_]]:
        """The averages at `place` with the `new` measurements of their objects in them, and which objects rest; the
        others begin anew.

        First the new boxes' x and y are named as the old ones': a quarter turn is the same box, and so, of a thing that
        is nearly round, is any turn."""
        old, least = self._known.rows(place), float(np.cos(np.deg2rad(config.reset_angle)))
        for i in np.flatnonzero(turn_like(old.boxes, new.boxes, new.sizes, least)):
            if len(cloud := objects[i].points):
                box, size = _along_old_axes(old.boxes[i], new.boxes[i], new.sizes[i], cloud, self._T_fixed_camera)
                new.boxes[i], new.sizes[i] = box, size
        rests = blend(
            old.boxes, new.boxes, old.sizes, new.sizes, old.centroids, new.centroids, old.counts,
            float(config.reset_distance), least, config.frames,
        )  # fmt: skip
        return new._replace(counts=old.counts), rests

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
        if obj.id in self._known.ids:
            self._grasps[obj.id] = self._T_fixed_camera @ grasps[0].T_camera_grasp
        return obj.changed(grasps=tuple(grasps)) if first else obj


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


def _alike(old: NDArray, new: NDArray, grasp: Grasp) -> bool:
    """Whether it is the same grasp, up to exchanging the two fingers, or turning a cup about its axis."""
    if float(np.linalg.norm(old[:3, 3] - new[:3, 3])) > NEAR_GRASP[0] or old[:3, 2] @ new[:3, 2] < NEAR_GRASP[1]:
        return False
    return grasp.kind == GraspKind.SUCTION or abs(float(old[:3, 1] @ new[:3, 1])) >= NEAR_GRASP[1]
