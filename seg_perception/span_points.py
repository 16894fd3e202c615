# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Masks and depth to points at memory speed: every measured pixel under each mask, as it is, and the moments.

What `fusion` adds is judgement: it drops what belongs to the background, closes holes, finds boxes. Who brings masks
that are exact, or has own cleaning, takes this. Runs are read as rows of depth, so nothing is looked at twice and no
pixel outside a mask at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.geometry import ray_table
from seg_perception.masks import Masks
from seg_perception.moments import finish
from seg_perception.scene import Intrinsics

FEW = 4  # holes in a run, up to which writing the rest of the run anew is quicker than asking at each pixel
# Unsigned, as all indices of the inner loops: nobody asks whether they are negative, so they work on whole vectors.
ONE, TWO, THREE = np.uint64(1), np.uint64(2), np.uint64(3)


@dataclass(frozen=True, slots=True, eq=False)
class SpanPoints:
    """`points` (M, 3) float32 m, camera frame, mask after mask in row order, of which mask i has
    `points[offsets[i]:offsets[i + 1]]`; `colors` (M, 3) uint8, empty where no image was given. `means` (N, 3) m and
    `covariances` (N, 3, 3) m^2, zero without a point.
    """

    points: NDArray[np.float32]
    colors: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    means: NDArray[np.float64]
    covariances: NDArray[np.float64]

    def of(self, i: int) -> NDArray[np.float32]:
        """The points of mask i."""
        return self.points[self.offsets[i] : self.offsets[i + 1]]


def points_under(
    masks: Masks,
    depth: NDArray[np.float32],
    intrinsics: Intrinsics,
    color: NDArray[np.uint8] | None = None,
    near: float = 0.0,
    far: float = float("inf"),
) -> SpanPoints:
    """The pixels of `masks` whose `depth` (H, W) m lies between `near` and `far`; `color` (H, W, 3) uint8.

    Raises ValueError when the sizes differ.
    """
    size = (masks.height, masks.width)
    if depth.shape != size or (intrinsics.height, intrinsics.width) != size:
        raise ValueError(
            f"depth: expected {size} like the masks, got {depth.shape} and intrinsics of "
            f"{intrinsics.width}x{intrinsics.height}"
        )
    if color is not None and color.shape != (*size, 3):
        raise ValueError(f"color: expected {(*size, 3)}, got {color.shape}")
    count = len(masks)
    total = int(masks.areas.sum())
    points = np.empty((total, 3), np.float32)
    colors = np.empty((total if color is not None else 0, 3), np.uint8)
    offsets, means, covariances = np.zeros(count + 1, np.int64), np.zeros((count, 3)), np.zeros((count, 3, 3))
    image = np.ascontiguousarray(depth, np.float32)
    picture = np.empty((0, 0, 3), np.uint8) if color is None else np.ascontiguousarray(color)
    limits = (np.float32(max(near, 1e-6)), np.float32(min(far, 1e6)))
    out = (points, colors, offsets, means, covariances)
    if intrinsics.is_distorted:
        _lift_bent(image, picture, ray_table(intrinsics), masks.spans, masks.offsets, limits, *out)
    else:
        _lift(image, picture, *_rays(intrinsics), masks.spans, masks.offsets, limits, *out)
    end = int(offsets[-1])
    return SpanPoints(points[:end], colors[: end if color is not None else 0], offsets, means, covariances)


@lru_cache(maxsize=4)
def _rays(intrinsics: Intrinsics) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """x/z of the columns (W,) and y/z of the rows (H,)."""
    k = intrinsics
    x, y = (np.arange(k.width) - k.cx) / k.fx, (np.arange(k.height) - k.cy) / k.fy
    return x.astype(np.float32), y.astype(np.float32)


