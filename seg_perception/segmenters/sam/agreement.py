# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How far two masks of the same object agree."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.masks import Masks


def replaced(masks: Masks, others: Masks, rows: NDArray[np.bool_]) -> Masks:
    """`masks` with those of `others` at `rows`."""
    parts = [(others if other else masks).spans_of(i) for i, other in enumerate(rows)]
    return Masks.from_span_lists(masks.height, masks.width, parts)


def overlaps(masks: Masks, others: Masks) -> NDArray[np.float64]:
    """(N,) IoU of each mask with the other of its row."""
    shared = _shared(masks.spans, masks.offsets, others.spans, others.offsets)
    return shared / np.maximum(masks.areas + others.areas - shared, 1)


@njit(cache=True, nogil=True)
def _shared(spans, offsets, other_spans, other_offsets):  # type: ignore[no-untyped-def]
    n = len(offsets) - 1
    out = np.zeros(n, np.int64)
    for i in range(n):
        j = other_offsets[i]
        for k in range(offsets[i], offsets[i + 1]):
            y, start, stop = spans[k, 0], spans[k, 1], spans[k, 2]
            while j < other_offsets[i + 1] and (
                other_spans[j, 0] < y or (other_spans[j, 0] == y and other_spans[j, 2] <= start)
            ):
                j += 1
            m = j
            while m < other_offsets[i + 1] and other_spans[m, 0] == y and other_spans[m, 1] < stop:
                out[i] += min(stop, other_spans[m, 2]) - max(start, other_spans[m, 1])
                m += 1
    return out
