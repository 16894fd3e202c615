# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels of the top-down planner: where jaws coming from above can close on an object, and what they would hit.

Points are local: x, y level, z up. A roll is the angle of the closing axis y_g = (cos, sin, 0); the approach is
straight down, so x_g = y_g cross z_g = (-sin, cos, 0). Along them a point has `a` (x_g) and `b` (y_g). All metres.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# A jaw: a gripper's numbers as one array.
STROKE, WIDTH, THICKNESS, LENGTH, PALM_X, PALM_Y, FRICTION = range(7)

# A candidate's row.
ROLL, A, LOW, HIGH, TIP, TOP, GAP, SLOPE_LOW, SLOPE_HIGH, TOUCH, TAPER, OFF_CENTRE = range(12)

# What candidates fall for, counted; and the narrowest of what was too wide, m.
WIDE, FLAT, SLIPS, OWN, NARROWEST = range(5)

BIN = 0.002  # m, of the profile along the closing axis
STRIPES = 5  # across the finger's width, to see how the contour runs
RIM = 0.004  # m beside and above the object where foreign points count as its own, masks being a pixel or two off
PALM_GAP = 0.005  # m between the palm and what is under it
MIN_POINTS = 5
ROOM = 0.018  # m, the widest that jaws open beside the object
MIN_DEPTH = 0.004  # m, less of the object between the jaws holds nothing


@njit(cache=True, nogil=True)
def local(points, T, reach):  # type: ignore[no-untyped-def]
    """Those of `points` (P, 3), in the frame `T` (4, 4) leads to, that are finite with |x| and |y| below `reach`."""
    out = np.empty((len(points), 3))
    n = 0
    for i in range(len(points)):
        for k in range(3):
            out[n, k] = T[k, 0] * points[i, 0] + T[k, 1] * points[i, 1] + T[k, 2] * points[i, 2] + T[k, 3]
        if abs(out[n, 0]) < reach and abs(out[n, 1]) < reach and np.isfinite(out[n, 2]):
            n += 1
    return out[:n]


@njit(cache=True, nogil=True)
def candidates(own, seen, rolls, centre, view, jaw, floor, plane, depths, gap, slices):  # type: ignore[no-untyped-def]
    """Rows of candidates (K, 12) that fit the object itself, and what the others fell for (WIDE ... NARROWEST).

    No fingertip goes lower than `floor` over the surface `plane` (4,). `depths` are tried distances from the object's
    top in the slice down to the tips, `gap` is the least room beside the object, `slices` the number of places along
    x_g at each side of the middle, `view` (2,) the level direction away from the camera, shorter the steeper
    it looks. `seen` are other points, of which only those lower than the tips matter: there is room.
    """
    out = np.empty((len(rolls) * (2 * slices + 1) * len(depths) * 4, 12))
    count = 0
    fallen = np.zeros(5)
    fallen[NARROWEST] = np.inf
    n = len(own)
    a = np.empty(n)
    b = np.empty(n)
    slab = np.empty((3, n))
    for roll in rolls:
        c, s = np.cos(roll), np.sin(roll)
        for i in range(n):
            a[i] = -s * own[i, 0] + c * own[i, 1]
            b[i] = c * own[i, 0] + s * own[i, 1]
        a_low, a_high = a.min(), a.max()
        middle, length = 0.5 * (a_low + a_high), a_high - a_low
        step = max(0.006, length / (2 * slices + 3))
        a_centre = -s * centre[0] + c * centre[1]
        for k in range(-slices, slices + 1):
            at = middle + k * step
            if k != 0 and (at < a_low + 0.25 * jaw[WIDTH] or at > a_high - 0.25 * jaw[WIDTH]):
                continue
            m = 0
            top = under_palm = -np.inf
            for i in range(n):
                away = abs(a[i] - at)
                if away <= 0.5 * jaw[WIDTH] + 0.001:
                    slab[0, m], slab[1, m], slab[2, m] = a[i], b[i], own[i, 2]
                    m += 1
                    top = max(top, own[i, 2])
                if away < 0.5 * jaw[PALM_X]:
                    under_palm = max(under_palm, own[i, 2])
            if m < MIN_POINTS:
                continue
            before = -np.inf
            lowest = _lowest_tip(plane, floor, at, slab[1, :m].min(), slab[1, :m].max(), c, s, jaw)
            lowest = max(lowest, under_palm - jaw[LENGTH] + PALM_GAP)
            for depth in depths:
                tip = max(top - depth, lowest)
                if tip < before + 0.001:  # stopped where it stopped before
                    continue
                before = tip
                if top - tip < MIN_DEPTH:
                    fallen[FLAT] += 1
                    continue
                between = slab[:, :m][:, slab[2, :m] >= tip]
                row = (roll, at, tip, top, abs(at - a_centre), c * view[0] + s * view[1])
                count = _close(own, a, b, between, seen, c, s, row, jaw, gap, out, count, fallen)
    return out[:count], fallen


