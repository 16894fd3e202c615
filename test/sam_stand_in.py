# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a promptable network whose answer a test can predict: an object is what has the prompt's color.

The "embedding" is the image itself at a quarter of the input's size; a map is above 0 where the color is that of the
prompt's point, or of its box's centre. Backends, one per contract, and a detector that finds what it is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from seg_perception.masks import Masks
from seg_perception.options import option
from seg_perception.plugins import TensorSpec
from seg_perception.scene import Frame, Instances, Plane

NET, LOW = 64, 16


def spec(name, *shape, dtype=np.float32):
    return TensorSpec(name, shape, np.dtype(dtype))


@dataclass(frozen=True)
class StandInConfig:
    """A stand-in needs no file, but segmenters name one."""

    model: str = option("", "not read")


class Encoder:
    """(1, 3, 64, 64) -> its mean over 4x4 px."""

    Config = StandInConfig
    runs: ClassVar[list] = []

    def __init__(self, config=None):
        self.inputs = (spec("pixel_values", 1, 3, NET, NET),)
        self.outputs = (spec("image_embeddings", 1, 3, LOW, LOW),)
        self.metadata = {}

    def __call__(self, inputs):
        self.runs.append(1)
        (image,) = inputs.values()
        return {"image_embeddings": image.reshape(1, 3, LOW, NET // LOW, LOW, NET // LOW).mean(axis=(3, 5))}


def answer(embedding, points, labels):
    """Logits (LOW, LOW) in -0.5..0.5 for points (P, 2) in the input's pixels."""
    places = points[labels == 1]
    if len(places) == 0:
        places = points[labels >= 2].mean(axis=0, keepdims=True)
    cells = np.clip(places * LOW / NET, 0, LOW - 1).astype(int)
    colors = embedding[0][:, cells[:, 1], cells[:, 0]]  # (3, P)
    distance = np.abs(embedding[0][:, :, :, None] - colors[:, None, None]).sum(axis=0).min(axis=-1)
    return np.maximum(0.5 - distance, -0.5).astype(np.float32)  # as far above 0 as below: edges between two cells


class MetaDecoder:
    """The contract of segment-anything's `SamOnnxModel`; four proposals, all the same but for a constant."""

    Config = StandInConfig
    feeds: ClassVar[list] = []
    ious = np.float32([0.5, 0.6, 0.95, 0.7])

    def __init__(self, config=None):
        self.inputs = (
            spec("image_embeddings", 1, 3, LOW, LOW),
            spec("point_coords", 1, -1, 2),
            spec("point_labels", 1, -1),
            spec("mask_input", 1, 1, LOW, LOW),
            spec("has_mask_input", 1),
            spec("orig_im_size", 2),
        )
        self.outputs = (
            spec("masks", -1, -1, -1, -1),
            spec("iou_predictions", -1, 4),
            spec("low_res_masks", -1, 4, -1, -1),
        )
        self.metadata = {}

    def __call__(self, inputs):
        self.feeds.append(inputs)
        logits = answer(inputs["image_embeddings"], inputs["point_coords"][0], inputs["point_labels"][0])
        low = np.stack([logits + 0.02 * k for k in range(4)])[None]
        return {"masks": low, "iou_predictions": self.ious[None], "low_res_masks": low}


class HuggingFaceDecoder:
    """The contract of a split `SamModel` with boxes, three prompts at once and no other number."""

    Config = StandInConfig
    feeds: ClassVar[list] = []

    def __init__(self, config=None):
        self.inputs = (spec("image_embeddings", 1, 3, LOW, LOW), spec("input_boxes", 1, 3, 4))
        self.outputs = (spec("iou_scores", 1, -1, 1), spec("pred_masks", 1, -1, 1, LOW, LOW))
        self.metadata = {}

    def __call__(self, inputs):
        self.feeds.append(inputs)
        maps = [
            answer(inputs["image_embeddings"], box.reshape(2, 2), np.float32([2, 3]))
            for box in inputs["input_boxes"][0]
        ]
        return {"pred_masks": np.stack(maps)[None, :, None], "iou_scores": np.full((1, len(maps), 1), 0.9, np.float32)}


class EfficientSamDecoder:
    """The contract of EfficientSAM's export: prompts and masks in the original image's pixels, a disc at each point."""

    Config = StandInConfig
    feeds: ClassVar[list] = []

    def __init__(self, config=None):
        self.inputs = (
            spec("image_embeddings", 1, 3, LOW, LOW),
            spec("batched_point_coords", 1, -1, -1, 2),
            spec("batched_point_labels", 1, -1, -1),
            spec("orig_im_size", 2, dtype=np.int64),
        )
        self.outputs = (spec("output_masks", 1, -1, 3, -1, -1), spec("iou_predictions", 1, -1, 3))
        self.metadata = {}

    def __call__(self, inputs):
        self.feeds.append(inputs)
        height, width = inputs["orig_im_size"]
        y, x = np.mgrid[:height, :width]
        centers = inputs["batched_point_coords"][0].mean(axis=1)
        radii = (5, 10, 20)
        maps = [[r - np.hypot(x - cx, y - cy) for r in radii] for cx, cy in centers]
        ious = np.tile(np.float32([0.6, 0.9, 0.3]), (len(centers), 1))
        return {"output_masks": np.float32(maps)[None], "iou_predictions": ious[None]}


@dataclass(frozen=True)
class DetectorConfig:
    """What is said to be found."""

    boxes: tuple[float, ...] = option((), "x_min, y_min, x_max, y_max of each", unit="px", live=True)
    masks: bool = option(True, "each box is a mask; else only a box", live=True)


class Detector:
    """Finds its boxes: alternately a nut and a bolt, each with a lower score than the one before, on one support."""

    Config = DetectorConfig
    class_names = ("bolt", "nut")

    def __init__(self, config):
        self.config = config

    def with_config(self, config):
        return Detector(config)

    def segment(self, frame: Frame) -> Instances:
        boxes = np.array(self.config.boxes, np.float32).reshape(-1, 4)
        n = len(boxes)
        masks = Masks.empty(frame.height, frame.width, n)
        if self.config.masks:
            dense = np.zeros((n, frame.height, frame.width), bool)
            for mask, (x0, y0, x1, y1) in zip(dense, boxes.astype(int), strict=True):
                mask[y0:y1, x0:x1] = True
            masks = Masks.from_dense(dense)
        ids = (np.arange(n) + 1) % 2
        return Instances.of(
            masks, 0.9 - 0.1 * np.arange(n), ids, [self.class_names[i] for i in ids], boxes,
            supports=(Plane(np.array([0.0, 0.0, -1.0]), 0.8),), support_ids=np.zeros(n, np.int32),
        )  # fmt: skip
