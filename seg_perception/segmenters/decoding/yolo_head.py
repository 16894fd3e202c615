# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a YOLO segmentation network puts out, recognised from its metadata and shapes, and read into detections.

| head | predictions | who still has to choose |
|---|---|---|
| raw | (1, 4 + classes + K, anchors): cx cy w h, a score per class, coefficients | we do: score, NMS |
| v5 | (1, anchors, 5 + classes + K): cx cy w h, objectness, a score per class, coefficients | we do: product, NMS |
| final | (1, rows, 6 + K): x_min y_min x_max y_max, score, class, coefficients | nobody; rows may be zero padded |

All put out prototypes (1, K, h, w) as well, and boxes in network pixels. Final is what `nms=True` exports and YOLO26's
end-to-end exports have in common.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.options import ConfigError
from seg_perception.plugins import Backend, TensorSpec
from seg_perception.segmenters.decoding.candidates import highest, likely
from seg_perception.segmenters.networks.class_names import parse_names
from seg_perception.segmenters.networks.nms import nms

STRIDES = (8, 16, 32)
V5_ANCHORS = 3  # in each cell
EXPECTED = """expected
  one input     (1, 3, height, width) float
  predictions   (1, 4 + classes + K, anchors), or (1, anchors, 5 + classes + K) of a YOLOv5,
                or (1, rows, 6 + K) when NMS is in the graph
  prototypes    (1, K, height / 4, width / 4)"""

SIDECAR_LINES = ("  family: yolo_raw   # or yolo_final, yolov5", "  names: [...]")


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """N rows, best scores first: `boxes` (N, 4) `x_min, y_min, x_max, y_max` network px, `scores` (N,),
    `class_ids` (N,) and mask `coefficients` (N, K)."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    coefficients: NDArray[np.float32]
    broken: int = 0  # rows left out because a number was not finite

    def __getitem__(self, rows: NDArray) -> Detections:
        return Detections(
            self.boxes[rows], self.scores[rows], self.class_ids[rows], self.coefficients[rows], self.broken
        )


@dataclass(frozen=True)
class YoloHead:
    """The names and the layout of one network's inputs and outputs."""

    image: str
    predictions: str
    prototypes: str
    kind: str  # raw, v5 or final
    class_names: tuple[str, ...]
    coefficients: int
    size: tuple[int, int]  # height, width px of the input; for a free size the largest side to use
    free_size: bool
    stride: int

    @property
    def final(self) -> bool:
        """Whether the network has already chosen."""
        return self.kind == "final"

    def detect(
        self,
        outputs: Mapping[str, NDArray],
        score_threshold: float,
        iou_threshold: float,
        limit: int,
        allowed: NDArray[np.bool_],
    ) -> Detections:
        """Detections with a score above the threshold, of the classes `allowed` (C,), at most `limit`.

        Raises ValueError when the outputs have other shapes than the head.
        """
        table = self._table(outputs[self.predictions])
        if self.final:
            found = self._chosen_by_network(table, score_threshold, allowed)
            return found[np.argsort(-found.scores, kind="stable")[:limit]]
        first, classes = 5 if self.kind == "v5" else 4, len(self.class_names)  # the first class's column
        scores = table[:, first : first + classes]
        best = highest(scores.T) if self.kind == "raw" else table[:, 4] * scores.max(axis=1)
        boxes, scores, ids, rows, broken = likely(table, best, np.float32(score_threshold), first, classes, allowed)
        kept = nms(boxes, scores, ids, iou_threshold, limit)
        return Detections(boxes[kept], scores[kept], ids[kept], table[rows[kept], first + classes :], broken)

    def _table(self, predictions: NDArray) -> NDArray[np.float32]:
        """(anchors, columns), without copying."""
        classes, K = len(self.class_names), self.coefficients
        axis, expected = {"final": (2, 6 + K), "v5": (2, 5 + classes + K), "raw": (1, 4 + classes + K)}[self.kind]
        if predictions.ndim != 3 or predictions.shape[0] != 1 or predictions.shape[axis] != expected:
            want = (1, expected, "anchors") if axis == 1 else (1, "rows", expected)
            raise ValueError(f"{self.predictions}: expected {want}, got {predictions.shape}")
        table = np.asarray(predictions[0], np.float32)
        return table.T if self.kind == "raw" else table

    def _chosen_by_network(self, table: NDArray, score_threshold: float, allowed: NDArray[np.bool_]) -> Detections:
        classes = len(self.class_names)
        rows = table[table[:, 4] > score_threshold]
        finite = np.isfinite(rows).all(axis=1)
        rows = rows[finite]
        ids, broken = rows[:, 5], len(finite) - int(np.count_nonzero(finite))
        if ids.min(initial=0) < 0 or ids.max(initial=0) >= classes:
            raise ValueError(
                f"{self.predictions}: expected class ids 0..{classes - 1}, got {ids.min():g}..{ids.max():g}"
            )
        class_ids = ids.astype(np.int32)
        return Detections(rows[:, :4], rows[:, 4], class_ids, rows[:, 6:], broken)[allowed[class_ids]]