@njit(cache=True, nogil=True)
def _lift(depth, color, ray_x, ray_y, spans, offsets, limits, points, colors, ends, means, covariances):  # type: ignore[no-untyped-def]
    near, far = limits
    flat = points.reshape(points.size)
    total = np.zeros(10)
    n = np.uint64(0)  # of flat
    for i in range(len(offsets) - 1):
        total[:] = 0
        x0 = y0 = z0 = np.float32(0)
        for s in range(offsets[i], offsets[i + 1]):
            y, start, stop = np.uint64(spans[s, 0]), np.uint64(spans[s, 1]), np.uint64(spans[s, 2])
            ry = ray_y[y]
            if z0 == 0:  # the first depth of the mask: sums are taken about a point near it, which float32 can bear
                x = _first(depth, y, start, stop, near, far)
                if x == stop:
                    continue
                x0, y0, z0 = ray_x[x], ry, depth[y, x]
            number, a, r, aa, ar, rr = _write(depth, ray_x, ry, y, start, stop, x0, z0, near, far, flat, n)
            v = np.float64(ry - y0)
            b, bb = v * (r + z0 * number), v * v * (rr + 2 * z0 * r + np.float64(z0) * z0 * number)
            ab, br = v * (ar + z0 * a), v * (rr + z0 * r)
            total[0], total[1], total[2], total[3] = total[0] + number, total[1] + a, total[2] + b, total[3] + r
            total[4], total[5], total[6] = total[4] + aa, total[5] + ab, total[6] + ar
            total[7], total[8], total[9] = total[7] + bb, total[8] + br, total[9] + rr
            if color.size > 0:
                _write_colors(depth, color, y, start, stop, near, far, colors, n // THREE)
            holes = stop - start - np.uint64(number)
            if holes > FEW:
                _pack(depth, ray_x, ry, y, start, stop, near, far, flat, n)
            elif holes > 0:
                _close(depth, ray_x, ry, y, start, stop, near, far, holes, flat, n)
            n += THREE * np.uint64(number)
        ends[i + 1] = n // THREE
        finish(total, x0, y0, z0, means[i], covariances[i])


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _write(depth, ray_x, ry, y, start, stop, x0, z0, near, far, flat, n):  # type: ignore[no-untyped-def]
    """Writes the point of every pixel, as if all had depth; of those that have it number and sums of a, r, aa, ar, rr:
    x beside the ray x0, and z beyond z0."""
    zero = np.float32(0)
    number = a = r = aa = ar = rr = zero
    for k in range(stop - start):
        x, z, at = ray_x[start + k], depth[y, start + k], n + THREE * k
        flat[at], flat[at + ONE], flat[at + TWO] = x * z, ry * z, z
        good = (z >= near) & (z <= far)
        p = (x - x0) * z if good else zero
        q = z - z0 if good else zero
        number += np.float32(1) if good else zero
        a, r = a + p, r + q
        aa, ar, rr = aa + p * p, ar + p * q, rr + q * q
    return number, a, r, aa, ar, rr


@njit(cache=True, nogil=True)
def _close(depth, ray_x, ry, y, start, stop, near, far, holes, flat, n):  # type: ignore[no-untyped-def]
    """Leaves out the pixels without depth: what is behind each of them is written anew."""
    for _ in range(holes):
        hole = start
        while (depth[y, hole] >= near) & (depth[y, hole] <= far):
            hole += ONE
        n += THREE * (hole - start)
        start = hole + ONE
        for k in range(stop - start):
            x, z, at = ray_x[start + k], depth[y, start + k], n + THREE * k
            flat[at], flat[at + ONE], flat[at + TWO] = x * z, ry * z, z


@njit(cache=True, nogil=True)
def _pack(depth, ray_x, ry, y, start, stop, near, far, flat, n):  # type: ignore[no-untyped-def]
    """The same for many: writes every point, and goes on behind those that have depth."""
    for x in range(start, stop):
        z = depth[y, x]
        flat[n], flat[n + ONE], flat[n + TWO] = ray_x[x] * z, ry * z, z
        if (z >= near) & (z <= far):
            n += THREE


@njit(cache=True, nogil=True)
def _write_colors(depth, color, y, start, stop, near, far, colors, n):  # type: ignore[no-untyped-def]
    for x in range(start, stop):
        colors[n, 0], colors[n, 1], colors[n, 2] = color[y, x, 0], color[y, x, 1], color[y, x, 2]
        if (depth[y, x] >= near) & (depth[y, x] <= far):
            n += ONE


@njit(cache=True, nogil=True)
def _first(depth, y, start, stop, near, far):  # type: ignore[no-untyped-def]
    """The first pixel of `start:stop` that has depth; `stop` if none has."""
    x = start
    while x < stop and not (near <= depth[y, x] <= far):
        x += ONE
    return x


@njit(cache=True, nogil=True)
def _lift_bent(depth, color, rays, spans, offsets, limits, points, colors, ends, means, covariances):  # type: ignore[no-untyped-def]
    """The same with a ray for each pixel."""
    near, far = limits
    n = 0
    total = np.zeros(10)
    for i in range(len(offsets) - 1):
        total[:] = 0
        x0 = y0 = z0 = 0.0
        for s in range(offsets[i], offsets[i + 1]):
            y = spans[s, 0]
            for x in range(spans[s, 1], spans[s, 2]):
                z = depth[y, x]
                if not near <= z <= far:
                    continue
                rx, ry = rays[y, x, 0], rays[y, x, 1]
                if z0 == 0:
                    x0, y0, z0 = np.float64(rx), np.float64(ry), np.float64(z)
                points[n, 0], points[n, 1], points[n, 2] = rx * z, ry * z, z
                if color.size > 0:
                    colors[n, 0], colors[n, 1], colors[n, 2] = color[y, x, 0], color[y, x, 1], color[y, x, 2]
                n += 1
                a, b, r = (rx - x0) * z, (ry - y0) * z, z - z0
                total[0], total[1], total[2], total[3] = total[0] + 1, total[1] + a, total[2] + b, total[3] + r
                total[4], total[5], total[6] = total[4] + a * a, total[5] + a * b, total[6] + a * r
                total[7], total[8], total[9] = total[7] + b * b, total[8] + b * r, total[9] + r * r
        ends[i + 1] = n
        finish(total, x0, y0, z0, means[i], covariances[i])
