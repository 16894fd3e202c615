# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of the suction planner: how well a cup's lip would lie on the surface seen, and what the cup would hit.

A candidate is a pose: columns of a (3, 3) rotation whose third is the approach, and the contact. All metres.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# A candidate's row.
X, Y, Z, NX, NY, NZ, ROUGH, UNEVEN, BULGE, COVERED, NARROW = range(11)

SECTORS = 16  # of the rim
NARROWER = np.tan(np.pi / 8)
RING_IN, RING_OUT = 0.003, 0.0035  # m inside and outside of the lip, where its surface must be seen
FEWEST = 12  # points under a cup that make a surface
ONTO = 0.0015  # m outside of the lip up to which the surface must reach
PATCH = 0.009  # m around the middle, the least that a surface is fitted to: depth is noisy
BEYOND = 0.007  # m outside of the lip, where a wide surface still goes on


@njit(cache=True, nogil=True)
def surfaces(points, places, radius):  # type: ignore[no-untyped-def]
    """Rows (K, 11) of what lies under a cup of that `radius` set down at each of `places` (K, 3): contact, normal
    towards the camera, root mean square residual of a quadric, unevenness under the lip, rise into the cup, the share
    of the lip with surface under it, and the share beyond which the surface soon ends; NaN where there is none.
    `points` (N, 3) m, camera frame."""
    out = np.full((len(places), 11), np.nan)
    patch, beyond = np.empty((len(points), 3)), np.empty((len(points), 3))
    reach, farthest = max(radius + RING_OUT, PATCH), radius + BEYOND
    for k in range(len(places)):
        m = n = 0
        for i in range(len(points)):
            x, y, z = points[i, 0] - places[k, 0], points[i, 1] - places[k, 1], points[i, 2] - places[k, 2]
            away = x * x + y * y + z * z
            if away < reach * reach:
                patch[m, 0], patch[m, 1], patch[m, 2] = x, y, z
                m += 1
            if (radius + RING_OUT) * (radius + RING_OUT) < away < farthest * farthest:
                beyond[n, 0], beyond[n, 1], beyond[n, 2] = x, y, z
                n += 1
        if m >= FEWEST:
            _lip(patch[:m], beyond[:n], places[k], radius, out[k])
    return out


@njit(cache=True, nogil=True)
def _lip(patch, beyond, place, radius, row):  # type: ignore[no-untyped-def]
    """Fills in `row` from the points around `place` and those a little farther away, relative to it."""
    frame, mean = _plane(patch)
    m = len(patch)
    a, b, h = np.empty(m), np.empty(m), np.empty(m)
    for i in range(m):
        x, y, z = patch[i, 0] - mean[0], patch[i, 1] - mean[1], patch[i, 2] - mean[2]
        a[i] = (x * frame[0, 0] + y * frame[1, 0] + z * frame[2, 0]) / radius
        b[i] = (x * frame[0, 1] + y * frame[1, 1] + z * frame[2, 1]) / radius
        h[i] = x * frame[0, 2] + y * frame[1, 2] + z * frame[2, 2]
    a0 = -(mean * frame[:, 0]).sum() / radius  # the cup's middle in the plane's coordinates
    b0 = -(mean * frame[:, 1]).sum() / radius
    q = _quadric(a - a0, b - b0, h)
    rough = 0.0
    sectors = np.zeros(SECTORS, np.bool_)
    for i in range(m):
        u, v = a[i] - a0, b[i] - b0
        residual = h[i] - (q[0] + q[1] * u + q[2] * v + q[3] * u * u + q[4] * u * v + q[5] * v * v)
        rough += residual * residual
        r = np.sqrt(u * u + v * v) * radius
        if r > radius - RING_IN and r < radius + RING_OUT:
            sectors[_sector(u, v)] |= r > radius + ONTO - 0.002
    goes_on = np.zeros(SECTORS, np.bool_)
    for i in range(len(beyond)):
        x, y, z = beyond[i]
        u = x * frame[0, 0] + y * frame[1, 0] + z * frame[2, 0]
        v = x * frame[0, 1] + y * frame[1, 1] + z * frame[2, 1]
        goes_on[_sector(u, v)] = True
    normal = frame[:, 2] - (q[1] * frame[:, 0] + q[2] * frame[:, 1]) / radius
    normal = normal / np.sqrt((normal * normal).sum())
    contact = place + mean + frame[:, 2] * q[0] + radius * (frame[:, 0] * a0 + frame[:, 1] * b0)
    row[X], row[Y], row[Z] = contact
    row[NX], row[NY], row[NZ] = normal
    row[ROUGH] = np.sqrt(rough / m)
    row[UNEVEN] = 0.5 * np.sqrt((q[3] - q[5]) ** 2 + q[4] ** 2)  # of u^2 and v^2 on the unit circle
    row[BULGE] = -0.5 * (q[3] + q[5])  # the middle's height over the lip
    row[COVERED] = sectors.mean()
    row[NARROW] = 1.0 - goes_on.mean()


