# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What no method can beat: each wanted pixel made a point, densely and without asking, and memory that is only read."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def deproject(depth, rays, out):  # type: ignore[no-untyped-def]
    """Points (N, 3) m into `out`, of depth (N,) m and rays (N, 2) that lie side by side."""
    xy, xyz = rays.reshape(rays.size), out.reshape(out.size)  # only so does the compiler see whole vectors
    for i in range(len(depth)):
        z = depth[i]
        xyz[3 * i], xyz[3 * i + 1], xyz[3 * i + 2] = xy[2 * i] * z, xy[2 * i + 1] * z, z


@njit(cache=True, nogil=True)
def read(words):  # type: ignore[no-untyped-def]
    """The sum of `words` (N,) uint64, which has to look at all of them."""
    total = np.uint64(0)
    for i in range(len(words)):
        total += words[i]
    return total
