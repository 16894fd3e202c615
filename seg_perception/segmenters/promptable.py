# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`promptable`: SAM, SAM 2, MobileSAM and EfficientSAM, told where to look by a detector, by `tabletop`, or by you.

Any segmenter can be the detector: its boxes (and points inside its masks) are the prompts, its classes, supports and
scores stay with the objects, and the network draws the masks anew. Live prompts (`look_for`) replace it: boxes and
points in the image, or texts where the detector takes them. The embedding of the last image is kept.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.options import ConfigError, adapted, refuse_fixed
from seg_perception.plugins import Segmenter
from seg_perception.scene import Frame, Instances
from seg_perception.segmenters.networks.ignore import ignored_share
from seg_perception.segmenters.networks.model_file import find_model, fingerprint, start_backend
from seg_perception.segmenters.networks.nms import nms
from seg_perception.segmenters.networks.sidecar import read_sidecar
from seg_perception.segmenters.prompting import BOXES, POINTS, ROI, TEXTS, PromptError, Prompts, prompt_kinds
from seg_perception.segmenters.sam.agreement import overlaps, replaced
from seg_perception.segmenters.sam.config import PromptableConfig, check_decoder_backend
from seg_perception.segmenters.sam.network import Embedding, PromptNetwork, Proposals
from seg_perception.segmenters.sam.prompts import ON, Prompt, grid_prompts, prompts_of

EXPORT_HINT = "docs/models.md tells how to export SAM's encoder and decoder"
ANYTHING = ("object",)


