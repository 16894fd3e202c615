# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Tracks that were not found in a frame: hidden, overlooked, or just taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from seg_perception.masks import Masks
from seg_perception.plugins import Tracker
from seg_perception.scene import Frame, Instances, Object3D, Status


@dataclass(frozen=True, slots=True)
class Coasting:
    """A track that waits: `time_since_seen` s since it was last found."""

    id: int
    class_id: int
    class_name: str
    time_since_seen: float


def with_coasting(
    tracker: Tracker, frame: Frame, instances: Instances, objects: Sequence[Object3D], seconds: float
) -> tuple[Instances, list[Object3D]]:
    """Both lists with a row of score 0 and an empty mask for each track that was found at most `seconds` ago, if the
    tracker knows of such (`coasting`)."""
    waiting: list[Coasting] = []
    if seconds > 0 and hasattr(tracker, "coasting"):
        waiting = tracker.coasting(frame.stamp_ns, seconds)
    if not waiting:
        return instances, list(objects)
    spans = [instances.masks.spans_of(i) for i in range(len(instances))]
    masks = Masks.from_span_lists(frame.height, frame.width, [*spans, *(np.empty((0, 3), np.int32) for _ in waiting)])
    more = len(waiting)
    instances = replace(
        instances,
        boxes=np.concatenate([instances.boxes, np.zeros((more, 4), np.float32)]),
        scores=np.concatenate([instances.scores, np.zeros(more, np.float32)]),
        class_ids=np.concatenate([instances.class_ids, np.array([w.class_id for w in waiting], np.int32)]),
        class_names=(*instances.class_names, *(w.class_name for w in waiting)),
        masks=masks,
        support_ids=np.concatenate([instances.support_ids, np.full(more, -1, np.int32)]),
        mask_scores=np.concatenate([instances.mask_scores, np.full(more, np.nan, np.float32)]),
        track_ids=np.concatenate([instances.track_ids, np.zeros(more, np.int64)]),
    )
    unseen = [
        Object3D(
            Status.EMPTY_MASK,
            f"last seen {w.time_since_seen:.2f} s ago, hidden or overlooked",
            id=w.id,
            time_since_seen=w.time_since_seen,
        )
        for w in waiting
    ]
    return instances, [*objects, *unseen]
