# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Networks that vote for centres: each pixel has a class and an offset to the centre of its object.

Panoptic-DeepLab: `sem_seg` (1, C, H, W) logits, `center` (1, 1, H, W) heat, `offset` (1, 2, H, W) dy, dx. Reference:
detectron2's `get_panoptic_segmentation` and the instance scores of its `PanopticDeepLab.forward`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.options import option
from seg_perception.scene import Frame, Instances
from seg_perception.segmenters.decoding.class_maps import without_padding
from seg_perception.segmenters.decoding.map_masks import on_cells
from seg_perception.segmenters.networks.letterbox import Letterbox
from seg_perception.segmenters.networks.network import Family, NetworkConfig, NetworkSegmenter, names_of
from seg_perception.segmenters.networks.preprocessing import IMAGENET


@dataclass(frozen=True)
class BottomUpContract:
    """How classes, centres and offsets are read."""

    things: tuple[int, ...] = option((), "ids of the classes that are objects; the others are background", ge=0)
    center_threshold: float = option(0.1, "heat above which a pixel may be a centre", ge=0)
    nms_kernel: int = option(7, "a centre is the hottest of this many pixels around it, odd", ge=1)
    most_centers: int = option(200, "centres per image, hottest first", ge=1)
    offset_order: str = option("yx", "of the two offset channels", choices=("yx", "xy"))
    offset_scale: float = option(1.0, "offsets times this are pixels of the output maps", ge=0)
    classes: str = option("sem_seg", "output with the class logits")
    center: str = option("center", "output with the heat of centres")
    offset: str = option("offset", "output with the offsets")


class BottomUp(NetworkSegmenter):
    """Instances of Panoptic-DeepLab: pixels of object classes go to the nearest centre of where they point.

    Grouped at the outputs' size; a pixel of the image takes the cell that it falls in. The class is that of most
    pixels, the score its mean probability times the heat at the mask's middle.
    """

    Config = NetworkConfig
    KIND = "a network that votes for centres"
    FAMILIES: ClassVar[Mapping[str, Family]] = {
        "panoptic_deeplab": Family(BottomUpContract(), replace(IMAGENET, resize="longest_side"), 0.0)
    }
    _contract: BottomUpContract

    def _recognise(self) -> str:
        if {spec.name for spec in self._backend.outputs} == {"sem_seg", "center", "offset"}:
            return "panoptic_deeplab"
        raise self._refusal(
            "its outputs have other names",
            "family: panoptic_deeplab",
            "decoding: {classes: NAME, center: NAME, offset: NAME, things: [ids of the classes that are objects]}",
        )

    def _bind(self, contract: BottomUpContract) -> tuple[BottomUpContract, int]:
        outputs = {spec.name: spec for spec in self._backend.outputs}
        for key, channels in (("classes", None), ("center", 1), ("offset", 2)):
            name = getattr(contract, key)
            shape: tuple[int, ...] = outputs[name].shape if name in outputs else ()
            if len(shape) != 4 or shape[0] not in (-1, 1) or (channels and shape[1] not in (-1, channels)):
                raise self._refusal(
                    f"{key}: no output '{name}' of shape (1, {channels or 'classes'}, height, width)",
                    f"decoding: {{{key}: NAME}}",
                )
        classes = max(outputs[contract.classes].shape[1], 0) or len(self._names)
        if not contract.things or max(contract.things) >= classes:
            raise self._refusal(
                "it does not say which classes are objects", f"decoding: {{things: [...]}}   # of 0..{classes - 1}"
            )
        if contract.nms_kernel % 2 == 0:
            raise self._refusal(f"nms_kernel: expected an odd number, got {contract.nms_kernel}")
        return contract, classes

    # ------------------------------------------------------------------------------------------------------------------

    def _decode(self, outputs: Mapping[str, NDArray], place: Letterbox, frame: Frame) -> Instances:
        contract = self._contract
        logits, heat, offset = (outputs[name][0] for name in (contract.classes, contract.center, contract.offset))
        if len(logits) != len(self.class_names) or not logits.shape[1:] == heat.shape[1:] == offset.shape[1:]:
            raise ValueError(
                f"expected {len(self.class_names)} classes and outputs of one size, got {contract.classes} "
                f"{logits.shape}, {contract.center} {heat.shape}, {contract.offset} {offset.shape}"
            )
        scale = contract.offset_scale
        if not on_cells((heat.shape[1], heat.shape[2]), place):
            scale *= place.net_height / heat.shape[1]  # enlarged to the input's size, and the offsets with them
        logits, heat, offset = (without_padding(maps, place) for maps in (logits, heat, offset))
        classes = logits.argmax(axis=0).astype(np.int32)
        things = np.isin(classes, contract.things)
        centers = find_centers(heat[0], contract.center_threshold, contract.nms_kernel, contract.most_centers)
        offset = offset[:: 1 if contract.offset_order == "yx" else -1] * np.float32(scale)
        owners = _owners(np.ascontiguousarray(offset), centers, things)
        with np.errstate(invalid="ignore", over="ignore"):
            powers = np.exp(logits - logits.max(axis=0))
            probabilities = powers / powers.sum(axis=0)
        ids, scores = _vote(owners, len(centers), classes, probabilities, heat[0])
        masks = Masks.from_label_image(_nearest(owners, place.height, place.width), len(centers))
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > self._score_threshold]
        return Instances.of(masks[order], scores[order], ids[order], names_of(self.class_names, ids[order]))


