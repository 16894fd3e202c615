# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Instance masks as row spans: compact, ordered along memory, and cheap to turn into whatever a consumer wants.

A span is `(y, x_start, x_stop)`: the pixels `x_start <= x < x_stop` of row `y`. Fusion walks depth along spans; the
ROS message takes run lengths inside the tight box; COCO tools take column-major runs; RViz takes a label image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seg_perception import spans as kernels

MAX_LABEL = 65535  # a label image is 16UC1 and 0 means "no object"


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """N instance masks over one image of `height` x `width` pixels.

    `spans` is (S, 3) int32 rows `y, x_start, x_stop`; mask i owns `spans[offsets[i]:offsets[i + 1]]`, ordered by y,
    then x, never touching or overlapping within a mask. `offsets` is (N + 1,) int64. Masks may overlap each other.
    """

    height: int
    width: int
    spans: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.height < 0 or self.width < 0:
            raise ValueError(f"masks: expected a size >= 0, got {self.width}x{self.height}")
        if self.spans.ndim != 2 or self.spans.shape[1] != 3:
            raise ValueError(f"masks: expected spans of shape (S, 3), got {self.spans.shape}")
        if self.offsets.ndim != 1 or len(self.offsets) < 1 or self.offsets[-1] != len(self.spans):
            raise ValueError(f"masks: offsets must end at {len(self.spans)}, the number of spans")

    # -- birth ---------------------------------------------------------------------------------------------------

    @classmethod
    def empty(cls, height: int, width: int, count: int = 0) -> Masks:
        """`count` masks without a pixel."""
        return cls(height, width, np.empty((0, 3), np.int32), np.zeros(count + 1, np.int64))

    @classmethod
    def from_dense(cls, dense: ArrayLike) -> Masks:
        """Masks from an (N, H, W) stack; nonzero = object."""
        stack = np.asarray(dense)
        if stack.ndim != 3:
            raise ValueError(f"masks: expected shape (N, H, W), got {stack.shape}")
        stack = np.ascontiguousarray(stack.astype(bool, copy=False))
        return cls(stack.shape[1], stack.shape[2], *kernels.spans_of_dense(stack))

    @classmethod
    def from_crops(cls, height: int, width: int, crops: Sequence[NDArray], origins: ArrayLike) -> Masks:
        """Masks from per-instance crops: `crops[i]` (h, w) nonzero = object, its top left pixel at `origins[i]` = x, y.

        What hangs over the image's edge is cut off.
        """
        corners = np.asarray(origins, np.int64).reshape(-1, 2)
        if len(corners) != len(crops):
            raise ValueError(f"masks: {len(crops)} crops but {len(corners)} origins")
        parts = []
        for crop, (x0, y0) in zip(crops, corners, strict=True):
            top, left = max(0, -int(y0)), max(0, -int(x0))
            inside = np.asarray(crop)[top : max(top, height - int(y0)), left : max(left, width - int(x0))]
            spans, _ = kernels.spans_of_dense(np.ascontiguousarray(inside.astype(bool, copy=False))[None])
            parts.append(spans + np.array([y0 + top, x0 + left, x0 + left], np.int32))
        return cls.from_span_lists(height, width, parts)

    @classmethod
    def from_label_image(cls, labels: ArrayLike, count: int | None = None) -> Masks:
        """Masks from an (H, W) integer image: mask i holds the pixels of value i + 1; 0 = none.

        `count` fixes N (default: the largest value); larger values are refused.
        """
        image = np.ascontiguousarray(labels)
        if image.ndim != 2 or image.dtype.kind not in "iu":
            raise ValueError(f"label image: expected (H, W) integers, got {image.shape} {image.dtype}")
        largest = int(image.max(initial=0))
        count = largest if count is None else count
        if largest > count or int(image.min(initial=0)) < 0:
            raise ValueError(f"label image: expected values 0..{count}, got {image.min()}..{largest}")
        return cls(*image.shape, *kernels.spans_of_labels(image, count))

    @classmethod
    def from_span_lists(cls, height: int, width: int, parts: Iterable[NDArray]) -> Masks:
        """Masks from one (S_i, 3) span array each."""
        arrays = [np.asarray(part, np.int32).reshape(-1, 3) for part in parts]
        offsets = np.concatenate([[0], np.cumsum([len(a) for a in arrays], dtype=np.int64)]).astype(np.int64)
        spans = np.concatenate(arrays) if arrays else np.empty((0, 3), np.int32)
        return cls(height, width, spans, offsets)

    @classmethod
    def from_counts(cls, height: int, width: int, rois: ArrayLike, counts: Sequence[ArrayLike]) -> Masks:
        """Masks from run lengths inside regions of interest, as in `InstanceMask.msg`.

        `rois` (N, 4) px `x_offset, y_offset, width, height`; `counts[i]` row-major runs, alternately 0, 1, 0 ...,
        adding up to the ROI's area. Raises ValueError naming the mask that does not add up or leaves the image.
        """
        regions = np.asarray(rois, np.int64).reshape(-1, 4)
        if len(regions) != len(counts):
            raise ValueError(f"masks: {len(regions)} ROIs but {len(counts)} run-length lists")
        parts = []
        for i, ((x0, y0, w, h), raw) in enumerate(zip(regions.tolist(), counts, strict=True)):
            runs = np.asarray(raw, np.int64).reshape(-1)
            if min(x0, y0, w, h) < 0 or x0 + w > width or y0 + h > height:
                raise ValueError(f"mask {i}: ROI {w}x{h} at ({x0}, {y0}) leaves the {width}x{height} image")
            if int(runs.sum()) != w * h or (runs < 0).any():
                raise ValueError(f"mask {i}: run lengths add up to {int(runs.sum())}, expected {w}x{h} = {w * h}")
            parts.append(kernels.spans_of_runs(runs, x0, y0, w))
        return cls.from_span_lists(height, width, parts)

    # -- a sequence ----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Any) -> Masks:
        """The masks at `index`: an integer, a slice, a boolean or an integer array, in that order."""
        chosen = np.atleast_1d(np.arange(len(self))[index])
        return Masks(self.height, self.width, *kernels.chosen_masks(self.spans, self.offsets, chosen))

    def spans_of(self, i: int) -> NDArray[np.int32]:
        """Mask i's spans, (S_i, 3)."""
        return self.spans[self.offsets[i] : self.offsets[i + 1]]

    # -- what consumers want ---------------------------------------------------------------------------------------

    @property
    def areas(self) -> NDArray[np.int64]:
        """(N,) number of pixels of each mask."""
        return kernels.areas(self.spans, self.offsets)

    @property
    def rois(self) -> NDArray[np.int32]:
        """(N, 4) tight boxes px `x_offset, y_offset, width, height`; all zero for an empty mask."""
        return kernels.tight_rois(self.spans, self.offsets)

    @property
    def boxes(self) -> NDArray[np.float32]:
        """(N, 4) tight boxes px `x_min, y_min, x_max, y_max`, pixel edges (maximum exclusive)."""
        rois = self.rois
        return np.concatenate([rois[:, :2], rois[:, :2] + rois[:, 2:]], axis=1).astype(np.float32)

    def dense(self) -> NDArray[np.bool_]:
        """(N, H, W) stack, True = object. For users and tests: N full images of memory."""
        return kernels.paint_dense(self.spans, self.offsets, self.height, self.width)

    def crop(self, i: int, roi: Sequence[int] | None = None) -> NDArray[np.bool_]:
        """Mask i inside `roi` (x_offset, y_offset, width, height; default its tight box), (height, width)."""
        x0, y0, w, h = (int(v) for v in (self.rois[i] if roi is None else roi))
        return kernels.paint_crop(self.spans_of(i), x0, y0, w, h)

    def counts(self, i: int, roi: Sequence[int] | None = None) -> NDArray[np.uint32]:
        """Mask i's row-major run lengths inside its tight box, first run = background (may be 0); empty if no pixel.

        Pass row i of `rois` as `roi` when asking for many masks: computing it goes over the spans of all.
        """
        spans = self.spans_of(i)
        x0, y0, w, h = (int(v) for v in (self.rois[i] if roi is None else roi))
        return kernels.runs_of_spans(spans, x0, y0, w, h)

    def all_counts(self, rois: NDArray[np.int32]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """`counts` of all masks in one array, and (N + 1,) where each mask's begin; `rois` is the property."""
        return kernels.runs_of_all(self.spans, self.offsets, rois)

    def label_image(self, order: ArrayLike | None = None, out: NDArray[np.uint16] | None = None) -> NDArray[np.uint16]:
        """(H, W) uint16, i + 1 where mask i is, 0 = none. Painted in `order`, so the last one owns shared pixels; on
        `out` where it is given, else on zeros."""
        if len(self) > MAX_LABEL:
            raise ValueError(f"label image: {len(self)} masks do not fit into 16 bits")
        if out is not None and out.shape != (self.height, self.width):
            raise ValueError(f"label image: expected an image of {(self.height, self.width)}, got {out.shape}")
        sequence = np.arange(len(self)) if order is None else np.asarray(order, np.int64)
        image = np.zeros((self.height, self.width), np.uint16) if out is None else out
        kernels.paint_labels(self.spans, self.offsets, sequence, image)
        return image


def to_coco(masks: Masks) -> list[dict[str, Any]]:
    """Masks as COCO run-length encodings `{"size": [h, w], "counts": str}`: column-major, whole image, compressed.

    `pycocotools.mask.decode` reads them back.
    """
    return [
        {"size": [masks.height, masks.width], "counts": _pack_coco(_column_runs(dense))}
        for dense in (masks.crop(i, (0, 0, masks.width, masks.height)) for i in range(len(masks)))
    ]


def from_coco(encodings: Sequence[dict[str, Any]]) -> Masks:
    """Masks from COCO run-length encodings; `counts` compressed (str or bytes) or a plain list of run lengths."""
    if not encodings:
        raise ValueError("from_coco: expected at least one encoding (an empty list has no image size)")
    height, width = (int(v) for v in encodings[0]["size"])
    parts = []
    for i, encoding in enumerate(encodings):
        if [int(v) for v in encoding["size"]] != [height, width]:
            raise ValueError(f"mask {i}: size {encoding['size']}, expected [{height}, {width}] like the first")
        counts = encoding["counts"]
        runs = _unpack_coco(counts) if isinstance(counts, str | bytes) else np.asarray(counts, np.int64)
        if int(runs.sum()) != height * width or (runs < 0).any():
            raise ValueError(f"mask {i}: run lengths add up to {int(runs.sum())}, expected {height}x{width}")
        flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        dense = np.ascontiguousarray(flat.reshape(width, height).T)
        parts.append(kernels.spans_of_dense(dense[None])[0])
    return Masks.from_span_lists(height, width, parts)


def _column_runs(dense: NDArray[np.bool_]) -> NDArray[np.int64]:
    flat = dense.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat.astype(np.int8))) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    runs = np.diff(bounds)
    return np.concatenate([[0], runs]) if flat.size and flat[0] else runs


def _pack_coco(runs: NDArray[np.int64]) -> str:
    """COCO's text form: differences to the run two before, in 5-bit groups, low first, offset 48."""
    out = bytearray()
    for i, run in enumerate(runs.tolist()):
        value = run - int(runs[i - 2]) if i > 2 else run
        more = True
        while more:
            group = value & 0x1F
            value >>= 5
            more = value != -1 if group & 0x10 else value != 0
            out.append((group | (0x20 if more else 0)) + 48)
    return out.decode("ascii")


def _unpack_coco(text: str | bytes) -> NDArray[np.int64]:
    data = text.encode("ascii") if isinstance(text, str) else text
    runs: list[int] = []
    position = 0
    while position < len(data):
        value = shift = 0
        more = True
        while more:
            if position >= len(data):
                raise ValueError("COCO run lengths end in the middle of a number")
            group = data[position] - 48
            value |= (group & 0x1F) << shift
            more = bool(group & 0x20)
            position += 1
            shift += 5
        if group & 0x10:
            value |= -1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return np.array(runs, np.int64)
