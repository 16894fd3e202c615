# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How well masks agree with a labelled instances image: overlap, and hits and misses with one-to-one matching."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from seg_perception.masks import Masks


@dataclass(frozen=True, slots=True)
class FrameScore:
    """Scores of one frame, all 0..1. Overlaps are NaN in a frame without objects.

    `weighted_overlap` is the best IoU of each labelled object, weighted by its size in pixels; `mean_iou` is the same
    unweighted. `precision_T`, `recall_T`, `f_T` count one-to-one matches of IoU >= T %.
    """

    objects: int
    predictions: int
    weighted_overlap: float
    mean_iou: float
    precision_50: float
    recall_50: float
    f_50: float
    precision_75: float
    recall_75: float
    f_75: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def score_frame(masks: Masks, truth: ArrayLike, ignore: NDArray[np.bool_] | None = None) -> FrameScore:
    """Scores `masks` against `truth` (H, W), 0 = none, other values = one object each.

    Pixels in `ignore` (H, W) count for nothing; an object or a mask that has no other pixels is left out.
    """
    overlaps, sizes = overlap_table(masks, truth, ignore)
    objects, predictions = overlaps.shape
    best = overlaps.max(axis=1, initial=0.0)
    weighted = float(best @ sizes / sizes.sum()) if objects else float("nan")
    mean = float(best.mean()) if objects else float("nan")
    return FrameScore(
        objects, predictions, weighted, mean, *_precision_recall_f(overlaps, 0.5), *_precision_recall_f(overlaps, 0.75)
    )


def overlap_table(
    masks: Masks, truth: ArrayLike, ignore: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """IoU of every labelled object with every mask (G, P), and the objects' sizes (G,) px. See `score_frame`."""
    labels = np.asarray(truth)
    if labels.shape != (masks.height, masks.width):
        raise ValueError(f"truth: expected {(masks.height, masks.width)} like the masks, got {labels.shape}")
    if ignore is not None and ignore.shape != labels.shape:
        raise ValueError(f"ignore: expected {labels.shape} like the truth, got {ignore.shape}")
    counted = np.ones(labels.shape, np.bool_) if ignore is None else ~ignore
    names = np.unique(labels[counted & (labels != 0)])
    rows = np.where(counted, 1 + np.searchsorted(names, labels), 0).astype(np.int64)
    rows[counted & (labels == 0)] = len(names) + 1
    table = _count_pairs(masks.spans, masks.offsets, rows, len(names) + 2)[1:]  # without ignored pixels
    table = table[:, table.sum(axis=0) > 0]
    sizes = np.bincount(rows.ravel(), minlength=len(names) + 2)[1:-1]
    shared = table[:-1]
    union = sizes[:, None] + table.sum(axis=0)[None] - shared
    return shared / np.maximum(union, 1), sizes


def average(scores: Iterable[FrameScore]) -> dict[str, float]:
    """Means over frames, frames without a value left out; `objects` and `predictions` are sums."""
    rows = [score.to_dict() for score in scores]
    if not rows:
        raise ValueError("average: expected at least one frame")
    out: dict[str, float] = {"frames": len(rows)}
    for name in rows[0]:
        column = np.array([row[name] for row in rows], np.float64)
        if name in ("objects", "predictions"):
            out[name] = int(column.sum())
        else:
            known = column[np.isfinite(column)]
            out[name] = float(known.mean()) if len(known) else float("nan")
    return out


def drop_depth(depth: NDArray[np.float32], share: float, seed: int = 0) -> NDArray[np.float32]:
    """`depth` with a random `share` (0..1) of all pixels not measured (NaN)."""
    if not 0 <= share <= 1:
        raise ValueError(f"dropout: expected a share of 0 to 1, got {share}")
    lost = np.random.default_rng(seed).random(depth.shape) < share
    return np.where(lost, np.float32(np.nan), depth)


def _precision_recall_f(overlaps: NDArray[np.float64], threshold: float) -> tuple[float, float, float]:
    objects, predictions = overlaps.shape
    fitting = np.where(overlaps >= threshold, 1.0 + overlaps, 0.0)  # as many pairs as possible, then the best ones
    pairs = linear_sum_assignment(fitting, maximize=True)
    hits = int((fitting[pairs] > 0).sum())
    precision = hits / predictions if predictions else float(objects == 0)
    recall = hits / objects if objects else float("nan")
    f = 2 * hits / (objects + predictions) if objects + predictions else 1.0
    return precision, recall, f


@njit(cache=True, nogil=True)
def _count_pairs(spans, offsets, rows, count):  # type: ignore[no-untyped-def]
    table = np.zeros((count, len(offsets) - 1), np.int64)
    for i in range(len(offsets) - 1):
        for k in range(offsets[i], offsets[i + 1]):
            for x in range(spans[k, 1], spans[k, 2]):
                table[rows[spans[k, 0], x], i] += 1
    return table
