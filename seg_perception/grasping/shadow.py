# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels about what the camera cannot see: whether a gripper would go where something hides the view."""

from __future__ import annotations

import numpy as np
from numba import njit

from seg_perception.grasping.sweep import HIGH, LENGTH, LOW, PALM_X, PALM_Y, ROLL, THICKNESS, TIP, WIDTH, A

CELL = 1.0 / 110.0  # of the view's tangent; scene points lie about as far apart
BEHIND = 0.008  # m, what lies this far behind what is seen is not seen
MARGIN = 0.15  # m around the object that the map covers
NOTHING, OWN, FOREIGN = 0, 1, 2
HEIGHTS = np.array([0.002, 0.012, 0.025, 0.045, 0.07])  # m above the fingertip, where a finger is looked at
PALM_HEIGHTS = np.array([0.005, 0.05])  # m above the palm's face


@njit(cache=True, nogil=True)
def depth_map(own, foreign):  # type: ignore[no-untyped-def]
    """Nearest depth (R, C) m per cell of the view around the points `own` (N, 3), whose it is, and the first cell's
    tangents (2,); `foreign` (P, 3) are all other points; camera frame."""
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for i in range(len(own)):
        if own[i, 2] > 0:
            for k in range(2):
                low[k] = min(low[k], (own[i, k] - MARGIN) / own[i, 2])
                high[k] = max(high[k], (own[i, k] + MARGIN) / own[i, 2])
    if not np.isfinite(low[0]):
        return np.full((1, 1), np.inf), np.zeros((1, 1), np.int8), np.zeros(2)
    columns, rows = int((high[0] - low[0]) / CELL) + 1, int((high[1] - low[1]) / CELL) + 1
    columns, rows = min(columns, 1000), min(rows, 1000)
    nearest = np.full((rows, columns), np.inf)
    whose = np.zeros((rows, columns), np.int8)
    for kind, points in ((OWN, own), (FOREIGN, foreign)):
        for i in range(len(points)):
            z = points[i, 2]
            if not z > 0:
                continue
            c, r = (points[i, 0] / z - low[0]) / CELL, (points[i, 1] / z - low[1]) / CELL
            if 0 <= c < columns and 0 <= r < rows and z < nearest[int(r), int(c)]:
                nearest[int(r), int(c)] = z
                whose[int(r), int(c)] = kind
    return nearest, whose, low


@njit(cache=True, nogil=True)
def hidden(row, gap, jaw, T, plane, nearest, whose, first):  # type: ignore[no-untyped-def]
    """Shares of the fingers of candidate `row` that the object itself and that other things hide from the camera, and
    of its palm that other things hide.

    `T` (4, 4) leads from the candidate's frame into the camera's; `plane` (4,) is the support in the candidate's.
    """
    counts = np.zeros(3)
    total = 0.0
    for side in range(2):
        for across in (0.15, 0.85):
            away = gap + across * jaw[THICKNESS]
            b = row[LOW] - away if side == 0 else row[HIGH] + away
            for along in (-0.45, 0.0, 0.45):
                for height in HEIGHTS:
                    if height <= jaw[LENGTH]:
                        total += 1.0
                        a = row[A] + along * jaw[WIDTH]
                        counts[_hides(row[ROLL], a, b, row[TIP] + height, T, plane, nearest, whose, first)] += 1.0
    own, foreign = counts[OWN] / max(total, 1.0), counts[FOREIGN] / max(total, 1.0)
    counts[:] = 0.0
    middle = 0.5 * (row[LOW] + row[HIGH])
    for along in (-0.5, 0.0, 0.5):
        for across in (-0.5, -0.25, 0.0, 0.25, 0.5):
            for height in PALM_HEIGHTS:
                a, b, z = row[A] + along * jaw[PALM_X], middle + across * jaw[PALM_Y], row[TIP] + jaw[LENGTH] + height
                counts[_hides(row[ROLL], a, b, z, T, plane, nearest, whose, first)] += 1.0
    return own, foreign, counts[FOREIGN] / (15.0 * len(PALM_HEIGHTS))


@njit(cache=True, nogil=True)
def _hides(roll, a, b, z, T, plane, nearest, whose, first):  # type: ignore[no-untyped-def]
    """What hides the place from the camera: NOTHING, OWN or FOREIGN."""
    c, s = np.cos(roll), np.sin(roll)
    x, y = -s * a + c * b, c * a + s * b
    if plane[0] * x + plane[1] * y + plane[2] * z + plane[3] < 0.004:
        return NOTHING
    depth = T[2, 0] * x + T[2, 1] * y + T[2, 2] * z + T[2, 3]
    if depth <= 0:
        return NOTHING
    u = ((T[0, 0] * x + T[0, 1] * y + T[0, 2] * z + T[0, 3]) / depth - first[0]) / CELL
    v = ((T[1, 0] * x + T[1, 1] * y + T[1, 2] * z + T[1, 3]) / depth - first[1]) / CELL
    if 0 <= u < nearest.shape[1] and 0 <= v < nearest.shape[0] and depth > nearest[int(v), int(u)] + BEHIND:
        return whose[int(v), int(u)]
    return NOTHING
