# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of fusion: all masks of a frame to what is known of their objects, in one call without Python in between."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception import clusters, outlines, points
from seg_perception.moments import moments
from seg_perception.rectangles import axes_with_z, turned_bounds

SUPPORT_REACH = 0.012  # m; what differs more from the support is something else
REACH, SUNK = 0.3, 0.02  # m; an object's lowest points are at most so far above, and below, what carries it
LOWEST = 0.02  # share of the points that may be lower
CORE = 6  # of 8 neighbours agree inside a surface; a rim two pixels wide has none such
TOUCHING, FOOT = 3, 0.006  # pixels on the support under the mask, and how far above them the rest may begin, m
FLAT = 0.15  # share of pixels well above the support that makes an object of them
NOISY = 0.0003  # m; depth this smooth has no outliers
SAMPLE, BOX_SAMPLE = 512, 1000  # points that decide on the support and that the box is fitted to, about
ROOM = 8192  # for them


class Rules(NamedTuple):
    """The options of fusion as kernels take them, m; `steps` as in `points.step`."""

    near: float
    far: float
    steps: NDArray[np.float32]
    min_agreeing: int
    min_points: int
    part_gap: float
    part_share: float
    smooth: bool
    erode: bool
    support_margin: float
    noise: float
    outliers: float


class Lifted(NamedTuple):
    """What the kernel finds, one row per mask; nothing is meant where `kept` is less than the least number of points.

    `counts` (N, 5) as in `points`; `kept` pixels of the object; `support` the plane that carries it, -1 = none; `limit`
    height m over it where the object begins; `foot` the support's own height m there; `frame` (N, 3, 3), `angle`,
    `low`, `high` (N, 3) the box as in `rectangles.turned_bounds`, with `frame` NaN where nothing says what is up and
    `sample` (N, 3, S), `samples` points of it are to be boxed; cloud i is `size[i]` points from `start[i]` on.
    """

    counts: NDArray[np.int64]
    kept: NDArray[np.int64]
    support: NDArray[np.int64]
    occluded: NDArray[np.float64]
    foot: NDArray[np.float64]
    limit: NDArray[np.float64]
    outliers: NDArray[np.float64]
    frame: NDArray[np.float64]
    angle: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    samples: NDArray[np.int64]
    sample: NDArray[np.float32]
    centroid: NDArray[np.float64]
    spread: NDArray[np.float64]
    start: NDArray[np.int64]
    size: NDArray[np.int64]
    points: NDArray[np.float32]
    colors: NDArray[np.uint8]

    @classmethod
    def of(cls, areas: NDArray[np.int64], has_up: bool) -> Lifted:
        """Room for masks of so many pixels."""
        n, total = len(areas), int(areas.sum())
        return cls(
            counts=np.zeros((n, 5), np.int64),
            kept=np.zeros(n, np.int64),
            support=np.full(n, -1),
            occluded=np.empty(n),
            foot=np.zeros(n),
            limit=np.zeros(n),
            outliers=np.zeros(n),
            frame=np.full((n, 3, 3), np.nan),
            angle=np.zeros(n),
            low=np.zeros((n, 3)),
            high=np.zeros((n, 3)),
            samples=np.zeros(n, np.int64),
            sample=np.empty((0 if has_up else n, 3, ROOM), np.float32),
            centroid=np.zeros((n, 3)),
            spread=np.zeros((n, 3, 3)),
            start=np.cumsum(areas) - areas,
            size=np.zeros(n, np.int64),
            points=np.empty((total, 3), np.float32),
            colors=np.empty((total, 3), np.uint8),
        )


