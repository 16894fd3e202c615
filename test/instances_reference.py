# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Masks of networks that put out instances, the plain, dense way: what the product must be equal to.

Independent of the product's code. `rounded` follows torchvision 0.28 `paste_masks_in_image`, `exact` follows
`grid_sample` with zeros outside, as in detectron2's `_do_paste_mask`. Both take masks (N, h, w) and boxes (N, 4) in
image pixels and give (N, *shape) bool.
"""

import cv2
import numpy as np
from scipy.ndimage import map_coordinates


def rounded(masks, boxes, shape):
    out = np.zeros((len(masks), *shape), bool)
    for canvas, mask, box in zip(out, masks, boxes, strict=True):
        cells = mask.shape[0]
        ringed = np.pad(mask, 1)
        half = (box[2:] - box[:2]) * np.float32(0.5) * np.float32((cells + 2) / cells)
        middle = (box[2:] + box[:2]) * np.float32(0.5)
        (x0, y0), (x1, y1) = np.trunc(middle - half).astype(int), np.trunc(middle + half).astype(int)
        width, height = max(x1 - x0 + 1, 1), max(y1 - y0 + 1, 1)
        large = cv2.resize(ringed, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
        top, left = max(y0, 0), max(x0, 0)
        bottom, right = min(y0 + height, shape[0]), min(x0 + width, shape[1])
        if top < bottom and left < right:
            canvas[top:bottom, left:right] = large[top - y0 : bottom - y0, left - x0 : right - x0]
    return out


def exact(masks, boxes, shape):
    out = np.zeros((len(masks), *shape), bool)
    for canvas, mask, (x0, y0, x1, y1) in zip(out, masks, boxes.astype(np.float64), strict=True):
        y = (np.arange(shape[0]) + 0.5 - y0) / (y1 - y0) * mask.shape[0] - 0.5
        x = (np.arange(shape[1]) + 0.5 - x0) / (x1 - x0) * mask.shape[1] - 0.5
        ringed = np.pad(mask.astype(np.float64), 2)  # zeros outside: the sampler itself would cut a cell earlier
        where = np.meshgrid(y + 2, x + 2, indexing="ij")
        canvas[:] = map_coordinates(ringed, where, order=1, mode="constant", cval=0.0) > 0.5
    return out


def over_input(masks, place, shape):
    """Masks over the network's input: padding off, enlarged to the image, above 0.5."""
    rows, columns = (
        slice(place.top, place.top + place.scaled_height),
        slice(place.left, place.left + place.scaled_width),
    )
    inside = [np.ascontiguousarray(mask.astype(np.float32)[rows, columns]) for mask in masks]
    large = [cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5 for mask in inside]
    return np.array(large).reshape(-1, *shape)
