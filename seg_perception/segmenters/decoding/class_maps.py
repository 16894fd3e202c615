# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Maps of one value per class over the network's input, seen at the image's size without an enlarged stack of them."""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.segmenters.decoding.enlarged import axis
from seg_perception.segmenters.decoding.map_masks import on_cells
from seg_perception.segmenters.decoding.winners import highest
from seg_perception.segmenters.networks.letterbox import Letterbox


def without_padding(maps: NDArray[np.float32], place: Letterbox) -> NDArray[np.float32]:
    """The image's part of `maps` (C, h, w) over the network's input; at the input's size if padding cuts a cell."""
    height, width = maps.shape[1:]
    if not on_cells((height, width), place):
        size = (place.net_width, place.net_height)
        maps = np.stack([cv2.resize(m, size, interpolation=cv2.INTER_LINEAR) for m in maps])
        height, width = size[::-1]
    top, left = place.top * height // place.net_height, place.left * width // place.net_width
    rows, columns = place.scaled_height * height // place.net_height, place.scaled_width * width // place.net_width
    return np.ascontiguousarray(maps[:, top : top + rows, left : left + columns], np.float32)


def strongest(maps: NDArray[np.float32], height: int, width: int, least: float = -np.inf) -> NDArray[np.int32]:
    """(height, width) the first class whose map, enlarged bilinearly, is highest; -1 where none is above `least`."""
    return highest(np.ascontiguousarray(maps, np.float32), np.ones(len(maps), np.float32), height, width, least)[0]


def mean_inside(maps: NDArray[np.float32], class_ids: NDArray[np.int32], masks: Masks) -> NDArray[np.float32]:
    """(N,) mean over each mask of its class's map, enlarged bilinearly to the masks' image; 0 for an empty mask."""
    return _mean_inside(maps, class_ids, masks.spans, masks.offsets, masks.height, masks.width)


@njit(cache=True, nogil=True)
def _mean_inside(maps, class_ids, spans, offsets, height, width):  # type: ignore[no-untyped-def]
    rows, columns = maps.shape[1:]
    y_knot, y_weight, _ = axis(rows, height)
    x_knot, x_weight, _ = axis(columns, width)
    out = np.zeros(len(class_ids), np.float32)
    for i in range(len(class_ids)):
        values = maps[class_ids[i]]
        total = 0.0
        count = 0
        for s in range(offsets[i], offsets[i + 1]):
            y = spans[s, 0]
            upper, lower = values[y_knot[y]], values[min(y_knot[y] + 1, rows - 1)]
            for x in range(spans[s, 1], spans[s, 2]):
                k, after = x_knot[x], min(x_knot[x] + 1, columns - 1)
                above = upper[k] * (np.float32(1) - x_weight[x]) + upper[after] * x_weight[x]
                below = lower[k] * (np.float32(1) - x_weight[x]) + lower[after] * x_weight[x]
                total += above * (np.float32(1) - y_weight[y]) + below * y_weight[y]
                count += 1
        if count:
            out[i] = total / count
    return out
