# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Masks from a map per instance that covers the network's input: enlarged to the image, straight to row spans."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.segmenters.decoding.enlarged import NONE, axis, grown, spans_above
from seg_perception.segmenters.decoding.winners import count_at_least, highest
from seg_perception.segmenters.networks.letterbox import Letterbox


def masks_above(
    maps: NDArray[np.float32], grid: tuple[int, int], place: Letterbox, level: float, shares: bool
) -> tuple[Masks, NDArray[np.float32]]:
    """Where each of `maps` (N, h, w), which cover the network's input, is above `level` in the image.

    They are enlarged bilinearly to `grid` (height, width), the padding is cut off there, and what remains is enlarged
    to the image. Also the mean sigmoid over each mask's pixels, (N,); zeros without `shares`.
    """
    top, left, rows, columns = _region(grid, place)
    spans, offsets, means = _above_level(
        np.ascontiguousarray(maps),
        *grid,
        top,
        left,
        rows,
        columns,
        place.height,
        place.width,
        level,
        shares,
    )
    return Masks(place.height, place.width, spans, offsets), means


def masks_of_grid(
    maps: NDArray[np.float32], grid: tuple[int, int], place: Letterbox, level: float
) -> tuple[Masks, NDArray[np.float32]]:
    """Where each of `maps` (N, h, w), enlarged bilinearly to `grid` (height, width), is above `level` there, each
    pixel of the image taking the grid cell that it falls in; and the mean sigmoid over each mask's cells, (N,).

    The maps must cover the image without padding.
    """
    spans, offsets, means = _of_grid(np.ascontiguousarray(maps), *grid, place.height, place.width, level)
    return Masks(place.height, place.width, spans, offsets), means


def masks_by_argmax(
    maps: NDArray[np.float32],
    weights: NDArray[np.float32],
    grid: tuple[int, int],
    place: Letterbox,
    threshold: float,
    least_share: float,
    inside: bool,
) -> Masks:
    """Each pixel of the image belongs to the map that is highest there times its weight; maps as for `masks_above`.

    A mask is empty unless its pixels are more than `least_share` of those where its own weighted map is at least
    `threshold`. With `inside` it has only pixels of the latter.
    """
    count = len(maps)
    if count == 0:
        return Masks.empty(place.height, place.width)
    top, left, rows, columns = _region(grid, place)
    owners = _owners(
        np.ascontiguousarray(maps, np.float32), np.ascontiguousarray(weights, np.float32), *grid,
        top, left, rows, columns, place.height, place.width, threshold, least_share, inside,
    )  # fmt: skip
    return Masks.from_label_image(owners, count)


def logit(probability: float) -> float:
    """The logit of a probability; of 0 and 1 a finite one, beyond what float32 probabilities can tell apart."""
    inside = min(max(probability, 1e-8), 1 - 1e-8)
    return math.log(inside / (1 - inside))


def on_cells(grid: tuple[int, int], place: Letterbox) -> bool:
    """Whether the image's edges fall on whole cells of a `grid` (height, width) over the network's input."""
    rows, columns = (place.top, place.scaled_height), (place.left, place.scaled_width)
    return all(v * grid[0] % place.net_height == 0 for v in rows) and all(
        v * grid[1] % place.net_width == 0 for v in columns
    )


