# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Detectors without masks: an object's mask is its box. Good enough to prompt a SAM with, which draws real masks."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from seg_perception.masks import Masks
from seg_perception.options import option
from seg_perception.scene import Instances
from seg_perception.segmenters.networks.network import Family, NetworkConfig, NetworkSegmenter, names_of
from seg_perception.segmenters.networks.preprocessing import Preprocessing


@dataclass(frozen=True)
class BoxContract:
    """How the output is read; a sidecar's `decoding` changes it."""

    detections: str = option("dets", "output (1, n, 6): x_min, y_min, x_max, y_max in input pixels, score, class id")


class BoxDetector(NetworkSegmenter):
    """Instances of a detector of boxes."""

    Config = NetworkConfig
    KIND = "a detector of boxes"
    FAMILIES: ClassVar = {"boxes": Family(BoxContract(), Preprocessing(resize="letterbox", padding=114.0))}

    def _recognise(self):
        if [spec.shape[-1] for spec in self._backend.outputs if len(spec.shape) == 3] == [6]:
            return "boxes"
        raise self._refusal("it has no output of 6 columns", "family: boxes")

    def _bind(self, contract):
        if contract.detections not in [spec.name for spec in self._backend.outputs]:
            raise self._refusal(f"no output '{contract.detections}'", "decoding: {detections: NAME}")
        if not self._names:
            raise self._refusal("the model does not name its classes", "names: [...]")
        return contract, len(self._names)

    def _decode(self, outputs, place, frame):
        rows = outputs[self._contract.detections][0]
        rows = rows[rows[:, 4] > self._score_threshold]
        rows = rows[np.argsort(-rows[:, 4], kind="stable")]
        boxes = place.to_image(rows[:, :4])
        corners = boxes.round().astype(int)
        crops = [np.ones((y1 - y0, x1 - x0), bool) for x0, y0, x1, y1 in corners]
        masks = Masks.from_crops(frame.height, frame.width, crops, corners[:, :2])
        ids = rows[:, 5].astype(np.int32)
        return Instances.of(masks, rows[:, 4], ids, names_of(self.class_names, ids), boxes)