class Promptable:
    """Masks of a promptable network for whatever prompts it.

    Raises ConfigError: no such files, another contract, encoder and decoder of different networks.
    """

    Config = PromptableConfig

    def __init__(self, config: PromptableConfig) -> None:
        encoder = find_model(config.encoder, EXPORT_HINT, config.backend)
        decoder = find_model(config.decoder, EXPORT_HINT, config.decoder_backend)
        check_decoder_backend(config.decoder_backend)
        self.model = f"{fingerprint(encoder)}+{fingerprint(decoder)}"
        self.network = PromptNetwork(
            start_backend(config.backend, encoder, "backend", "encoder and decoder"),
            start_backend(config.decoder_backend, decoder, "decoder_backend", "encoder and decoder"),
            config.dialect,
            read_sidecar(encoder),
            f"{encoder.name} with {decoder.name}",
        )
        self._detector: Segmenter = config.detector.create()
        self._prompts = Prompts()
        self._seen: tuple[Hashable, NDArray[np.uint8], Embedding] | None = None
        self._detected: tuple[Frame, Instances] | None = None
        self._apply(config)

    def _apply(self, config: PromptableConfig) -> None:
        self._config = config
        if config.use_box and self.network.takes_boxes:
            return
        if config.prompts in ("detector", "grid") and self.network.takes_points < max(1, config.inner_points):
            raise ConfigError(f"use_box: {config.decoder} takes {self.network.takes_points} points: it needs the box")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The detector's while it is asked, else one name for anything."""
        return self._detector.class_names if self._prompts.texts or self._config.prompts == "detector" else ANYTHING

    def with_config(self, config: PromptableConfig) -> Promptable:
        """The same networks with other options. Raises ConfigError when a network itself would change."""
        refuse_fixed(self._config, config, apart=("detector", "grid"))
        other = object.__new__(Promptable)
        other.__dict__.update(self.__dict__)
        other._detector = adapted(self._detector, self._config.detector, config.detector, "detector")
        if other._detector is not self._detector:
            other._detected = None
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
        self._seen = self._detected = None
        if hasattr(self._detector, "reset"):
            self._detector.reset()

    @property
    def waits_for_prompts(self) -> bool:
        """Nothing is found until somebody asks."""
        return self._config.prompts == "live"

    # -- live prompts --------------------------------------------------------------------------------------------------

    @property
    def prompt_kinds(self) -> frozenset[str]:
        """Boxes and points as the decoder takes them; texts if the detector takes them."""
        kinds = {ROI} | ({BOXES} if self.network.takes_boxes else set()) | (prompt_kinds(self._detector) & {TEXTS})
        return frozenset(kinds | ({POINTS} if self.network.takes_points else set()))

    def check_prompts(self, prompts: Prompts) -> None:
        """Raises PromptError for more points than the decoder takes, and for texts that the detector cannot take."""
        for i, prompt in enumerate(prompts.objects):
            try:
                self.network.check(i, prompt)
            except ValueError as error:
                raise PromptError(str(error)) from None
        if prompts.texts:
            self._detector.check_prompts(Prompts(texts=prompts.texts))  # type: ignore[attr-defined]

    def look_for(self, prompts: Prompts) -> None:
        """Objects, or texts of the detector, in the place of what is configured; with empty prompts that again."""
        if prompts.texts != self._prompts.texts:
            self._detector.look_for(Prompts(texts=prompts.texts))  # type: ignore[attr-defined]
            self._detected = None
        self._prompts = prompts

    # -- prompts by hand -----------------------------------------------------------------------------------------------

    def encode(self, color: NDArray[np.uint8], stamp: Hashable = None) -> Embedding:
        """What the encoder sees in `color` (H, W, 3); the embedding of the last image is kept, so asking again is free.

        An image counts as the last one when it is the same array, or has the same `stamp` and looks the same.
        """
        known = self._seen
        if known is not None and (
            known[1] is color or (stamp is not None and known[0] == stamp and _looks_like(known[1], color))
        ):
            return known[2]
        embedding = self.network.encode(color)
        self._seen = stamp, color, embedding
        return embedding

    def decode(self, embedding: Embedding, prompts: Sequence[Prompt]) -> Instances:
        """One class-agnostic instance per prompt, in their order; its score is the predicted mask IoU.

        A prompt where the network sees nothing has an empty mask. Raises ValueError for a prompt that it cannot take.
        """
        proposals = self.network.decode(embedding, prompts, self._config.proposal)
        masks = proposals.masks(self._config.mask_level)
        nothing = Masks.empty(masks.height, masks.width, len(masks))
        scores = _scores(proposals)
        return Instances.of(replaced(masks, nothing, ~proposals.present), scores, mask_scores=scores)

    # -- a segmenter ---------------------------------------------------------------------------------------------------

    def segment(self, frame: Frame) -> Instances:
        config, prompts = self._config, self._prompts
        if prompts.nothing:
            return Instances.empty(frame.height, frame.width)
        if prompts.objects:
            asked = prompts.fitted(frame.width, frame.height).objects
            instances = self._ask_for(frame, *self._pointed_at(frame, asked))
        elif prompts.texts or config.prompts == "detector":
            found = _middles_inside(self._detect(frame), prompts.roi)
            if len(found) > config.max_prompts:
                kept = np.sort(np.argsort(-found.scores, kind="stable")[: config.max_prompts])
                found = replace(found[kept], dropped=found.dropped + len(found) - config.max_prompts)
            instances = self._ask_for(frame, found)
        elif config.prompts == "points":
            box = np.array(config.box, np.float32) if config.box else None
            labels = np.array(config.point_labels, np.float32) if config.point_labels else None
            instances = self._by_hand(frame, Prompt(box, np.array(config.points, np.float32), labels))
            instances = _middles_inside(instances, prompts.roi)
        elif config.prompts == "grid":
            instances = self._everything(frame)
        elif prompts.roi is not None and self.network.takes_boxes:
            roi = Prompts(objects=(Prompt(np.array(prompts.roi)),)).fitted(frame.width, frame.height)
            instances = self._by_hand(frame, roi.objects[0])
        else:
            instances = Instances.empty(frame.height, frame.width)
        counts = instances.masks.areas > 0
        return instances[counts & (ignored_share(instances.masks, frame.ignore) <= config.max_ignored)]

    def _embedding(self, frame: Frame) -> Embedding:
        return self.encode(frame.color, (frame.frame_id, frame.stamp_ns) if frame.stamp_ns else None)

    def _by_hand(self, frame: Frame, prompt: Prompt) -> Instances:
        instances = self.decode(self._embedding(frame), [prompt])
        return instances[instances.scores >= self._config.min_mask_iou]

    def _detect(self, frame: Frame) -> Instances:
        """The detector's instances; those of the last frame are kept, so that a second click on it does not wait."""
        known = self._detected
        if known is None or not _same(known[0], frame):
            known = self._detected = frame, self._detector.segment(frame)
        return known[1]

    def _pointed_at(self, frame: Frame, prompts: Sequence[Prompt]) -> tuple[Instances, list[Prompt]]:
        """What the detector has where each prompt has a point, an empty row where nothing; the prompts with its box."""
        n, completed = len(prompts), list(prompts)
        rows = np.full(n, -1)
        found = Instances.empty(frame.height, frame.width)
        if self._config.click_finds == "object" and any(p.box is None for p in prompts):
            found = self._detect(frame)
        for i, prompt in enumerate(prompts):
            if prompt.box is None:
                rows[i] = _row_under(found, prompt)
            if rows[i] >= 0 and self.network.takes_boxes and self.network.takes_points >= len(prompt.points) + 2:
                completed[i] = replace(prompt, box=found.boxes[rows[i]])
        height, width = frame.height, frame.width
        spans = [found.masks.spans_of(row) if row >= 0 else np.empty((0, 3), np.int32) for row in rows]
        known = rows >= 0
        hits = Instances.of(
            Masks.from_span_lists(height, width, spans),
            np.where(known, _taken(found.scores, rows), np.nan),
            np.where(known, _taken(found.class_ids, rows), -1),
            [found.class_names[row] if row >= 0 else ANYTHING[0] for row in rows],
            supports=found.supports,
            support_ids=np.where(known, _taken(found.support_ids, rows), -1).astype(np.int32),
        )
        return hits, completed

    def _ask_for(self, frame: Frame, found: Instances, prompts: Sequence[Prompt] | None = None) -> Instances:
        """`found` with masks of the network; one without an object is left out. A score of NaN there is the mask's."""
        if not len(found):
            return found
        config = self._config
        if prompts is None:
            boxed = config.use_box and self.network.takes_boxes
            points = min(config.inner_points, self.network.takes_points)
            prompts = prompts_of(found, boxed, points if boxed else max(points, 1))
        asked = self.decode(self._embedding(frame), prompts)
        masks, overlap = asked.masks, overlaps(asked.masks, found.masks)
        doubtful = (overlap < config.min_agreement) & (found.masks.areas > 0)
        good = (asked.scores >= config.min_mask_iou) & (masks.areas > 0)
        if config.disagreement == "keep":
            kept = doubtful | (~good & (found.masks.areas > 0))
            masks = replaced(masks, found.masks, kept)
            good |= kept
        else:
            good &= ~doubtful
        own = np.where(np.isnan(found.scores), asked.scores, found.scores)
        scores = {"detector": own, "mask": asked.scores, "product": own * asked.scores}[config.score]
        whole = Instances.of(
            masks,
            np.clip(scores, 0, 1),
            found.class_ids,
            found.class_names,
            supports=found.supports,
            support_ids=found.support_ids,
            mask_scores=asked.scores,
            dropped=found.dropped,
        )
        return whole[good]

    def _everything(self, frame: Frame) -> Instances:
        """All that a grid of points finds, as segment-anything's automatic mask generator does it."""
        grid = self._config.grid
        prompts = grid_prompts(frame.height, frame.width, grid.per_side, self._prompts.roi)
        proposals = self.network.decode(self._embedding(frame), prompts, "all")
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
        return _middles_inside(Instances.of(masks[kept], scores[kept], mask_scores=scores[kept]), self._prompts.roi)


