# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How a color image becomes a network's input: placed, in the channel order and the range that it was trained with."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.options import ConfigError, option
from seg_perception.segmenters.networks.letterbox import Letterbox


@dataclass(frozen=True)
class Preprocessing:
    """Values are `(pixel / 255 * white - mean) / std`, scaled bilinearly before that."""

    resize: str = option(
        "stretch",
        "stretch: to the input's size; letterbox: in proportion, in the middle; longest_side: in proportion, top left",
        choices=("stretch", "letterbox", "longest_side"),
    )
    color: str = option("rgb", "order of the channels", choices=("rgb", "bgr"))
    white: float = option(1.0, "value of white before mean and std: 1 or 255", ge=0)
    mean: tuple[float, ...] = option((0.0, 0.0, 0.0), "taken off, one number per channel in the order of `color`")
    std: tuple[float, ...] = option((1.0, 1.0, 1.0), "divided by, one number per channel in the order of `color`")
    rounding: str = option(
        "nearest",
        "of the scaled size, for longest_side; transformers: the short side to the nearest, the long side as its image "
        "processors with a shortest and a longest edge have it, sometimes 1 px less than the input",
        choices=("nearest", "transformers"),
    )
    padding: float = option(-1.0, "gray around the image, 0 to 255; -1 = zero in the network's input", ge=-1, le=255)

    def __post_init__(self) -> None:
        for key in ("mean", "std"):
            if len(getattr(self, key)) != 3:
                raise ConfigError(f"{key}: expected 3 numbers, one per channel, got {list(getattr(self, key))}")
        if 0 in self.std:
            raise ConfigError(f"std: expected numbers other than 0, got {list(self.std)}")

    def place(self, image: tuple[int, int], net: tuple[int, int]) -> Letterbox:
        """Where an image of (height, width) lies in an input of (height, width)."""
        if self.resize == "stretch":
            return Letterbox(*image, *net, 0, 0, *net)
        if self.resize == "longest_side" and self.rounding == "transformers":
            return Letterbox(*image, *net, 0, 0, *_size_between_edges(image, net))
        box = Letterbox.fit(image, net)
        if self.resize == "letterbox":
            return box
        return Letterbox(*image, *net, 0, 0, box.scaled_height, box.scaled_width)

    def values(self) -> NDArray[np.float32]:
        """(3, 256) float32: the network's value of each level of each of its channels."""
        levels = np.arange(256, dtype=np.float64)[None] / 255 * self.white
        return ((levels - np.array(self.mean)[:, None]) / np.array(self.std)[:, None]).astype(np.float32)


def _size_between_edges(image: tuple[int, int], net: tuple[int, int]) -> tuple[int, int]:
    """Height and width that transformers' `get_size_with_aspect_ratio` has for a shortest edge of net's height and a
    longest edge of its width: the long side comes from the exact short one, cut to whole pixels, and float64 cuts."""
    short, long = min(image), max(image)
    exact: float = net[0]
    if long / short * net[0] > net[1]:
        exact = net[1] * float(short) / long
    scaled = (round(exact), int(exact * long / short))
    if scaled[0] == short:
        scaled = (short, long)  # it is left as it is
    height, width = scaled if image[0] <= image[1] else scaled[::-1]
    return max(min(height, net[0]), 1), max(min(width, net[1]), 1)


IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class InputWriter:
    """Writes color images into the network's input; keeps the tensor until the image's size changes."""

    def __init__(self, preprocessing: Preprocessing, net: tuple[int, int]) -> None:
        self._preprocessing = preprocessing
        self._net = net
        self._values = preprocessing.values()
        self._place: Letterbox | None = None
        self._tensor = np.empty(0, np.float32)

    def write(self, color: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Letterbox]:
        """The input (1, 3, net height, net width), valid until the next call, and where the image lies in it."""
        place = self._place
        if place is None or (place.height, place.width) != color.shape[:2]:
            place = self._place = self._preprocessing.place((color.shape[0], color.shape[1]), self._net)
            self._tensor = np.zeros((1, 3, *self._net), np.float32)
            if self._preprocessing.padding >= 0:
                self._tensor[0] = self._values[:, round(self._preprocessing.padding)][:, None, None]
        size = (place.scaled_width, place.scaled_height)
        scaled = color if color.shape[1::-1] == size else cv2.resize(color, size, interpolation=cv2.INTER_LINEAR)
        first, step = (0, 1) if self._preprocessing.color == "rgb" else (2, -1)
        _planes(scaled, self._values, self._tensor[0], place.top, place.left, first, step)
        return self._tensor, place


@njit(cache=True, nogil=True)
def _planes(image, values, out, top, left, first, step):  # type: ignore[no-untyped-def]
    height, width = image.shape[:2]
    for y in range(height):
        for c in range(3):
            row = out[c, top + y]
            level = values[c]
            for x in range(width):
                row[left + x] = level[image[y, x, first + step * c]]
