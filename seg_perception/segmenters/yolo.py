# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""YOLO instance segmentation: YOLOv8, YOLO11, YOLO12, YOLO26 (-seg) and FastSAM, as Ultralytics exports them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from seg_perception.options import ConfigError, Selected, option, plugin, refuse_fixed
from seg_perception.plugins import Backend
from seg_perception.scene import Frame, Instances
from seg_perception.segmenters.decoding.prototypes import decode_masks
from seg_perception.segmenters.decoding.yolo_head import recognise
from seg_perception.segmenters.networks.class_names import allowed_classes
from seg_perception.segmenters.networks.ignore import ignored_share
from seg_perception.segmenters.networks.letterbox import Letterbox
from seg_perception.segmenters.networks.model_file import find_model, fingerprint, start_backend
from seg_perception.segmenters.networks.outputs import not_a_number
from seg_perception.segmenters.networks.sidecar import Sidecar, read_sidecar, sidecar_path

EXPORT_HINT = "`yolo export model=yolo11n-seg.pt format=onnx` makes one"
SCORE_THRESHOLD = 0.25

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class YoloConfig:
    """Which network, and which of its detections count."""

    model: str = option("", "ONNX file, relative to the working directory or to the shipped models/ folder")
    family: str = option("", "layout of the outputs; empty = as the model's metadata or its shapes say")
    score_threshold: float = option(
        -1.0, "detections up to this score are dropped; -1 = as the sidecar has it, else 0.25", ge=-1, le=1, live=True
    )
    iou_threshold: float = option(
        0.7, "of two boxes of a class that overlap more, the better stays; no effect with NMS in the graph",
        ge=0, le=1, live=True,
    )  # fmt: skip
    max_detections: int = option(300, "detections per image, best scores first", ge=1, le=10000, live=True)
    classes: tuple[str, ...] = option((), "names of the classes that count; empty = all", live=True)
    class_names: tuple[str, ...] = option(
        (), "class names in order of id; empty = as the sidecar or the model's metadata has them"
    )
    input_size: int = option(
        0, "longest side of the input of a model exported with a free one; 0 = as exported", unit="px", ge=0, le=8192
    )
    max_ignored: float = option(
        0.5, "an instance with more than this share of its mask in the ignore mask is dropped", ge=0, le=1, live=True
    )
    backend: Selected = plugin("backends", "onnxruntime", "the runtime")


class Yolo:
    """Instances of a YOLO segmentation network, boxes and masks at the color image's size.

    Scores, boxes, NMS and masks are those of Ultralytics' predictor with `retina_masks=True`, which is the reference.
    Masks are whole: pixels under `frame.ignore` stay in; see `max_ignored`. Raises ConfigError: no or no such model.
    """

    Config = YoloConfig
    FAMILIES: ClassVar[Mapping[str, str]] = {
        "yolo": "",  # as metadata or shapes say
        "yolo_raw": "raw",
        "yolo_final": "final",
        "yolov5": "v5",
    }

    def __init__(self, config: YoloConfig) -> None:
        path = find_model(config.model, EXPORT_HINT, config.backend)
        backend = start_backend(config.backend, path)
        sidecar = read_sidecar(path, backend.metadata)
        for key in ("preprocessing", "decoding", "inputs"):
            if getattr(sidecar, key):
                raise ConfigError(f"{sidecar_path(path).name}: {key}: a YOLO has its own, always the same")
        self._setup(config, backend, fingerprint(path), sidecar)

    def _setup(self, config: YoloConfig, backend: Backend, model: str, sidecar: Sidecar) -> None:
        self._config = config
        self._backend = backend
        self._sidecar = sidecar
        self.model = model
        self.family = config.family or sidecar.family or "yolo"
        if self.family not in self.FAMILIES:
            raise ConfigError(f"family: expected one of {', '.join(self.FAMILIES)}, got '{self.family}'")
        names = config.class_names or sidecar.class_names
        self._head = recognise(backend, config.model, names, config.input_size, self.FAMILIES[self.family])
        asked = (config.score_threshold, sidecar.thresholds.score, SCORE_THRESHOLD)
        self._score_threshold = next(score for score in asked if score >= 0)
        self.class_names = self._head.class_names
        self._allowed = allowed_classes(config.classes, self.class_names)
        self._letterbox: Letterbox | None = None
        self._tensor = np.empty(0, np.float32)
        self._warned = False
        self.problem = ""  # with the last outputs

    def with_config(self, config: YoloConfig) -> Yolo:
        """The same network with other thresholds. Raises ConfigError when the network itself would change."""
        refuse_fixed(self._config, config)
        other = object.__new__(Yolo)
        other._setup(config, self._backend, self.model, self._sidecar)
        return other

    def warm_up(self) -> None:
        """Runs the network once and compiles the decoder."""
        self.segment(Frame(np.zeros((480, 640, 3), np.uint8), ignore=np.zeros((480, 640), np.bool_)))

    def segment(self, frame: Frame) -> Instances:
        config, head = self._config, self._head
        letterbox = self._letterbox_of(frame)
        letterbox.write(frame.color, self._tensor)
        outputs = self._backend({head.image: self._tensor})
        self.problem = not_a_number(outputs)
        found = head.detect(outputs, self._score_threshold, config.iou_threshold, config.max_detections, self._allowed)
        if found.broken:
            self._warn(f"{self.model}: {found.broken} detections with NaN or inf dropped (float16 overflow?)")
        boxes = letterbox.to_image(found.boxes)
        masks = decode_masks(outputs[head.prototypes][0], found.coefficients, boxes, letterbox)
        names = tuple(self.class_names[i] for i in found.class_ids.tolist())
        instances = Instances(boxes, found.scores, found.class_ids, names, masks)
        counts = masks.offsets[1:] > masks.offsets[:-1]
        if frame.ignore is not None:
            counts &= ignored_share(masks, frame.ignore) <= config.max_ignored
        return instances if counts.all() else instances[counts]

    def _letterbox_of(self, frame: Frame) -> Letterbox:
        """How this frame goes into the network; kept, with its input tensor, until the image size changes."""
        if self._letterbox is None or (self._letterbox.height, self._letterbox.width) != frame.color.shape[:2]:
            multiple = self._head.stride if self._head.free_size else 0
            self._letterbox = Letterbox.fit((frame.height, frame.width), self._head.size, multiple)
            self._tensor = self._letterbox.blank()
        return self._letterbox

    def _warn(self, text: str) -> None:
        if not self._warned:
            logger.warning(text)
            self._warned = True
