# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Several depth images of a still scene made one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray


def median_depth(images: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The median of each pixel over `images` (H, W) m, of those that measured it. A pixel that none measured keeps what
    the last image says (NaN, too near, too far)."""
    return _median(np.stack(images))


@njit(cache=True, nogil=True)
def _median(stack):  # type: ignore[no-untyped-def]
    count, height, width = stack.shape
    out = np.empty((height, width), np.float32)
    seen = np.empty(count, np.float32)
    for y in range(height):
        for x in range(width):
            n = 0
            for k in range(count):
                z = stack[k, y, x]
                if 0 < z < np.inf:
                    at = n
                    while at > 0 and seen[at - 1] > z:
                        seen[at] = seen[at - 1]
                        at -= 1
                    seen[at] = z
                    n += 1
            if n == 0:
                out[y, x] = stack[count - 1, y, x]
            elif n % 2:
                out[y, x] = seen[n // 2]
            else:
                out[y, x] = (seen[n // 2 - 1] + seen[n // 2]) / 2
    return out
