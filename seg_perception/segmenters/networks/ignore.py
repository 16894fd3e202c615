# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Instances that are really something to ignore, such as the robot's own arm."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.masks import Masks


def ignored_share(masks: Masks, ignore: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """(N,) share of each mask's pixels where `ignore` (H, W) is True; 0 for an empty mask or without `ignore`."""
    if ignore is None:
        return np.zeros(len(masks))
    return _share(masks.spans, masks.offsets, ignore)


@njit(cache=True, nogil=True)
def _share(spans, offsets, ignore):  # type: ignore[no-untyped-def]
    n = len(offsets) - 1
    out = np.zeros(n)
    for i in range(n):
        inside = 0
        total = 0
        for k in range(offsets[i], offsets[i + 1]):
            y, start, stop = spans[k, 0], spans[k, 1], spans[k, 2]
            total += stop - start
            for x in range(start, stop):
                inside += ignore[y, x]
        if total:
            out[i] = inside / total
    return out
