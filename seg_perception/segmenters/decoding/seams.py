# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Instances seen in overlapping parts of an image, put together: each object once, and whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.scene import Instances
from seg_perception.spans import shared_pixels


class Seen(NamedTuple):
    """What was found in the part `top, left, height, width` of the image, in the image's pixels; `whole`: in all of it,
    at a lower resolution."""

    found: Instances
    part: tuple[int, int, int, int]
    whole: bool


def merged(seen: Sequence[Seen], same_object: float) -> Instances:
    """The objects of all parts, best first.

    Two masks of a class from two parts are of one object when, in what both parts show, their IoU is above
    `same_object`, or that share of one that its part's edge cuts is in the other; its mask is both together. A mask
    from the whole image says nothing new where an object agrees with it or where whole objects fill it; else it is an
    object that the parts saw only pieces of, and takes their place.
    """
    parts = [s for s in seen if not s.whole]
    rows = _together([s.found for s in parts])
    of_part = np.repeat(np.arange(len(parts)), [len(s.found) for s in parts])
    views = np.array([s.part for s in parts], np.int64)
    edges = _edges(rows.masks, views[of_part])
    cut = np.array([len(edge) > 0 for edge in edges], np.bool_)
    owners = _groups(rows, of_part, views, cut, same_object)
    objects = _united(rows, owners)
    pieces = _pieces(rows, owners, edges)
    for coarse in (s.found for s in seen if s.whole):
        objects = _with_whole(objects, pieces, coarse, same_object)
    return objects[np.argsort(-objects.scores, kind="stable")]


def _together(found: Sequence[Instances]) -> Instances:
    """All rows of several, one after the other."""
    masks = [f.masks for f in found]
    return Instances.of(
        Masks.from_span_lists(masks[0].height, masks[0].width, [m.spans_of(i) for m in masks for i in range(len(m))]),
        np.concatenate([f.scores for f in found]),
        np.concatenate([f.class_ids for f in found]),
        [name for f in found for name in f.class_names],
        np.concatenate([f.boxes for f in found]),
        mask_scores=np.concatenate([f.mask_scores for f in found]),
    )


def _edges(masks: Masks, views: NDArray[np.int64]) -> list[NDArray[np.int32]]:
    """The spans of each mask along those edges of its part that are not the image's."""
    out = []
    for i, (top, left, height, width) in enumerate(views):
        spans, bottom, right = masks.spans_of(i), top + height, left + width
        rows = [y for y, inner in ((top, top > 0), (bottom - 1, bottom < masks.height)) if inner]
        found = [spans[np.isin(spans[:, 0], rows)]]
        for x, inner, touches in (
            (left, left > 0, spans[:, 1] == left),
            (right - 1, right < masks.width, spans[:, 2] == right),
        ):
            if inner:
                found.append(np.stack([spans[touches, 0], *[np.full(touches.sum(), e) for e in (x, x + 1)]], axis=1))
        out.append(np.concatenate(found).astype(np.int32))
    return out


def _groups(
    rows: Instances, of_part: NDArray[np.int64], views: NDArray[np.int64], cut: NDArray[np.bool_], same: float
) -> NDArray[np.int64]:
    """(N,) a number for each row, equal for rows of one object."""
    masks = rows.masks
    shared = shared_pixels(masks.spans, masks.offsets, masks.rois, masks.spans, masks.offsets, masks.rois)
    owners = np.arange(len(rows))
    for a, b in zip(*np.nonzero(np.triu(shared, 1)), strict=True):
        if of_part[a] == of_part[b] or rows.class_ids[a] != rows.class_ids[b] or owners[a] == owners[b]:
            continue
        top, left = np.maximum(views[of_part[a], :2], views[of_part[b], :2])
        bottom, right = np.minimum(*(views[of_part[k], :2] + views[of_part[k], 2:] for k in (a, b)))
        areas = [_area_in(masks.spans_of(k), top, left, bottom, right) for k in (a, b)]
        iou = shared[a, b] / (sum(areas) - shared[a, b])
        inside = [shared[a, b] > same * area and cut[k] for k, area in zip((a, b), areas, strict=True)]
        if iou > same or any(inside):
            owners[owners == owners[b]] = owners[a]
    return owners


