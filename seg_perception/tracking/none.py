# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The null tracker: every object of every frame is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.scene import Frame, Instances, Object3D


class NoTracker:
    """Gives each object a new id, counting up from 1."""

    @dataclass(frozen=True)
    class Config:
        """Nothing to set."""

    def __init__(self, config: Config) -> None:
        self._last = 0

    def update(self, frame: Frame, instances: Instances, objects: Sequence[Object3D]) -> NDArray[np.int64]:
        first, self._last = self._last + 1, self._last + len(instances)
        return np.arange(first, self._last + 1, dtype=np.int64)
