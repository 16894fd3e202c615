# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Networks that answer a fixed number of queries, each with class logits and a map of mask logits.

| family | reference post-processing |
|---|---|
| mask2former | transformers `Mask2FormerImageProcessor.post_process_instance_segmentation(return_binary_maps=True)` |
| maskformer | transformers `MaskFormerImageProcessor`, the same method |
| oneformer | transformers `OneFormerImageProcessor`, the same method, `is_demo=True` |
| eomt | transformers `EomtImageProcessor`, the same method; masks stay whole where the reference paints over them |
| detr | transformers `DetrImageProcessor`, the same method |
| rfdetr | transformers `RfDetrImageProcessor`, the same method with `return_binary_maps=True`; rfdetr `PostProcess` |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.options import ConfigError, option
from seg_perception.plugins import TensorSpec
from seg_perception.scene import Frame, Instances
from seg_perception.segmenters.decoding.map_masks import logit, masks_above, masks_by_argmax, masks_of_grid, on_cells
from seg_perception.segmenters.networks.letterbox import Letterbox
from seg_perception.segmenters.networks.network import Family, NetworkConfig, NetworkSegmenter, names_of
from seg_perception.segmenters.networks.preprocessing import IMAGENET

LOGITS = ("class_queries_logits", "logits", "labels")
BOXES = ("pred_boxes", "dets")
NETWORK_GRID = -1


@dataclass(frozen=True)
class QueryContract:
    """How the outputs of a network with queries are read."""

    activation: str = option("softmax", "of the class logits", choices=("softmax", "sigmoid"))
    no_object: str = option(
        "last", "the slot of the class logits that means no object", choices=("last", "first", "none", "unknown")
    )
    selection: str = option(
        "pairs",
        "pairs: the best Q of all query-class pairs, a query may repeat; best: each query's best class; "
        "winner: the same, but a query whose best is no object is out",
        choices=("pairs", "best", "winner"),
    )
    score: str = option(
        "class", "class: probability of the class; class_and_mask: times the mean probability of the mask's pixels",
        choices=("class", "class_and_mask"),
    )  # fmt: skip
    masks: str = option(
        "bilinear",
        "bilinear: the map enlarged to the image; nearest: the mask enlarged, not its map; argmax: one owner per pixel",
        choices=("bilinear", "nearest", "argmax"),
    )
    grid: int = option(0, "size of the square that maps are enlarged to first; 0 = none, -1 = the input's size", ge=-1)
    argmax_of: str = option("probabilities", "what argmax compares", choices=("probabilities", "logits"))
    mask_threshold: float = option(0.5, "probability above which a pixel is in a mask", ge=0, le=1)
    least_share: float = option(0.8, "an argmax mask must keep more than this share of its own pixels", ge=0, le=1)
    inside: bool = option(False, "an argmax mask has only pixels above the mask threshold")
    logits: str = option("", "output with the class logits; empty = by name")
    maps: str = option("", "output with the mask logits; empty = the one of 4 dimensions")
    boxes: str = option("", "output with boxes, centre and size in 0..1; empty = by name, or none")


_PAIRS = QueryContract(score="class_and_mask", masks="nearest")
_ARGMAX = QueryContract(masks="argmax")
_PADDED = replace(IMAGENET, resize="longest_side")


@dataclass(frozen=True)
class QueryConfig(NetworkConfig):
    """Which network, which of its instances count, and how fine their masks are."""

    mask_resize: str = option(
        "reference",
        "reference: masks as the family's own post-processing makes them; logits_direct: each query's own map, "
        "enlarged bilinearly: smoother edges, and masks may overlap",
        choices=("reference", "logits_direct"),
        live=True,
    )


