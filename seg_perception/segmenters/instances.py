# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Networks that put out instances: box, label and score, and a mask in the box, over the input or as a polygon.

| family | outputs | reference post-processing |
|---|---|---|
| torchvision | boxes, labels (1-based), scores, masks (n, 1, H, W), pasted in the graph | torchvision: masks > 0.5 |
| torchvision_roi | dets (1, n, 5), labels (0-based), masks (1, n, 28, 28) | torchvision `paste_masks_in_image` |
| detectron2 | pred_boxes, pred_classes, pred_masks (n, 1, 28, 28), scores, image_size | `detector_postprocess` |
| mmdeploy | dets (1, n, 5), labels, masks in the box or over the input | mmdetection `_do_paste_mask` |
| solov2 | masks (n, H, W), labels, scores; no boxes | the masks as they are |
| polygon | polygons (n, P, 2), labels, scores | pixels whose centre is inside, even-odd |

Mask Scoring R-CNN, PointRend (224 x 224), BCNet and EVA's Cascade Mask R-CNN have detectron2's outputs or mmdeploy's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.options import option
from seg_perception.plugins import TensorSpec
from seg_perception.scene import Frame, Instances
from seg_perception.segmenters.decoding.map_masks import masks_above, on_cells
from seg_perception.segmenters.decoding.roi_masks import fill_polygons, paste_in_boxes
from seg_perception.segmenters.networks.letterbox import Letterbox
from seg_perception.segmenters.networks.network import Family, NetworkConfig, NetworkSegmenter, names_of
from seg_perception.segmenters.networks.preprocessing import IMAGENET, Preprocessing


@dataclass(frozen=True)
class InstancesContract:
    """How the outputs of a network that puts out instances are read."""

    mask_frame: str = option(
        "by_size",
        "box: stretched over the box; image: over the network's input; polygon: its corners; "
        "by_size: image if the masks have the input's size, else box",
        choices=("box", "image", "polygon", "by_size"),
    )
    label_base: int = option(0, "label of the first class", ge=0, le=1)
    box_unit: str = option("pixels", "of boxes and polygons, in the network's input", choices=("pixels", "shares"))
    paste: str = option(
        "exact", "boxes as they are, or rounded to whole pixels as torchvision does", choices=("exact", "rounded")
    )
    mask_threshold: float = option(0.5, "probability above which a pixel is in a mask", ge=0, le=1)
    boxes: str = option("", "output with boxes x_min, y_min, x_max, y_max, and scores if it has 5 columns")
    labels: str = option("", "output with class labels")
    scores: str = option("", "output with scores")
    masks: str = option("", "output with masks or polygons")


_IN_GRAPH = Preprocessing()
_MMDET = replace(IMAGENET, resize="longest_side")
_DETECTRON = Preprocessing(resize="longest_side", color="bgr", white=255.0, padding=114.0)


