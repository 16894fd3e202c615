# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What is known of every patch; all of it adds up, so that it holds for united patches too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.segmenters.geometric.foreground import Foreground

ARM = 0.009  # m, to either side of a pixel, for its bend
BIN = 0.002  # m, of the height histograms


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Sums over the pixels of n regions; row 0 is the background's.

    `pixels`, `area` m^2 facing the camera, `rim` px links to other regions or none, `open_rim` links to none,
    `border` px at the image's border, `cut` links without a step to what is
    no foreground but no support either, `over` px right over a support, `centres` (n, 2) mean row and column,
    `heights` (n, bins), `moments` (n, 10) of
    1, x, y, w, xx, xy, yy, xw, yw, ww in ray coordinates, `bends` (n, 4): rad and count along rows, along columns,
    `standing` (n, supports) px over each support.
    """

    pixels: NDArray[np.float64]
    area: NDArray[np.float64]
    rim: NDArray[np.float64]
    open_rim: NDArray[np.float64]
    border: NDArray[np.float64]
    cut: NDArray[np.float64]
    over: NDArray[np.float64]
    centres: NDArray[np.float64]
    heights: NDArray[np.float64]
    moments: NDArray[np.float64]
    bends: NDArray[np.float64]
    standing: NDArray[np.float64]

    def height(self, share: float) -> NDArray[np.float64]:
        """(n,) m, the height under which this share of each region's pixels lies."""
        total = np.cumsum(self.heights, axis=1)
        return (total >= share * np.maximum(total[:, -1:], 1)).argmax(axis=1) * BIN

    @property
    def main_support(self) -> NDArray[np.int64]:
        """(n,) the support that most of each region stands on."""
        return self.standing.argmax(axis=1)

    @property
    def bulge(self) -> NDArray[np.float64]:
        """(n,) rad, the smaller of the mean bends along rows and columns: negative in a hollow."""
        along = self.bends[:, ::2] / np.maximum(self.bends[:, 1::2], 1)
        return along.min(axis=1)

    def united(self, segment: NDArray[np.int32], count: int) -> Statistics:
        """The statistics of `count` regions + background that the regions here become part of: region i of
        segment[i]."""

        values = (add_rows(getattr(self, name), segment, count + 1) for name in self.__dataclass_fields__)
        return Statistics(*values)


def add_rows(values: NDArray[np.float64], groups: NDArray[np.int32], count: int) -> NDArray[np.float64]:
    """Sums (count, ...) of the rows of `values` (n, ...) that have the same number in `groups` (n,)."""
    order = np.argsort(groups, kind="stable")
    names, starts = np.unique(groups[order], return_index=True)
    out = np.zeros((count, *values.shape[1:]), values.dtype)
    out[names] = np.add.reduceat(values[order], starts, axis=0)
    return out


