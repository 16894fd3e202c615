# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of the antipodal planner: all that is known about a candidate that decides whether it holds, as numbers."""

from __future__ import annotations

import numpy as np
from numba import njit

from seg_perception.grasping import sweep
from seg_perception.grasping.shadow import hidden
from seg_perception.grasping.sweep import HIGH, LENGTH, LOW, PALM_X, PALM_Y, ROLL, THICKNESS, TIP, TOP, WIDTH, A

PATCH = 0.008  # m behind the contact, what is looked at
FEWEST = 8  # points that make a surface
THIN = 0.0025  # m, deviation along its second axis below which a patch is an edge, not a surface
WEDGE = 1.6  # of the steepest contour slope; what widens downwards faster squeezes out
TRIES = 96  # candidates whose sweep is looked at
NEARLY, TIGHT = 0.01, 0.006  # m, clearance and room beside the object that begin to be too little

# What is known about a candidate, one row each.
(
    SLOPE, TOUCH, OFF_3D, DEPTH, GAP, TAPER, OWN_HIDDEN, FOREIGN_HIDDEN, PALM_HIDDEN, CLEARANCE, JAWS, NORMAL, FILL,
    TOWARD, OVER, TILT,
) = range(16)  # fmt: skip


@njit(cache=True, nogil=True)
def judge(rows, order, most, own, obstacles, centre, jaw, gaps, floor, T, tilt, plane, depth_map, whose, first):  # type: ignore[no-untyped-def]
    """Evidence (K, 16) for the first `most` of `rows`, in that `order`, whose sweep hits nothing; which rows these are;
    and how many hit things, hit the support, and taper too much. `gaps` are tried widths of room beside the
    object, `floor` m is the least height of the fingertips over the support.

    `own`, `obstacles`, `centre` and `plane` are in the candidates' frame, which `T` (4, 4) leads into the camera's.
    """
    out = np.empty((min(most, len(order)), 16))
    which = np.empty(len(out), np.int64)
    hits = np.zeros(3, np.int64)
    n = 0
    camera = np.empty(2)
    for k in range(2):
        camera[k] = -(T[0, k] * T[0, 3] + T[1, k] * T[1, 3] + T[2, k] * T[2, 3])
    away = np.sqrt(T[0, 3] ** 2 + T[1, 3] ** 2 + T[2, 3] ** 2)
    for i in order[:TRIES]:
        if n == len(out):
            break
        row = rows[i]
        if row[sweep.TAPER] > WEDGE * jaw[sweep.FRICTION]:
            hits[2] += 1
            continue
        gap, clearance = _opening(row, gaps, obstacles, jaw)
        if clearance <= 0.0:
            hits[0] += 1
            continue
        if _too_low(row, gap, floor, plane, jaw):
            hits[1] += 1
            continue
        c, s = np.cos(row[ROLL]), np.sin(row[ROLL])
        middle = 0.5 * (row[LOW] + row[HIGH])
        x, y = -s * row[A] + c * middle, c * row[A] + s * middle
        e = out[n]
        e[SLOPE] = max(abs(row[sweep.SLOPE_LOW]), abs(row[sweep.SLOPE_HIGH]))
        e[TOUCH], e[DEPTH], e[TAPER] = row[sweep.TOUCH], row[TOP] - row[TIP], row[sweep.TAPER]
        e[OFF_3D] = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (row[TIP] - centre[2]) ** 2)
        e[GAP], e[CLEARANCE], e[JAWS] = gap, clearance, row[HIGH] - row[LOW]
        e[OWN_HIDDEN], e[FOREIGN_HIDDEN], e[PALM_HIDDEN] = hidden(row, gap, jaw, T, plane, depth_map, whose, first)
        e[NORMAL], e[FILL] = _contacts(row, own, jaw)
        e[TOWARD] = abs(c * camera[0] + s * camera[1]) / away
        e[OVER] = plane[0] * x + plane[1] * y + plane[2] * row[TIP] + plane[3]
        e[TILT] = tilt
        which[n] = i
        n += 1
    return out[:n], which[:n], hits


@njit(cache=True, nogil=True)
def free(rows, which, known, obstacles, jaw):  # type: ignore[no-untyped-def]
    """Which of the judged candidates miss all `obstacles`; those that do get the clearance from them."""
    out = np.zeros(len(which), np.bool_)
    for k in range(len(which)):
        clearance = sweep.clearance(rows[which[k]], known[k, GAP], obstacles, jaw)
        out[k] = clearance > 0.0
        known[k, CLEARANCE] = clearance
    return out