def recognise(
    backend: Backend, name: str, class_names: tuple[str, ...] = (), input_size: int = 0, kind: str = ""
) -> YoloHead:
    """The head of the network in `backend`; `class_names`, `input_size` (px) and `kind` stand in for its metadata.

    Raises ConfigError with a table of what was seen and expected when it is not certainly a YOLO segmentation network.
    """
    meta = backend.metadata
    if meta.get("task", "segment") != "segment":
        raise ConfigError(f"{name} is a YOLO for '{meta['task']}', expected one for 'segment' (e.g. yolo11n-seg)")
    ranks = {len(spec.shape): spec for spec in backend.outputs}
    if len(backend.inputs) != 1 or len(backend.outputs) != 2 or ranks.keys() != {3, 4}:
        raise _unknown(backend, name, "one input, an output of 3 and an output of 4 dimensions make a YOLO")
    image, predictions, prototypes = backend.inputs[0], ranks[3], ranks[4]
    K = prototypes.shape[1]
    if len(image.shape) != 4 or image.shape[1] != 3 or image.dtype not in (np.float32, np.float16):
        raise _unknown(backend, name, f"{image.name} is not a color image")
    if any(spec.shape[0] not in (-1, 1) for spec in (image, predictions, prototypes)):
        raise _unknown(backend, name, "the batch is not 1 (export with batch=1)")
    if K < 1:
        raise _unknown(backend, name, f"{prototypes.name} does not say how many prototypes there are")

    own_names = parse_names(meta["names"]) if "names" in meta else ()
    names = class_names or own_names
    if not names:
        raise _unknown(backend, name, "the model does not name its classes: set class_names")
    if own_names and len(names) != len(own_names):
        raise ConfigError(f"class_names: the model has {len(own_names)} classes, got {len(names)} names")
    size, free_size = _input_size(image, meta, input_size)
    kind = kind or _kind_of(meta, predictions.shape, len(names), K, size)
    if not kind:
        raise _unknown(backend, name, f"without Ultralytics' metadata, {predictions.name} fits neither head")
    columns = predictions.shape[1] if kind == "raw" else predictions.shape[2]
    expected = {"final": 6 + K, "v5": 5 + len(names) + K, "raw": 4 + len(names) + K}[kind]
    if columns not in (-1, expected):
        layout = f"6 + {K} columns" if kind == "final" else f"4 + {len(names)} classes + {K} = {expected} rows"
        raise _unknown(backend, name, f"{predictions.name} has {columns}, but its head has {layout}")
    stride = max(STRIDES[-1], int(float(meta.get("stride", "32"))))
    return YoloHead(image.name, predictions.name, prototypes.name, kind, names, K, size, free_size, stride)


def _kind_of(meta: Mapping[str, str], shape: tuple[int, ...], classes: int, K: int, size: tuple[int, int]) -> str:
    """By Ultralytics' metadata, which alone tells the heads apart in general; else only where the shape is certain."""
    if meta.get("end2end", "").lower() == "true":
        return "final"
    args = _literal(meta.get("args", ""))
    if isinstance(args, dict):
        return "final" if args.get("nms") else "raw"
    _, rows, columns = shape
    anchors = sum((size[0] // stride) * (size[1] // stride) for stride in STRIDES)
    if rows == 4 + classes + K and columns == anchors:
        return "raw"
    if columns == 5 + classes + K and rows == V5_ANCHORS * anchors:
        return "v5"  # its exporter writes names and stride, but no args
    if columns == 6 + K and 0 < rows < anchors:
        return "final"
    return ""


def _input_size(image: TensorSpec, meta: Mapping[str, str], asked: int) -> tuple[tuple[int, int], bool]:
    fixed = (image.shape[2], image.shape[3])
    if min(fixed) > 0:
        if asked and asked != max(fixed):
            raise ConfigError(f"input_size: the model's input is fixed at {fixed[1]}x{fixed[0]}, got {asked}")
        return fixed, False
    exported = _literal(meta.get("imgsz", "[640, 640]"))
    pair = [asked or exported] * 2 if asked or isinstance(exported, int) else exported
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
        raise ConfigError(f"the model's metadata has imgsz {meta['imgsz']}, expected [height, width]: set input_size")
    height, width = (known if known > 0 else wanted for known, wanted in zip(fixed, pair, strict=True))
    return (height, width), max(fixed) < 0


def _literal(text: str) -> Any:
    """The Python literal in `text`; None if there is none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _unknown(backend: Backend, name: str, reason: str) -> ConfigError:
    seen = [("input", spec) for spec in backend.inputs] + [("output", spec) for spec in backend.outputs]
    rows = [f"  {kind:<7} {spec.name:<14} {spec.shape} {spec.dtype}" for kind, spec in seen[:12]]
    known = {key: backend.metadata[key] for key in ("task", "head", "end2end", "args") if key in backend.metadata}
    rows.append(f"  metadata {known or 'none of a YOLO'}")
    sidecar = [f"say it in {PurePath(name).stem}.yaml beside the model:", *SIDECAR_LINES]
    about = f"{name} is not certainly a YOLO segmentation network: {reason}; seen"
    return ConfigError("\n".join([about, *rows, EXPECTED, *sidecar]))
