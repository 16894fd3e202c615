# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What `iou3d` remembers: objects as last seen, in parallel rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.scene import Instances, Object3D
from seg_perception.tracking.overlaps import grown

POINTS = 128  # remembered of each surface
NEVER = np.iinfo(np.int64).min
NO_POINTS = np.empty((0, 3), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """M objects as last seen, those seen last at the end.

    `points` (P, 3) m of their surfaces, fixed frame: row i has those from `starts[i]` to `starts[i + 1]`; `hidden`
    (P,), which of them the newest frame does not show. `centroids` (M, 3) m, fixed frame. Without 3D an object has no
    points, and NaN. `masks`: those of its image, and its row there.
    """

    ids: NDArray[np.int64]
    class_ids: NDArray[np.int64]
    class_names: tuple[str, ...]
    points: NDArray[np.float64]
    starts: NDArray[np.int64]
    hidden: NDArray[np.bool_]
    centroids: NDArray[np.float64]
    masks: tuple[tuple[Masks, int], ...]
    stamps: NDArray[np.int64]  # ns
    emptied: NDArray[np.int64]  # ns, when its place was first seen empty, or NEVER
    missed: NDArray[np.int64]  # frames without it

    @classmethod
    def none(cls) -> Tracks:
        rows, points = np.zeros(0, np.int64), np.zeros((0, 3))
        return cls(rows, rows, (), points, np.zeros(1, np.int64), np.zeros(0, bool), points, (), rows, rows, rows)

    def __len__(self) -> int:
        return len(self.ids)

    def last(self, count: int) -> Tracks:
        """The `count` rows seen last."""
        if len(self) <= count:
            return self
        first = len(self) - count
        start = self.starts[first]
        return Tracks(
            self.ids[first:],
            self.class_ids[first:],
            self.class_names[first:],
            self.points[start:].copy(),
            self.starts[first:] - start,
            self.hidden[start:].copy(),
            self.centroids[first:],
            self.masks[first:],
            self.stamps[first:],
            self.emptied[first:],
            self.missed[first:],
        )

    def then(
        self,
        found: Found,
        ids: NDArray[np.int64],
        before: NDArray[np.int64],
        empty: NDArray[np.bool_],
        hidden: NDArray[np.bool_],
        ended: NDArray[np.bool_],
        stamp_ns: int,
    ) -> Tracks:
        """The tracks after an image stamped `stamp_ns` in which `found` were seen: `ids` (N,), of which object j is the
        track of row `before[j]`, -1 = new.

        Of the tracks, `empty` (M,) are seen not to be where they were, `hidden` (P,) of their points are not seen, and
        `ended` (M,) are left out. An object that rests takes over what is not seen of the surface now.
        """
        gone = ended.copy()
        gone[before[before >= 0]] = True
        kept = np.flatnonzero(~gone)
        points, starts, unseen = grown(
            self.points, self.starts, hidden, kept, found.points, found.starts, found.T, before, ~empty, POINTS
        )
        rests = before >= 0
        rests[rests] = ~empty[before[rests]]
        blind = rests & (found.starts[1:] == found.starts[:-1])
        centroids = found.centroids
        if blind.any():
            centroids = centroids.copy()
            centroids[blind] = self.centroids[before[blind]]
        n = len(ids)
        rows = tuple(zip(itertools.repeat(found.masks), range(n), strict=False))
        seen = Tracks(
            ids, found.class_ids, found.class_names, points, starts, unseen, centroids, rows,
            np.full(n, stamp_ns), np.full(n, NEVER), np.zeros(n, np.int64),
        )  # fmt: skip
        if not len(kept):
            return seen
        emptied = self.emptied[kept]
        return Tracks(
            np.concatenate([self.ids[kept], ids]),
            np.concatenate([self.class_ids[kept], found.class_ids]),
            (*(self.class_names[i] for i in kept), *found.class_names),
            points,
            starts,
            unseen,
            np.concatenate([self.centroids[kept], centroids]),
            (*(self.masks[i] for i in kept), *rows),
            np.concatenate([self.stamps[kept], seen.stamps]),
            np.concatenate([np.where((emptied == NEVER) & empty[kept], stamp_ns, emptied), seen.emptied]),
            np.concatenate([self.missed[kept] + 1, seen.missed]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What is seen now, N rows: at most POINTS `points` of each surface as in `Tracks`, camera frame; `centroids`
    (N, 3) m, fixed frame; `T` (4, 4) from one to the other."""

    class_ids: NDArray[np.int64]
    class_names: tuple[str, ...]
    points: NDArray[np.float32]
    starts: NDArray[np.int64]
    centroids: NDArray[np.float64]
    masks: Masks
    T: NDArray[np.float64]

    @classmethod
    def of(cls, instances: Instances, objects: Sequence[Object3D], T: NDArray[np.float64]) -> Found:
        samples = [points[:: -(-len(points) // POINTS) or 1] for points in [o.points for o in objects]]
        starts = np.array(list(itertools.accumulate(map(len, samples), initial=0)), np.int64)
        centroids = np.array([o.centroid for o in objects], np.float64).reshape(-1, 3) @ T[:3, :3].T + T[:3, 3]
        points = np.concatenate([NO_POINTS, *samples])
        names = instances.class_names
        return cls(instances.class_ids.astype(np.int64), names, points, starts, centroids, instances.masks, T)