class InstanceNetwork(NetworkSegmenter):
    """Instances of Mask R-CNN and its kin, SOLOv2, and networks of polygons: see the table in this module.

    Scores are the network's own, which has already suppressed what it found twice.
    """

    Config = NetworkConfig
    KIND = "a network that puts out instances"
    FAMILIES: ClassVar[Mapping[str, Family]] = {
        "torchvision": Family(InstancesContract(mask_frame="image", label_base=1), _IN_GRAPH),
        "torchvision_roi": Family(InstancesContract(mask_frame="box", paste="rounded"), _IN_GRAPH),
        "detectron2": Family(InstancesContract(mask_frame="box"), _DETECTRON),
        "mmdeploy": Family(InstancesContract(), _MMDET, 0.3),
        "solov2": Family(InstancesContract(mask_frame="image"), _MMDET, 0.3),
        "polygon": Family(InstancesContract(mask_frame="polygon"), _DETECTRON),
    }
    _contract: InstancesContract

    def _recognise(self) -> str:
        outputs = {spec.name: spec for spec in self._backend.outputs}
        if outputs.keys() == {"boxes", "labels", "scores", "masks"}:
            return "torchvision"
        if outputs.keys() == {"dets", "labels", "masks"}:
            if outputs["labels"].dtype.kind == "f":
                raise self._refusal("its labels are not whole numbers: an RF-DETR? Take the segmenter query")
            return "mmdeploy" if len(self._image.shape) == 4 else "torchvision_roi"
        if outputs.keys() == {"masks", "labels", "scores"} and len(outputs["masks"].shape) == 3:
            return "solov2"
        if _detectron_roles(self._backend.outputs):
            return "detectron2"
        raise self._refusal(
            "its outputs have other names and shapes",
            f"family: mmdeploy   # or {', '.join(self.FAMILIES)}",
            "decoding: {boxes: NAME, labels: NAME, scores: NAME, masks: NAME, mask_frame: box, label_base: 0}",
        )

    def _bind(self, contract: InstancesContract) -> tuple[InstancesContract, int]:
        outputs = {spec.name: spec for spec in self._backend.outputs}
        roles = {"boxes": "boxes" if "boxes" in outputs else "dets", "labels": "labels", "scores": "scores"}
        roles["masks"] = "polygons" if contract.mask_frame == "polygon" else "masks"
        if self.family == "detectron2":
            roles |= _detectron_roles(self._backend.outputs)
        named: dict[str, Any] = {role: getattr(contract, role) or name for role, name in roles.items()}
        for role in ("boxes", "scores"):  # not every network has them
            if named[role] not in outputs and not getattr(contract, role):
                named[role] = ""
        for role, name in named.items():
            if name not in outputs and (name or role in ("labels", "masks")):
                raise self._refusal(f"{role}: no output '{name}'", f"decoding: {{{role}: NAME}}")
        if not named["scores"] and (not named["boxes"] or outputs[named["boxes"]].shape[-1] not in (-1, 5)):
            raise self._refusal("no output has scores", "decoding: {scores: NAME}")
        if contract.mask_frame == "box" and not named["boxes"]:
            raise self._refusal("masks in boxes need boxes", "decoding: {boxes: NAME}")
        if not self._names:
            raise self._refusal("the model does not name its classes", "names: [...]")
        return replace(contract, **named), len(self._names)

    # ------------------------------------------------------------------------------------------------------------------

    def _decode(self, outputs: Mapping[str, NDArray], place: Letterbox, frame: Frame) -> Instances:
        contract = self._contract
        labels = _rows(outputs[contract.labels], 1)
        count = len(labels)
        boxes = _rows(outputs[contract.boxes], 2) if contract.boxes else None
        scores = _rows(outputs[contract.scores], 1) if contract.scores else _rows(outputs[contract.boxes], 2)[:, 4]
        masks = _rows(outputs[contract.masks], 3)
        for name, rows in (
            (contract.boxes, boxes),
            (contract.scores or contract.boxes, scores),
            (contract.masks, masks),
        ):
            if rows is not None and len(rows) != count:
                raise ValueError(f"{name}: expected {count} rows, as many as {contract.labels}, got {len(rows)}")
        likely = (scores > self._score_threshold) & np.isfinite(scores)
        if boxes is not None:
            likely &= np.isfinite(boxes).all(axis=1)
        order = np.flatnonzero(likely)
        order = order[np.argsort(-scores[order], kind="stable")]
        class_ids = labels[order].astype(np.int32) - contract.label_base
        names = names_of(self.class_names, class_ids)
        in_image = None if boxes is None else self._in_image(boxes[order, :4], place)
        found = self._masks(masks[order], in_image, place)
        return Instances.of(found, scores[order], class_ids, names, found.boxes if in_image is None else in_image)

    def _masks(self, masks: NDArray, boxes: NDArray[np.float32] | None, place: Letterbox) -> Masks:
        contract = self._contract
        if contract.mask_frame == "polygon":
            corners = masks.reshape(-1, 2).astype(np.float32)
            corners = self._in_image(np.concatenate([corners, corners], axis=1), place, cut=False)[:, :2]
            return fill_polygons(corners.reshape(masks.shape), place.height, place.width)
        values = masks.view(np.uint8) if masks.dtype == np.bool_ else masks
        own = (values.shape[1], values.shape[2])
        if contract.mask_frame == "box" or (contract.mask_frame == "by_size" and own != self._size):
            if boxes is None:
                raise ValueError(f"{contract.masks}: expected masks of the input's size {self._size}, got {own}")
            rounded = contract.paste == "rounded"
            return paste_in_boxes(values, boxes, place.height, place.width, contract.mask_threshold, rounded)
        grid = own if on_cells(own, place) else self._size
        return masks_above(values, grid, place, contract.mask_threshold, False)[0]

    def _in_image(self, boxes: NDArray, place: Letterbox, cut: bool = True) -> NDArray[np.float32]:
        """Boxes (N, 4) from the network's input to image pixels, cut at the image's edge."""
        boxes = boxes.astype(np.float32)
        if self._contract.box_unit == "shares":
            boxes = boxes * np.array([place.net_width, place.net_height] * 2, np.float32)
        if cut:
            return place.to_image(boxes)
        offset = np.array([place.left, place.top] * 2, np.float32)
        return (boxes - offset) / np.array(
            [place.scaled_width / place.width, place.scaled_height / place.height] * 2, np.float32
        )


def _rows(array: NDArray, rank: int) -> NDArray:
    """The array without its batch and channel of 1, so that `rank` dimensions are left."""
    if rank == 3 and array.ndim == 4:
        return array[0] if array.shape[0] == 1 and array.shape[1] != 1 else array[:, 0]
    return array[0] if array.ndim == rank + 1 else array


def _detectron_roles(outputs: tuple[TensorSpec, ...]) -> dict[str, str]:
    """Detectron2's traced outputs have numbers for names: found by shape; empty if they are not these."""
    found: dict[str, list[str]] = {"boxes": [], "labels": [], "masks": [], "scores": [], "size": []}
    for spec in outputs:
        rank, last, is_float = len(spec.shape), spec.shape[-1] if spec.shape else 0, spec.dtype.kind == "f"
        if is_float and rank == 4 and spec.shape[1] == 1:
            found["masks"].append(spec.name)
        elif is_float and rank == 2 and last == 4:
            found["boxes"].append(spec.name)
        elif rank == 1:
            found["scores" if is_float else "size" if last == 2 else "labels"].append(spec.name)
    if len(outputs) != 5 or any(len(names) != 1 for names in found.values()):
        return {}
    return {role: names[0] for role, names in found.items() if role != "size"}
