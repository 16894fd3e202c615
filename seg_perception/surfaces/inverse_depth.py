# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Depth to inverse depth, isolated holes filled."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


def inverse_depth(depth: NDArray[np.float32], near: float, far: float) -> NDArray[np.float32]:
    """1/z (H, W) in 1/m; 0 where depth (H, W) m is not measured or outside `near`..`far`."""
    return _invert(depth, np.float32(near), np.float32(far))


def fill_holes(w: NDArray[np.float32], rounds: int = 4) -> NDArray[np.float32]:
    """`w` with isolated holes filled: a pixel with at least six measured neighbours of eight gets their median.

    A plane through them would follow slopes better; the median never mixes two surfaces.
    """
    filled, left = _fill(w)
    for _ in range(rounds - 1):
        if not left:
            break
        filled, left = _fill(filled)
    return filled


@njit(cache=True, nogil=True)
def _invert(depth, near, far):  # type: ignore[no-untyped-def]
    height, width = depth.shape
    w = np.zeros((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            z = depth[y, x]
            if near <= z <= far:  # false for NaN
                w[y, x] = np.float32(1.0) / z
    return w


@njit(cache=True, nogil=True)
def _fill(w):  # type: ignore[no-untyped-def]
    height, width = w.shape
    out = w.copy()
    near = np.empty(8, np.float32)
    filled = 0
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            if w[y, x] > 0:
                continue
            n = 0
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    value = w[y + dy, x + dx]
                    if value > 0:
                        k = n
                        while k > 0 and near[k - 1] > value:
                            near[k] = near[k - 1]
                            k -= 1
                        near[k] = value
                        n += 1
            if n >= 6:
                out[y, x] = near[n // 2]
                filled += 1
    return out, filled