@njit(cache=True, nogil=True)
def _lowest_tip(plane, floor, at, low, high, c, s, jaw):  # type: ignore[no-untyped-def]
    """`floor` over the surface where that is highest under the widest open jaws."""
    highest = -np.inf
    for a in (at - 0.5 * jaw[WIDTH], at + 0.5 * jaw[WIDTH]):
        for b in (low - ROOM - jaw[THICKNESS], high + ROOM + jaw[THICKNESS]):
            x, y = -s * a + c * b, c * a + s * b
            highest = max(highest, -(plane[0] * x + plane[1] * y + plane[3]) / plane[2])
    return highest + floor / plane[2]


@njit(cache=True, nogil=True)
def _close(own, a, b, between, seen, c, s, place, jaw, gap, out, count, fallen):  # type: ignore[no-untyped-def]
    """Adds the candidates of one slice at one depth: one per stretch of the profile with room at both ends.

    `between` (3, M) are a, b and height of the object's points in the slice above the tips.
    """
    roll, at, tip, top, off_centre, facing = place
    across = between[1]
    start = across.min()
    bins = int((across.max() - start) / BIN) + 1
    taken = np.zeros(bins, np.bool_)
    for value in across:
        taken[int((value - start) / BIN)] = True
    room = jaw[THICKNESS] + 2.0 * gap
    k = 0
    while k < bins:
        if not taken[k]:
            k += 1
            continue
        first = last = k
        while k < bins and (k - last) * BIN < room:
            if taken[k]:
                last = k
            k += 1
        k = max(k, last + 1)
        low, high, points = np.inf, -np.inf, 0
        for value in across:
            if first <= int((value - start) / BIN) <= last:
                low, high = min(low, value), max(high, value)
                points += 1
        if points < MIN_POINTS:
            continue
        seen_low, seen_high = low, high
        low, high = _rounded(between, low, high, facing)
        if high - low + 2.0 * gap > jaw[STROKE]:
            fallen[WIDE] += 1
            fallen[NARROWEST] = min(fallen[NARROWEST], high - low)
            continue
        slope_low, slope_high, touch = _contour(between, at, seen_low, seen_high, jaw)
        if max(abs(slope_low), abs(slope_high)) > jaw[FRICTION]:
            fallen[SLIPS] += 1
            continue
        widest = _own_room(own, a, b, across, seen, c, s, at, tip, low, high, jaw, gap)
        if widest < gap:
            fallen[OWN] += 1
            continue
        if count < len(out):
            row = out[count]
            row[ROLL], row[A], row[LOW], row[HIGH], row[TIP], row[TOP], row[GAP] = roll, at, low, high, tip, top, widest
            row[SLOPE_LOW], row[SLOPE_HIGH], row[TOUCH] = slope_low, slope_high, touch
            row[TAPER] = _taper(between, tip, seen_low, seen_high)
            row[OFF_CENTRE] = off_centre
            count += 1
    return count


@njit(cache=True, nogil=True)
def _rounded(between, low, high, facing):  # type: ignore[no-untyped-def]
    """The stretch `low`, `high` with its far end moved out where the surface rounds away from the camera there.

    What lies behind such a limb is not seen; it is taken to mirror the near side about the ridge. `facing` is the
    cosine between the closing axis and the level direction away from the camera.
    """
    if abs(facing) < 0.25:
        return low, high
    end = high if facing > 0 else low
    across, heights = between[1], between[2]
    ridge = -np.inf
    for i in range(len(across)):
        if low <= across[i] <= high:
            ridge = max(ridge, heights[i])
    at_ridge = height = 0.0
    n = m = 0
    for i in range(len(across)):
        if low <= across[i] <= high:
            if heights[i] > ridge - 0.001:
                at_ridge += across[i]
                n += 1
            if abs(across[i] - end) < 0.003:
                height += heights[i]
                m += 1
    if n == 0 or m == 0:
        return low, high
    at_ridge /= n
    if ridge - height / m < max(0.003, 0.12 * abs(end - at_ridge)):  # flat to its edge: that edge is the object's
        return low, high
    if facing > 0:
        return low, max(high, 2.0 * at_ridge - low)
    return min(low, 2.0 * at_ridge - high), high


@njit(cache=True, nogil=True)
def _contour(between, at, low, high, jaw):  # type: ignore[no-untyped-def]
    """Slopes db/da of the contour under both fingers, and the share of the finger's width that touches, 0..1."""
    ends = np.empty((2, STRIPES))
    ends[0] = np.inf
    ends[1] = -np.inf
    along, across = between[0], between[1]
    for i in range(len(across)):
        if low <= across[i] <= high:
            k = min(STRIPES - 1, max(0, int((along[i] - at + 0.5 * jaw[WIDTH]) / jaw[WIDTH] * STRIPES)))
            ends[0, k] = min(ends[0, k], across[i])
            ends[1, k] = max(ends[1, k], across[i])
    slopes = np.zeros(2)
    touch = np.zeros(2)
    for side in range(2):
        extreme = low if side == 0 else high
        n = sx = sy = sxx = sxy = 0.0
        for k in range(STRIPES):
            if not np.isfinite(ends[side, k]):
                continue
            if abs(ends[side, k] - extreme) < 0.003:
                touch[side] += 1.0 / STRIPES
            if abs(ends[side, k] - extreme) > 0.5 * (high - low) + 0.003:  # that stripe sees the other side only
                continue
            x = (k + 0.5) / STRIPES * jaw[WIDTH]
            n += 1.0
            sx += x
            sy += ends[side, k]
            sxx += x * x
            sxy += x * ends[side, k]
        spread = n * sxx - sx * sx
        if n >= 2 and spread > 0:
            slopes[side] = (n * sxy - sx * sy) / spread
    return slopes[0], slopes[1], min(touch[0], touch[1])


