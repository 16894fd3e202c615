# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""YOLACT: anchors moved by what the network says, Fast-NMS, masks from prototypes.

Outputs: class (1, A, 1 + classes) probabilities, box (1, A, 4), coef (1, A, K), proto (1, h, w, K), anchors (A, 4).
Reference: `Detect` and `postprocess` of dbolya/yolact, `nms` and `after_nms` of feiyuhuahuo/Yolact_minimal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from seg_perception.options import ConfigError, option
from seg_perception.scene import Frame, Instances
from seg_perception.segmenters.decoding.anchors import boxes_of, fast_nms
from seg_perception.segmenters.decoding.map_masks import masks_above, on_cells
from seg_perception.segmenters.decoding.prototypes import cropped_probabilities
from seg_perception.segmenters.networks.letterbox import Letterbox
from seg_perception.segmenters.networks.network import Family, NetworkConfig, NetworkSegmenter, names_of
from seg_perception.segmenters.networks.preprocessing import Preprocessing

ROLES = ("classes", "boxes", "coefficients", "prototypes", "anchors")
USUAL_NAMES = {"classes": "class", "boxes": "box", "coefficients": "coef", "prototypes": "proto", "anchors": "anchors"}


@dataclass(frozen=True)
class YolactContract:
    """How the outputs are read."""

    activation: str = option("none", "of the class scores; none: they are probabilities", choices=("none", "softmax"))
    coefficient_activation: str = option(
        "none", "of the coefficients; none: the tanh is in the graph", choices=("none", "tanh")
    )
    variances: tuple[float, float] = option((0.1, 0.2), "scale of the offsets and of the logarithms of sizes", ge=0)
    top_k: int = option(200, "candidates per class that Fast-NMS looks at, best scores first", ge=1)
    crop_margin: float = option(1.0, "a mask may leave its box by this much", unit="prototype cells", ge=0)
    mask_threshold: float = option(0.5, "probability above which a pixel is in a mask", ge=0, le=1)
    classes: str = option("", "output with a score per anchor and class, background first; empty = by name and shape")
    boxes: str = option("", "output with an offset per anchor")
    coefficients: str = option("", "output with mask coefficients per anchor")
    prototypes: str = option("", "output with prototypes, channels last")
    anchors: str = option("", "output with the anchors, centre and size in 0..1; or an .npy file beside the sidecar")


@dataclass(frozen=True)
class YolactConfig(NetworkConfig):
    """Which network, and which of its instances count."""

    iou_threshold: float = option(
        0.5, "a box that overlaps more with a better one of its class goes, even if that one goes too", ge=0, le=1,
        live=True,
    )  # fmt: skip


