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
BLOCK = 256  # cells counted at once
ENOUGH = 0.95  # share of the cells left that a guess needs to be taken as the best
ALONG = np.cos(np.radians(20.0))  # and its normal


def large_planes(cells: Cells, noise: float, least: int, most: int) -> tuple[NDArray[np.float64], NDArray[np.int16]]:
    """Up to `most` planes of at least `least` cells each, largest first.

    Returns `coefficients` (P, 3), w = a x + b y + c in ray coordinates, and `owner` (R, C), the plane of each cell or
    -1. `noise` 1/m is the standard deviation of inverse depth.
    """
    return _extract(cells.planes, cells.rms, noise, least, most, GUESSES, FLAT, AGREE * noise, BENT, ALONG, ENOUGH)


@njit(cache=True, nogil=True, error_model="numpy")
def _solved(n, xx, xy, x, yy, y, xw, yw, w):  # type: ignore[no-untyped-def]
    """a, b, c of w = a x + b y + c from the sums over `n` cells, by Cramer's rule; zeros when they do not tell."""
    xx, xy, x, yy, y, xw, yw, w = xx / n, xy / n, x / n, yy / n, y / n, xw / n, yw / n, w / n
    c00, c01, c02 = yy - y * y, y * x - xy, xy * y - yy * x
    det = xx * c00 + xy * c01 + x * c02
    if abs(det) < 1e-12:
        return 0.0, 0.0, 0.0
    c11, c12, c22 = xx - x * x, xy * x - xx * y, xx * yy - xy * xy
    return (
        (c00 * xw + c01 * yw + c02 * w) / det,
        (c01 * xw + c11 * yw + c12 * w) / det,
        (c02 * xw + c12 * yw + c22 * w) / det,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _agrees(cell, plane, agree, bent, along):  # type: ignore[no-untyped-def]
    a, b, c = plane
    if abs(a * cell[0] + b * cell[1] + c - cell[2]) > agree + bent * cell[2]:
        return False
    gx, gy = cell[3], cell[4]
    gc = cell[2] - gx * cell[0] - gy * cell[1]
    dot = a * gx + b * gy + c * gc
    return dot > along * np.sqrt((a * a + b * b + c * c) * (gx * gx + gy * gy + gc * gc))


@njit(cache=True, nogil=True, error_model="numpy")
def _fit_chosen(planes, chosen, count):  # type: ignore[no-untyped-def]
    xx = xy = x = yy = y = xw = yw = w = 0.0
    for k in range(count):
        cell = planes[chosen[k, 0], chosen[k, 1]]
        u, v, value = cell[0], cell[1], cell[2]
        xx, xy, x, yy, y = xx + u * u, xy + u * v, x + u, yy + v * v, y + v
        xw, yw, w = xw + u * value, yw + v * value, w + value
    return _solved(count, xx, xy, x, yy, y, xw, yw, w)


@njit(cache=True, nogil=True, error_model="numpy")
def _guess(planes, free, r, c, near):  # type: ignore[no-untyped-def]
    """The plane through the cells around cell `r`, `c` that are `free` and less than `near` from its plane; and how
    many there are."""
    count = 0
    xx = xy = x = yy = y = xw = yw = w = 0.0
    seed = planes[r, c]
    for v in range(max(0, r - 2), min(planes.shape[0], r + 3)):
        for u in range(max(0, c - 2), min(planes.shape[1], c + 3)):
            cell = planes[v, u]
            p, q, value = cell[0], cell[1], cell[2]
            ahead = seed[2] + seed[3] * (p - seed[0]) + seed[4] * (q - seed[1])
            if free[v, u] and abs(ahead - value) <= near:
                xx, xy, x, yy, y = xx + p * p, xy + p * q, x + p, yy + q * q, y + q
                xw, yw, w = xw + p * value, yw + q * value, w + value
                count += 1
    return _solved(max(count, 1), xx, xy, x, yy, y, xw, yw, w), count


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
def _agreeing(table, m, plane, agree, bent, along, least):  # type: ignore[no-untyped-def]
    """How many of the first `m` cells of the table agree with the plane: `_agrees`, without a branch. Stops counting
    when it can no longer be more than `least`."""
    a, b, c = plane
    upright = along * np.sqrt(a * a + b * b + c * c)
    count = 0
    for first in range(0, m, BLOCK):
        if count + m - first <= least:
            break
        part = table[:, first : min(m, first + BLOCK)]
        x, y, w, nx, ny, nc = part[0], part[1], part[2], part[3], part[4], part[5]
        for k in range(part.shape[1]):
            off = abs(a * x[k] + b * y[k] + c - w[k])
            count += (off <= agree + bent * w[k]) & (a * nx[k] + b * ny[k] + c * nc[k] > upright)
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _extract(planes, rms, noise, least, most, guesses, flat, agree, bent, along, enough):  # type: ignore[no-untyped-def]
    rows, columns = rms.shape
    owner = np.full((rows, columns), -1, np.int16)
    coefficients = np.zeros((most, 3))
    is_free = np.zeros((rows, columns), np.bool_)
    free = np.empty((rows * columns, 2), np.int64)
    n = 0
    for r in range(rows):
        for c in range(columns):
            if rms[r, c] <= flat * noise:
                is_free[r, c] = True
                free[n, 0] = r
                free[n, 1] = c
                n += 1
    chosen = np.empty((rows * columns, 2), np.int64)
    table = np.empty((6, rows * columns))
    found = 0
    rounds = 0
    while found < most and n >= least and rounds < 2 * most:
        rounds += 1
        best, best_count = (0.0, 0.0, 0.0), 0
        stride = max(1, n // 1200)  # a sample of cells is enough to compare guesses
        m = _tabulate(planes, free, n, stride, table)
        for g in range(guesses):
            r, c = free[(g * n) // guesses, 0], free[(g * n) // guesses, 1]
            guess, count = _guess(planes, is_free, r, c, 2 * agree)
            if count < 6:
                continue
            count = _agreeing(table, m, guess, agree, bent, along, best_count)
            if count > best_count:
                best, best_count = guess, count
            if best_count >= enough * m:
                break
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
            is_free[chosen[k, 0], chosen[k, 1]] = False
        coefficients[found, 0], coefficients[found, 1], coefficients[found, 2] = best
        found += 1
        left = 0
        for k in range(n):
            if is_free[free[k, 0], free[k, 1]]:
                free[left] = free[k]
                left += 1
        n = left
    return coefficients[:found], owner
