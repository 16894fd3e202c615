# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Networks that put out classes, not objects: each class's pixels are split into components, and where depth jumps.

| family | outputs | reference of the class image |
|---|---|---|
| semantic | a map of logits per class (1, C, H, W): U-Net, DeepLab | argmax of the enlarged logits; C = 1: sigmoid |
| clipseg | a heat map per text prompt (P, H, W) | transformers' CLIPSeg: sigmoid of the logits, above a threshold |
| groupvit | segmentation_logits (1, P, H, W), one per text prompt | argmax over the prompts |

With a `text` section in the sidecar the prompts of the last two may change from image to image.
Two objects of a class that touch, at the same depth, are one instance: a network of this kind cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

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
from seg_perception.segmenters.prompting import TEXTS, Prompts
from seg_perception.segmenters.text.inputs import text_inputs

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
        classes = len(self._names) if self._text is not None else (1, *outputs[name].shape)[-3]
        if classes < 1:
            classes = len(self._names)
        if not self._names:
            raise self._refusal("the model does not name its classes", f"names: [...]   # {classes or 'one per map'}")
        if classes == 1 and self._text is None:
            contract = replace(contract, selection="each")
        background = contract.background
        if background == -2 and contract.selection == "argmax" and self._text is None:
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

    # -- live texts ----------------------------------------------------------------------------------------------------

    @property
    def prompt_kinds(self) -> frozenset[str]:
        return frozenset() if self._text is None else frozenset({TEXTS})

    def check_prompts(self, prompts: Prompts) -> None:
        """Raises PromptError for a text that the tokenizer or the embeddings cannot take."""
        if self._text is not None:
            self._text(self._with_background(prompts.texts))

    def look_for(self, prompts: Prompts) -> None:
        """Other texts from the next image on; without any, those of the sidecar again. Nothing is loaded anew."""
        if self._text is not None and prompts.texts != self._asked:
            self._use_texts(prompts.texts)

    def _constant_inputs(self) -> dict[str, NDArray]:
        self._asked: tuple[str, ...] = ()
        self._text = text_inputs(self._sidecar.text, self._path.parent, self._backend.inputs)
        if self._text is None:
            return super()._constant_inputs()
        specs = {spec.name: spec for spec in self._backend.inputs}
        self._per_run = specs[self._text.names[0]].shape[0]  # texts; -1 = any number
        if not self._sidecar.class_names:
            raise self._refusal("text: it has no texts to begin with", "names: [a red mug, a screwdriver]")
        some = [self._sidecar.class_names[0]] * max(self._per_run, 1)
        self._sidecar = replace(self._sidecar, inputs={**self._sidecar.inputs, **self._text(some)})
        return super()._constant_inputs()

    def _apply(self, config: Any) -> None:
        if self._text is not None:
            self.class_names = self._names  # what the option `classes` chooses from
        super()._apply(config)
        if self._text is not None:
            self._use_texts(self._asked)

    def _use_texts(self, texts: tuple[str, ...]) -> None:
        names = self._with_background(texts or self._names)
        made = self._text(names) if self._text is not None else {}
        self._constants = {**self._constants, **made}
        if self._image.shape[0] < 1 and len(self._image.shape) == 4:
            copies = len(names) if self._contract.selection == "each" else 1
            self._image_shape = (copies, *self._image_shape[1:])
        allowed = dict(zip(self._names, self._allowed, strict=False))
        self._asked, self.class_names = texts, names
        self._allowed = np.array([bool(texts) or allowed.get(name, True) for name in names])
        if self._contract.selection == "argmax":
            background = next(i for i, name in enumerate(names) if name.lower() in BACKGROUND_NAMES)
            self._contract = replace(self._contract, background=background)

    def _with_background(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        """Where the best text gets the pixel, one must stand for what nobody asked for."""
        contract = self._contract
        known = any(text.lower() in BACKGROUND_NAMES for text in texts)
        return texts if contract.selection == "each" or known else (*texts, BACKGROUND_NAMES[0])

    def _outputs(self, feed: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """All prompts' maps, of as many runs as a graph with a fixed number of texts needs."""
        total = len(self.class_names)
        if self._text is None or self._per_run in (-1, total):
            return super()._outputs(feed)
        parts = []
        for start in range(0, total, self._per_run):
            rows = np.minimum(np.arange(start, start + self._per_run), total - 1)
            texts = {name: feed[name][rows] for name in self._text.names}
            maps = self._backend({**feed, **texts})[self._contract.maps]
            parts.append(_of_prompts(maps)[: total - start])
        return {self._contract.maps: np.concatenate(parts)}

    # ------------------------------------------------------------------------------------------------------------------

    def _decode(self, outputs: Mapping[str, NDArray], place: Letterbox, frame: Frame) -> Instances:
        contract, config = self._contract, self._config
        maps = outputs[contract.maps]
        maps = _of_prompts(maps)
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


def _of_prompts(maps: NDArray) -> NDArray:
    """(C, H, W) of maps with or without a batch of one image, or of a single one."""
    return maps[0] if maps.ndim == 4 else maps if maps.ndim == 3 else maps[None]


def _probabilities(maps: NDArray[np.float32], activation: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        if activation == "softmax":
            powers = np.exp(maps - maps.max(axis=0))
            return powers / powers.sum(axis=0)
        return maps if activation == "none" else 1 / (1 + np.exp(-maps))