class Yolact(NetworkSegmenter):
    """Instances of a YOLACT, exported with its five outputs. Masks are cropped before they are enlarged, as there."""

    Config = YolactConfig
    KIND = "a YOLACT"
    FAMILIES: ClassVar[Mapping[str, Family]] = {
        "yolact": Family(
            YolactContract(),
            Preprocessing(white=255.0, mean=(123.68, 116.78, 103.94), std=(58.40, 57.12, 57.38)),
            0.15,
        )
    }
    _contract: YolactContract
    _config: YolactConfig

    def _recognise(self) -> str:
        if all(_roles(self._backend.outputs).get(role) for role in ROLES):
            return "yolact"
        raise self._refusal("its outputs have other names and shapes", "family: yolact", _decoding_line())

    def _bind(self, contract: YolactContract) -> tuple[YolactContract, int]:
        outputs = {spec.name: spec for spec in self._backend.outputs}
        found = _roles(self._backend.outputs)
        named: dict[str, Any] = {role: getattr(contract, role) or found.get(role, "") for role in ROLES}
        self._anchors = np.empty((0, 4), np.float32)
        if named["anchors"].endswith(".npy"):
            self._anchors = self._load_anchors(named["anchors"])
        for role, name in named.items():
            if name not in outputs and not (role == "anchors" and len(self._anchors)):
                raise self._refusal(f"{role}: no output '{name}'", "family: yolact", _decoding_line())
        if not self._names:
            raise self._refusal("the model does not name its classes", "names: [...]   # without the background")
        return replace(contract, **named), max(outputs[named["classes"]].shape[-1] - 1, 0) or len(self._names)

    def _load_anchors(self, name: str) -> NDArray[np.float32]:
        path = self._path.parent / name
        try:
            anchors = np.load(path, allow_pickle=False).astype(np.float32)
        except (OSError, ValueError) as error:
            raise ConfigError(f"decoding.anchors: {path} is not a readable .npy file: {error}") from None
        if anchors.ndim != 2 or anchors.shape[1] != 4:
            raise ConfigError(f"decoding.anchors: {path}: expected (anchors, 4), got {anchors.shape}")
        return anchors

    # ------------------------------------------------------------------------------------------------------------------

    def _decode(self, outputs: Mapping[str, NDArray], place: Letterbox, frame: Frame) -> Instances:
        contract = self._contract
        scores, offsets, coefficients = (_rows(outputs[getattr(contract, role)]) for role in ROLES[:3])
        prototypes = outputs[contract.prototypes]
        prototypes = np.ascontiguousarray(prototypes[0] if prototypes.ndim == 4 else prototypes, np.float32)
        anchors = self._anchors if len(self._anchors) else _rows(outputs[contract.anchors])
        self._check(scores, offsets, coefficients, anchors, prototypes)
        if contract.activation == "softmax":
            with np.errstate(invalid="ignore", over="ignore"):
                scores = np.exp(scores - scores.max(axis=1, keepdims=True))
                scores /= scores.sum(axis=1, keepdims=True)
        likely = np.flatnonzero((scores[:, 1:] > self._score_threshold).any(axis=1))
        boxes = boxes_of(offsets[likely], anchors[likely], contract.variances)
        finite = np.logical_and.reduce(
            [np.isfinite(a).all(axis=1) for a in (boxes, scores[likely], coefficients[likely])]
        )
        likely, boxes = likely[finite], boxes[finite]
        candidates = np.where(self._allowed, scores[likely, 1:], np.float32(-1))
        rows, ids = fast_nms(
            boxes, candidates, self._score_threshold, self._config.iou_threshold, contract.top_k,
            self._config.max_detections,
        )  # fmt: skip
        chosen, boxes = likely[rows], boxes[rows]
        weights = coefficients[chosen]
        if contract.coefficient_activation == "tanh":
            weights = np.tanh(weights)
        maps = cropped_probabilities(prototypes, weights, boxes, contract.crop_margin)
        own = (maps.shape[1], maps.shape[2])
        grid = own if on_cells(own, place) else self._size
        masks, _ = masks_above(maps, grid, place, contract.mask_threshold, False)
        size = np.array([place.net_width, place.net_height] * 2, np.float32)
        in_image = place.to_image(_upright(boxes) * size)
        return Instances.of(masks, scores[chosen, 1 + ids], ids, names_of(self.class_names, ids), in_image)

    def _check(
        self, scores: NDArray, offsets: NDArray, weights: NDArray, anchors: NDArray, prototypes: NDArray
    ) -> None:
        count = len(anchors)
        expected = (("classes", scores, 1 + len(self.class_names)), ("boxes", offsets, 4), ("anchors", anchors, 4),
                    ("coefficients", weights, prototypes.shape[-1]))  # fmt: skip
        for role, array, columns in expected:
            if array.shape != (count, columns):
                name = getattr(self._contract, role)
                raise ValueError(f"{name}: expected {(count, columns)}, one row per anchor, got {array.shape}")


def _roles(outputs: Any) -> dict[str, str]:
    """Which output is which: by the usual names, else by shapes where these leave no doubt."""
    names = {spec.name for spec in outputs}
    by_name = {role: name for role, name in USUAL_NAMES.items() if name in names}
    if len(by_name) >= len(ROLES) - 1:
        return by_name
    maps = [spec for spec in outputs if len(spec.shape) == 4]
    anchors = [spec for spec in outputs if len(spec.shape) == 2 and spec.shape[1] == 4]
    tables = {spec.shape[-1]: spec.name for spec in outputs if len(spec.shape) == 3}
    if len(maps) != 1 or len(outputs) != 4 + len(anchors) or len(anchors) > 1 or len(tables) != 3 or 4 not in tables:
        return {}
    channels = maps[0].shape[-1]
    if channels == 4 or channels not in tables:
        return {}
    others = [name for columns, name in tables.items() if columns not in (4, channels)]
    found = {"classes": others[0], "boxes": tables[4], "coefficients": tables[channels], "prototypes": maps[0].name}
    return found | ({"anchors": anchors[0].name} if anchors else {})


def _decoding_line() -> str:
    return f"decoding: {{{', '.join(f'{role}: NAME' for role in ROLES)}}}   # anchors: or FILE.npy"


def _rows(array: NDArray) -> NDArray[np.float32]:
    return np.asarray(array[0] if array.ndim == 3 else array, np.float32)


def _upright(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same boxes with the smaller corner first."""
    a, b = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([np.minimum(a, b), np.maximum(a, b)], axis=1)