class Query(NetworkSegmenter):
    """Instances of a network with queries: Mask2Former, MaskFormer, OneFormer, EoMT, DETR and RF-DETR (-seg).

    Masks and scores are those of the family's reference post-processing; see the table in this module.
    """

    Config = QueryConfig
    KIND = "a network with queries that this project knows"
    FAMILIES: ClassVar[Mapping[str, Family]] = {
        "mask2former": Family(replace(_PAIRS, grid=384), IMAGENET),
        "maskformer": Family(_PAIRS, IMAGENET),
        "oneformer": Family(replace(_ARGMAX, argmax_of="logits"), IMAGENET),
        "eomt": Family(
            QueryContract(selection="best", score="class_and_mask", grid=NETWORK_GRID),
            replace(_PADDED, padding=0.0, rounding="transformers"),
            0.8,
        ),
        "detr": Family(replace(_ARGMAX, selection="winner"), _PADDED),
        "rfdetr": Family(QueryContract(activation="sigmoid", no_object="unknown"), IMAGENET),
    }
    _contract: QueryContract
    _config: QueryConfig

    def _recognise(self) -> str:
        names = {spec.name for spec in self._backend.outputs}
        inputs = {spec.name for spec in self._backend.inputs}
        ranks = {spec.name: len(spec.shape) for spec in self._backend.outputs}
        labels = next((spec for spec in self._backend.outputs if spec.name == "labels"), None)
        if names == {"class_queries_logits", "masks_queries_logits"}:
            if "task_inputs" in inputs:
                return "oneformer"
            raise self._refusal(
                "its names and shapes are those of several families",
                "family: mask2former   # or maskformer, oneformer, eomt",
            )
        if names == {"logits", "pred_boxes", "pred_masks"}:
            return "detr" if "pixel_mask" in inputs else "rfdetr"
        if (
            {"dets", "labels"} < names
            and len(names) == 3
            and labels
            and labels.dtype.kind == "f"
            and ranks["labels"] == 3
        ):
            return "rfdetr"
        raise self._refusal("its outputs have other names", f"family: rfdetr   # or {', '.join(self.FAMILIES)}")

    def _bind(self, contract: QueryContract) -> tuple[QueryContract, int]:
        outputs = {spec.name: spec for spec in self._backend.outputs}
        contract = replace(
            contract,
            logits=contract.logits or next((name for name in LOGITS if name in outputs), ""),
            boxes=contract.boxes or next((name for name in BOXES if name in outputs), ""),
            maps=contract.maps or next((name for name, spec in outputs.items() if len(spec.shape) == 4), ""),
        )
        self._check(contract, outputs)
        if contract.masks == "nearest" and self._preprocessing.resize != "stretch":
            raise ConfigError(
                "preprocessing.resize: masks that are enlarged as nearest need stretch (or masks: bilinear)"
            )
        slots, names = outputs[contract.logits].shape[2], len(self._names)
        if contract.no_object == "unknown":
            if names not in (slots, slots - 1):
                raise self._refusal(
                    f"with {names} class names for {slots} slots of {contract.logits}, the slot that means no object "
                    "is not certain",
                    f"names: [...]   # {slots - 1}: the last slot is no object; {slots}: none (COCO)",
                    "decoding: {no_object: last}   # or none, first",
                )
            contract = replace(contract, no_object="none" if names == slots else "last")
        return contract, max(slots - (contract.no_object != "none"), 0)

    def _check(self, contract: QueryContract, outputs: Mapping[str, TensorSpec]) -> None:
        for key, rank in (("logits", 3), ("maps", 4), ("boxes", 3)):
            name = getattr(contract, key)
            if (key != "boxes" or name) and (name not in outputs or len(outputs[name].shape) != rank):
                raise self._refusal(
                    f"{key}: no such output of {rank} dimensions: '{name}'", f"decoding: {{{key}: NAME}}"
                )
            if name and outputs[name].shape[0] not in (-1, 1):
                raise self._refusal("its batch is not 1: export with batch 1")
        if outputs[contract.logits].shape[2] < 1:
            raise self._refusal(f"{contract.logits} does not say how many classes there are")

    # ------------------------------------------------------------------------------------------------------------------

    def _decode(self, outputs: Mapping[str, NDArray], place: Letterbox, frame: Frame) -> Instances:
        contract = self._contract
        logits, maps = outputs[contract.logits][0], outputs[contract.maps][0]
        if logits.shape[1] != len(self.class_names) + (contract.no_object != "none") or len(maps) != len(logits):
            raise ValueError(
                f"expected as many maps as queries, got {contract.logits} {logits.shape}, maps {maps.shape}"
            )
        queries, class_ids, scores = select(logits, contract)
        likely = scores > self._score_threshold  # a mask's share only lowers it
        queries, class_ids, scores = queries[likely], class_ids[likely], scores[likely]
        masks, shares = self._masks(maps[queries], scores, place)
        if contract.score == "class_and_mask":
            scores = scores * shares
        boxes = masks.boxes
        if contract.boxes and contract.masks != "argmax":
            boxes = _corners(outputs[contract.boxes][0][queries], place)
        order = np.argsort(-scores, kind="stable")
        order = order[(scores[order] > self._score_threshold) & np.isfinite(boxes[order]).all(axis=1)]
        ids = class_ids[order].astype(np.int32)
        return Instances.of(masks[order], scores[order], ids, names_of(self.class_names, ids), boxes[order])

    def _masks(
        self, maps: NDArray[np.float32], scores: NDArray[np.float32], place: Letterbox
    ) -> tuple[Masks, NDArray[np.float32]]:
        contract = self._contract
        direct = self._config.mask_resize == "logits_direct"
        own = (maps.shape[1], maps.shape[2])
        grid = {0: own, NETWORK_GRID: self._size}.get(0 if direct else contract.grid, (contract.grid, contract.grid))
        if not on_cells(grid, place):
            grid = self._size
        if contract.masks == "argmax" and not direct:
            values = _sigmoid(maps) if contract.argmax_of == "probabilities" else maps
            masks = masks_by_argmax(
                values, scores, grid, place, contract.mask_threshold, contract.least_share, contract.inside
            )
            return masks, scores
        level = logit(contract.mask_threshold)
        if contract.masks == "nearest" and not direct:
            return masks_of_grid(maps, grid, place, level)
        return masks_above(maps, grid, place, level, contract.score == "class_and_mask")


