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
    most = min(len(order), limit)
    kept = np.empty(most, np.int64)
    corners = np.empty((5, most), np.float32)  # of those kept, and their areas: side by side, for whole vectors
    classes = np.empty(most, class_ids.dtype)
    n = 0
    for i in order:
        if n == most:
            break
        x0, y0, x1, y1 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        area = (x1 - x0) * (y1 - y0)
        better = 0
        for k in range(n):
            width = max(min(x1, corners[2, k]) - max(x0, corners[0, k]), np.float32(0))
            height = max(min(y1, corners[3, k]) - max(y0, corners[1, k]), np.float32(0))
            shared = width * height
            same = (class_ids[i] == classes[k]) & (shared > 0)
            better += same & (shared > iou_threshold * (area + corners[4, k] - shared))
        if better == 0:
            kept[n] = i
            corners[0, n], corners[1, n], corners[2, n], corners[3, n], corners[4, n] = x0, y0, x1, y1, area
            classes[n] = class_ids[i]
            n += 1
    return kept[:n]
