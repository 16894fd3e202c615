# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`promptable`: SAM, SAM 2, MobileSAM and EfficientSAM, told where to look by a detector, by `tabletop`, or by points.

Any segmenter can be the detector: its boxes (and points inside its masks) are the prompts, its classes, supports and
scores stay with the objects, and the network draws the masks anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.options import ConfigError, Selected, option, plugin, section
from seg_perception.plugins import Segmenter
from seg_perception.scene import Frame, Instances
from seg_perception.segmenters.networks.ignore import ignored_share
from seg_perception.segmenters.networks.model_file import find_model, fingerprint, start_backend
from seg_perception.segmenters.networks.nms import nms
from seg_perception.segmenters.networks.sidecar import read_sidecar
from seg_perception.segmenters.sam.dialects import DIALECTS
from seg_perception.segmenters.sam.network import Embedding, PromptNetwork, Proposals
from seg_perception.segmenters.sam.prompts import Prompt, grid_prompts, prompts_of

EXPORT_HINT = "docs/models.md tells how to export SAM's encoder and decoder"


@dataclass(frozen=True)
class GridConfig:
    """Points all over the image, for all that can be told apart. Takes seconds: for requests, not for streams."""

    per_side: int = option(16, "points along each side", ge=1, le=64, live=True)
    min_iou: float = option(0.88, "proposals with a lower predicted IoU are dropped", ge=0, le=1, live=True)
    min_stability: float = option(
        0.95, "proposals whose area changes more between two cuts of the logits are dropped", ge=0, le=1, live=True
    )
    stability_offset: float = option(1.0, "how far these two cuts are from the mask's own", ge=0, live=True)
    nms: float = option(0.7, "of two boxes that overlap more, the better stays", ge=0, le=1, live=True)


@dataclass(frozen=True)
class PromptableConfig:
    """Which network, what prompts it, and what is made of its answers."""

    encoder: str = option("", "ONNX file of the image encoder, relative to the working directory or to models/")
    decoder: str = option("", "ONNX file of the mask decoder")
    dialect: str = option("auto", "contract of the decoder; auto = by its names", choices=("auto", *DIALECTS))
    prompts: str = option(
        "detector", "who prompts: the detector, the points or boxes below, or a grid",
        choices=("detector", "points", "grid"), live=True,
    )  # fmt: skip
    detector: Selected = plugin("segmenters", "tabletop", "the segmenter whose instances are the prompts")
    use_box: bool = option(True, "an instance's box is in its prompt, where the decoder takes boxes", live=True)
    inner_points: int = option(
        0, "points inside an instance's mask in its prompt; at least 1 without box", ge=0, le=8, live=True
    )
    points: tuple[float, ...] = option((), "x, y of each point of one object", unit="px", live=True)
    point_labels: tuple[int, ...] = option((), "1 = on it, 0 = not on it; empty = all on it", ge=0, le=1, live=True)
    box: tuple[float, ...] = option((), "x_min, y_min, x_max, y_max of one object", unit="px", live=True)
    grid: GridConfig = section(GridConfig, "the grid")
    proposal: str = option(
        "auto", "of several masks: auto = by the kind of prompt, single = the network's first, best = predicted IoU",
        choices=("auto", "single", "best"), live=True,
    )  # fmt: skip
    score: str = option(
        "detector", "an object's score: the detector's, the predicted mask IoU, or their product",
        choices=("detector", "mask", "product"), live=True,
    )  # fmt: skip
    min_mask_iou: float = option(0.0, "masks with a lower predicted IoU are dropped", ge=0, le=1, live=True)
    min_agreement: float = option(
        0.7, "least IoU of a mask with the detector's own mask, where that has one", ge=0, le=1, live=True
    )
    disagreement: str = option(
        "keep", "below that: keep the detector's mask, or drop the object", choices=("keep", "drop"), live=True
    )
    mask_level: float = option(0.0, "logit above which a pixel is in a mask", live=True)
    max_prompts: int = option(50, "prompts per image, best scores first", ge=1, le=1000, live=True)
    max_ignored: float = option(
        0.5, "an instance with more than this share of its mask in the ignore mask is dropped", ge=0, le=1, live=True
    )
    backend: Selected = plugin("backends", "onnxruntime", "the runtime of the encoder")
    decoder_backend: Selected = plugin("backends", "onnxruntime", "the runtime of the decoder")

    def __post_init__(self) -> None:
        if len(self.points) % 2:
            raise ValueError(f"points: expected pairs x, y, got {len(self.points)} numbers")
        if self.point_labels and len(self.point_labels) * 2 != len(self.points):
            raise ValueError(f"point_labels: expected {len(self.points) // 2}, got {len(self.point_labels)}")
        if len(self.box) not in (0, 4):
            raise ValueError(f"box: expected x_min, y_min, x_max, y_max, got {len(self.box)} numbers")
        if self.prompts == "points" and not (self.points or self.box):
            raise ValueError("prompts: points, but neither points nor box are given")