def _scores(proposals: Proposals) -> NDArray[np.float32]:
    """Predicted IoU as a score; a network may predict a little more than 1, or with NaN maps nothing at all."""
    return np.clip(np.nan_to_num(proposals.ious, nan=0.0), 0, 1).astype(np.float32)


def _looks_like(image: NDArray, other: NDArray) -> bool:
    """Whether two images are the same, as far as one pixel in 256 tells: a camera may repeat its stamps."""
    a, b = image[::16, ::16], other[::16, ::16]
    return image is other or np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _same(frame: Frame, other: Frame) -> bool:
    """Whether two frames are one: depth fused anew, or a robot that moved in the ignore mask, makes another."""
    if frame is other:
        return True
    if not frame.stamp_ns or (frame.frame_id, frame.stamp_ns) != (other.frame_id, other.stamp_ns):
        return False
    pairs = ((frame.color, other.color), (frame.depth, other.depth), (frame.ignore, other.ignore))
    return all(a is b or (a is not None and b is not None and _looks_like(a, b)) for a, b in pairs)


def _middles_inside(found: Instances, roi: tuple[float, ...] | None) -> Instances:
    if roi is None:
        return found
    middles = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    return found[((middles >= roi[:2]) & (middles < roi[2:])).all(axis=1)]


def _row_under(found: Instances, prompt: Prompt) -> int:
    """The smallest instance that holds all points on the object and none off it; -1 = none."""
    x, y = prompt.points.astype(int).T
    on = np.asarray(prompt.labels) == ON
    best, smallest = -1, np.inf
    areas = found.masks.areas
    for row, roi in enumerate(found.masks.rois):
        inside = (x >= roi[0]) & (x < roi[0] + roi[2]) & (y >= roi[1]) & (y < roi[1] + roi[3])
        if (inside[on]).all() and areas[row] < smallest:
            crop = found.masks.crop(row, roi)
            held = inside.copy()
            held[inside] = crop[y[inside] - roi[1], x[inside] - roi[0]]
            if (held == on).all():
                best, smallest = row, float(areas[row])
    return best


def _taken(values: NDArray, rows: NDArray[np.int64]) -> NDArray:
    """`values` at `rows`, anything where a row is -1."""
    return np.append(values, np.zeros(1, values.dtype))[rows]
