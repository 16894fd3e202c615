# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How well ids follow objects: IDF1 (Ristani et al., 2016), id switches and fragmentation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment


@dataclass(frozen=True)
class TrackScore:
    """`idf1` 0..1: sightings under the one id that suits each object best, over all. `switches`: an object has another
    id than when last seen. `fragments`: ids beyond the first, summed over objects. `shared`: ids that more than one
    object had. `sightings`: objects counted over all frames."""

    idf1: float
    switches: int
    fragments: int
    shared: int
    objects: int
    sightings: int


def score_tracks(frames: Iterable[Mapping[str, int]]) -> TrackScore:
    """Scores ids against the truth: per frame, the id that each object (by its true name) was given.

    Only what the segmenter found is scored, so a miss counts neither for nor against the tracker.
    """
    counts: dict[tuple[str, int], int] = {}
    last: dict[str, int] = {}
    switches = 0
    for frame in frames:
        for name, track_id in frame.items():
            counts[name, track_id] = counts.get((name, track_id), 0) + 1
            switches += last.get(name, track_id) != track_id
            last[name] = track_id
    names, ids = (sorted({pair[k] for pair in counts}) for k in (0, 1))
    table = np.zeros((len(names), len(ids)), int)
    for (name, track_id), count in counts.items():
        table[names.index(name), ids.index(track_id)] = count
    total = int(table.sum())
    best = int(table[linear_sum_assignment(table, maximize=True)].sum())
    return TrackScore(
        idf1=best / total if total else 1.0,
        switches=switches,
        fragments=int((table > 0).sum()) - len(names),
        shared=int(((table > 0).sum(axis=0) > 1).sum()),
        objects=len(names),
        sightings=total,
    )
