# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Networks that put out instances: masks equal to the dense reference, and every published form of outputs read."""

import cv2
import instances_reference
import numpy as np
import pytest
from contract_models import Rig, beside, blobs, different_pixels, picture
from hypothesis import given, settings
from hypothesis import strategies as st

from seg_perception.options import ConfigError
from seg_perception.plugins import Segmenter, TensorSpec
from seg_perception.scene import Frame
from seg_perception.segmenters.decoding.roi_masks import fill_polygons, paste_in_boxes
from seg_perception.segmenters.instances import InstanceNetwork

NAMES = ["bolt", "nut", "washer", "screw"]
SIZES = [(480, 640), (333, 500), (160, 160), (641, 479)]  # height, width


def build(models_dir, tmp_path, export, sidecar=None, **options) -> Rig:
    said = {"names": NAMES, **(sidecar or {})}
    return Rig(InstanceNetwork, beside(tmp_path, models_dir / "contracts" / f"{export}.onnx", said), **options)


def detections(count, size, seed=0):
    """Boxes (count, 4) in an input of `size`, some over its edge, labels 0..3 and falling scores."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-0.1, 0.8, (count, 2)) * size
    sides = rng.uniform(0.15, 0.5, (count, 2)) * size
    boxes = np.concatenate([corners, corners + sides], axis=1).clip(0, [*size, *size]).astype(np.float32)
    return boxes, rng.integers(0, 4, count), np.linspace(0.95, 0.55, count, dtype=np.float32)


def round_masks(count, cells, seed=0):
    """(count, cells, cells) probabilities: something ragged and round."""
    return 1 / (1 + np.exp(-np.array([blobs(1, cells, cells, seed + i)[0] for i in range(count)]))).reshape(
        -1, cells, cells
    ).astype(np.float32)


# -- kernels ---------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), cells=st.sampled_from([1, 7, 14, 28]), rounded=st.booleans())
def test_pasted_masks_equal_the_dense_reference(seed, cells, rounded):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(20, 140, 2))
    boxes = detections(6, np.array(shape[::-1]), seed)[0]
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    masks = cv2.blur(rng.uniform(size=(cells, cells, len(boxes))), (3, 3)).reshape(cells, cells, -1)
    masks = np.ascontiguousarray(masks.transpose(2, 0, 1), np.float32)
    expected = (instances_reference.rounded if rounded else instances_reference.exact)(masks, boxes, shape)
    found = paste_in_boxes(masks, boxes, *shape, 0.5, rounded)
    assert (found.dense() != expected).sum() <= 1 + expected.sum() // 10_000


def test_odd_boxes_paste_nothing_or_their_part():
    whole = np.ones((5, 28, 28), np.float32)
    boxes = np.float32(
        [[-50, -50, 20, 10], [5, 5, 5, 9], [np.nan, 0, 9, 9], [90, 40, 300, 300], [-1e9, -1e9, 1e9, 1e9]]
    )
    masks = paste_in_boxes(whole, boxes, 60, 100, 0.5, False)
    np.testing.assert_array_equal(masks.areas[[0, 1, 2, 4]], [20 * 10, 0, 0, 60 * 100])
    assert 190 <= masks.areas[3] < 200  # 10 x 20 less a corner: a mask falls off within half a cell of its box's edge
    rounded = paste_in_boxes(whole, boxes, 60, 100, 0.5, True)
    assert rounded.areas[0] >= 20 * 10
    assert (rounded.dense().sum(axis=(1, 2)) == rounded.areas).all()


def test_polygons_are_filled_at_pixel_centres():
    square = [[2.4, 1.6], [7.6, 1.6], [7.6, 4.4], [2.4, 4.4]]
    masks = fill_polygons(np.float32([square]), 8, 10)
    np.testing.assert_array_equal(masks.boxes, [[2, 2, 8, 4]])
    assert masks.areas[0] == 12
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    outlines = []
    for _ in range(5):
        radius = 60 + 8 * rng.normal(size=24)
        outlines.append(np.stack([100 + radius * np.cos(angles), 70 + radius * np.sin(angles)], axis=1))
    masks = fill_polygons(np.float32(outlines), 120, 160)  # over the bottom and the right edge
    y, x = np.mgrid[:120, :160] + 0.5
    for outline, mask in zip(outlines, masks.dense(), strict=True):
        inside = np.zeros((120, 160), bool)
        for (xa, ya), (xb, yb) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
            crosses = (ya <= y) != (yb <= y)
            inside ^= crosses & (xa + (y - ya) * (xb - xa) / (yb - ya) <= x)
        assert (mask != inside).sum() <= 2


# -- families ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 100, 300])
def test_torchvision_with_masks_pasted_in_the_graph(models_dir, tmp_path, count):
    rig = build(models_dir, tmp_path, "maskrcnn_tv_tiny", input_size=[160, 160], max_detections=300)
    assert rig.segmenter.family == "torchvision"
    boxes, labels, scores = detections(count, np.array([160, 160]))
    masks = np.array([cv2.GaussianBlur(m, (0, 0), 2) for m in round_masks(count, 160)], np.float32)
    masks = masks.reshape(count, 1, 160, 160)
    rig.given = {"boxes": boxes, "labels": labels + 1, "scores": scores, "masks": masks}
    for size in SIZES if count < 100 else SIZES[3 - count // 200 :][:1]:
        found = rig.segmenter.segment(Frame(picture(*size)))
        place = rig.segmenter._writer._place
        expected = instances_reference.over_input(masks[:, 0], place, size)
        assert different_pixels(found, expected) <= expected.sum() // 10_000
        np.testing.assert_array_equal(found.class_ids, labels)
        np.testing.assert_allclose(found.boxes, boxes * (np.float32(size[::-1] * 2) / 160), rtol=1e-5)
        if size == (160, 160):
            np.testing.assert_array_equal(found.masks.dense(), masks[:, 0] > 0.5)


@pytest.mark.parametrize("count", [0, 1, 100, 300])
def test_torchvision_stopped_before_the_paste(models_dir, tmp_path, count):
    rig = build(models_dir, tmp_path, "maskrcnn_roi28_tiny", max_detections=300)
    assert rig.segmenter.family == "torchvision_roi"
    boxes, labels, scores = detections(count, np.array([160, 160]))
    masks = round_masks(count, 28)
    rig.given = {"dets": np.concatenate([boxes, scores[:, None]], axis=1)[None], "labels": labels[None]}
    rig.given["masks"] = masks[None]
    for size in SIZES if count < 300 else SIZES[1:2]:
        found = rig.segmenter.segment(Frame(picture(*size)))
        in_image = boxes * (np.float32(size[::-1] * 2) / np.float32(160))
        expected = instances_reference.rounded(masks, in_image, size)
        kept = expected.any(axis=(1, 2))
        assert different_pixels(found, expected[kept]) <= 2 + expected.sum() // 10_000
        np.testing.assert_array_equal(found.class_names, np.array(NAMES)[labels[kept]])


def test_both_forms_of_the_same_weights_agree(models_dir, tmp_path):
    """The network's own outputs at the traced size: pasted in the graph and pasted here."""
    frame = Frame(picture(160, 160, 3))
    said = {"thresholds": {"score": 0.0, "mask": 0.47}}  # random weights: every probability is close to 0.5
    pasted = build(models_dir, tmp_path, "maskrcnn_tv_tiny", said, input_size=[160, 160]).segmenter.segment(frame)
    ours = build(models_dir, tmp_path, "maskrcnn_roi28_tiny", said).segmenter.segment(frame)
    assert len(pasted) == len(ours) >= 5
    np.testing.assert_allclose(pasted.boxes, ours.boxes, atol=1e-2)
    np.testing.assert_array_equal(pasted.class_ids, ours.class_ids)
    a, b = pasted.masks.dense(), ours.masks.dense()
    assert ((a & b).sum(axis=(1, 2)) >= 0.98 * (a | b).sum(axis=(1, 2))).all()


