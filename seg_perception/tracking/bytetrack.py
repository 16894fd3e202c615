# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Identities by 2D boxes alone, for video: what ByteTrack does (Zhang et al., ECCV 2022, arXiv:2110.06864).

Boxes move on at constant velocity. Confident instances are matched first; those of low score, which an object has while
it is half hidden or blurred, then keep the remaining tracks alive but start none. Needs neither depth nor calibration;
knows nothing of a camera that moves while it does not look.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.options import option
from seg_perception.scene import Frame, Instances, Object3D
from seg_perception.tracking.assignment import assign
from seg_perception.tracking.coasting import Coasting

GAIN = 0.7  # of the measured box against the predicted one
VELOCITY_GAIN = 0.3


@dataclass(frozen=True)
class ByteTrackConfig:
    """Keys of `tracker:` with `plugin: bytetrack`."""

    high_score: float = option(
        0.5, "instances from this score are matched first and start tracks; keep segmenter.score_threshold below it",
        ge=0, le=1, live=True,
    )  # fmt: skip
    min_iou: float = option(0.2, "overlap of boxes that confident instances need", ge=0.01, le=1, live=True)
    min_iou_low: float = option(0.5, "overlap of boxes that the others need", ge=0.01, le=1, live=True)
    forget_after: float = option(
        1.0, "a track not found is forgotten after this time", unit="s", ge=0, le=600, live=True
    )
    by_class: bool = option(True, "a track keeps its class", live=True)


@dataclass(slots=True, eq=False)
class Track:
    """One object: `box` (4,) px centre and size, `velocity` (4,) px/s."""

    id: int
    class_id: int
    class_name: str
    box: NDArray[np.float64]
    velocity: NDArray[np.float64]
    stamp_ns: int

    def at(self, stamp_ns: int) -> NDArray[np.float64]:
        """Where the box must be by then, (4,)."""
        box = self.box + self.velocity * ((stamp_ns - self.stamp_ns) * 1e-9)
        return np.concatenate([box[:2], box[2:].clip(1.0)])

    def move(self, box: NDArray[np.float64], stamp_ns: int) -> None:
        """Takes in where the box was found (alpha-beta filter)."""
        predicted, seconds = self.at(stamp_ns), (stamp_ns - self.stamp_ns) * 1e-9
        self.box = predicted + GAIN * (box - predicted)
        if seconds > 0:
            self.velocity = self.velocity + VELOCITY_GAIN / seconds * (box - predicted)
        self.stamp_ns = stamp_ns


class ByteTrack:
    """Boxes in two stages, high scores first; an instance of low score that fits no track gets an id for that frame."""

    Config = ByteTrackConfig

    def __init__(self, config: ByteTrackConfig | None = None) -> None:
        self.config = config or ByteTrackConfig()
        self._ids = itertools.count(1)
        self._tracks: list[Track] = []

    def with_config(self, config: ByteTrackConfig) -> ByteTrack:
        """The same tracks under other options."""
        other = copy.copy(self)
        other.config = config
        return other

    def reset(self) -> None:
        """Forgets all tracks; their ids are not used again."""
        self._tracks.clear()

    def coasting(self, stamp_ns: int, seconds: float) -> list[Coasting]:
        """The tracks not found in the newest frame, which was stamped `stamp_ns`, but at most `seconds` before it."""
        unseen = [(t, (stamp_ns - t.stamp_ns) * 1e-9) for t in self._tracks]
        return [Coasting(t.id, t.class_id, t.class_name, age) for t, age in unseen if 0 < age <= seconds]

    def update(self, frame: Frame, instances: Instances, objects: Sequence[Object3D]) -> NDArray[np.int64]:
        """(N,) ids of the instances."""
        config, now = self.config, frame.stamp_ns
        self._tracks[:] = [t for t in self._tracks if abs(now - t.stamp_ns) * 1e-9 <= config.forget_after]
        tracks = self._tracks
        boxes = instances.boxes.astype(np.float64)
        boxes = np.concatenate([boxes[:, :2] + boxes[:, 2:], 2 * (boxes[:, 2:] - boxes[:, :2])], axis=1) / 2
        iou = _iou(np.array([t.at(now) for t in tracks]).reshape(-1, 4), boxes)
        if config.by_class:
            iou *= np.array([t.class_id for t in tracks])[:, None] == instances.class_ids
        high = instances.scores >= config.high_score
        ids = np.zeros(len(instances), np.int64)
        free = np.ones(len(tracks), bool)
        for chosen, least in ((high, config.min_iou), (~high, config.min_iou_low)):
            for row, column in zip(*assign(iou, (iou >= least) & free[:, None] & chosen), strict=True):
                free[row] = False
                ids[column] = tracks[row].id
                tracks[row].move(boxes[column], now)
        for i in np.flatnonzero(ids == 0):
            ids[i] = next(self._ids)
            if high[i]:
                name = instances.class_names[i]
                tracks.append(Track(int(ids[i]), int(instances.class_ids[i]), name, boxes[i], np.zeros(4), now))
        return ids


def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Overlap of boxes (M, 4) and (N, 4), centre and size, (M, N)."""
    low = np.maximum(a[:, None, :2] - a[:, None, 2:] / 2, b[:, :2] - b[:, 2:] / 2)
    high = np.minimum(a[:, None, :2] + a[:, None, 2:] / 2, b[:, :2] + b[:, 2:] / 2)
    shared = (high - low).clip(0).prod(axis=2)
    return shared / np.maximum(a[:, None, 2:].prod(axis=2) + b[:, 2:].prod(axis=1) - shared, 1e-9)
