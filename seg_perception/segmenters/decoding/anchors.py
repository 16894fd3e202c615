# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Boxes that a network gives as offsets to anchors, and Fast-NMS, which chooses among them (YOLACT)."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


def boxes_of(
    offsets: NDArray[np.float32], anchors: NDArray[np.float32], variances: tuple[float, float]
) -> NDArray[np.float32]:
    """(N, 4) `x_min, y_min, x_max, y_max` of `offsets` (N, 4) to `anchors` (N, 4) `x, y, width, height`, centres."""
    near, far = (np.float32(v) for v in variances)
    with np.errstate(over="ignore", invalid="ignore"):
        centers = anchors[:, :2] + offsets[:, :2] * near * anchors[:, 2:]
        low = centers - anchors[:, 2:] * np.exp(offsets[:, 2:] * far) / 2
        return np.concatenate([low, low + anchors[:, 2:] * np.exp(offsets[:, 2:] * far)], axis=1).astype(np.float32)


def fast_nms(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    score_threshold: float,
    iou_threshold: float,
    top_k: int,
    limit: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Rows and classes that stay, best scores first, at most `limit`. A box may stay for several classes.

    Of the `top_k` best `boxes` (N, 4) of each class in `scores` (N, classes) above `score_threshold`, one goes when its
    IoU with any better one is above `iou_threshold`, also with one that goes itself.
    """
    rows, ids = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
    for k in range(scores.shape[1]):
        likely = np.flatnonzero(scores[:, k] > score_threshold)
        if len(likely):
            order = likely[np.argsort(-scores[likely, k], kind="stable")[:top_k]]
            kept = order[_first_of_their_place(boxes[order], np.float32(iou_threshold))]
            rows.append(kept)
            ids.append(np.full(len(kept), k, np.int32))
    found, classes = np.concatenate(rows), np.concatenate(ids)
    best = np.argsort(-scores[found, classes], kind="stable")[:limit]
    return found[best], classes[best]


@njit(cache=True, nogil=True)
def _first_of_their_place(boxes, iou_threshold):  # type: ignore[no-untyped-def]
    n = len(boxes)
    stays = np.ones(n, np.bool_)
    for i in range(n):
        area = (boxes[i, 2] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 1])
        for j in range(i):
            width = max(min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0]), np.float32(0))
            height = max(min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1]), np.float32(0))
            shared = width * height
            other = (boxes[j, 2] - boxes[j, 0]) * (boxes[j, 3] - boxes[j, 1])
            if shared > iou_threshold * (area + other - shared):
                stays[i] = False
                break
    return stays