@njit(cache=True, nogil=True)
def _too_low(row, gap, floor, plane, jaw):  # type: ignore[no-untyped-def]
    """Whether a fingertip comes nearer than `floor` to the support, or the palm's face nearer than its gap."""
    middle, palm = 0.5 * (row[LOW] + row[HIGH]), row[TIP] + jaw[LENGTH]
    outer = 0.5 * (row[HIGH] - row[LOW]) + gap + jaw[THICKNESS]
    for along in (-0.5, 0.5):
        for across in (-0.5, 0.5):
            tip = _height(row[ROLL], row[A] + along * jaw[WIDTH], middle + 2.0 * across * outer, row[TIP], plane)
            face = _height(row[ROLL], row[A] + along * jaw[PALM_X], middle + across * jaw[PALM_Y], palm, plane)
            if tip < floor - 1e-9 or face < sweep.PALM_GAP:
                return True
    return False


@njit(cache=True, nogil=True)
def _height(roll, a, b, z, plane):  # type: ignore[no-untyped-def]
    c, s = np.cos(roll), np.sin(roll)
    return plane[0] * (-s * a + c * b) + plane[1] * (c * a + s * b) + plane[2] * z + plane[3]


@njit(cache=True, nogil=True)
def _opening(row, gaps, obstacles, jaw):  # type: ignore[no-untyped-def]
    """Room beside the object, a trade of room against clearance of other things, and that clearance; 0 = all hit."""
    best, gap, clearance = -np.inf, 0.0, 0.0
    for k in range(len(gaps) + 1):
        g = row[sweep.GAP] if k == 0 else gaps[k - 1]
        if k > 0 and g >= row[sweep.GAP]:
            continue
        free = sweep.clearance(row, g, obstacles, jaw)
        value = -np.exp(-free / NEARLY) - np.exp(-g / TIGHT)
        if free > 0.0 and value > best:
            best, gap, clearance = value, g, free
    return gap, clearance


@njit(cache=True, nogil=True)
def _contacts(row, own, jaw):  # type: ignore[no-untyped-def]
    """The smaller cosine between closing axis and the surface's normal under a pad, NaN = no surface seen under either;
    and the mean height m over the tips of the object's points between the jaws."""
    c, s = np.cos(row[ROLL]), np.sin(row[ROLL])
    low, high = np.empty((len(own), 3)), np.empty((len(own), 3))
    n = m = inside = 0
    height = 0.0
    for i in range(len(own)):
        if own[i, 2] < row[TIP]:
            continue
        a = -s * own[i, 0] + c * own[i, 1] - row[A]
        b = c * own[i, 0] + s * own[i, 1]
        if abs(a) > 0.5 * jaw[WIDTH] or b < row[LOW] - 0.001 or b > row[HIGH] + 0.001:
            continue
        height += own[i, 2] - row[TIP]
        inside += 1
        if b - row[LOW] < PATCH:
            low[n, 0], low[n, 1], low[n, 2] = a, b, own[i, 2]
            n += 1
        if row[HIGH] - b < PATCH:
            high[m, 0], high[m, 1], high[m, 2] = a, b, own[i, 2]
            m += 1
    first, second = _squareness(low[:n]), _squareness(high[:m])
    worse = second if np.isnan(first) or second < first else first
    return worse, height / max(inside, 1)


@njit(cache=True, nogil=True)
def _squareness(patch):  # type: ignore[no-untyped-def]
    """|n . b| of the plane through `patch` (M, 3), NaN when it is only an edge."""
    m = len(patch)
    if m < FEWEST:
        return np.nan
    mean = np.zeros(3)
    for i in range(m):
        mean += patch[i]
    mean /= m
    spread = np.zeros((3, 3))
    for i in range(m):
        for j in range(3):
            for k in range(3):
                spread[j, k] += (patch[i, j] - mean[j]) * (patch[i, k] - mean[k])
    values, vectors = np.linalg.eigh(spread / m)
    if values[1] < THIN * THIN or values[0] > 0.35 * values[1]:
        return np.nan
    return abs(vectors[1, 0])
