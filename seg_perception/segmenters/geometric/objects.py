# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which segments are objects: not noise, not background; how sure that is; and what each object stands on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seg_perception.scene import Plane
from seg_perception.segmenters.geometric.foreground import Foreground
from seg_perception.segmenters.geometric.segments import Segments
from seg_perception.support import Supports
from seg_perception.surfaces.surface import Surface

if TYPE_CHECKING:
    from seg_perception.segmenters.tabletop import TabletopConfig

STRIDE = 3  # px, of the points that sizes are measured with
CUT = 0.25  # share of the rim where a thing goes on beyond the support: furniture, walls
OVER = 0.5  # share of an object that is right over its support, not beyond its edge
AT_BORDER = 0.15  # share of the rim at the image's border that makes a big thing background
SURE = 6.0  # times the noise of depth, that thin things rise over their support
ON_TOP = 0.02  # m, how far a foot may be from the top that it stands on
FOOT = 0.03  # share of an object's points under its foot, which noise makes


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Per segment (count + 1,): `tall` and `thin` objects, and `scores` 0..1."""

    tall: NDArray[np.bool_]
    thin: NDArray[np.bool_]
    scores: NDArray[np.float32]

    def with_thin(
        self, image: NDArray[np.int32], labels: NDArray[np.int32], segments: Segments
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """`image` of the tall objects with the thin ones that do not lie inside of these, and all their scores."""
        scores = [float(s) for s in self.scores[self.tall]]
        thin = np.flatnonzero(self.thin)
        if len(thin):
            here = segments.of_patch[labels]
            free = np.bincount(here[image == 0], minlength=len(self.thin))
            for k in thin[free[thin] > 0.7 * np.bincount(here.ravel(), minlength=len(self.thin))[thin]]:
                scores.append(float(self.scores[k]))
                image[(here == k) & (image == 0)] = len(scores)
        return image, np.array(scores, np.float32)


def choose_objects(
    labels: NDArray[np.int32],
    segments: Segments,
    w: NDArray[np.float32],
    rays: NDArray[np.float32],
    noise: float,
    config: TabletopConfig,
) -> Chosen:
    """Objects among the segments: high or wide enough, not longer than `support.max_size`, not cut off by the
    support's edge or `support.max_height`, and not big at the image's border."""
    known = segments.statistics
    rise = known.height(0.9)
    rim = np.maximum(known.rim + known.border, 1)
    length = _lengths(segments.of_patch[labels], segments.count, w, rays)
    size = config.support.max_size
    background = (length > size) | (known.cut > CUT * rim)
    background |= known.over < OVER * known.pixels
    aside = known.main_support != 0  # not on the best support: furniture in the background more often than not
    background |= (known.border > AT_BORDER * rim) & ((length > size / 2) | aside)
    background[0] = True
    tall = (rise >= config.min_height) & (known.area >= config.min_area) & ~background
    mean_w = known.moments[:, 3] / np.maximum(known.pixels, 1)
    sure = np.maximum(config.thin_height, SURE * noise / np.maximum(mean_w, 1e-3) ** 2)
    thin = (known.height(0.5) >= sure) & (known.area >= config.thin_area) & ~background & ~tall
    whole = 1.0 - (known.cut + 0.5 * known.border) / rim
    seen = 1.0 - 0.5 * np.exp(-known.area / (4 * config.min_area))
    raised = 1.0 - np.exp(-rise / config.min_height)
    return Chosen(tall, thin, (whole * seen * raised).clip(0, 1).astype(np.float32))


def stand_on(
    image: NDArray[np.int32],
    count: int,
    w: NDArray[np.float32],
    rays: NDArray[np.float32],
    found: Foreground,
    supports: Supports,
) -> tuple[NDArray[np.int32], tuple[Plane, ...]]:
    """The support of each object 1..`count` in `image`, as an index into the planes returned: the carrying surfaces,
    then those tops of objects that carry others."""
    ids = np.full(count, -1, np.int32)
    planes = [surface.plane for surface in supports.carrying]
    rows, columns = (a[:: STRIDE * STRIDE] for a in np.nonzero((image > 0) & (w > 0)))
    owners = image[rows, columns]
    points = _points(rows, columns, w, rays)
    tops: dict[int, int] = {}
    for i in range(count):
        mine = owners == i + 1
        if not mine.any():
            continue
        below = found.support[rows[mine], columns[mine]]
        below = below[below >= 0]
        if not len(below):
            continue
        ids[i] = np.bincount(below).argmax()
        lowest = np.quantile(planes[ids[i]].heights(points[mine]), FOOT)
        top = _top_under(points[mine], float(lowest), planes[ids[i]], supports.tops)
        if top >= 0:
            if top not in tops:
                tops[top] = len(planes)
                planes.append(supports.tops[top].plane)
            ids[i] = tops[top]
    return ids, tuple(planes)


def _top_under(points: NDArray[np.float64], lowest: float, ground: Plane, tops: tuple[Surface, ...]) -> int:
    """The top, in reach of the object's lowest points, that most of it is over; -1 = none."""
    if lowest < ON_TOP:
        return -1
    for k, top in enumerate(tops):
        foot = float(np.quantile(top.plane.heights(points), FOOT))
        if abs(foot) >= ON_TOP or ground.heights(top.origin) <= ON_TOP:
            continue
        if top.is_over(points[:: max(1, len(points) // 50)], ON_TOP).mean() > 0.5:
            return k
    return -1


def _lengths(
    image: NDArray[np.int32], count: int, w: NDArray[np.float32], rays: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(count + 1,) m, the longest side of a box around most points of each segment, along its main axes."""
    coarse = image[::STRIDE, ::STRIDE]
    rows, columns = np.nonzero(coarse)
    owners = coarse[rows, columns]
    order = np.argsort(owners, kind="stable")
    points = _points(rows[order] * STRIDE, columns[order] * STRIDE, w, rays)
    bounds = np.searchsorted(owners[order], np.arange(count + 2))
    lengths = np.zeros(count + 1)
    for k in range(1, count + 1):
        mine = points[bounds[k] : bounds[k + 1]]
        if len(mine) > 2:
            centred = mine - mine.mean(axis=0)
            axes = np.linalg.eigh(centred.T @ centred)[1]
            low, high = np.quantile(centred @ axes[:, -1], [0.01, 0.99])
            lengths[k] = high - low
    return lengths


def _points(
    rows: NDArray[np.int64], columns: NDArray[np.int64], w: NDArray[np.float32], rays: NDArray[np.float32]
) -> NDArray[np.float64]:
    z = 1.0 / w[rows, columns].astype(np.float64)
    return np.column_stack([rays[rows, columns] * z[:, None], z])