class Promptable:
    """Masks of a promptable network for whatever prompts it.

    Raises ConfigError: no such files, another contract, encoder and decoder of different networks.
    """

    Config = PromptableConfig
    class_names: tuple[str, ...]

    def __init__(self, config: PromptableConfig) -> None:
        encoder, decoder = (find_model(name, EXPORT_HINT) for name in (config.encoder, config.decoder))
        self.model = f"{fingerprint(encoder)}+{fingerprint(decoder)}"
        self.network = PromptNetwork(
            start_backend(config.backend, encoder, "backend", "encoder and decoder"),
            start_backend(config.decoder_backend, decoder, "decoder_backend", "encoder and decoder"),
            config.dialect,
            read_sidecar(encoder),
            f"{encoder.name} with {decoder.name}",
        )
        self._detector: Segmenter = config.detector.create()
        self._apply(config)

    def _apply(self, config: PromptableConfig) -> None:
        self._config = config
        self._seen: tuple[NDArray[np.uint8], Embedding] | None = None
        self.class_names = self._detector.class_names if config.prompts == "detector" else ("object",)
        if config.use_box and self.network.takes_boxes:
            return
        if config.prompts != "points" and self.network.takes_points < max(1, config.inner_points):
            raise ConfigError(f"use_box: {config.decoder} takes {self.network.takes_points} points: it needs the box")

    def with_config(self, config: PromptableConfig) -> Promptable:
        """The same networks with other options. Raises ConfigError when a network itself would change."""
        for key in fields(config):
            fixed = not key.metadata.get("live") and key.name not in ("detector", "grid")
            if fixed and getattr(config, key.name) != getattr(self._config, key.name):
                raise ConfigError(f"{key.name} cannot change while the model is loaded: configure the segmenter anew")
        other = object.__new__(Promptable)
        other.model, other.network, other._detector = self.model, self.network, self._detector
        if config.detector != self._config.detector:
            other._detector = _changed(self._detector, self._config.detector, config.detector)
        other._apply(config)
        return other

    def warm_up(self) -> None:
        """Runs detector, encoder and decoder once and compiles what is made of their answers."""
        size = (480, 640)
        frame = Frame(np.zeros((*size, 3), np.uint8), ignore=np.zeros(size, np.bool_))
        if hasattr(self._detector, "warm_up"):
            self._detector.warm_up()
        found = Instances.from_masks(np.ones((1, *size), np.bool_))
        self._ask_for(frame, found)

    def reset(self) -> None:
        """Forgets the last image and what the detector remembers."""
        self._seen = None
        if hasattr(self._detector, "reset"):
            self._detector.reset()

    # -- prompts by hand -----------------------------------------------------------------------------------------------

    def encode(self, color: NDArray[np.uint8]) -> Embedding:
        """What the encoder sees in `color` (H, W, 3); the embedding of the last image is kept, so asking again is free.

        An image counts as the last one when it is the same array.
        """
        if self._seen is None or self._seen[0] is not color:
            self._seen = color, self.network.encode(color)
        return self._seen[1]

    def decode(self, embedding: Embedding, prompts: Sequence[Prompt]) -> Instances:
        """One class-agnostic instance per prompt, in their order; its score is the predicted mask IoU.

        A prompt where the network sees nothing has an empty mask. Raises ValueError for a prompt that it cannot take.
        """
        proposals = self.network.decode(embedding, prompts, self._config.proposal)
        masks = proposals.masks(self._config.mask_level)
        nothing = Masks.empty(masks.height, masks.width, len(masks))
        return Instances.of(_replaced(masks, nothing, ~proposals.present), _scores(proposals))

    # -- a segmenter ---------------------------------------------------------------------------------------------------

    def segment(self, frame: Frame) -> Instances:
        config = self._config
        if config.prompts == "detector":
            found = self._detector.segment(frame)
            if len(found) > config.max_prompts:
                kept = np.sort(np.argsort(-found.scores, kind="stable")[: config.max_prompts])
                found = replace(found[kept], dropped=found.dropped + len(found) - config.max_prompts)
            instances = self._ask_for(frame, found)
        elif config.prompts == "points":
            box = np.array(config.box, np.float32) if config.box else None
            labels = np.array(config.point_labels, np.float32) if config.point_labels else None
            prompt = Prompt(box, np.array(config.points, np.float32), labels)
            instances = self.decode(self.encode(frame.color), [prompt])
            instances = instances[instances.scores >= config.min_mask_iou]
        else:
            instances = self._everything(frame)
        counts = instances.masks.areas > 0
        return instances[counts & (ignored_share(instances.masks, frame.ignore) <= config.max_ignored)]

    def _ask_for(self, frame: Frame, found: Instances) -> Instances:
        """`found` with masks of the network; one without an object is left out."""
        if not len(found):
            return found
        config = self._config
        boxed = config.use_box and self.network.takes_boxes
        points = min(config.inner_points, self.network.takes_points)
        asked = self.decode(self.encode(frame.color), prompts_of(found, boxed, points if boxed else max(points, 1)))
        masks, overlap = asked.masks, _overlaps(asked.masks, found.masks)
        doubtful = (overlap < config.min_agreement) & (found.masks.areas > 0)
        good = (asked.scores >= config.min_mask_iou) & (masks.areas > 0)
        if config.disagreement == "keep":
            kept = doubtful | (~good & (found.masks.areas > 0))
            masks = _replaced(masks, found.masks, kept)
            good |= kept
        else:
            good &= ~doubtful
        scores = {"detector": found.scores, "mask": asked.scores, "product": found.scores * asked.scores}[config.score]
        whole = Instances.of(
            masks,
            np.clip(scores, 0, 1),
            found.class_ids,
            found.class_names,
            supports=found.supports,
            support_ids=found.support_ids,
            dropped=found.dropped,
        )
        return whole[good]

    def _everything(self, frame: Frame) -> Instances:
        """All that a grid of points finds, as segment-anything's automatic mask generator does it."""
        grid = self._config.grid
        prompts = grid_prompts(frame.height, frame.width, grid.per_side)
        proposals = self.network.decode(self.encode(frame.color), prompts, "all")
        scores = _scores(proposals)
        rows = np.flatnonzero(proposals.present & (scores > grid.min_iou))
        likely = replace(proposals, maps=proposals.maps[rows])
        level = self._config.mask_level
        core = likely.masks(level + grid.stability_offset).areas
        reach = likely.masks(level - grid.stability_offset).areas
        stable = np.flatnonzero(core >= grid.min_stability * np.maximum(reach, 1))
        masks = replace(likely, maps=likely.maps[stable]).masks(level)
        scores = scores[rows][stable]
        kept = nms(masks.boxes, scores, np.zeros(len(scores), np.int32), grid.nms, max(len(scores), 1))
        return Instances.of(masks[kept], scores[kept])