class Stub:
    """A backend that no file has: the names and shapes of a published exporter, and outputs given by the test."""

    def __init__(self, inputs, outputs):
        self.metadata = {}
        self.inputs = tuple(TensorSpec(n, s, np.dtype(t)) for n, s, t in inputs)
        self.outputs = tuple(TensorSpec(n, s, np.dtype(t)) for n, s, t in outputs)

    def __call__(self, inputs):
        self.fed = {name: array.copy() for name, array in inputs.items()}
        return self.given


def on_stub(monkeypatch, models_dir, tmp_path, stub, sidecar=None, **options) -> InstanceNetwork:
    """The segmenter with `stub` for a backend, whatever the file holds."""
    monkeypatch.setattr("seg_perception.segmenters.networks.network.start_backend", lambda backend, path: stub)
    return build(models_dir, tmp_path, "stub_solov2_dense", sidecar, **options).segmenter


@pytest.mark.parametrize("cells", [28, 224])
def test_detectron2_traced(monkeypatch, models_dir, tmp_path, cells):
    """Keys sorted by DictSchema, names are numbers, BGR 0..255, no batch; PointRend has 224 x 224 masks."""
    stub = Stub(
        [("x", (3, 120, 160), "f4")],
        [("1", (-1, 4), "f4"), ("2", (-1,), "i8"), ("3", (-1, 1, cells, cells), "f4"), ("4", (-1,), "f4"),
         ("5", (2,), "i8")],
    )  # fmt: skip
    segmenter = on_stub(monkeypatch, models_dir, tmp_path, stub)
    assert segmenter.family == "detectron2"
    boxes, labels, scores = detections(8, np.array([160, 120]), 4)
    masks = round_masks(8, cells)
    stub.given = {"1": boxes, "2": labels, "3": masks[:, None], "4": scores, "5": np.array([120, 160])}
    color = picture(240, 320)
    found = segmenter.segment(Frame(color))
    expected = instances_reference.exact(masks, boxes * np.float32(2), (240, 320))
    assert different_pixels(found, expected) <= 2 + expected.sum() // 10_000
    np.testing.assert_array_equal(found.class_ids, labels)
    scaled = cv2.resize(color, (160, 120), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(stub.fed["x"], scaled[..., ::-1].transpose(2, 0, 1), atol=1e-4)


@pytest.mark.parametrize("frame", ["box", "image"])
def test_mmdeploy_with_masks_in_boxes_or_over_the_input(monkeypatch, models_dir, tmp_path, frame):
    cells = 28 if frame == "box" else 128
    stub = Stub(
        [("input", (1, 3, 128, 128), "f4")],
        [("dets", (1, -1, 5), "f4"), ("labels", (1, -1), "i8"), ("masks", (1, -1, -1, -1), "f4")],
    )
    segmenter = on_stub(monkeypatch, models_dir, tmp_path, stub)
    assert segmenter.family == "mmdeploy"
    boxes, labels, scores = detections(6, np.array([128, 96]), 2)
    masks = round_masks(6, cells)
    rows = np.concatenate([boxes, scores[:, None]], axis=1)
    padding = np.zeros((3, 5), np.float32)  # mmdeploy fills up with score 0 and label -1
    stub.given = {
        "dets": np.concatenate([rows, padding])[None],
        "labels": np.append(labels, [-1] * 3)[None],
        "masks": np.concatenate([masks, masks[:3]])[None],
    }
    found = segmenter.segment(Frame(picture(240, 320)))  # 128x96, top left
    if frame == "box":
        expected = instances_reference.exact(masks, boxes * np.float32(2.5), (240, 320))
    else:
        expected = instances_reference.over_input(masks, segmenter._writer._place, (240, 320))
    assert different_pixels(found, expected) <= 2 + expected.sum() // 10_000
    np.testing.assert_allclose(found.boxes, boxes * 2.5, rtol=1e-5)


def test_solov2_has_masks_and_no_boxes(models_dir, tmp_path):
    rig = build(models_dir, tmp_path, "stub_solov2_dense")
    assert rig.segmenter.family == "solov2"
    assert isinstance(rig.segmenter, Segmenter)
    masks = round_masks(10, 160) > 0.5
    rig.given = {"masks": masks, "labels": np.arange(10) % 4, "scores": np.linspace(0.1, 0.9, 10, dtype=np.float32)}
    found = rig.segmenter.segment(Frame(picture(320, 320)))
    order = np.arange(9, 2, -1)  # 0.3 is not above the threshold
    expected = instances_reference.over_input(masks[order], rig.segmenter._writer._place, (320, 320))
    assert different_pixels(found, expected) == 0
    np.testing.assert_array_equal(found.boxes, found.masks.boxes)
    np.testing.assert_array_equal(found.class_ids, order % 4)
    rig.given = {}
    rig.segmenter.warm_up()


def test_polygons_of_a_network_by_its_sidecar(monkeypatch, models_dir, tmp_path):
    stub = Stub(
        [("image", (1, 3, 100, 200), "f4")],
        [("polygons", (-1, 4, 2), "f4"), ("labels", (-1,), "i8"), ("scores", (-1,), "f4")],
    )
    sidecar = {"family": "polygon", "decoding": {"box_unit": "shares", "label_base": 1}}
    segmenter = on_stub(monkeypatch, models_dir, tmp_path, stub, sidecar)
    corners = np.float32([[[0.25, 0.2], [0.75, 0.2], [0.75, 0.6], [0.25, 0.6]]])
    stub.given = {"polygons": corners, "labels": np.array([2]), "scores": np.float32([0.9])}
    found = segmenter.segment(Frame(picture(200, 400)))
    np.testing.assert_array_equal(found.boxes, [[100, 40, 300, 120]])
    assert found.class_names == ("nut",)


# -- options and what is wrong -----------------------------------------------------------------------------------------


def test_nonsense_is_dropped_and_labels_out_of_range_are_refused(models_dir, tmp_path):
    rig = build(models_dir, tmp_path, "maskrcnn_roi28_tiny")
    boxes, labels, scores = detections(4, np.array([160, 160]), 7)
    dets = np.concatenate([boxes, scores[:, None]], axis=1)
    dets[0, 0], dets[1, 4], dets[2, 4] = np.inf, np.nan, np.inf
    rig.given = {"dets": dets[None], "labels": labels[None], "masks": np.ones((1, 4, 28, 28), np.float32)}
    assert len(rig.segmenter.segment(Frame(picture(90, 120)))) == 1
    rig.given["masks"] = np.full((1, 4, 28, 28), np.nan, np.float32)
    assert len(rig.segmenter.segment(Frame(picture(90, 120)))) == 0
    rig.given["labels"] = np.array([[0, 0, 0, 4]])
    with pytest.raises(ValueError, match=r"labels: expected class ids 0\.\.3, got 4\.\.4"):
        rig.segmenter.segment(Frame(picture(90, 120)))
    rig.given["labels"] = np.zeros((1, 3), np.int64)
    with pytest.raises(ValueError, match="expected 3 rows, as many as labels, got 4"):
        rig.segmenter.segment(Frame(picture(90, 120)))


def test_a_free_input_size_must_be_said(models_dir, tmp_path):
    with pytest.raises(ConfigError, match="its input size is free: set input_size"):
        build(models_dir, tmp_path, "maskrcnn_tv_tiny")
    with pytest.raises(ConfigError, match="fixed at 160x160, got 320x320"):
        build(models_dir, tmp_path, "maskrcnn_roi28_tiny", input_size=[320, 320])


def test_a_model_without_names_is_refused_with_the_line_to_write(models_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"does not name its classes(.|\n)*names: \[...\]"):
        build(models_dir, tmp_path, "stub_solov2_dense", {"names": []})


@pytest.mark.parametrize(
    ("export", "reason"),
    [
        ("rfdetr_hf_tiny", "its outputs have other names and shapes"),
        ("yolov8-seg_tiny_nms", "its outputs have other names and shapes"),
        ("deeplabv3plus_smp_tiny", "its outputs have other names and shapes"),
        ("stub_yolact5", "its outputs have other names and shapes"),
        ("sam_tiny_decoder_boxes", "it has no color image input"),
    ],
)
def test_another_network_is_refused_with_what_was_seen(models_dir, tmp_path, export, reason):
    with pytest.raises(ConfigError) as error:
        build(models_dir, tmp_path, export)
    text = str(error.value)
    assert f"{export}.onnx is not certainly a network that puts out instances: {reason}" in text
    assert "seen\n  input" in text


def test_labels_that_are_no_whole_numbers_point_to_rfdetr(monkeypatch, models_dir, tmp_path):
    stub = Stub(
        [("input", (1, 3, 312, 312), "f4")],
        [("dets", (1, 100, 4), "f4"), ("labels", (1, 100, 91), "f4"), ("masks", (1, 100, 78, 78), "f4")],
    )
    with pytest.raises(ConfigError, match="an RF-DETR"):
        on_stub(monkeypatch, models_dir, tmp_path, stub)
