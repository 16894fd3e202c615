# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The ways in which exports of SAM-like networks take prompts and give masks.

| dialect | decoders | image in the encoder | reference post-processing |
|---|---|---|---|
| meta | SAM, MobileSAM as segment-anything 1.0 `SamOnnxModel` has them | longest side, top left | in that graph |
| hf | transformers `SamModel`, split | longest side, top left | `SamImageProcessor.post_process_masks` |
| sam2 | transformers `Sam2Model` (SAM 2, 2.1), split | stretched | `Sam2ImageProcessor`, the same method |
| efficientsam | EfficientSAM's own `export_to_onnx.py` | its own | in that graph: bilinear to the image's size, > 0 |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from seg_perception.plugins import Backend, TensorSpec
from seg_perception.segmenters.networks.letterbox import Letterbox
from seg_perception.segmenters.networks.preprocessing import IMAGENET, Preprocessing

Features = Mapping[str, NDArray]
BOX_LABELS = (2.0, 3.0)  # a box given as two points: its first and its last corner
NO_POINT = -1.0
ANY = 1 << 30
MOST_AT_ONCE = 16  # prompts in one run: on a CPU more gain nothing, and each may cost a mask of the image's size


@dataclass(frozen=True)
class Query:
    """Prompts of one shape, in pixels of the original image: `boxes` (N, 4) or None, `points` (N, P, 2), `labels`."""

    boxes: NDArray[np.float32] | None
    points: NDArray[np.float32]
    labels: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.points)

    def scaled(self, place: Letterbox) -> Query:
        """The same in pixels of the network's input."""
        scale = np.array([place.scaled_width / place.width, place.scaled_height / place.height], np.float32)
        boxes = None if self.boxes is None else self.boxes * np.tile(scale, 2)
        return Query(boxes, self.points * scale, self.labels)

    def as_points(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Points (N, P', 2) and labels (N, P') with the box as two points of their own labels."""
        if self.boxes is None:
            return self.points, self.labels
        corners = np.tile(np.float32(BOX_LABELS), (len(self), 1))
        points = np.concatenate([self.points, self.boxes.reshape(-1, 2, 2)], axis=1)
        return points, np.concatenate([self.labels, corners], axis=1)

    def __getitem__(self, rows: slice) -> Query:
        return Query(None if self.boxes is None else self.boxes[rows], self.points[rows], self.labels[rows])


@dataclass(frozen=True)
class Answer:
    """K proposals for each of N prompts: `maps` (N, K, h, w) logits over the network's input, `ious` (N, K) as the
    network predicts them, `presence` (N,) logit that there is an object at all."""

    maps: NDArray[np.float32]
    ious: NDArray[np.float32]
    presence: NDArray[np.float32]


class Dialect(ABC):
    """Speaks to one decoder. `boxes`: it takes boxes; `points`: the most points it takes (0 = none); `exactly`: how
    many prompts it must get in each run (0 = any number up to `at_once`)."""

    preprocessing = replace(IMAGENET, resize="longest_side")
    boxes = True
    points = ANY
    at_once = MOST_AT_ONCE
    exactly = 0
    raw_points = False  # prompts go in as they are, in pixels of the original image

    def __init__(self, decoder: Backend) -> None:
        self._decoder = decoder
        self._inputs = {spec.name: spec for spec in decoder.inputs}

    @abstractmethod
    def ask(self, features: Features, query: Query, place: Letterbox) -> Answer:
        """The decoder's answer to a query of at most `at_once` prompts in network pixels (or as `raw_points` says)."""

    def _take(self, name: str) -> None:
        count = self._inputs[name].shape[1]
        if count > 0:
            self.at_once = self.exactly = count


class Meta(Dialect):
    """One prompt in each run. The graph's own masks at the image's size are not needed: it is asked for tiny ones."""

    NEEDS = frozenset({"point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size"})
    at_once = 1

    def ask(self, features: Features, query: Query, place: Letterbox) -> Answer:
        points, labels = query.as_points()
        if query.boxes is None:
            points = np.concatenate([points, np.zeros((1, 1, 2), np.float32)], axis=1)
            labels = np.concatenate([labels, np.full((1, 1), NO_POINT, np.float32)], axis=1)
        outputs = self._decoder(
            {
                **features,
                "point_coords": points,
                "point_labels": labels,
                "mask_input": np.zeros(_ones(self._inputs["mask_input"]), np.float32),
                "has_mask_input": np.zeros(1, np.float32),
                "orig_im_size": np.array([8, 8], np.float32),
            }
        )
        return Answer(outputs["low_res_masks"], outputs["iou_predictions"], np.zeros(1, np.float32))


class HuggingFace(Dialect):
    """Boxes or points, whichever the graph was exported for; many prompts in each run."""

    def __init__(self, decoder: Backend) -> None:
        super().__init__(decoder)
        self.boxes = "input_boxes" in self._inputs
        self.points = 0
        if "input_points" in self._inputs:
            self.points = _limit(self._inputs["input_points"], 2)
        self._take("input_boxes" if self.boxes else "input_points")

    def ask(self, features: Features, query: Query, place: Letterbox) -> Answer:
        feed = dict(features)
        if query.boxes is not None:
            feed["input_boxes"] = query.boxes[None]
        if "input_points" in self._inputs:
            feed["input_points"] = query.points[None]
            feed["input_labels"] = query.labels[None].astype(self._inputs["input_labels"].dtype)
        outputs = self._decoder(feed)
        presence = outputs.get("object_score_logits")
        present = np.zeros(len(query), np.float32) if presence is None else presence.reshape(-1)
        return Answer(outputs["pred_masks"][0], outputs["iou_scores"][0], present)


class Sam2(HuggingFace):
    """The same, the image stretched. Where `object_score_logits` is below 0 there is no object."""

    preprocessing: Preprocessing = IMAGENET


class EfficientSam(Dialect):
    """Prompts and masks in pixels of the original image; the graph scales."""

    NEEDS = frozenset({"batched_point_coords", "batched_point_labels"})
    preprocessing = Preprocessing()
    raw_points = True

    def __init__(self, decoder: Backend) -> None:
        super().__init__(decoder)
        self.points = _limit(self._inputs["batched_point_coords"], 2)
        self.boxes = self.points >= 2
        self._take("batched_point_coords")

    def ask(self, features: Features, query: Query, place: Letterbox) -> Answer:
        points, labels = query.as_points()
        feed = {**features, "batched_point_coords": points[None], "batched_point_labels": labels[None]}
        if "orig_im_size" in self._inputs:
            feed["orig_im_size"] = np.array([place.height, place.width], np.int64)
        outputs = self._decoder(feed)
        return Answer(outputs["output_masks"][0], outputs["iou_predictions"][0], np.zeros(len(query), np.float32))


DIALECTS: Mapping[str, type[Dialect]] = {"meta": Meta, "hf": HuggingFace, "sam2": Sam2, "efficientsam": EfficientSam}


def recognise(decoder: Backend) -> str:
    """The dialect of a decoder's names, empty if none fits."""
    inputs = {spec.name for spec in decoder.inputs}
    outputs = {spec.name for spec in decoder.outputs}
    if inputs >= Meta.NEEDS and {"iou_predictions", "low_res_masks"} <= outputs:
        return "meta"
    if inputs >= EfficientSam.NEEDS and {"output_masks", "iou_predictions"} <= outputs:
        return "efficientsam"
    if {"iou_scores", "pred_masks"} <= outputs and inputs & {"input_boxes", "input_points"}:
        return "sam2" if "object_score_logits" in outputs else "hf"
    return ""


def _limit(spec: TensorSpec, axis: int) -> int:
    return ANY if spec.shape[axis] < 0 else spec.shape[axis]


def _ones(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(max(n, 1) for n in spec.shape)