@njit(cache=True, nogil=True)
def _sector(u, v):  # type: ignore[no-untyped-def]
    """Which sixteenth of the turn a direction is in, not in their order: an arctangent would cost most of the time."""
    a, b = abs(u), abs(v)
    part = int(b > NARROWER * a) + int(b > a) + int(a < NARROWER * b)
    return 4 * (2 * int(u < 0) + int(v < 0)) + part


@njit(cache=True, nogil=True)
def _plane(patch):  # type: ignore[no-untyped-def]
    """Axes (3, 3) of the plane through `patch`, the third towards the camera, and its middle."""
    m = len(patch)
    mean = np.zeros(3)
    for i in range(m):
        for j in range(3):
            mean[j] += patch[i, j]
    mean /= m
    spread = np.zeros((3, 3))
    for i in range(m):
        for j in range(3):
            for k in range(j + 1):
                spread[j, k] += (patch[i, j] - mean[j]) * (patch[i, k] - mean[k])
    for j in range(3):
        for k in range(j):
            spread[k, j] = spread[j, k]
    _, vectors = np.linalg.eigh(spread)
    frame = np.empty((3, 3))
    sign = -1.0 if vectors[2, 0] > 0 else 1.0
    frame[:, 2] = sign * vectors[:, 0]
    frame[:, 0] = vectors[:, 2]
    frame[:, 1] = np.cross(frame[:, 2], frame[:, 0])
    return frame, mean


@njit(cache=True, nogil=True)
def _quadric(u, v, h):  # type: ignore[no-untyped-def]
    """Least squares coefficients of 1, u, v, u^2, uv, v^2."""
    normal, right = np.zeros((6, 6)), np.zeros(6)
    terms = np.empty(6)
    for i in range(len(u)):
        terms[0], terms[1], terms[2] = 1.0, u[i], v[i]
        terms[3], terms[4], terms[5] = u[i] * u[i], u[i] * v[i], v[i] * v[i]
        for j in range(6):
            right[j] += terms[j] * h[i]
            for k in range(j + 1):
                normal[j, k] += terms[j] * terms[k]
    for j in range(6):
        for k in range(j):
            normal[k, j] = normal[j, k]
        normal[j, j] += 1e-6 * len(u)  # few points leave it open
    return np.linalg.solve(normal, right)


@njit(cache=True, nogil=True)
def clearance(contact, approach, points, cup, bulge):  # type: ignore[no-untyped-def]
    """Smallest distance from `points` (P, 3) to a cup that comes along `approach` onto `contact`; 0 = it hits one,
    inf = nothing near. `cup` is its radius, its length and its body's radius; things may reach `bulge` into it."""
    best = np.inf
    for i in range(len(points)):
        x, y, z = points[i, 0] - contact[0], points[i, 1] - contact[1], points[i, 2] - contact[2]
        back = -(x * approach[0] + y * approach[1] + z * approach[2])
        aside = np.sqrt(max(0.0, x * x + y * y + z * z - back * back))
        over_lip, over_body = back - bulge, back - cup[1]
        lip = np.hypot(max(0.0, aside - cup[0]), max(0.0, -over_lip))
        body = np.hypot(max(0.0, aside - cup[2]), max(0.0, -over_body))
        best = min(best, lip, body)
        if best <= 0.0:
            return 0.0
    return best
