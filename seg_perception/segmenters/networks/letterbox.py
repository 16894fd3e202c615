# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Letterbox: an image scaled into a network's input with its proportions kept, gray around it, and the way back.

Coordinates are pixel edges: pixel i covers i..i+1, its centre is i + 0.5. The scaled image has whole pixels, so each
axis has a scale of its own, `scaled / image`, and the way back divides by exactly that. An odd padding puts the smaller
half first, as `round(padding / 2 - 0.1)` does (the rule of Ultralytics' exporters and predictors).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

GRAY = 114  # what the networks were trained with around an image


@dataclass(frozen=True)
class Letterbox:
    """Where an image of `height` x `width` lies in a network input of `net_height` x `net_width`, all px."""

    height: int
    width: int
    net_height: int
    net_width: int
    top: int
    left: int
    scaled_height: int
    scaled_width: int

    @classmethod
    def fit(cls, image: tuple[int, int], net: tuple[int, int], multiple: int = 0) -> Letterbox:
        """The largest fit of `image` (height, width) into `net` (height, width), centred.

        With `multiple`, for networks of free size, `net` shrinks to the smallest multiple of it around the image.
        """
        (height, width), (net_height, net_width) = image, net
        scale = min(net_height / height, net_width / width)
        scaled_height, scaled_width = max(round(height * scale), 1), max(round(width * scale), 1)
        pad_y, pad_x = net_height - scaled_height, net_width - scaled_width
        if multiple:
            pad_y, pad_x = pad_y % multiple, pad_x % multiple
        return cls(
            height,
            width,
            scaled_height + pad_y,
            scaled_width + pad_x,
            round(pad_y / 2 - 0.1),
            round(pad_x / 2 - 0.1),
            scaled_height,
            scaled_width,
        )

    def blank(self) -> NDArray[np.float32]:
        """A network input (1, 3, net_height, net_width) that is gray all over."""
        return np.full((1, 3, self.net_height, self.net_width), np.float32(GRAY / 255), np.float32)

    def write(self, color: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        """Puts `color` (height, width, 3), scaled, in 0..1 and in the same channel order, into `out`, a `blank`."""
        size = (self.scaled_width, self.scaled_height)
        scaled = color if color.shape[1::-1] == size else cv2.resize(color, size, interpolation=cv2.INTER_LINEAR)
        _planes(scaled, out[0], self.top, self.left)

    def to_image(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (N, 4) `x_min, y_min, x_max, y_max` from network pixels to image pixels, cut at the image's edge."""
        offset, scale, limit = self._edges
        return np.minimum(np.maximum((boxes - offset) / scale, np.float32(0)), limit)

    @cached_property
    def _edges(self) -> tuple[NDArray[np.float32], ...]:
        """For the four edges of a box where the image begins in the input, its scale, and where it ends."""
        scale = (self.scaled_width / self.width, self.scaled_height / self.height)
        pairs = ((self.left, self.top), scale, (self.width, self.height))
        return tuple(np.array(pair * 2, np.float32) for pair in pairs)


@njit(cache=True, nogil=True)
def _planes(image, out, top, left):  # type: ignore[no-untyped-def]
    height, width = image.shape[:2]
    scale = np.float32(255)
    for y in range(height):
        for c in range(3):
            row = out[c, top + y]
            for x in range(width):
                row[left + x] = image[y, x, c] / scale