def _united(rows: Instances, owners: NDArray[np.int64]) -> Instances:
    """One row for each object: all its masks, its best score and what that mask scores, a box around its boxes."""
    chosen = [np.flatnonzero(owners == owner) for owner in np.unique(owners)]
    masks = [rows.masks.spans_of(i[0]) if len(i) == 1 else union([rows.masks.spans_of(k) for k in i]) for i in chosen]
    best = np.array([i[np.argmax(rows.scores[i])] for i in chosen], np.int64)
    boxes = [np.concatenate([rows.boxes[i, :2].min(axis=0), rows.boxes[i, 2:].max(axis=0)]) for i in chosen]
    return Instances.of(
        Masks.from_span_lists(rows.masks.height, rows.masks.width, masks),
        rows.scores[best],
        rows.class_ids[best],
        [rows.class_names[i] for i in best],
        np.array(boxes, np.float32).reshape(-1, 4),
        mask_scores=rows.mask_scores[best],
    )


def _pieces(rows: Instances, owners: NDArray[np.int64], edges: Sequence[NDArray[np.int32]]) -> NDArray[np.bool_]:
    """(objects,) whether a part's edge cuts it and no other part shows how it goes on there."""
    out = []
    for owner in np.unique(owners):
        members = np.flatnonzero(owners == owner)
        open_end = False
        for i in members:
            others = [rows.masks.spans_of(k) for k in members if k != i]
            known = _common(edges[i], union(others)) if others else 0
            open_end |= len(edges[i]) > 0 and 2 * known < (edges[i][:, 2] - edges[i][:, 1]).sum()
        out.append(open_end)
    return np.array(out, np.bool_)


def _with_whole(objects: Instances, pieces: NDArray[np.bool_], coarse: Instances, same: float) -> Instances:
    """The objects, and those of the whole image that are not among them."""
    fine, large = objects.masks, coarse.masks
    shared = shared_pixels(fine.spans, fine.offsets, fine.rois, large.spans, large.offsets, large.rois)
    shared[objects.class_ids[:, None] != coarse.class_ids[None]] = 0
    inside = shared > same * fine.areas[:, None]
    stays = np.ones(len(objects), np.bool_)
    scores = objects.scores.copy()
    new = []
    for j in range(len(coarse)):
        agrees = shared[:, j] > same * (fine.areas + large.areas[j] - shared[:, j])
        if agrees.any():
            scores[agrees] = np.maximum(scores[agrees], coarse.scores[j])
        elif shared[inside[:, j] & ~pieces, j].sum() <= same * large.areas[j]:
            stays &= ~(inside[:, j] & pieces)
            new.append(j)
    objects = replace(objects, scores=scores)
    return _together([objects[stays], coarse[np.array(new)]]) if new else objects


def union(parts: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """The spans of all the pixels of several masks, (S, 3)."""
    spans = np.concatenate(parts)
    return _union(spans[np.lexsort([spans[:, 1], spans[:, 0]])])


def _common(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    """Pixels that two masks share."""
    ends = [np.array([0, len(spans)]) for spans in (a, b)]
    a = a[np.lexsort([a[:, 1], a[:, 0]])]
    everywhere = np.array([[0, 0, 1 << 30, 1 << 30]], np.int32)
    return int(shared_pixels(a, ends[0], everywhere, b, ends[1], everywhere)[0, 0])


def _area_in(spans: NDArray[np.int32], top: int, left: int, bottom: int, right: int) -> int:
    """Pixels of a mask inside a rectangle."""
    rows = spans[(spans[:, 0] >= top) & (spans[:, 0] < bottom)]
    return int(np.clip(np.minimum(rows[:, 2], right) - np.maximum(rows[:, 1], left), 0, None).sum())


@njit(cache=True, nogil=True)
def _union(spans):  # type: ignore[no-untyped-def]
    out = np.empty_like(spans)
    n = 0
    for k in range(len(spans)):
        if n > 0 and out[n - 1, 0] == spans[k, 0] and spans[k, 1] <= out[n - 1, 2]:
            out[n - 1, 2] = max(out[n - 1, 2], spans[k, 2])
        else:
            out[n] = spans[k]
            n += 1
    return out[:n].copy()
