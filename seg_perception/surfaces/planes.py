# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Large planes among cells: many local guesses, the one with most agreeing cells wins, is refined, and is taken out."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.surfaces.cells import Cells

GUESSES = 96  # seeds tried per plane
FLAT = 3.0  # cells whose residual is over this many times the noise hold an edge
AGREE = 3.0  # distance of a cell of the plane, in times the noise,
BENT = 0.005  # plus this share of its inverse depth: real depth cameras bend planes
ALONG = np.cos(np.radians(20.0))  # and its normal


def large_planes(cells: Cells, noise: float, least: int, most: int) -> tuple[NDArray[np.float64], NDArray[np.int16]]:
    """Up to `most` planes of at least `least` cells each, largest first.

    Returns `coefficients` (P, 3), w = a x + b y + c in ray coordinates, and `owner` (R, C), the plane of each cell or
    -1. `noise` 1/m is the standard deviation of inverse depth.
    """
    return _extract(cells.planes, cells.rms, noise, least, most, GUESSES, FLAT, AGREE * noise, BENT, ALONG)


@njit(cache=True, nogil=True)
def _solve3(m, v):  # type: ignore[no-untyped-def]
    """Solution of the symmetric system `m` x = `v` by Cramer's rule; zeros when it is singular."""
    c00 = m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1]
    c01 = m[1, 2] * m[2, 0] - m[1, 0] * m[2, 2]
    c02 = m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0]
    det = m[0, 0] * c00 + m[0, 1] * c01 + m[0, 2] * c02
    out = np.zeros(3)
    if abs(det) < 1e-12:
        return out
    c11 = m[0, 0] * m[2, 2] - m[0, 2] * m[2, 0]
    c12 = m[0, 1] * m[2, 0] - m[0, 0] * m[2, 1]
    c22 = m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0]
    out[0] = (c00 * v[0] + c01 * v[1] + c02 * v[2]) / det
    out[1] = (c01 * v[0] + c11 * v[1] + c12 * v[2]) / det
    out[2] = (c02 * v[0] + c12 * v[1] + c22 * v[2]) / det
    return out


@njit(cache=True, nogil=True)
def _agrees(cell, plane, agree, bent, along):  # type: ignore[no-untyped-def]
    a, b, c = plane[0], plane[1], plane[2]
    if abs(a * cell[0] + b * cell[1] + c - cell[2]) > agree + bent * cell[2]:
        return False
    gx, gy = cell[3], cell[4]
    gc = cell[2] - gx * cell[0] - gy * cell[1]
    dot = a * gx + b * gy + c * gc
    return dot > along * np.sqrt((a * a + b * b + c * c) * (gx * gx + gy * gy + gc * gc))


@njit(cache=True, nogil=True)
def _fit_chosen(planes, chosen, count):  # type: ignore[no-untyped-def]
    m = np.zeros((3, 3))
    v = np.zeros(3)
    for k in range(count):
        cell = planes[chosen[k, 0], chosen[k, 1]]
        x, y, w = cell[0], cell[1], cell[2]
        m[0, 0] += x * x
        m[0, 1] += x * y
        m[0, 2] += x
        m[1, 1] += y * y
        m[1, 2] += y
        m[2, 2] += 1.0
        v[0] += x * w
        v[1] += y * w
        v[2] += w
    m[1, 0], m[2, 0], m[2, 1] = m[0, 1], m[0, 2], m[1, 2]
    return _solve3(m / count, v / count)


@njit(cache=True, nogil=True)
def _tabulate(planes, free, n, stride, table):  # type: ignore[no-untyped-def]
    """Columns x, y, w and unit normal of every `stride`-th of the `n` cells `free`; returns how many."""
    m = 0
    for k in range(0, n, stride):
        cell = planes[free[k, 0], free[k, 1]]
        gx, gy = cell[3], cell[4]
        gc = cell[2] - gx * cell[0] - gy * cell[1]
        scale = 1.0 / np.sqrt(gx * gx + gy * gy + gc * gc)
        table[0, m], table[1, m], table[2, m] = cell[0], cell[1], cell[2]
        table[3, m], table[4, m], table[5, m] = gx * scale, gy * scale, gc * scale
        m += 1
    return m


@njit(cache=True, nogil=True)
def _agreeing(table, m, plane, agree, bent, along):  # type: ignore[no-untyped-def]
    """How many of the first `m` cells of the table agree with the plane: `_agrees`, without a branch."""
    a, b, c = plane[0], plane[1], plane[2]
    least = along * np.sqrt(a * a + b * b + c * c)
    x, y, w, nx, ny, nc = table[0], table[1], table[2], table[3], table[4], table[5]
    count = 0
    for k in range(m):
        off = abs(a * x[k] + b * y[k] + c - w[k])
        count += (off <= agree + bent * w[k]) & (a * nx[k] + b * ny[k] + c * nc[k] > least)
    return count


@njit(cache=True, nogil=True)
def _extract(planes, rms, noise, least, most, guesses, flat, agree, bent, along):  # type: ignore[no-untyped-def]
    rows, columns = rms.shape
    owner = np.full((rows, columns), -1, np.int16)
    coefficients = np.zeros((most, 3))
    free = np.empty((rows * columns, 2), np.int64)
    n = 0
    for r in range(rows):
        for c in range(columns):
            if rms[r, c] <= flat * noise:
                free[n, 0] = r
                free[n, 1] = c
                n += 1
    chosen = np.empty((rows * columns, 2), np.int64)
    table = np.empty((6, rows * columns))
    found = 0
    rounds = 0
    while found < most and n >= least and rounds < 2 * most:
        rounds += 1
        best, best_count = np.zeros(3), 0
        stride = max(1, n // 1200)  # a sample of cells is enough to compare guesses
        m = _tabulate(planes, free, n, stride, table)
        for g in range(guesses):
            r, c = free[(g * n) // guesses, 0], free[(g * n) // guesses, 1]
            count = 0
            for v in range(max(0, r - 2), min(rows, r + 3)):
                for u in range(max(0, c - 2), min(columns, c + 3)):
                    seed, cell = planes[r, c], planes[v, u]
                    if rms[v, u] <= flat * noise and owner[v, u] < 0:
                        ahead = seed[2] + seed[3] * (cell[0] - seed[0]) + seed[4] * (cell[1] - seed[1])
                        if abs(ahead - cell[2]) <= 2 * agree:
                            chosen[count, 0] = v
                            chosen[count, 1] = u
                            count += 1
            if count < 6:
                continue
            guess = _fit_chosen(planes, chosen, count)
            count = _agreeing(table, m, guess, agree, bent, along)
            if count > best_count:
                best, best_count = guess, count
        if best_count * stride < least:
            break
        count = 0
        for step in range(4):
            count = 0
            for k in range(n):
                if _agrees(planes[free[k, 0], free[k, 1]], best, agree, bent, along):
                    chosen[count] = free[k]
                    count += 1
            if count < 6:
                break
            if step < 3:
                best = _fit_chosen(planes, chosen, count)
        if count < least:
            break
        for k in range(count):
            owner[chosen[k, 0], chosen[k, 1]] = found
        coefficients[found] = best
        found += 1
        left = 0
        for k in range(n):
            if owner[free[k, 0], free[k, 1]] < 0:
                free[left] = free[k]
                left += 1
        n = left
    return coefficients[:found], owner
