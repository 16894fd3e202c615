# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A promptable network: an encoder that sees the image once, a decoder that answers any number of prompts about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.options import ConfigError, parse, to_mapping
from seg_perception.plugins import Backend, TensorSpec
from seg_perception.segmenters.decoding.map_masks import masks_above
from seg_perception.segmenters.networks.letterbox import Letterbox
from seg_perception.segmenters.networks.preprocessing import InputWriter, Preprocessing
from seg_perception.segmenters.networks.sidecar import Sidecar
from seg_perception.segmenters.sam.dialects import DIALECTS, Query, recognise
from seg_perception.segmenters.sam.prompts import Prompt

RAW_IMAGE = "image_rgb_0_255"  # an encoder that subtracts the mean itself: what is padding must be that mean
MEAN = (123.675, 116.28, 103.53)  # ImageNet's, RGB 0..255
PROMPT_INPUTS = (
    "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size", "input_boxes", "input_points",
    "input_labels", "batched_point_coords", "batched_point_labels",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """What the encoder saw in one image: its outputs by the decoder's names, and where the image lies in its input."""

    features: dict[str, NDArray]
    place: Letterbox


@dataclass(frozen=True, slots=True, eq=False)
class Proposals:
    """M proposed masks: `maps` (M, h, w) logits, `ious` (M,) as the network predicts them, `prompts` (M,) row of the
    prompt that each answers, `present` (M,) False where the network says that there is no object."""

    maps: NDArray[np.float32]
    ious: NDArray[np.float32]
    prompts: NDArray[np.int64]
    present: NDArray[np.bool_]
    grid: tuple[int, int]
    place: Letterbox

    def masks(self, level: float = 0.0) -> Masks:
        """Where the logits are above `level`, in the original image."""
        return masks_above(self.maps, self.grid, self.place, level, False)[0]


class PromptNetwork:
    """Encoder and decoder. Prompts and masks are in pixels of the original image, whatever the dialect.

    Raises ConfigError when the two do not belong together or no dialect fits.
    """

    def __init__(self, encoder: Backend, decoder: Backend, dialect: str, sidecar: Sidecar, names: str) -> None:
        self._encoder, self._decoder, self._names = encoder, decoder, names
        self.dialect = sidecar.family or recognise(decoder) if dialect == "auto" else dialect
        if self.dialect not in DIALECTS:
            known = ", ".join(DIALECTS)
            what = f"family '{self.dialect}'" if self.dialect else "another contract"
            raise self._refusal(f"its decoder has {what}, expected one of the dialects {known}")
        self._speaker = DIALECTS[self.dialect](decoder)
        self._image = self._image_input()
        self._features = self._pair()
        self._preprocessing = self._image_values(sidecar)
        self._writer: InputWriter | None = None
        self._place: Letterbox | None = None

    @property
    def takes_boxes(self) -> bool:
        return self._speaker.boxes

    @property
    def takes_points(self) -> int:
        """The most points of one prompt; with a box, that takes two of them where boxes go in as points."""
        return self._speaker.points

    def encode(self, color: NDArray[np.uint8]) -> Embedding:
        """Runs the encoder on `color` (H, W, 3) RGB. The embedding stays valid."""
        tensor, place = self._write(color)
        outputs = self._encoder({self._image.name: tensor})
        return Embedding({name: np.array(outputs[source]) for name, source in self._features.items()}, place)

    def decode(self, embedding: Embedding, prompts: Sequence[Prompt], choice: str = "auto") -> Proposals:
        """One proposal for each prompt, in their order; with `choice` "all" every one the network makes.

        Of four, the first is meant for prompts without doubt (a box, several points) and the others for a single
        point: auto takes the first, or the best of the others; single the first; best the best of the others. Of
        fewer, the one with the best predicted IoU. Raises ValueError for a prompt that the network cannot take.
        """
        place = embedding.place
        groups: dict[tuple[bool, int], list[int]] = {}
        for i, prompt in enumerate(prompts):
            self.check(i, prompt)
            self._check_place(i, prompt, place)
            groups.setdefault((prompt.box is not None, len(prompt.points)), []).append(i)
        maps, ious, owners, present = [], [], [], []
        for (boxed, count), rows in groups.items():
            query = _gather([prompts[i] for i in rows], boxed)
            query = query if self._speaker.raw_points else query.scaled(place)
            sure = boxed or count > 1
            for start in range(0, len(rows), self._speaker.at_once):
                part = query[start : start + self._speaker.at_once]
                answer = self._speaker.ask(embedding.features, _filled(part, self._speaker.exactly), place)
                for k in range(len(part)):
                    chosen = _choose(answer.ious[k], sure, choice)
                    maps.append(answer.maps[k, chosen])
                    ious.append(answer.ious[k, chosen])
                    owners.append(np.full(len(chosen), rows[start + k], np.int64))
                    present.append(np.full(len(chosen), bool(answer.presence[k] >= 0), np.bool_))
        if not maps:
            nothing = np.empty(0, np.float32)
            return Proposals(
                np.empty((0, 1, 1), np.float32), nothing, nothing.astype(np.int64), nothing > 0, (1, 1), _whole(place)
            )
        order = np.argsort(np.concatenate(owners), kind="stable")
        stack = np.concatenate(maps)[order]
        return Proposals(
            stack,
            np.concatenate(ious)[order],
            np.concatenate(owners)[order],
            np.concatenate(present)[order],
            self._grid(stack, place),
            _whole(place) if self._speaker.raw_points else place,
        )

    def _grid(self, maps: NDArray[np.float32], place: Letterbox) -> tuple[int, int]:
        """What maps are enlarged to before padding is cut off; a stretched image has none."""
        stretched = (place.scaled_height, place.scaled_width) == (place.net_height, place.net_width)
        own = (maps.shape[1], maps.shape[2])
        return own if stretched and self._preprocessing.resize == "stretch" else (place.net_height, place.net_width)

    # -- into the network ----------------------------------------------------------------------------------------------

    def _write(self, color: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Letterbox]:
        size = self._image.shape[2:]
        net = (size[0], size[1]) if min(size) > 0 else (color.shape[0], color.shape[1])
        if self._writer is None or (min(size) < 1 and self._place and (self._place.height, self._place.width) != net):
            self._writer = InputWriter(self._preprocessing, net)
        tensor, place = self._writer.write(color)
        if self._image.name == RAW_IMAGE and place is not self._place:
            mean = np.float32(MEAN)[:, None, None]
            tensor[0, :, place.scaled_height :] = mean
            tensor[0, :, :, place.scaled_width :] = mean
        self._place = place
        return tensor, place

    def check(self, i: int, prompt: Prompt) -> None:
        """Raises ValueError naming prompt `i` when this decoder does not take such a one."""
        if prompt.box is not None and not self._speaker.boxes:
            raise ValueError(f"prompt {i}: has a box, but this decoder takes only points")
        needed = len(prompt.points) + (2 if prompt.box is not None and self._speaker.raw_points else 0)
        if needed > self._speaker.points or (prompt.box is None and self._speaker.points == 0):
            raise ValueError(f"prompt {i}: has {needed} points, this decoder takes {self._speaker.points}")

    def _check_place(self, i: int, prompt: Prompt, place: Letterbox) -> None:
        size = (place.width, place.height)
        if (prompt.points < 0).any() or (prompt.points > size).any():
            raise ValueError(
                f"prompt {i}: a point lies outside the {size[0]}x{size[1]} image: {prompt.points.tolist()}"
            )

    # -- what belongs together -----------------------------------------------------------------------------------------

    def _image_input(self) -> TensorSpec:
        found = [spec for spec in self._encoder.inputs if len(spec.shape) == 4 and spec.shape[1] == 3]
        if len(found) != 1 or len(self._encoder.inputs) != 1:
            raise self._refusal("its encoder has not exactly one image input (1, 3, height, width)")
        if min(found[0].shape[2:]) < 1 and self.dialect != "efficientsam":
            raise self._refusal("its encoder's input size is free: export it with a fixed one")
        return found[0]

    def _pair(self) -> dict[str, str]:
        """Decoder input -> encoder output: by name, else by shape where only one is left of each."""
        wanted = {spec.name: spec for spec in self._decoder.inputs if spec.name not in PROMPT_INPUTS}
        given = {spec.name: spec for spec in self._encoder.outputs}
        pairs = {name: name for name in wanted if name in given}
        left = [spec for name, spec in wanted.items() if name not in pairs]
        spare = [spec for name, spec in given.items() if name not in pairs]
        if len(left) == len(spare) == 1:
            pairs[left[0].name] = spare[0].name
        elif left:
            raise self._refusal(f"the decoder's {', '.join(spec.name for spec in left)} does not come from the encoder")
        for name, source in pairs.items():
            if not _fits(wanted[name].shape, given[source].shape):
                raise self._refusal(f"the encoder's {source} is not the decoder's {name}: of two different networks?")
        return pairs

    def _image_values(self, sidecar: Sidecar) -> Preprocessing:
        preset = self._speaker.preprocessing
        if self._image.name == RAW_IMAGE:
            preset = replace(preset, white=255.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        elif self.dialect == "meta" and not sidecar.preprocessing and self._image.name != "pixel_values":
            raise self._refusal(
                f"the encoder's input '{self._image.name}' does not say which values it takes",
                "preprocessing: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}",
            )
        values = {**to_mapping(preset), **sidecar.preprocessing}
        preprocessing: Preprocessing = parse(Preprocessing, values, "the encoder's sidecar: preprocessing")
        return preprocessing

    def _refusal(self, reason: str, *lines: str) -> ConfigError:
        parts = (("encoder", self._encoder), ("decoder", self._decoder))
        rows = [
            f"  {part} {kind:<6} {spec.name:<22} {spec.shape} {spec.dtype}"
            for part, backend in parts
            for kind, specs in (("input", backend.inputs), ("output", backend.outputs))
            for spec in specs
        ]
        text = [f"{self._names} is no promptable network as known here: {reason}; seen", *rows]
        if lines:
            text += ["say it in the sidecar <encoder>.yaml:", *(f"  {line}" for line in lines)]
        return ConfigError("\n".join(text))


def _choose(ious: NDArray[np.float32], sure: bool, choice: str) -> NDArray[np.int64]:
    count = len(ious)
    if choice == "all":
        return np.arange(1 if count == 4 else 0, count)  # the first of four repeats one of the others
    if count == 4 and (choice == "single" or (choice == "auto" and sure)):
        return np.zeros(1, np.int64)
    first = 1 if count == 4 else 0
    return np.array([first + int(np.argmax(ious[first:]))], np.int64)


def _gather(prompts: Sequence[Prompt], boxed: bool) -> Query:
    boxes = np.stack([p.box for p in prompts if p.box is not None]) if boxed else None
    points = np.stack([p.points for p in prompts])
    labels = np.stack([np.asarray(p.labels, np.float32) for p in prompts])
    return Query(boxes, points, labels)


def _filled(query: Query, count: int) -> Query:
    """`query` with its last prompt repeated until there are `count`; as it is where `count` is 0 = any."""
    if count in (0, len(query)):
        return query
    rows = np.minimum(np.arange(count), len(query) - 1)
    return Query(None if query.boxes is None else query.boxes[rows], query.points[rows], query.labels[rows])


def _whole(place: Letterbox) -> Letterbox:
    """The place of maps that cover the original image."""
    return Letterbox(place.height, place.width, place.height, place.width, 0, 0, place.height, place.width)


def _fits(wanted: tuple[int, ...], given: tuple[int, ...]) -> bool:
    return len(wanted) == len(given) and all(-1 in (w, g) or w == g for w, g in zip(wanted, given, strict=True))
