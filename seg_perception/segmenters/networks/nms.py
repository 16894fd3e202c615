# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Non-maximum suppression: of boxes of one class that overlap too much, only the best one stays."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


def nms(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int32],
    iou_threshold: float,
    limit: int,
) -> NDArray[np.int64]:
    """Rows that stay, best scores first, at most `limit`: greedy, per class, a box goes when its IoU with a better one
    is above `iou_threshold`. `boxes` (N, 4) `x_min, y_min, x_max, y_max`; equal scores keep their order.
    """
    order = np.argsort(-scores, kind="stable")
    return _suppress(boxes, class_ids, order, np.float32(iou_threshold), limit)


@njit(cache=True, nogil=True)
def _suppress(boxes, class_ids, order, iou_threshold, limit):  # type: ignore[no-untyped-def]
    kept = np.empty(min(len(order), limit), np.int64)
    n = 0
    for i in order:
        if n == len(kept):
            break
        area = (boxes[i, 2] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 1])
        stays = True
        for k in range(n):
            j = kept[k]
            if class_ids[i] != class_ids[j]:
                continue
            width = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0])
            height = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1])
            if width <= 0 or height <= 0:
                continue
            shared = width * height
            other = (boxes[j, 2] - boxes[j, 0]) * (boxes[j, 3] - boxes[j, 1])
            if shared > iou_threshold * (area + other - shared):
                stays = False
                break
        if stays:
            kept[n] = i
            n += 1
    return kept[:n]
