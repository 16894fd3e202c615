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
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import invert, project, transform_points
from seg_perception.masks import Masks
from seg_perception.options import option
from seg_perception.scene import Frame, Instances, Object3D
from seg_perception.spans import shared_pixels
from seg_perception.tracking.assignment import assign
from seg_perception.tracking.coasting import Coasting
from seg_perception.tracking.overlaps import look_up, nearest

POINTS = 128  # remembered of each surface
LEAST = 3  # points that must be seen before they say anything
SAME_THING = 0.5  # overlap from which another class is another name for the same thing
NOTHING = np.empty((0, 3))
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


@dataclass(slots=True, eq=False)
class Track:
    """One object as last seen: `points` (P, 3) and `centroid` (3,) m, fixed frame; without 3D none and NaN. `spans`
    (S, 3) of its mask."""

    class_id: int
    class_name: str
    points: NDArray[np.float64]
    centroid: NDArray[np.float64]
    spans: NDArray[np.int32]
    stamp_ns: int
    id: int = 0
    hidden: NDArray[np.float64] = field(default_factory=lambda: NOTHING)  # (Q, 3) m, of `points`, in the newest frame
    empty_ns: int | None = None  # when its place was first seen empty
    missed: int = 0  # frames without it

    def follows(self, before: Track, rests: bool) -> None:
        """Takes over the id, and of an object that rests what is not seen of the surface now."""
        self.id = before.id
        if rests and not len(self.points):
            self.points, self.centroid = before.points, before.centroid
        elif rests:
            kept = _sample(before.hidden, POINTS * 3 // 4)
            self.points = np.concatenate([kept, _sample(self.points, POINTS - len(kept))])

    def misses(self, empty_ns: int | None) -> None:
        """Was not found; its place is seen empty at `empty_ns`, unless that is None."""
        self.missed += 1
        self.empty_ns = empty_ns if self.empty_ns is None else self.empty_ns


class Iou3D:
    """Mask overlap and position in the fixed frame, by class; see the module."""

    Config = Iou3DConfig

    def __init__(self, config: Iou3DConfig | None = None) -> None:
        self.config = config or Iou3DConfig()
        self._ids = itertools.count(1)
        self._tracks: list[Track] = []
        self._T_fixed_camera = np.eye(4)  # the last one known
        _compile()

    def with_config(self, config: Iou3DConfig) -> Iou3D:
        """The same tracks under other options."""
        other = copy.copy(self)
        other.config = config
        return other

    def reset(self) -> None:
        """Forgets all tracks; their ids are not used again."""
        self._tracks.clear()

    @property
    def tracks(self) -> tuple[Track, ...]:
        """Everything remembered, also what is hidden now."""
        return tuple(self._tracks)

    def coasting(self, stamp_ns: int, seconds: float) -> list[Coasting]:
        """The tracks not found in the newest frame, which was stamped `stamp_ns`, but at most `seconds` before it."""
        unseen = [(t, (stamp_ns - t.stamp_ns) * 1e-9) for t in self._tracks]
        return [Coasting(t.id, t.class_id, t.class_name, age) for t, age in unseen if 0 < age <= seconds]

    def update(self, frame: Frame, instances: Instances, objects: Sequence[Object3D]) -> NDArray[np.int64]:
        """(N,) ids of the instances, whose `objects` are in the camera frame."""
        if frame.T_fixed_camera is not None:
            self._T_fixed_camera[:] = frame.T_fixed_camera
        tracks, config, now = self._tracks, self.config, frame.stamp_ns
        tracks[:] = [t for t in tracks if self._lives(t, now)]
        found = _remember(frame, instances, objects, self._T_fixed_camera)
        overlap, empty = self._overlap(frame, instances.masks)
        distance = _distances(tracks, found)
        near = np.nan_to_num(1 - distance / config.max_distance).clip(0)  # NaN, no 3D, is not near
        same = np.array([t.class_id for t in tracks])[:, None] == instances.class_ids
        allowed = ((overlap >= config.min_overlap) | (near > 0)) & (same | (overlap >= SAME_THING))
        rows, columns = assign(overlap + near + same, allowed)

        for row, column in zip(rows, columns, strict=True):
            found[column].follows(tracks[row], rests=not empty[row])
        for row in set(range(len(tracks))).difference(rows.tolist()):
            tracks[row].misses(now if empty[row] else None)
        for track in found:
            track.id = track.id or next(self._ids)
        waiting = [t for i, t in enumerate(tracks) if i not in set(rows.tolist())]
        tracks[:] = [*waiting, *found][-config.max_tracks :]
        return np.array([t.id for t in found], np.int64)

    def _lives(self, track: Track, stamp_ns: int) -> bool:
        """Whether a track may still be found at that time."""
        if track.empty_ns is not None and (stamp_ns - track.empty_ns) * 1e-9 >= self.config.gone_after:
            return False
        if not len(track.points) and track.missed >= self.config.lost_after:
            return False
        return abs(stamp_ns - track.stamp_ns) * 1e-9 <= self.config.forget_after

    def _overlap(self, frame: Frame, masks: Masks) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Share of what must be visible of each track that lies under each mask, (M, N), and which tracks' places are
        seen empty, (M,). Without 3D the overlap is the IoU with the last mask."""
        tracks, rois = self._tracks, masks.rois
        overlap, empty = np.zeros((len(tracks), len(masks))), np.zeros(len(tracks), bool)
        flat = [i for i, t in enumerate(tracks) if not len(t.points) or frame.intrinsics is None]
        if frame.intrinsics is not None and len(flat) < len(tracks):
            surfaces, owners = _surfaces(tracks)
            points = transform_points(invert(self._T_fixed_camera), surfaces)
            votes, there, through, hidden = look_up(
                project(frame.intrinsics, points),
                np.ascontiguousarray(points[:, 2]),
                owners,
                len(tracks),
                NO_DEPTH if frame.depth is None else np.ascontiguousarray(frame.depth),
                (frame.height, frame.width),
                masks.spans,
                masks.offsets,
                rois,
                self.config.depth_tolerance,
            )
            visible = there + through
            overlap = np.where((visible >= LEAST)[:, None], votes / np.maximum(visible, 1)[:, None], 0.0)
            empty = (visible >= LEAST) & (2 * through >= visible)
            first = 0
            for track in tracks:
                track.hidden = track.points[hidden[first : first + len(track.points)]]
                first += len(track.points)
        if flat:
            last = Masks.from_span_lists(frame.height, frame.width, [tracks[i].spans for i in flat])
            shared = shared_pixels(last.spans, last.offsets, last.rois, masks.spans, masks.offsets, rois)
            overlap[flat] = shared / np.maximum(last.areas[:, None] + masks.areas - shared, 1)
        return overlap, empty


def _distances(tracks: Sequence[Track], found: Sequence[Track]) -> NDArray[np.float64]:
    """How far each track is from what was found, (M, N) m: between centroids, or twice the way from its surface, since
    what comes out behind an occluder first is not its middle. NaN without 3D."""
    points, owners = _surfaces(tracks)
    before, now = (np.array([t.centroid for t in some]).reshape(-1, 3) for some in (tracks, found))
    between = np.sqrt(((before[:, None] - now) ** 2).sum(axis=2))
    return np.fmin(between, 2 * nearest(points, owners, len(tracks), now))


def _surfaces(tracks: Sequence[Track]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The points of all tracks (P, 3), and which track each belongs to (P,)."""
    counts = [len(t.points) for t in tracks]
    return np.concatenate([NOTHING, *(t.points for t in tracks)]), np.repeat(np.arange(len(tracks)), counts)


def _remember(
    frame: Frame, instances: Instances, objects: Sequence[Object3D], T_fixed_camera: NDArray[np.float64]
) -> list[Track]:
    """What is seen now, as tracks without an id."""
    samples = [_sample(o.points, POINTS) for o in objects]
    ends = list(itertools.accumulate((len(s) for s in samples), initial=0))
    points = transform_points(T_fixed_camera, np.concatenate([NOTHING, *samples]))
    centroids = transform_points(T_fixed_camera, np.array([o.centroid for o in objects]).reshape(-1, 3))
    return [
        Track(int(class_id), name, cloud, centroid, instances.masks.spans_of(i), frame.stamp_ns)
        for i, (class_id, name, cloud, centroid) in enumerate(
            zip(
                instances.class_ids,
                instances.class_names,
                [points[start:stop] for start, stop in itertools.pairwise(ends)],
                centroids,
                strict=True,
            )
        )
    ]


def _sample(points: NDArray, count: int) -> NDArray:
    """At most `count` of the points (P, 3), at even steps."""
    return points[:: -(-len(points) // count)] if len(points) else points


def _compile() -> None:
    """Compiles the kernels, or loads them, so that the first frame does not wait for it."""
    mask = Masks.empty(1, 1, 1)
    one = (mask.spans, mask.offsets, mask.rois)
    none = np.zeros(0, np.int64)
    shared_pixels(*one, *one)
    nearest(NOTHING, none, 0, NOTHING)
    for writeable in (True, False):  # two types to numba; a camera's buffer may be either
        depth = np.zeros((1, 1), np.float32)
        depth.flags.writeable = writeable
        look_up(np.empty((0, 2)), np.empty(0), none, 0, depth, (1, 1), *one, 0.01)
