# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`tiled`: another segmenter on overlapping tiles of the image, for objects that are small in it.

What the tiles saw of one object is put together: two tiles share a strip, and where their masks agree in it they are
of one object. A run over the whole image can be added for objects larger than a tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from seg_perception.masks import Masks
from seg_perception.options import Selected, adapted, option, plugin
from seg_perception.plugins import Segmenter
from seg_perception.scene import Frame, Instances
from seg_perception.segmenters.decoding.seams import Seen, merged


@dataclass(frozen=True)
class TiledConfig:
    """Which segmenter, on which tiles, and when two of them saw the same object."""

    segmenter: Selected = plugin("segmenters", "yolo", "the segmenter that sees the tiles")
    tile_width: int = option(640, "best the width of the network's input", unit="px", ge=32, le=8192, live=True)
    tile_height: int = option(640, "best the height of the network's input", unit="px", ge=32, le=8192, live=True)
    overlap: float = option(
        0.25,
        "share of a tile that its neighbour sees too, at least; wider than a small object",
        ge=0,
        le=0.8,
        live=True,
    )
    whole_image: bool = option(True, "the whole image as well, for objects larger than a tile", live=True)
    same_object: float = option(
        0.5,
        "two masks of a class whose IoU, where both could be seen, is higher are of one object",
        ge=0,
        le=1,
        live=True,
    )


class Tile(NamedTuple):
    """A part of the image, px."""

    top: int
    left: int
    height: int
    width: int


class Tiled:
    """Instances of another segmenter that looks at tiles of the image, each at full resolution.

    The best score of an object's parts is its score. Raises ConfigError for what that segmenter refuses.
    """

    Config = TiledConfig

    def __init__(self, config: TiledConfig) -> None:
        self._bind(config, config.segmenter.create())

    def _bind(self, config: TiledConfig, segmenter: Any) -> None:
        self._config = config
        self._segmenter: Segmenter = segmenter
        # Of its own, so that buffers for one image size are not thrown away twice a frame; the network is the same.
        self._whole: Segmenter = segmenter
        if hasattr(segmenter, "with_config"):
            self._whole = segmenter.with_config(config.segmenter.config)
        self.model = getattr(segmenter, "model", "")

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._segmenter.class_names

    def with_config(self, config: TiledConfig) -> Tiled:
        """The same network with other tiles or thresholds. Raises ConfigError when the network itself would change."""
        other = object.__new__(Tiled)
        other._bind(config, adapted(self._segmenter, self._config.segmenter, config.segmenter, "segmenter"))
        return other

    def warm_up(self) -> None:
        """Runs the network once and compiles the decoder."""
        for segmenter in {id(s): s for s in (self._segmenter, self._whole)}.values():
            if hasattr(segmenter, "warm_up"):
                segmenter.warm_up()
        half = Masks.from_dense(np.ones((1, 4, 4), np.bool_))
        merged([Seen(Instances.of(half), (0, 0, 4, 4), whole) for whole in (False, False, True)], 0.5)

    def reset(self) -> None:
        """Forgets what the segmenter remembers."""
        for segmenter in (self._segmenter, self._whole):
            if hasattr(segmenter, "reset"):
                segmenter.reset()

    def segment(self, frame: Frame) -> Instances:
        config = self._config
        tiles = tiles_of((frame.height, frame.width), (config.tile_height, config.tile_width), config.overlap)
        if len(tiles) == 1:
            return self._whole.segment(frame)
        seen = [self._see(frame, tile) for tile in tiles]
        if config.whole_image:
            found = self._whole.segment(frame)
            seen.append(Seen(found, (0, 0, frame.height, frame.width), True))
        return merged(seen, config.same_object)

    def _see(self, frame: Frame, tile: Tile) -> Seen:
        found = self._segmenter.segment(part_of(frame, tile))
        shift = np.array([tile.top, tile.left, tile.left], np.int32)
        masks = Masks(frame.height, frame.width, found.masks.spans + shift, found.masks.offsets)
        boxes = found.boxes + np.array([tile.left, tile.top] * 2, np.float32)
        rows = (found.scores, found.class_ids, found.class_names, boxes)
        return Seen(Instances.of(masks, *rows, mask_scores=found.mask_scores), tile, False)


def tiles_of(image: tuple[int, int], tile: tuple[int, int], overlap: float) -> list[Tile]:
    """Tiles of (height, width) px that cover the image, evenly spread, as few as `overlap` allows."""
    (tops, height), (lefts, width) = (_starts(*sizes, overlap) for sizes in zip(image, tile, strict=True))
    return [Tile(top, left, height, width) for top in tops for left in lefts]


def part_of(frame: Frame, tile: Tile) -> Frame:
    """The frame as a camera would see it whose image is the tile."""
    rows, columns = slice(tile.top, tile.top + tile.height), slice(tile.left, tile.left + tile.width)
    own = frame.intrinsics
    if own is not None:
        own = replace(own, width=tile.width, height=tile.height, cx=own.cx - tile.left, cy=own.cy - tile.top)
    depth, ignore = (
        None if image is None else np.ascontiguousarray(image[rows, columns]) for image in (frame.depth, frame.ignore)
    )
    return replace(frame, color=frame.color[rows, columns], depth=depth, ignore=ignore, intrinsics=own)


def _starts(length: int, tile: int, overlap: float) -> tuple[Sequence[int], int]:
    if tile >= length:
        return (0,), length
    most = max(tile - int(np.ceil(overlap * tile)), 1)  # from one start to the next
    count = 1 + -(-(length - tile) // most)
    return [round(i * (length - tile) / (count - 1)) for i in range(count)], tile
