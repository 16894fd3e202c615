# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Identities by place: an object is the one whose remembered surface is seen under its mask, or that was near.

Each track remembers points of its surface in the fixed frame (`Frame.T_fixed_camera`; without it the camera is taken
as still). In a new frame they are projected: where the depth agrees, the mask they fall on is the object; where
something is nearer, the object is hidden and waits; where something is farther, its place is empty. Time plays no part
in that, so frames may come at any rate, or minutes apart.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import invert, project, transform_points
from seg_perception.masks import Masks
from seg_perception.options import option
from seg_perception.scene import Frame, Instances, Intrinsics, Object3D
from seg_perception.spans import shared_pixels
from seg_perception.tracking.assignment import assign
from seg_perception.tracking.coasting import Coasting
from seg_perception.tracking.overlaps import agreement, look_up, nearness, place
from seg_perception.tracking.tracks import NEVER, Found, Tracks

LEAST = 3  # points that must be seen before they say anything
SAME_THING = 0.5  # overlap from which another class is another name for the same thing
NO_DEPTH = np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class Iou3DConfig:
    """Keys of `tracker:` with `plugin: iou3d`."""

    max_distance: float = option(
        0.08, "an object may jump this far between two frames", unit="m", ge=0.001, le=2, live=True
    )
    min_overlap: float = option(
        0.2,
        "share of what is visible of it that must lie under the mask, else position decides",
        ge=0.01,
        le=1,
        live=True,
    )
    depth_tolerance: float = option(
        0.015, "points this much nearer or farther are another surface, at 1 m", unit="m", ge=0.001, le=0.5, live=True
    )
    gone_after: float = option(
        0.2, "a track ends this long after its place was first seen empty", unit="s", ge=0, le=3600, live=True
    )
    lost_after: int = option(30, "frames without it end a track that has no 3D", ge=1, le=100000, live=True)
    forget_after: float = option(
        3600.0, "a hidden object is forgotten after this time", unit="s", ge=0.1, le=1e6, live=True
    )
    max_tracks: int = option(200, "tracks kept, those seen last", ge=1, le=10000, live=True)


