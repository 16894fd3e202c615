# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Networks that put out classes, not objects: each class's pixels are split into components, and where depth jumps.

| family | outputs | reference of the class image |
|---|---|---|
| semantic | a map of logits per class (1, C, H, W): U-Net, DeepLab | argmax of the enlarged logits; C = 1: sigmoid |
| clipseg | a heat map per text prompt (P, H, W) | transformers' CLIPSeg: sigmoid of the logits, above a threshold |
| groupvit | segmentation_logits (1, P, H, W), one per text prompt | argmax over the prompts |

Two objects of a class that touch, at the same depth, are one instance: a network of this kind cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.options import option
from seg_perception.scene import Frame, Instances
from seg_perception.segmenters.decoding.class_maps import mean_inside, strongest, without_padding
from seg_perception.segmenters.decoding.components import components
from seg_perception.segmenters.decoding.map_masks import logit
from seg_perception.segmenters.networks.letterbox import Letterbox
from seg_perception.segmenters.networks.network import Family, NetworkConfig, NetworkSegmenter, names_of
from seg_perception.segmenters.networks.preprocessing import IMAGENET, Preprocessing

TEXT_INPUTS = {"input_ids", "conditional_embeddings"}
BACKGROUND_NAMES = ("background", "_background_", "__background__", "bg")


@dataclass(frozen=True)
class SemanticContract:
    """How the maps of a semantic network are read."""

    selection: str = option(
        "argmax", "argmax: a pixel has one class; each: every class above the threshold", choices=("argmax", "each")
    )
    activation: str = option("auto", "of the maps; auto: softmax for argmax, sigmoid for each; none: probabilities",
        choices=("auto", "softmax", "sigmoid", "none"))  # fmt: skip
    background: int = option(-2, "class that is no object; -1 = every class is; -2 = the one named background", ge=-2)
    mask_threshold: float = option(0.5, "probability above which a pixel is of a class, for each", ge=0, le=1)
    maps: str = option("", "output with the maps; empty = by name or the only one")


@dataclass(frozen=True)
class SemanticConfig(NetworkConfig):
    """Which network, which of its classes count, and how they are split into objects."""

    min_area: int = option(200, "components of fewer pixels are dropped", unit="px", ge=1, live=True)
    depth_step: float = option(
        0.02, "where depth changes by more from pixel to pixel, one object ends; grows with the square of the distance "
        "beyond 1 m; 0 = depth does not split", unit="m", ge=0, live=True,
    )  # fmt: skip


class Semantic(NetworkSegmenter):
    """Instances from a semantic network: connected components of its classes, split by depth where there is depth.

    The score is the mean probability of the class over the instance's pixels.
    """

    Config = SemanticConfig
    KIND = "a network that puts out maps of classes"
    BATCH_OF_PROMPTS = True
    FAMILIES: ClassVar[Mapping[str, Family]] = {
        "semantic": Family(SemanticContract(), IMAGENET, 0.0),
        "clipseg": Family(SemanticContract(selection="each", background=-1), IMAGENET, 0.0),
        "groupvit": Family(
            SemanticContract(),
            Preprocessing(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)),
            0.0,
        ),
    }
    _contract: SemanticContract
    _config: SemanticConfig

    def _recognise(self) -> str:
        outputs, inputs = self._backend.outputs, {spec.name for spec in self._backend.inputs}
        names = {spec.name for spec in outputs}
        if "segmentation_logits" in names:
            return "groupvit"
        if len(outputs) == 1 and inputs & TEXT_INPUTS and len(outputs[0].shape) in (2, 3):
            return "clipseg"
        if len(outputs) == len(inputs) == 1 and len(outputs[0].shape) == 4 and outputs[0].dtype.kind == "f":
            return "semantic"
        raise self._refusal(
            "its outputs have other names and shapes",
            "family: semantic   # or clipseg, groupvit",
            "decoding: {maps: NAME}",
        )

    def _bind(self, contract: SemanticContract) -> tuple[SemanticContract, int]:
        outputs = {spec.name: spec for spec in self._backend.outputs}
        name = contract.maps or next(
            (n for n in ("segmentation_logits", "logits") if n in outputs), next(iter(outputs))
        )
        if name not in outputs or len(outputs[name].shape) not in (2, 3, 4):
            raise self._refusal(f"maps: no output '{name}' of 2 to 4 dimensions", "decoding: {maps: NAME}")
        classes = (1, *outputs[name].shape)[-3]
        if classes < 1:
            classes = len(self._names)
        if not self._names:
            raise self._refusal("the model does not name its classes", f"names: [...]   # {classes or 'one per map'}")
        if classes == 1:
            contract = replace(contract, selection="each")
        background = contract.background
        if background == -2 and contract.selection == "argmax":
            found = [i for i, n in enumerate(self._names) if n.lower() in BACKGROUND_NAMES]
            if len(found) != 1:
                raise self._refusal(
                    f"no class of {', '.join(self._names[:6])} is named background",
                    "decoding: {background: 0}   # its id; -1 = every class is an object",
                )
            background = found[0]
        if background >= classes:
            raise self._refusal(
                f"background: {background}, but there are {classes} classes", "decoding: {background: 0}"
            )
        activation = contract.activation
        if activation == "auto":
            activation = "softmax" if contract.selection == "argmax" else "sigmoid"
        return replace(contract, maps=name, background=max(background, -1), activation=activation), classes

    # ------------------------------------------------------------------------------------------------------------------

    def _decode(self, outputs: Mapping[str, NDArray], place: Letterbox, frame: Frame) -> Instances:
        contract, config = self._contract, self._config
        maps = outputs[contract.maps]
        maps = maps[0] if maps.ndim == 4 else maps if maps.ndim == 3 else maps[None]
        if len(maps) != len(self.class_names):
            raise ValueError(
                f"{contract.maps}: expected {len(self.class_names)} maps, got {outputs[contract.maps].shape}"
            )
        maps = without_padding(maps, place)
        parts, class_ids = [], []
        for classes in self._class_images(maps, place):
            labels, kinds = components(classes, frame.depth, config.depth_step, config.min_area)
            masks = Masks.from_label_image(labels, len(kinds))
            parts += [masks.spans_of(i) for i in range(len(masks))]
            class_ids.append(kinds)
        masks = Masks.from_span_lists(place.height, place.width, parts)
        ids = np.concatenate(class_ids) if class_ids else np.empty(0, np.int32)
        scores = mean_inside(_probabilities(maps, contract.activation), ids, masks)
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > self._score_threshold]
        return Instances.of(masks[order], scores[order], ids[order], names_of(self.class_names, ids[order]))

    def _class_images(self, maps: NDArray[np.float32], place: Letterbox) -> list[NDArray[np.int32]]:
        """(H, W) images of class ids, -1 = none: one for argmax, else one for each class."""
        contract = self._contract
        if contract.selection == "argmax":
            classes = strongest(maps, place.height, place.width)
            classes[classes == contract.background] = -1
            return [classes]
        level = contract.mask_threshold
        if contract.activation != "none":
            level = logit(level)
        images = []
        for i in np.flatnonzero(self._allowed):
            if i != contract.background:
                above = strongest(maps[i : i + 1] - np.float32(level), place.height, place.width, 0.0)
                images.append(np.where(above == 0, np.int32(i), np.int32(-1)))
        return images


def _probabilities(maps: NDArray[np.float32], activation: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        if activation == "softmax":
            powers = np.exp(maps - maps.max(axis=0))
            return powers / powers.sum(axis=0)
        return maps if activation == "none" else 1 / (1 + np.exp(-maps))
