# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Is "aligned" depth aligned? Where depth steps, color usually has an edge: how far off that is, over several frames.

The mean strength of color edges, sampled around the depth edges, is a map over shifts. Aligned images have its summit
near zero; shifted ones have it at the shift. A summit elsewhere is not enough: parallel edges of one box make some in
aligned images too, but those keep a summit near zero beside it. Depth cameras also swell near surfaces to both sides,
which is no shift: edges that face right and left have a map each, laid together as the swelling is that fits best.
"""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.scene import Frame

SWELLING = 3  # px, at most
REACH = 16 + SWELLING  # steps that are looked at in each direction; a step is a pixel up to 1920 px of width
STEP = 0.04  # share of depth that an edge changes by
GAP = 0.02  # share of the image's width that may be without depth at an edge: the shadow of a stereo camera
LINES = 240  # rows and columns that are searched for edges
SAMPLES = 400  # edges used per direction and look
FLAT = 12.0  # grey levels; an edge of depth with less contrast in all the reach says nothing
ENOUGH = 150.0  # edges, for a judgement
FADE = 0.7  # weight of what was seen, with every new look
SMOOTH = 1.3  # steps, standard deviation
CLEAR = 1.3  # the summit over the median of the map, to be one
VAGUE = 1.2  # around zero over the median of the map: less is no agreement
TOLERATED = 3.4  # px up to 1280 px of width, then in proportion; recorded frames lie up to three beside color
SETTLED = 3.0  # likewise; a warning ends below
LOOKS = 3  # in a row that decide
NEAR, FAR = 3.0, 8.0  # steps around zero; a summit beyond the second is not looked for by going uphill
KEPT = 0.6  # share of the highest summit, that the one uphill from zero has
LOST = 0.5  # share of the highest summit; less around zero, and the highest counts


class AlignmentCheck:
    """Looks at frames, e.g. one a second, and says what is wrong. Not thread-safe."""

    def __init__(self) -> None:
        self.problem = ""  # in one line; empty while depth seems aligned, or nothing can be said
        self._forget((0, 0))

    def _forget(self, size: tuple[int, int]) -> None:
        self._size = size
        self._maps: NDArray[np.float32] = np.zeros((4, 2 * REACH + 1, 2 * REACH + 1), np.float32)
        self._edges = 0.0
        self._streak = 0
        self.problem = ""

    def look(self, frame: Frame) -> None:
        """Takes a frame with depth into account."""
        if frame.depth is None:
            return
        if self._size != frame.depth.shape:
            self._forget(frame.depth.shape)
        height, width = frame.depth.shape
        unit = max(1, round(width / 1280))
        across, down = _depth_edges(frame.depth, max(1, height // LINES), STEP, max(2, round(GAP * width)))
        green = np.ascontiguousarray(frame.color[:, :, 1])
        seen, count = _edge_maps(green, across, down, unit, REACH, SAMPLES, np.float32(FLAT))
        self._maps = FADE * self._maps + seen
        self._edges = FADE * self._edges + count
        if count == 0 or self._edges < ENOUGH:
            return
        shift = find_shift(self._maps / self._edges)
        away = float("inf") if shift is None else float(np.hypot(*shift)) * unit
        limit = (SETTLED if self.problem else TOLERATED) * max(1.0, width / 1280)
        self._streak = self._streak + 1 if away >= limit else 0
        if self._streak == 0:
            self.problem = ""
        elif self.problem or self._streak >= LOOKS:
            self.problem = _in_words(shift, unit)


def find_shift(maps: NDArray[np.float32]) -> tuple[float, float] | None:
    """How far depth lies to the right of and below color, steps. `maps` (4, 2 R + 1, 2 R + 1): strength of color edges
    by y and x around depth edges whose nearer side faces right, left, down, up. None where they agree nowhere."""
    blurred = [cv2.GaussianBlur(_laid_together(maps, swelling), (0, 0), SMOOTH) for swelling in range(SWELLING + 1)]
    reach = len(blurred[0]) // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    distance = np.hypot(x, y)
    uphill = [(heights, _uphill(heights, (reach, reach))) for heights in blurred]
    near = [(heights, summit) for heights, summit in uphill if distance[summit] <= FAR]
    if near:
        smooth, summit = max(near, key=lambda pair: float(pair[0][pair[1]]))
    else:
        smooth, summit = max(blurred, key=lambda heights: float(heights.max())), (reach, reach)
    base, top = float(np.median(smooth)), float(smooth.max())
    around = float(smooth[distance <= NEAR].max())
    if top < CLEAR * base:
        if around < VAGUE * base:
            return None
    elif smooth[summit] - base < KEPT * (top - base) and around - base < LOST * (top - base):
        row, column = np.unravel_index(np.argmax(smooth), smooth.shape)
        summit = int(row), int(column)
    row, column = _refined(smooth, summit)
    return reach - column, reach - row


def _laid_together(maps: NDArray[np.float32], swelling: int) -> NDArray[np.float32]:
    """The sum of the four maps, those of the two sides moved by as much as the nearer surface swells."""
    inner, total = maps.shape[1] - 2 * SWELLING, 0.0
    for heights, side in zip(maps, (1, -1, 0, 0), strict=True):
        column = SWELLING - side * swelling
        total = total + heights[SWELLING : SWELLING + inner, column : column + inner]
    return total


def _uphill(heights: NDArray[np.float32], start: tuple[int, int]) -> tuple[int, int]:
    """The summit that is reached from there by going up steepest."""
    y, x = start
    while True:
        y0, x0 = max(0, y - 1), max(0, x - 1)
        around = heights[y0 : y + 2, x0 : x + 2]
        dy, dx = np.unravel_index(np.argmax(around), around.shape)
        if heights[y0 + dy, x0 + dx] <= heights[y, x]:
            return y, x
        y, x = y0 + int(dy), x0 + int(dx)


def _refined(heights: NDArray[np.float32], summit: tuple[int, int]) -> tuple[float, float]:
    """The summit between the steps, by parabolas."""
    out = []
    for axis, at in enumerate(summit):
        line = heights[:, summit[1]] if axis == 0 else heights[summit[0]]
        if 0 < at < len(line) - 1:
            low, mid, high = (float(v) for v in line[at - 1 : at + 2])
            bend = low - 2 * mid + high
            out.append(at + (float(np.clip(0.5 * (low - high) / bend, -0.5, 0.5)) if bend < 0 else 0.0))
        else:
            out.append(float(at))
    return out[0], out[1]


def _in_words(shift: tuple[float, float] | None, unit: int) -> str:
    causes = "check the driver's registration, the extrinsic, and the stamps of a moving camera"
    if shift is None:
        return f"edges of depth and color agree nowhere within {(REACH - SWELLING) * unit} px: {causes}"
    x, y = shift[0] * unit, shift[1] * unit
    return f"depth lies {np.hypot(x, y):.0f} px beside color (x {x:+.1f}, y {y:+.1f}): {causes}"


@njit(cache=True, nogil=True)
def _depth_edges(depth, stride, step, gap):  # type: ignore[no-untyped-def]
    """Last pixels x, y before steps of depth along some rows, and along some columns, and whether the nearer surface is
    after the step, (N, 3) each. A step is where the nearer surface ends, also when depth is missing beyond."""
    height, width = depth.shape
    across = np.empty(((height // stride + 1) * 32, 3), np.int32)
    down = np.empty(((width // stride + 1) * 32, 3), np.int32)
    n = 0
    for y in range(0, height, stride):
        last = -1
        for x in range(width):
            z = depth[y, x]
            if not (z > 0 and z < np.inf):
                continue
            if last >= 0 and x - last <= gap and n < len(across):
                before = depth[y, last]
                if abs(z - before) > step * min(z, before):
                    across[n, 0], across[n, 1], across[n, 2] = (last if before < z else x - 1), y, z < before
                    n += 1
            last = x
    m = 0
    seen = np.full(width, -1, np.int32)
    for y in range(height):
        for x in range(0, width, stride):
            z = depth[y, x]
            if not (z > 0 and z < np.inf):
                continue
            last = seen[x]
            if last >= 0 and y - last <= gap and m < len(down):
                before = depth[last, x]
                if abs(z - before) > step * min(z, before):
                    down[m, 0], down[m, 1], down[m, 2] = x, (last if before < z else y - 1), z < before
                    m += 1
            seen[x] = y
    return across[:n], down[:m]


@njit(cache=True, nogil=True)
def _edge_maps(image, across, down, unit, reach, samples, flat):  # type: ignore[no-untyped-def]
    """Sums over edges of the image's contrast in their direction by y and x around them, each edge's divided by its own
    mean: (4, 2 reach + 1, 2 reach + 1), by where the nearer surface faces. And how many edges had any contrast."""
    height, width = image.shape
    size = 2 * reach + 1
    total, patch = np.zeros((4, size, size), np.float32), np.empty((size, size), np.float32)
    count = 0
    margin = (reach + 1) * unit + 2
    for direction in range(2):
        edges = across if direction == 0 else down
        du, dv = (unit, 0) if direction == 0 else (0, unit)
        every = max(1, len(edges) // samples)
        for e in range(0, len(edges), every):
            x, y = edges[e, 0], edges[e, 1]
            if x < margin or y < margin or x >= width - margin or y >= height - margin:
                continue
            mean, most = np.float32(0.0), np.float32(0.0)
            for i in range(size):
                v = y + (i - reach) * unit
                for j in range(size):
                    u = x + (j - reach) * unit
                    a, b = np.float32(image[v - dv, u - du]), np.float32(image[v, u])
                    c, d = np.float32(image[v + dv, u + du]), np.float32(image[v + 2 * dv, u + 2 * du])
                    contrast = np.float32(0.5) * abs(c - b) + np.float32(0.25) * (abs(c - a) + abs(d - b))
                    patch[i, j] = contrast
                    mean += contrast
                    most = max(most, contrast)
            if most < flat:
                continue
            total[2 * direction + edges[e, 2]] += patch / (mean / np.float32(size * size) + np.float32(4.0))
            count += 1
    return total, count