class Iou3D:
    """Mask overlap and position in the fixed frame, by class; see the module."""

    Config = Iou3DConfig

    def __init__(self, config: Iou3DConfig | None = None) -> None:
        self.config = config or Iou3DConfig()
        self._ids = itertools.count(1)
        self._memory = [Tracks.none()]  # one, in a list that copies with other options share
        self._T_fixed_camera = np.eye(4)  # the last one known
        _compile()

    def with_config(self, config: Iou3DConfig) -> Iou3D:
        """The same tracks under other options."""
        other = copy.copy(self)
        other.config = config
        return other

    def reset(self) -> None:
        """Forgets all tracks; their ids are not used again."""
        self._memory[0] = Tracks.none()

    @property
    def tracks(self) -> Tracks:
        """Everything remembered, also what is hidden now."""
        return self._memory[0]

    def coasting(self, stamp_ns: int, seconds: float) -> list[Coasting]:
        """The tracks not found in the newest frame, which was stamped `stamp_ns`, but at most `seconds` before it."""
        tracks = self.tracks
        ages = (stamp_ns - tracks.stamps) * 1e-9
        return [
            Coasting(int(tracks.ids[i]), int(tracks.class_ids[i]), tracks.class_names[i], float(ages[i]))
            for i in np.flatnonzero((ages > 0) & (ages <= seconds))
        ]

    def update(self, frame: Frame, instances: Instances, objects: Sequence[Object3D]) -> NDArray[np.int64]:
        """(N,) ids of the instances, whose `objects` are in the camera frame."""
        if frame.T_fixed_camera is not None:
            self._T_fixed_camera[:] = frame.T_fixed_camera
        tracks, config, now = self.tracks, self.config, frame.stamp_ns
        found = Found.of(instances, objects, self._T_fixed_camera.copy())
        overlap, empty, hidden = self._overlap(frame, instances.masks)
        near = nearness(tracks.points, tracks.starts, tracks.centroids, found.centroids, config.max_distance)
        affinity, allowed = agreement(overlap, near, tracks.class_ids, found.class_ids, config.min_overlap, SAME_THING)
        ended = self._ended(now)
        rows, columns = assign(affinity, allowed & ~ended[:, None])

        before, ids = np.full(len(objects), -1), np.zeros(len(objects), np.int64)
        before[columns], ids[columns] = rows, tracks.ids[rows]
        new = before < 0
        ids[new] = list(itertools.islice(self._ids, int(new.sum())))
        after = tracks.then(found, ids, before, empty, hidden, ended, now)
        self._memory[0] = after.last(config.max_tracks)
        return ids.copy()

    def _ended(self, stamp_ns: int) -> NDArray[np.bool_]:
        """(M,) which tracks cannot be found any more at that time."""
        tracks, config = self.tracks, self.config
        old = np.abs(stamp_ns - tracks.stamps) * 1e-9 > config.forget_after
        gone = (tracks.emptied != NEVER) & ((stamp_ns - tracks.emptied) * 1e-9 >= config.gone_after)
        flat = tracks.starts[1:] == tracks.starts[:-1]
        return old | gone | (flat & (tracks.missed >= config.lost_after))

    def _overlap(self, frame: Frame, masks: Masks) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Share of what must be visible of each track that lies under each mask, (M, N); which tracks' places are seen
        empty, (M,); and which of their points are hidden, (P,). Without 3D the overlap is the IoU with the last
        mask."""
        tracks, rois = self.tracks, masks.rois
        overlap, empty, hidden = np.zeros((len(tracks), len(masks))), np.zeros(len(tracks), bool), tracks.hidden
        flat = np.flatnonzero((tracks.starts[1:] == tracks.starts[:-1]) | (frame.intrinsics is None))
        if frame.intrinsics is not None and len(flat) < len(tracks):
            pixels, z = _placed(frame.intrinsics, tracks.points, self._T_fixed_camera)
            votes, there, through, hidden = look_up(
                pixels,
                z,
                tracks.starts,
                NO_DEPTH if frame.depth is None else frame.depth,
                (frame.height, frame.width),
                masks.spans,
                masks.offsets,
                rois,
                self.config.depth_tolerance,
            )
            visible = there + through
            told = visible >= LEAST
            overlap = votes / np.where(told, visible, np.inf)[:, None]
            empty = told & (2 * through >= visible)
        if len(flat):
            spans = [tracks.masks[i][0].spans_of(tracks.masks[i][1]) for i in flat]
            last = Masks.from_span_lists(frame.height, frame.width, spans)
            shared = shared_pixels(last.spans, last.offsets, last.rois, masks.spans, masks.offsets, rois)
            overlap[flat] = shared / np.maximum(last.areas[:, None] + masks.areas - shared, 1)
        return overlap, empty, hidden


def _placed(
    intrinsics: Intrinsics, points: NDArray[np.float64], T: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixels (P, 2) and z (P,) m of `points` (P, 3) m as a camera at `T` (4, 4) sees them."""
    k = intrinsics
    if not k.is_distorted:
        return place(points, T, k.fx, k.fy, k.cx, k.cy)
    seen = transform_points(invert(T), points)
    return project(k, seen), np.ascontiguousarray(seen[:, 2])


def _compile() -> None:
    """Compiles the kernels, or loads them, so that the first frame does not wait for it."""
    mask = Masks.empty(1, 1, 1)
    one = (mask.spans, mask.offsets, mask.rois)
    shared_pixels(*one, *one)
    none, frame = Tracks.none(), np.eye(4)
    near = nearness(none.points, none.starts, none.centroids, none.points, 0.1)
    agreement(near, near, none.ids, none.ids, 0.2, 0.5)
    none.then(Found.of(Instances.empty(1, 1), [], frame), none.ids, none.ids, none.hidden, none.hidden, none.hidden, 0)
    for writeable in (True, False):  # two types to numba; a camera's buffer may be either
        depth = np.zeros((1, 1), np.float32)
        depth.flags.writeable = writeable
        pixels, z = place(none.points, frame, 1.0, 1.0, 0.0, 0.0)
        look_up(pixels, z, none.starts, depth, (1, 1), *one, 0.01)
