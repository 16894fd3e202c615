# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which objects of a result a call is about."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from seg_perception.ros.calls import BadRequestError
from seg_perception.ros.clouds import ObjectClouds, label_order
from seg_perception.ros.results import Result
from seg_perception.scene import Scene


@dataclass(frozen=True)
class Selection:
    """Class names (empty = all), a box in px that the middle of the object's box must lie in, the workspace."""

    classes: tuple[str, ...]
    roi: tuple[float, float, float, float] | None
    in_workspace_only: bool

    @classmethod
    def of(cls, request: Any, class_names: Sequence[str]) -> Selection:
        """What a SegmentOnce request says. Raises BadRequestError."""
        for name in request.classes:
            cls.check_class(name, class_names)
        roi = tuple(float(v) for v in request.roi)
        if not np.isfinite(roi).all() or (any(roi) and (roi[2] <= roi[0] or roi[3] <= roi[1])):
            raise BadRequestError(f"roi: expected x_min y_min x_max y_max with min < max, got {list(roi)}")
        return cls(tuple(request.classes), roi if any(roi) else None, request.in_workspace_only)

    @staticmethod
    def check_class(name: str, class_names: Sequence[str]) -> None:
        """Raises BadRequestError for a name that the model cannot find."""
        if class_names and name not in class_names:
            close = difflib.get_close_matches(name, class_names, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"the model has {listed(class_names)}"
            raise BadRequestError(f"classes: no class '{name}'; {hint}")

    def rows(self, result: Result) -> list[int]:
        """The rows of the scene that are meant."""
        instances = result.scene.instances
        middles = (instances.boxes[:, :2] + instances.boxes[:, 2:]) / 2
        chosen = []
        for row in range(len(instances)):
            if self.classes and instances.class_names[row] not in self.classes:
                continue
            if self.in_workspace_only and not result.in_workspace[row]:
                continue
            if self.roi is not None:
                x, y = middles[row]
                if not (self.roi[0] <= x < self.roi[2] and self.roi[1] <= y < self.roi[3]):
                    continue
            chosen.append(row)
        return chosen


def only_points_of(clouds: ObjectClouds, scene: Scene, rows: Collection[int]) -> ObjectClouds:
    """The clouds with the points of the objects in `rows` only; the labels stay."""
    kept = np.isin(label_order(scene), list(rows))
    return replace(clouds, offsets=(0, *np.cumsum(np.diff(clouds.offsets) * kept).tolist()))


def listed(items: Iterable[Any], most: int = 8) -> str:
    """Some items in words."""
    texts = [str(item) for item in items]
    return (
        ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "") if texts else "none"
    )
