# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Masks of the original post-processing, left in test/oracles/*.npz by the scripts there: ours are those.

0, 1, 100 and 300 instances at odd image sizes; for the real YOLOs on photographs, in ONNX Runtime and OpenVINO alike.
At most one pixel in 10 000 may differ, where a value is on the threshold.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest
from contract_models import Rig, beside
from oracle_cases import CLASSES, COUNTS, NET, SIZES, boxes, queries, yolo

from seg_perception.options import parse
from seg_perception.scene import Frame
from seg_perception.segmenters.decoding.roi_masks import paste_in_boxes
from seg_perception.segmenters.query import Query
from seg_perception.segmenters.yolo import Yolo

ORACLES = Path(__file__).parent / "oracles"
EXPORTS = {family: f"{family}_tiny.onnx" for family in ("mask2former", "maskformer", "oneformer", "eomt")}
EXPORTS |= {"detr": "detr_seg_tiny.onnx", "rfdetr": "rfdetr_hf_tiny.onnx"}
SIDECARS = {
    "oneformer": {"inputs": {"task_inputs": [[0] * 77]}},
    "detr": {"preprocessing": {"resize": "stretch"}},
    "rfdetr": {"decoding": {"no_object": "none"}},
}
PHOTOS = (("ycbv", 0, None), ("ycbv", 1, (641, 479)), ("mosd", 0, (333, 251)), ("mosd", 9, None))  # width, height
YOLOS = {"yolo11n-seg": 0.25, "yolo26n-seg_480x640": 0.1}  # score threshold


def unpacked(bits: np.ndarray, count: int, size: tuple[int, int]) -> np.ndarray:
    """(count, *size) bool."""
    return np.unpackbits(bits, count=count * size[0] * size[1]).reshape(count, *size).astype(bool)


def frame_of(size: tuple[int, int]) -> Frame:
    return Frame(np.zeros((*size, 3), np.uint8))


# -- networks with queries -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("family", EXPORTS)
def test_queries_are_those_of_transformers(models_dir, tmp_path, family, count):
    oracle = np.load(ORACLES / "query_masks.npz")
    no_object = family != "rfdetr"
    said = {"family": family, "names": [f"class {i}" for i in range(CLASSES)], **SIDECARS.get(family, {})}
    model = beside(tmp_path, models_dir / "contracts" / EXPORTS[family], said)
    rig = Rig(Query, model, score_threshold=0.5, max_detections=1000)
    contract = rig.segmenter._contract
    logits, maps = queries(count, CLASSES + no_object, no_object, COUNTS.index(count))
    rig.given = {contract.logits: logits[None], contract.maps: maps[None]}
    if contract.boxes:
        rig.given[contract.boxes] = np.full((1, len(logits), 4), 0.5, np.float32)
    assert family != "eomt" or rig.segmenter._size == (NET, NET)

    found = rig.segmenter.segment(frame_of(SIZES[count]))
    ids, scores = oracle[f"{family}_{count}_ids"], oracle[f"{family}_{count}_scores"]
    assert len(found) == len(ids)
    if f"{family}_{count}_masks" in oracle:
        expected = unpacked(oracle[f"{family}_{count}_masks"], len(ids), SIZES[count])
        masks = found.masks.dense()[paired(found, ids, scores, expected)]
        assert (masks != expected).sum() <= expected.sum() / 10_000
    else:
        labels = oracle[f"{family}_{count}_labels"]
        expected = np.arange(1, len(ids) + 1)[:, None, None] == labels
        painted = np.zeros(SIZES[count], np.int16)
        for i, mask in enumerate(found.masks.dense()[paired(found, ids, scores, expected)], 1):
            painted[mask] = i  # in the processor's order: the last one owns a pixel
        assert (painted != labels).sum() <= max((labels > 0).sum() / 10_000, 1)


def paired(found, ids: np.ndarray, scores: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The row of each of the oracle's instances: of its class and its score, and of those the most alike."""
    dense = found.masks.dense()
    left, rows = list(range(len(found))), []
    for class_id, score, mask in zip(ids, scores, expected, strict=True):
        own = [k for k in left if found.class_ids[k] == class_id and abs(found.scores[k] - score) < 2e-6 + 2e-5 * score]
        rows.append(min(own, key=lambda k: (dense[k] != mask).sum()))
        left.remove(rows[-1])
    return np.array(rows, np.int64)


# -- masks in boxes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("original", ["torchvision", "detectron2"])
def test_pasted_masks_are_those_of_torchvision_and_detectron2(original, count):
    bits = np.load(ORACLES / "pasted_masks.npz")[f"{original}_{count}"]
    expected = unpacked(bits, count, SIZES[count])
    corners, masks = boxes(count, SIZES[count], COUNTS.index(count))
    found = paste_in_boxes(masks, corners, *SIZES[count], 0.5, original == "torchvision")
    assert (found.dense() != expected).sum() <= expected.sum() / 10_000


# -- YOLO --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", COUNTS)
def test_yolo_detections_and_masks_are_those_of_ultralytics(models_dir, tmp_path, count):
    oracle = np.load(ORACLES / "yolo_masks.npz")
    model = beside(tmp_path, models_dir / "contracts" / "yolov8-seg_tiny_raw.onnx", None)
    rig = Rig(Yolo, model, score_threshold=0.25, iou_threshold=0.95)
    rig.given = dict(zip(("output0", "output1"), yolo(count, COUNTS.index(count)), strict=True))
    found = rig.segmenter.segment(frame_of(SIZES[count]))
    same(found, oracle[f"made_{count}_rows"], oracle[f"made_{count}_masks"])


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", YOLOS)
def test_real_yolos_see_what_ultralytics_sees_in_each_runtime(models_dir, data_dir, name, runtime):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    oracle = np.load(ORACLES / "yolo_masks.npz")
    options = {
        "model": str(models_dir / f"{name}.onnx"),
        "score_threshold": YOLOS[name],
        "backend": {"plugin": runtime},
    }
    segmenter = Yolo(parse(Yolo.Config, options))
    instances = 0
    for k, (folder, index, size) in enumerate(PHOTOS):
        image = cv2.imread(str(sorted((data_dir / folder / "frames").glob("*_rgb.*"))[index]))
        image = image if size is None else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        found = segmenter.segment(Frame(np.ascontiguousarray(image[..., ::-1])))
        same(found, oracle[f"{name}_{k}_rows"], oracle[f"{name}_{k}_masks"])
        instances += len(found)
    assert instances >= 5


def same(found, rows: np.ndarray, bits: np.ndarray) -> None:
    """`rows` (N, 6): box, score, class, best first."""
    size = (found.masks.height, found.masks.width)
    assert len(found) == len(rows)
    np.testing.assert_array_equal(found.class_ids, rows[:, 5].astype(int))
    np.testing.assert_allclose(found.scores, rows[:, 4], atol=1e-4)
    np.testing.assert_allclose(found.boxes, rows[:, :4], atol=0.05)
    expected = unpacked(bits, len(rows), size)
    assert (found.masks.dense() != expected).sum() <= expected.sum() / 10_000