def find_centers(heat: NDArray[np.float32], threshold: float, kernel: int, most: int) -> NDArray[np.float32]:
    """Centres (K, 2) y, x: pixels of `heat` (H, W) above `threshold` and the hottest of a square of `kernel` px."""
    likely = np.where(heat > threshold, heat, np.float32(-1))
    hottest = np.where(likely == cv2.dilate(likely, np.ones((kernel, kernel), np.uint8)), likely, np.float32(-1))
    ranked = np.sort(hottest, axis=None)[::-1]
    least = max(float(ranked[min(most, ranked.size) - 1]), 0.0)
    return np.argwhere(hottest > least).astype(np.float32)


def _nearest(image: NDArray[np.int32], height: int, width: int) -> NDArray[np.int32]:
    """Each pixel takes the cell that its centre falls in."""
    rows = ((np.arange(height) + 0.5) * image.shape[0] / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * image.shape[1] / width).astype(np.int64)
    return image[rows[:, None], columns]


@njit(cache=True, nogil=True)
def _owners(offset, centers, things):  # type: ignore[no-untyped-def]
    """(H, W) number 1..K of the centre nearest to where each thing's pixel points; 0 = none."""
    height, width = things.shape
    out = np.zeros((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            if things[y, x]:
                v, u = np.float32(y) + offset[0, y, x], np.float32(x) + offset[1, y, x]
                nearest = np.float32(np.inf)
                for k in range(len(centers)):
                    far = (centers[k, 0] - v) ** 2 + (centers[k, 1] - u) ** 2
                    if far < nearest:
                        nearest = far
                        out[y, x] = k + 1
    return out


@njit(cache=True, nogil=True)
def _vote(owners, count, classes, probabilities, heat):  # type: ignore[no-untyped-def]
    """Class and score of each object."""
    height, width = owners.shape
    votes = np.zeros((count, len(probabilities)), np.int64)
    middles = np.zeros((count, 2))
    for y in range(height):
        for x in range(width):
            k = owners[y, x] - 1
            if k >= 0:
                votes[k, classes[y, x]] += 1
                middles[k, 0] += y
                middles[k, 1] += x
    ids = np.zeros(count, np.int32)
    scores = np.zeros(count, np.float32)
    sums = np.zeros(count)
    for k in range(count):
        ids[k] = np.argmax(votes[k])
    for y in range(height):
        for x in range(width):
            k = owners[y, x] - 1
            if k >= 0:
                sums[k] += probabilities[ids[k], y, x]
    for k in range(count):
        area = votes[k].sum()
        if area:
            scores[k] = sums[k] / area * heat[int(middles[k, 0] / area), int(middles[k, 1] / area)]
    return ids, scores
