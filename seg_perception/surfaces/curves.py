# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of surfaces: how a camera bends a plane, and what of the plane was seen."""

from __future__ import annotations

import numpy as np
from numba import njit

from seg_perception.rectangles import axes_with_z, hull

ROUNDS = 4
TRIM = 3.0  # cells farther off than this many times the noise are not the surface,
SPREAD = 2.5  # nor are those farther off than this many times the median
STIFFNESS = 0.01  # keeps the bend small where there are no cells


@njit(cache=True, nogil=True, error_model="numpy")
def fit_curve(cells, noise, curved):  # type: ignore[no-untyped-def]
    """Through `cells` (n, 5), rows as in `Cells.planes`, without those that are far off: the curve (6,), as in
    `Surface`, with the square terms from `curved` cells on; and the plane nearest to it, c0, c1, c2 (3,)."""
    n = len(cells)
    terms = 6 if n >= curved else 3
    every = np.zeros((6, 7))  # of the normal equations, the last column their right side
    used = np.ones(n, np.bool_)
    _add(cells, used, True, 1.0, every)
    some = every.copy()
    curve = np.zeros(6)
    off = np.empty(n)
    for _ in range(ROUNDS):
        _solve(some, terms, STIFFNESS * STIFFNESS * n, curve)
        limit = TRIM * noise
        within = 0
        for i in range(n):
            x, y, w = cells[i, 0], cells[i, 1], cells[i, 2]
            bend = curve[3] * x * x + curve[4] * x * y + curve[5] * y * y
            off[i] = abs(curve[0] + curve[1] * x + curve[2] * y + bend - w)
            within += SPREAD * off[i] <= limit
        if 2 * within <= n:  # else the median is lower than that
            limit = max(limit, SPREAD * _median(off.copy()))
        count = changed = 0
        for i in range(n):
            count += off[i] <= limit
            changed += (off[i] <= limit) != used[i]
        if count < max(3, terms) or not changed:
            break
        for i in range(n):
            used[i] = off[i] <= limit
        some = every.copy()
        _add(cells, used, False, -1.0, some)
    flat = np.zeros(3)
    if terms == 6:
        for i in range(3):
            every[i, 6] = every[i, 3] * curve[3] + every[i, 4] * curve[4] + every[i, 5] * curve[5]
        _solve(every, 3, 0.0, flat)
    for i in range(3):
        flat[i] += curve[i]
    return curve, flat


@njit(cache=True, nogil=True, error_model="numpy")
def _add(cells, used, which, sign, sums):  # type: ignore[no-untyped-def]
    """Adds the cells whose `used` is `which`, times `sign`, to the normal equations `sums` (6, 7)."""
    terms = np.empty(7)
    for i in range(len(cells)):
        if used[i] == which:
            x, y = cells[i, 0], cells[i, 1]
            terms[0], terms[1], terms[2], terms[3], terms[4], terms[5] = 1.0, x, y, x * x, x * y, y * y
            terms[6] = cells[i, 2]
            for j in range(6):
                for k in range(j, 7):
                    sums[j, k] += sign * terms[j] * terms[k]
    for j in range(6):
        for k in range(j):
            sums[j, k] = sums[k, j]


@njit(cache=True, nogil=True, error_model="numpy")
def _solve(sums, terms, ridge, out):  # type: ignore[no-untyped-def]
    """Solves the first `terms` of the normal equations, `ridge` added to the square terms; what they do not tell is
    0 (Gauss's elimination; of the pivots the largest)."""
    a = sums.copy()
    for i in range(3, terms):
        a[i, i] += ridge
    tiny = 1e-13 * a[0, 0]
    told = np.zeros(6, np.bool_)
    for _ in range(terms):
        best, largest = -1, tiny
        for i in range(terms):
            if not told[i] and abs(a[i, i]) > largest:
                best, largest = i, abs(a[i, i])
        if best < 0:
            break
        told[best] = True
        for i in range(terms):
            share = a[i, best] / a[best, best]
            for k in range(7):
                a[i, k] -= share * a[best, k] if i != best else 0.0
    for i in range(terms):
        out[i] = a[i, 6] / a[i, i] if told[i] else 0.0


@njit(cache=True, nogil=True)
def _median(values):  # type: ignore[no-untyped-def]
    """Reorders `values` (Hoare's selection)."""
    n = len(values)
    upper = _nth(values, n // 2)
    if n % 2:
        return upper
    lower = values[0]
    for i in range(n // 2):
        lower = max(lower, values[i])
    return (lower + upper) / 2


@njit(cache=True, nogil=True)
def _nth(values, k):  # type: ignore[no-untyped-def]
    """The value at place `k` if they were sorted; what comes before it there is before it here."""
    low, high = 0, len(values) - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i, j = i + 1, j - 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return values[k]


@njit(cache=True, nogil=True, error_model="numpy")
def fit_outline(cells, flat, normal, side):  # type: ignore[no-untyped-def]
    """Of the plane w = flat @ (1, x, y): the mean (3,) m of the points seen in `cells`, axes (2, 3) along the plane,
    and the corners (K, 2) m along these, from the mean, of all that the cells, `side` wide, cover."""
    axes = axes_with_z(normal, np.array([1.0, 0.0, 0.0]))[:, :2].T.copy()
    n = len(cells)
    x, y = np.empty(n), np.empty(n)
    origin = np.zeros(3)
    for i in range(n):
        x[i], y[i] = cells[i, 0], cells[i, 1]
        z = 1.0 / (flat[0] + flat[1] * x[i] + flat[2] * y[i])
        origin[0] += x[i] * z / n
        origin[1] += y[i] * z / n
        origin[2] += z / n
    edge = hull(x, y)  # a plane's picture keeps what is convex
    across, along = np.empty(4 * len(edge)), np.empty(4 * len(edge))
    for i in range(len(across)):
        u = edge[i // 4, 0] + (side / 2 if i & 1 else -side / 2)
        v = edge[i // 4, 1] + (side / 2 if i & 2 else -side / 2)
        z = 1.0 / (flat[0] + flat[1] * u + flat[2] * v)
        px, py, pz = u * z - origin[0], v * z - origin[1], z - origin[2]
        across[i] = axes[0, 0] * px + axes[0, 1] * py + axes[0, 2] * pz
        along[i] = axes[1, 0] * px + axes[1, 1] * py + axes[1, 2] * pz
    return origin, axes, hull(across, along)
