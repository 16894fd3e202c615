# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Holes inside one object: filled where the object goes on unseen, kept where the support shows through."""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.segmenters.geometric.segments import HOLLOW, Segments

INSIDE = 0.2  # share of a bowl's pixels on its inside
SPECK = 0.01  # share of the object's pixels up to which a hole is noise


def fill_object_holes(
    labels: NDArray[np.int32], count: int, w: NDArray[np.float32], raised: NDArray[np.uint8]
) -> NDArray[np.int32]:
    """`labels` (H, W) of objects 1..`count`, with holes filled that lie within one of them: specks, holes mostly
    without depth (`w` = 0), and those mostly `raised` over the support, like the bottom of a pot."""
    parts, numbers = cv2.connectedComponents((labels == 0).astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    return _fill(labels, count, w, raised, numbers, parts, SPECK)


def fill_bowls(image: NDArray[np.int32], labels: NDArray[np.int32], segments: Segments) -> NDArray[np.int32]:
    """`image` of the objects of `segments` with the bottoms of bowls and cups, which lie within the outline of their
    insides: patches (of `labels`) that curve inwards and are a good part of their object."""
    known = segments.patches
    whole = np.append(segments.statistics.pixels, 0)[segments.of_patch]
    inside = (known.bulge < HOLLOW) & (segments.of_patch > 0) & (known.pixels > INSIDE * whole)
    out = image.copy()
    for patch in np.flatnonzero(inside):
        rows, columns = np.nonzero(labels == patch)
        hull = cv2.convexHull(np.column_stack([columns, rows]).astype(np.int32))
        x, y, width, height = cv2.boundingRect(hull)
        within = cv2.fillConvexPoly(np.zeros((height, width), np.uint8), hull - (x, y), 1)
        part = out[y : y + height, x : x + width]
        part[(within > 0) & (part == 0)] = segments.of_patch[patch]
    return out


@njit(cache=True, nogil=True)
def _fill(labels, count, w, raised, numbers, parts, speck):  # type: ignore[no-untyped-def]
    rows, columns = labels.shape
    around = np.zeros(parts, np.int32)  # the one label around a hole, -1 = several or the image's border
    size = np.zeros(parts, np.int64)
    unseen = np.zeros(parts, np.int64)
    pixels = np.zeros(count + 1, np.int64)
    for v in range(rows):
        for u in range(columns):
            if labels[v, u] > 0:
                pixels[labels[v, u]] += 1
                continue
            k = numbers[v, u]
            size[k] += 1
            if w[v, u] == 0 or raised[v, u]:
                unseen[k] += 1
            if v == 0 or u == 0 or v == rows - 1 or u == columns - 1:
                around[k] = -1
                continue
            for q, p in ((v - 1, u), (v + 1, u), (v, u - 1), (v, u + 1)):
                other = labels[q, p]
                if other > 0 and around[k] != other:
                    around[k] = other if around[k] == 0 else -1
    out = labels.copy()
    for v in range(rows):
        for u in range(columns):
            k = numbers[v, u]
            if labels[v, u] > 0 or around[k] <= 0:
                continue
            if 2 * unseen[k] > size[k] or size[k] <= speck * pixels[around[k]]:
                out[v, u] = around[k]
    return out
