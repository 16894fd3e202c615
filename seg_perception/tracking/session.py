# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The tracker of segmenters that remember: their identities become the objects' ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.scene import Frame, Instances, Object3D

MOST = 10_000  # identities that are remembered


@dataclass(frozen=True)
class SessionConfig:
    """Nothing to set."""


class SessionTracker:
    """One id for each of the segmenter's `track_ids`; what has none is new in every frame. Ids are never reused."""

    Config = SessionConfig

    def __init__(self, config: SessionConfig) -> None:
        self._last = 0
        self._ids: dict[int, int] = {}

    def reset(self) -> None:
        self._ids.clear()

    def update(self, frame: Frame, instances: Instances, objects: Sequence[Object3D]) -> NDArray[np.int64]:
        return np.array([self._id(int(track)) for track in instances.track_ids], np.int64)

    def _id(self, track: int) -> int:
        if track in self._ids:
            return self._ids[track]
        self._last += 1
        if track > 0:
            self._ids[track] = self._last
            if len(self._ids) > MOST:
                del self._ids[next(iter(self._ids))]
        return self._last