def select(logits: NDArray[np.float32], contract: QueryContract) -> tuple[NDArray, NDArray, NDArray[np.float32]]:
    """Queries, class ids and probabilities of what the `logits` (Q, slots) of all queries choose, (N,) each.

    Best first for pairs, else in order of the queries.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        if contract.activation == "softmax":
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities = powers / powers.sum(axis=1, keepdims=True)
        else:
            probabilities = _sigmoid(logits)
    slots = probabilities.shape[1]
    classes = {"last": slice(0, slots - 1), "first": slice(1, slots), "none": slice(0, slots)}[contract.no_object]
    objects = probabilities[:, classes]
    count, known = objects.shape
    if contract.selection == "pairs":
        order = np.argsort(-objects.reshape(-1), kind="stable")[:count]
        return order // known, order % known, objects.reshape(-1)[order]
    rows = np.arange(count)
    best = objects.argmax(axis=1)
    scores = objects[rows, best]
    if contract.selection == "winner":
        rows = np.flatnonzero(scores >= probabilities.max(axis=1))
    return rows, best[rows], scores[rows]


def _corners(boxes: NDArray[np.float32], place: Letterbox) -> NDArray[np.float32]:
    """Boxes `x, y, width, height` (centre and size, in shares of the input) as corners in image pixels."""
    size = np.array([place.net_width, place.net_height] * 2, np.float32)
    centers, half = boxes[:, :2], boxes[:, 2:] / 2
    return place.to_image(np.concatenate([centers - half, centers + half], axis=1) * size)


def _sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.float32(1) / (np.float32(1) + np.exp(-values))