def fit_planes(moments: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Planes (n, 3) w = a x + b y + c and residuals (n,) 1/m from moments (n, 10); zeros and inf where undetermined."""
    one, x, y, w, xx, xy, yy, xw, yw, _ = moments.T / np.maximum(moments[:, 0], 1)
    m = np.stack([xx, xy, x, xy, yy, y, x, y, one], axis=1).reshape(-1, 3, 3)
    v = np.stack([xw, yw, w], axis=1)
    good = (moments[:, 0] > 5) & (np.linalg.det(m) > 1e-12)
    planes = np.zeros((len(moments), 3))
    planes[good] = np.linalg.solve(m[good], v[good][:, :, None])[:, :, 0]
    return planes, np.where(good, residuals(moments, planes), np.inf)


def residuals(moments: NDArray[np.float64], planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) 1/m, root mean square distance in w of regions with `moments` (n, 10) or (10,) from `planes` (n, 3)."""
    _, x, y, w, xx, xy, yy, xw, yw, ww = np.atleast_2d(moments).T / np.maximum(np.atleast_2d(moments)[:, 0], 1)
    a, b, c = planes.T
    square = ww - 2 * (a * xw + b * yw + c * w) + a * a * xx + b * b * yy + c * c
    return np.sqrt(np.maximum(square + 2 * (a * b * xy + a * c * x + b * c * y), 0))


def measure(
    labels: NDArray[np.int32],
    count: int,
    w: NDArray[np.float32],
    rays: NDArray[np.float32],
    planes: NDArray[np.float32],
    normals: NDArray[np.float32],
    found: Foreground,
    step: float,
    max_height: float,
    focal: float,
) -> Statistics:
    """The statistics of the regions 1..`count` in `labels` (H, W)."""
    bins = int(max_height / BIN) + 2
    counts, heights, moments, bends = _measure(
        labels, count, w, rays, planes, normals, found.height, found.over, found.beyond, step, bins, BIN, focal
    )
    places = (count + 1, int(found.support.max(initial=0)) + 1)
    on_support = (labels > 0) & (found.support >= 0)
    owners = labels[on_support].astype(np.int64) * places[1] + found.support[on_support]
    standing = np.bincount(owners, minlength=places[0] * places[1]).reshape(places).astype(np.float64)
    centres = counts[:, 7:] / np.maximum(counts[:, :1], 1)
    values = [*counts[:, :7].T, centres, heights, moments, bends, standing]
    return Statistics(*values)


@njit(cache=True, nogil=True)
def signed_bend(w, rays, normals, v1, u1, v2, u2):  # type: ignore[no-untyped-def]
    """Angle rad between the normals at two pixels, positive where the surface bulges between them; NaN = unknown."""
    dot = np.float64(0)
    length1 = np.float64(0)
    length2 = np.float64(0)
    side = np.float64(0)
    z1, z2 = 1.0 / w[v1, u1], 1.0 / w[v2, u2]
    for k in range(3):
        a, b = np.float64(normals[v1, u1, k]), np.float64(normals[v2, u2, k])
        dot += a * b
        length1 += a * a
        length2 += b * b
        one = rays[v1, u1, k] * z1 if k < 2 else z1
        two = rays[v2, u2, k] * z2 if k < 2 else z2
        side += (one - two) * (a - b)
    if length1 == 0 or length2 == 0:
        return np.nan
    angle = np.arccos(min(1.0, max(-1.0, dot)))
    return angle if side > 0 else -angle


@njit(cache=True, nogil=True)
def _measure(labels, count, w, rays, planes, normals, height, over, beyond, step, bins, bin_size, focal):  # type: ignore[no-untyped-def]
    rows, columns = labels.shape
    counts = np.zeros((count + 1, 9))
    heights = np.zeros((count + 1, bins))
    moments = np.zeros((count + 1, 10))
    bends = np.zeros((count + 1, 4))
    for v in range(rows):
        for u in range(columns):
            k = labels[v, u]
            if k == 0:
                continue
            value = np.float64(w[v, u])
            counts[k, 0] += 1
            counts[k, 1] += 1.0 / (focal * value) ** 2
            counts[k, 6] += over[v, u]
            counts[k, 7] += v
            counts[k, 8] += u
            if v == 0 or u == 0 or v == rows - 1 or u == columns - 1:
                counts[k, 4] += 1
            for dv, du in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                q, p = v + dv, u + du
                if q < 0 or p < 0 or q >= rows or p >= columns:
                    continue
                other = labels[q, p]
                if other != k:
                    counts[k, 2] += 1
                    if other == 0:
                        counts[k, 3] += 1
                    if beyond[q, p]:
                        ahead = planes[v, u, 0] + planes[v, u, 1] * du + planes[v, u, 2] * dv
                        counts[k, 5] += abs(ahead - w[q, p]) < step
            heights[k, min(bins - 1, max(0, int(height[v, u] / bin_size)))] += 1
            x, y = np.float64(rays[v, u, 0]), np.float64(rays[v, u, 1])
            m = moments[k]
            m[0] += 1
            m[1] += x
            m[2] += y
            m[3] += value
            m[4] += x * x
            m[5] += x * y
            m[6] += y * y
            m[7] += x * value
            m[8] += y * value
            m[9] += value * value
            if (u + v) % 2:
                continue
            arm = min(12, max(2, int(ARM * focal * value + 0.5)))
            for axis in range(2):
                dv, du = axis * arm, (1 - axis) * arm
                v1, u1, v2, u2 = v - dv, u - du, v + dv, u + du
                if v1 < 0 or u1 < 0 or v2 >= rows or u2 >= columns or labels[v1, u1] != k or labels[v2, u2] != k:
                    continue
                angle = signed_bend(w, rays, normals, v1, u1, v2, u2)
                if not np.isnan(angle):
                    bends[k, 2 * axis] += angle
                    bends[k, 2 * axis + 1] += 1
    return counts, heights, moments, bends
