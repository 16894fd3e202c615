# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The few of a network's thousands of anchors that may be something, picked in one go over what it put out."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def highest(scores):  # type: ignore[no-untyped-def]
    """(anchors,) the highest of `scores` (classes, anchors) of each; NaN if one is."""
    best = scores[0].copy()
    for c in range(1, len(scores)):
        for a in range(len(best)):
            value = scores[c, a]
            best[a] = value if (value > best[a]) | (value != value) else best[a]
    return best


@njit(cache=True, nogil=True)
def likely(table, best, threshold, first, classes, allowed):  # type: ignore[no-untyped-def]
    """The rows of `table` whose `best` score is above `threshold`, whose numbers are all finite and whose class is
    `allowed`.

    `table` (anchors, columns) has a box, centre and size, in its columns 0..3 and a score per class from column `first`
    on. Returns corners (N, 4), scores, class ids, rows, all in the order of the table; and how many were not finite.
    """
    count = 0
    for a in range(len(best)):
        count += best[a] > threshold
    rows = np.empty(count, np.int64)
    n = 0
    for a in range(len(best)):
        if best[a] > threshold:
            rows[n] = a
            n += 1
    finite = np.ones(count, np.bool_)
    top = np.full(count, np.float32(-np.inf))
    ids = np.zeros(count, np.int32)
    for c in range(table.shape[1]):  # columns outside: the rows of one lie side by side, as most heads put them out
        for i in range(count):
            value = table[rows[i], c]
            finite[i] &= abs(value) < np.inf
            if first <= c < first + classes and value > top[i]:
                top[i] = value
                ids[i] = c - first
    boxes = np.empty((count, 4), np.float32)
    scores = np.empty(count, np.float32)
    n = broken = 0
    for i in range(count):
        broken += not finite[i]
        if finite[i] and allowed[ids[i]]:
            a = rows[i]
            for k in range(2):
                half = table[a, 2 + k] / np.float32(2)
                boxes[n, k], boxes[n, 2 + k] = table[a, k] - half, table[a, k] + half
            rows[n], ids[n], scores[n] = a, ids[i], best[a]
            n += 1
    return boxes[:n], scores[:n], ids[:n], rows[:n], broken