def _region(grid: tuple[int, int], place: Letterbox) -> tuple[int, int, int, int]:
    """The image's part of the grid: top, left, height, width in cells. Raises ValueError if an edge cuts a cell."""
    if not on_cells(grid, place):
        raise ValueError(f"masks: the padding of {place} does not fall on whole cells of a {grid[1]}x{grid[0]} grid")
    rows, columns = (
        [v * cells // net for v in edges]
        for edges, cells, net in (
            ((place.top, place.scaled_height), grid[0], place.net_height),
            ((place.left, place.scaled_width), grid[1], place.net_width),
        )
    )
    return rows[0], columns[0], rows[1], columns[1]


@njit(cache=True, nogil=True)
def _above_level(maps, grid_height, grid_width, top, left, rows, columns, height, width, level, shares):  # type: ignore[no-untyped-def]
    n = len(maps)
    y_axis, x_axis = axis(rows, height), axis(columns, width)
    spans = np.empty((4096, 3), np.int32)
    offsets = np.zeros(n + 1, np.int64)
    means = np.zeros(n, np.float32)
    total = NONE
    for i in range(n):
        area = _enlarge_near(maps[i], grid_height, grid_width, np.float32(level))
        area = area[top : top + rows, left : left + columns]
        j0, j1, k0, k1 = _extent(area, np.float32(level))
        box = (x_axis[2][k0], y_axis[2][j0], x_axis[2][k1], y_axis[2][j1])
        if box[0] < box[2] and box[1] < box[3]:
            near = area[j0 : j1 + 1, k0 : k1 + 1]
            spans, total = spans_above(near, np.float32(level), (j0, k0), box, y_axis, x_axis, spans, total)
        offsets[i + 1] = total
        if shares:
            means[i] = _mean_share(area, level, spans[offsets[i] : total], y_axis, x_axis)
    return spans[:total].copy(), offsets, means


@njit(cache=True, nogil=True)
def _of_grid(maps, grid_height, grid_width, height, width, level):  # type: ignore[no-untyped-def]
    n, map_height, map_width = maps.shape
    y_axis, x_axis = axis(map_height, grid_height), axis(map_width, grid_width)
    begins = _begins(grid_width, width)
    cells = np.empty((4096, 3), np.int32)  # spans of one mask on the grid
    spans = np.empty((4096, 3), np.int32)
    offsets = np.zeros(n + 1, np.int64)
    means = np.zeros(n, np.float32)
    y_scale = np.float32(grid_height) / np.float32(height)
    total = NONE
    for i in range(n):
        area, box = maps[i].astype(np.float32), (0, 0, grid_width, grid_height)
        cells, count = spans_above(area, np.float32(level), (0, 0), box, y_axis, x_axis, cells, NONE)
        means[i] = _mean_share(area, level, cells[:count], y_axis, x_axis)
        of_row = np.zeros(grid_height + 1, np.int64)
        for s in range(count):
            of_row[cells[s, 0] + 1] = s + 1
        for g in range(grid_height):
            of_row[g + 1] = max(of_row[g + 1], of_row[g])
        for y in range(height):
            g = min(int(np.float32(y) * y_scale), grid_height - 1)
            if total + grid_width > len(spans):
                spans = grown(spans, total, grid_width)
            for s in range(of_row[g], of_row[g + 1]):
                x0, x1 = begins[cells[s, 1]], begins[cells[s, 2]]
                if x0 < x1:
                    if total > offsets[i] and spans[total - 1, 0] == y and spans[total - 1, 2] == x0:
                        spans[total - 1, 2] = x1  # the gap between them fell between two pixels
                        continue
                    spans[total, 0] = y
                    spans[total, 1] = x0
                    spans[total, 2] = x1
                    total += 1
        offsets[i + 1] = total
    return spans[:total].copy(), offsets, means


@njit(cache=True, nogil=True)
def _owners(  # type: ignore[no-untyped-def]
    maps, weights, grid_height, grid_width, top, left, rows, columns, height, width, threshold, least_share, inside
):
    n = len(maps)
    areas = np.empty((n, rows, columns), np.float32)
    for i in range(n):
        areas[i] = _enlarge(maps[i], grid_height, grid_width)[top : top + rows, left : left + columns]
    own = count_at_least(areas, weights, height, width, threshold)
    owners, won = highest(areas, weights, height, width, -np.inf)
    names = np.zeros(n + 1, np.int32)  # of owner -1 the last one
    for i in range(n):
        if own[i] > 0 and won[i] > least_share * own[i]:
            names[i] = i + 1
    for y in range(height):
        for x in range(width):
            owners[y, x] = names[owners[y, x]]
    if inside:
        _keep_above(areas, weights, threshold, owners)
    return owners


@njit(cache=True, nogil=True)
def _keep_above(areas, weights, threshold, owners):  # type: ignore[no-untyped-def]
    """Pixels whose owner's weighted map is below the threshold lose it."""
    height, width = owners.shape
    rows, columns = areas.shape[1:]
    y_knot, y_weight, _ = axis(rows, height)
    x_knot, x_weight, _ = axis(columns, width)
    for y in range(height):
        r, below, wy = y_knot[y], min(y_knot[y] + 1, rows - 1), y_weight[y]
        for x in range(width):
            i = owners[y, x] - 1
            if i >= 0:
                k, after, wx = x_knot[x], min(x_knot[x] + 1, columns - 1), x_weight[x]
                a = areas[i, r, k] * (np.float32(1) - wy) + areas[i, below, k] * wy
                b = areas[i, r, after] * (np.float32(1) - wy) + areas[i, below, after] * wy
                if not (a * (np.float32(1) - wx) + b * wx) * weights[i] >= threshold:
                    owners[y, x] = 0


@njit(cache=True, nogil=True)
def _enlarge(small, height, width):  # type: ignore[no-untyped-def]
    if small.shape == (height, width):
        return small.astype(np.float32)
    y_knot, y_weight, _ = axis(small.shape[0], height)
    x_knot, x_weight, _ = axis(small.shape[1], width)
    row = np.empty(small.shape[1] + 1, np.float32)
    out = np.empty((height, width), np.float32)
    for y in range(height):
        _blend(small, y_knot[y], y_weight[y], 0.0, row, 0, small.shape[1] - 1)
        for x in range(width):
            out[y, x] = _at(row, x_knot[x], x_weight[x])
    return out


@njit(cache=True, nogil=True)
def _enlarge_near(small, height, width, level):  # type: ignore[no-untyped-def]
    """As `_enlarge` where that is above `level` and one cell around; elsewhere some value that is not above."""
    if small.shape == (height, width):
        return small.astype(np.float32)
    rows, columns = small.shape
    first_row, last_row, first_column, last_column = rows, -1, columns, -1
    for r in range(rows):
        for k in range(columns):
            if not small[r, k] <= level:
                first_row, last_row = min(first_row, r), r
                first_column, last_column = min(first_column, k), max(last_column, k)
    out = np.full((height, width), level - np.float32(1), np.float32)
    y_knot, y_weight, y_first = axis(rows, height)
    x_knot, x_weight, x_first = axis(columns, width)
    k0, k1 = max(first_column - 2, 0), min(last_column + 2, columns - 1)
    row = np.empty(columns + 1, np.float32)
    for y in range(y_first[max(min(first_row - 2, rows), 0)], y_first[max(min(last_row + 3, rows), 0)]):
        _blend(small, y_knot[y], y_weight[y], 0.0, row, k0, min(k1 + 1, columns - 1))
        for x in range(x_first[k0], x_first[k1 + 1]):
            out[y, x] = _at(row, x_knot[x], x_weight[x])
    return out


@njit(cache=True, nogil=True)
def _blend(area, knot, weight, level, row, k0, k1):  # type: ignore[no-untyped-def]
    """The columns k0..k1 of a row between two rows of `area`, less `level`; the last value is repeated."""
    upper, lower = area[knot], area[min(knot + 1, len(area) - 1)]
    for k in range(k0, k1 + 1):
        row[k] = upper[k] * (np.float32(1) - weight) + lower[k] * weight - np.float32(level)
    row[k1 + 1] = row[k1]


@njit(cache=True, nogil=True)
def _extent(area, level):  # type: ignore[no-untyped-def]
    """The rows `j0:j1` and columns `k0:k1` of the knots that are above `level`, and one more on each side."""
    rows, columns = area.shape
    j0, j1, k0, k1 = rows, 0, columns, 0
    for j in range(rows):
        for k in range(columns):
            if area[j, k] > level:
                j0, j1, k0, k1 = min(j0, j), j + 1, min(k0, k), max(k1, k + 1)
    return max(j0 - 1, 0), min(j1 + 1, rows), max(k0 - 1, 0), min(k1 + 1, columns)


@njit(cache=True, nogil=True)
def _mean_share(area, level, spans, y_axis, x_axis):  # type: ignore[no-untyped-def]
    """The mean sigmoid of `area`, enlarged, over the pixels of `spans`."""
    y_knot, y_weight, _ = y_axis
    x_knot, x_weight, _ = x_axis
    row = np.empty(area.shape[1] + 1, np.float32)
    total = 0.0
    pixels = 0
    for s in range(len(spans)):
        y, start, stop = spans[s, 0], spans[s, 1], spans[s, 2]
        _blend(area, y_knot[y], y_weight[y], level, row, x_knot[start], min(x_knot[stop - 1] + 1, area.shape[1] - 1))
        for x in range(start, stop):
            total += _sigmoid(_at(row, x_knot[x], x_weight[x]) + level)
        pixels += stop - start
    return total / (pixels + 1e-6)


@njit(cache=True, nogil=True)
def _at(row, knot, weight):  # type: ignore[no-untyped-def]
    return row[knot] * (np.float32(1) - weight) + row[knot + 1] * weight


@njit(cache=True, nogil=True)
def _sigmoid(value):  # type: ignore[no-untyped-def]
    return 1.0 / (1.0 + math.exp(-value))


@njit(cache=True, nogil=True)
def _begins(cells, pixels):  # type: ignore[no-untyped-def]
    """Per cell the first of `pixels` that falls in it or after it, as `floor(pixel * cells / pixels)` in float32."""
    scale = np.float32(cells) / np.float32(pixels)
    out = np.full(cells + 1, pixels, np.int64)
    last = -1
    for p in range(pixels):
        cell = min(int(np.float32(p) * scale), cells - 1)
        for passed in range(last + 1, cell + 1):
            out[passed] = p
        last = max(last, cell)
    return out