def _scores(proposals: Proposals) -> NDArray[np.float32]:
    """Predicted IoU as a score; a network may predict a little more than 1, or with NaN maps nothing at all."""
    return np.clip(np.nan_to_num(proposals.ious, nan=0.0), 0, 1).astype(np.float32)


def _changed(detector: Any, old: Selected, new: Selected) -> Segmenter:
    if old.plugin != new.plugin or not hasattr(detector, "with_config"):
        raise ConfigError("detector cannot change while the model is loaded: configure the segmenter anew")
    changed: Segmenter = detector.with_config(new.config)
    return changed


def _replaced(masks: Masks, others: Masks, rows: NDArray[np.bool_]) -> Masks:
    """`masks` with those of `others` at `rows`."""
    parts = [(others if other else masks).spans_of(i) for i, other in enumerate(rows)]
    return Masks.from_span_lists(masks.height, masks.width, parts)


def _overlaps(masks: Masks, others: Masks) -> NDArray[np.float64]:
    """(N,) IoU of each mask with the other of its row."""
    shared = _shared(masks.spans, masks.offsets, others.spans, others.offsets)
    return shared / np.maximum(masks.areas + others.areas - shared, 1)


@njit(cache=True, nogil=True)
def _shared(spans, offsets, other_spans, other_offsets):  # type: ignore[no-untyped-def]
    n = len(offsets) - 1
    out = np.zeros(n, np.int64)
    for i in range(n):
        j = other_offsets[i]
        for k in range(offsets[i], offsets[i + 1]):
            y, start, stop = spans[k, 0], spans[k, 1], spans[k, 2]
            while j < other_offsets[i + 1] and (
                other_spans[j, 0] < y or (other_spans[j, 0] == y and other_spans[j, 2] <= start)
            ):
                j += 1
            m = j
            while m < other_offsets[i + 1] and other_spans[m, 0] == y and other_spans[m, 1] < stop:
                out[i] += min(stop, other_spans[m, 2]) - max(start, other_spans[m, 1])
                m += 1
    return out