@njit(cache=True, nogil=True)
def lift(  # type: ignore[no-untyped-def]
    depth, color, rays, straight, ignore, spans, offsets, rois, planes, candidates, known, up, rules, first, last, out
):
    """Fills rows `first:last` of `out`, a `Lifted`.

    `straight` as in `points.rays_under_mask`; `ignore` (H, W) bool, or (0, 0) for none. The first `candidates` of
    `planes` (P, 4) may carry any object, `known` (N,) says which carries it for sure, -1 = not known. `up` (3,), NaN =
    not known.
    """
    steps, hint = rules.steps, np.array([1.0, 0.0, 0.0])
    for i in range(first, last):  # no function of its own: that would compile everything once more
        roi, mine = rois[i], spans[offsets[i] : offsets[i + 1]]
        z, kind, seen = points.depth_under_mask(depth, mine, roi, ignore, rules.near, rules.far, out.counts[i])
        directions = points.rays_under_mask(rays, straight, roi)
        agreeing = points.agreement(z, steps)
        places = outlines.outline(kind)
        out.occluded[i] = outlines.occluded_ratio(places, kind, depth, roi, steps)
        keep, count = points.agreeing_pixels(kind, points.USABLE, agreeing, rules.min_agreeing)
        sample = np.empty((3, ROOM), np.float32)
        n = points.sample_of(keep, z, directions, max(1, count // SAMPLE), sample)
        support = known[i] if known[i] >= 0 else _carrier(sample, n, planes, candidates)
        out.support[i] = support
        plane, limit, noise = np.full(4, np.nan), 0.0, NOISY
        if support >= 0:
            plane = planes[support]
            foot, noise = outlines.support_beside(places, kind, depth, rays, straight, roi, plane, SUPPORT_REACH)
            if not np.isfinite(foot):
                foot, noise = 0.0, rules.noise * outlines.middle_of(sample[2, :n]) ** 2 if n > 0 else 0.0
            limit = foot + 3 * noise + rules.support_margin
            above, left, high = points.above_support(z, keep, directions, plane, limit)
            out.foot[i], out.limit[i] = foot, limit + (FOOT if count - left >= TOUCHING else 0.0)
            if high > FLAT * count:  # else it is so flat that it is left whole
                keep, count = above, left
        keep, count = _object(z, kind, agreeing, keep, count, depth, rays, straight, roi, plane, limit, rules)
        out.kept[i] = count
        if count < rules.min_points:
            continue
        if rules.smooth and noise > NOISY:
            z = points.smoothed(z, agreeing)
        n = points.sample_of(keep, z, directions, -(-count // BOX_SAMPLE), sample)
        outliers = rules.outliers * min(1.0, noise / NOISY)
        if outliers * n < 1:  # smooth: every point counts
            outliers = 0.0
            n = points.add_ends(keep, z, directions, sample, n)
        axis = plane[:3] if support >= 0 else up
        if np.isfinite(axis[0]):
            _assign(axes_with_z(axis, hint), out.frame[i])
            out.angle[i] = turned_bounds(
                sample[0, :n], sample[1, :n], sample[2, :n], out.frame[i], outliers, out.low[i], out.high[i]
            )
        else:
            out.samples[i], out.outliers[i] = n, outliers
            _assign(sample, out.sample[i])
        moments(keep, kind, z, directions, out.centroid[i], out.spread[i])
        if rules.erode:
            solid, left = outlines.away_from_steps(keep, seen, steps)
            if left >= max(0.35 * count, rules.min_points):  # thin: nothing is away from its edges
                keep, count = solid, left
        start = out.start[i]
        out.size[i] = points.points_of(
            keep, z, directions, color, roi, out.points[start : start + count], out.colors[start : start + count]
        )


@njit(cache=True, nogil=True)
def _assign(values, out):  # type: ignore[no-untyped-def]
    """`out[:] = values`, which itself takes seconds to compile."""
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            out[y, x] = values[y, x]


@njit(cache=True, nogil=True)
def _object(z, kind, agreeing, keep, count, depth, rays, straight, roi, plane, limit, rules):  # type: ignore[no-untyped-def]
    """The pixels of `keep` that are the object, its largest solid piece, that piece's rim, and other parts; and their
    number."""
    rows, columns = z.shape
    core, inside = points.agreeing_pixels(keep, 1, agreeing, CORE)
    if 3 * inside < count:  # thin, or full of holes
        core = keep
    runs = clusters.clusters(z, core, rules.steps)
    if len(runs) == 0:
        return core, 0
    body, size = clusters.grown(z, clusters.largest(runs, columns, rows), keep, rules.steps)
    least = max(rules.part_share * size, 1.0)
    if count - size >= least:
        rest = keep.copy()
        for y in range(rows):
            for x in range(columns):
                rest[y, x] ^= body[y, x]
        runs = clusters.clusters(z, rest, rules.steps)
        size += clusters.add_parts(
            body, z, kind, runs, depth, rays, straight, roi, plane, limit, rules.steps, rules.part_gap, least
        )
    return body, size


@njit(cache=True, nogil=True)
def _carrier(sample, n, planes, candidates):  # type: ignore[no-untyped-def]
    """Which plane carries what `n` points `sample` (3, M) m were taken of, -1 = none: `support.support_under`."""
    best, best_gap = -1, REACH
    if n == 0:
        return best
    place = LOWEST * (n - 1)
    lowest = np.empty(int(place) + 2)
    for k in range(candidates):
        lowest[:] = np.inf
        for j in range(n):
            height = planes[k, 0] * sample[0, j] + planes[k, 1] * sample[1, j] + planes[k, 2] * sample[2, j]
            if height < lowest[-1]:
                m = len(lowest) - 1
                while m > 0 and lowest[m - 1] > height:
                    lowest[m] = lowest[m - 1]
                    m -= 1
                lowest[m] = height
        gap, after = lowest[int(place)], lowest[int(place) + 1]
        if place > int(place):
            gap += (place - int(place)) * (after - gap)
        gap += planes[k, 3]
        if gap >= -SUNK and abs(gap) <= best_gap:
            best, best_gap = k, abs(gap)
    return best