@njit(cache=True, nogil=True)
def _taper(between, tip, low, high):  # type: ignore[no-untyped-def]
    """How fast the object widens downwards between the jaws, db/dz at the worse side; 0 = straight or narrowing."""
    across, heights = between[1], between[2]
    top = tip
    for i in range(len(across)):
        if low <= across[i] <= high:
            top = max(top, heights[i])
    third = (top - tip) / 3.0
    if third < 0.002:
        return 0.0
    upper_low, upper_high, lower_low, lower_high = np.inf, -np.inf, np.inf, -np.inf
    for i in range(len(across)):
        if not low <= across[i] <= high:
            continue
        if heights[i] > top - third:
            upper_low, upper_high = min(upper_low, across[i]), max(upper_high, across[i])
        elif heights[i] < tip + third:
            lower_low, lower_high = min(lower_low, across[i]), max(lower_high, across[i])
    if not np.isfinite(upper_low) or not np.isfinite(lower_low):
        return 0.0
    return max(0.0, max(upper_low - lower_low, lower_high - upper_high) / (2.0 * third))


@njit(cache=True, nogil=True)
def _own_room(own, a, b, across, seen, c, s, at, tip, low, high, jaw, gap):  # type: ignore[no-untyped-def]
    """Widest room beside the object, up to 18 mm a side, where the fingers miss its other parts; 0 = none.

    A finger that goes down between two parts of the object must be seen to have room there.
    """
    most = min(ROOM, 0.5 * (jaw[STROKE] - (high - low)))
    for side in range(2):
        nearest = np.inf  # other parts of the object on this side, at the jaws' height
        for value in across:
            away = low - value if side == 0 else value - high
            if away > 0:
                nearest = min(nearest, away)
        if np.isfinite(nearest):
            most = min(most, nearest - jaw[THICKNESS] - gap)
            if most < gap or not _seen_deep(own, a, b, seen, c, s, at, tip, low, high, nearest, side, jaw):
                return 0.0
    return most


@njit(cache=True, nogil=True)
def _seen_deep(own, a, b, seen, c, s, at, tip, low, high, nearest, side, jaw):  # type: ignore[no-untyped-def]
    for i in range(len(own)):
        if own[i, 2] < tip and abs(a[i] - at) < 0.5 * jaw[WIDTH]:
            away = low - b[i] if side == 0 else b[i] - high
            if 0 < away < nearest:
                return True
    for i in range(len(seen)):
        if seen[i, 2] < tip:
            other_a, other_b = -s * seen[i, 0] + c * seen[i, 1], c * seen[i, 0] + s * seen[i, 1]
            away = low - other_b if side == 0 else other_b - high
            if abs(other_a - at) < 0.5 * jaw[WIDTH] and 0 < away < nearest:
                return True
    return False


@njit(cache=True, nogil=True)
def clearance(row, gap, foreign, jaw):  # type: ignore[no-untyped-def]
    """Smallest distance from the gripper, swept down to the candidate `row` with `gap` m beside the object, to a
    foreign point; 0 = it hits one, inf = nothing near."""
    c, s = np.cos(row[ROLL]), np.sin(row[ROLL])
    mid = 0.5 * (row[LOW] + row[HIGH])
    inner = 0.5 * (row[HIGH] - row[LOW]) + gap
    outer = inner + jaw[THICKNESS]
    palm = row[TIP] + jaw[LENGTH]
    best = np.inf
    for i in range(len(foreign)):
        h = foreign[i, 2]
        a = abs(-s * foreign[i, 0] + c * foreign[i, 1] - row[A])
        signed = c * foreign[i, 0] + s * foreign[i, 1] - mid
        b = abs(signed)
        da = max(0.0, a - 0.5 * jaw[WIDTH])
        below = max(0.0, row[TIP] - h)
        own_rim = b < min(inner, inner - gap + RIM) and h < row[TOP] + RIM  # never what a finger would meet
        if own_rim and a < 0.5 * jaw[WIDTH] + RIM:
            continue
        db = max(0.0, b - outer)
        if b < inner and own_rim:  # between the jaws, beside the object along x: only the fingers can hit it
            db = inner - b
        best = min(best, np.sqrt(da * da + db * db + below * below))
        pa, pb = max(0.0, a - 0.5 * jaw[PALM_X]), max(0.0, b - 0.5 * jaw[PALM_Y])
        under = max(0.0, palm - PALM_GAP - h)
        best = min(best, np.sqrt(pa * pa + pb * pb + under * under))
        if best <= 0.0:
            return 0.0
    return best
