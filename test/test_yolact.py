# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""YOLACT: boxes, Fast-NMS, scores and masks equal to the dense reference, on a stub of its five outputs."""

import numpy as np
import pytest
import yolact_reference
from contract_models import Rig, beside, different_pixels, picture
from hypothesis import given, settings
from hypothesis import strategies as st

from seg_perception.options import ConfigError, parse, to_mapping
from seg_perception.plugins import Segmenter, TensorSpec
from seg_perception.scene import Frame
from seg_perception.segmenters.decoding.anchors import fast_nms
from seg_perception.segmenters.yolact import Yolact, _roles

SIZES = [(480, 640), (333, 500), (641, 479), (97, 131)]  # height, width
NAMES = ["bolt", "nut", "washer"]
NET = (160, 160)


def build(models_dir, tmp_path, sidecar=None, **options) -> Rig:
    model = beside(tmp_path, models_dir / "contracts" / "stub_yolact5.onnx", {"names": NAMES, **(sidecar or {})})
    return Rig(Yolact, model, **options)


def outputs(count: int, seed: int, anchors: np.ndarray) -> dict[str, np.ndarray]:
    """`count` anchors with one or two likely classes each, and neighbours of theirs that overlap them."""
    rng = np.random.default_rng(seed)
    total = len(anchors)
    logits = np.zeros((total, 4), np.float32)
    logits[:, 0] = 9
    chosen = rng.permutation(total)[:count]
    logits[chosen, 1 + rng.integers(0, 3, count)] += rng.uniform(7, 12, count)
    for i in chosen[: count // 3]:  # a neighbour that is the same object
        other = min(i + 1, total - 1)
        logits[other] = logits[i] - np.float32([0, 1, 1, 1]) * rng.uniform(0, 1)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    y, x = np.mgrid[:40, :40] / 6
    waves = [np.cos(x * rng.uniform(0.2, 2) + rng.uniform(0, 6)) + np.sin(y * rng.uniform(0.2, 2)) for _ in range(32)]
    return {
        "class": (powers / powers.sum(axis=1, keepdims=True))[None],
        "box": rng.normal(scale=0.5, size=(1, total, 4)).astype(np.float32),
        "coef": np.tanh(rng.normal(size=(1, total, 32))).astype(np.float32),
        "proto": np.maximum(np.stack(waves, axis=2), 0)[None].astype(np.float32),
    }


def anchors_of(rig: Rig) -> np.ndarray:
    rig.given = {}
    rig.segmenter.segment(Frame(picture(60, 80)))
    return rig.outputs["anchors"]


@pytest.mark.parametrize("count", [0, 1, 30, 100, 300])
def test_instances_equal_the_dense_reference(models_dir, tmp_path, count):
    """Scores above 0.05, which is where the reference begins, and at most 300 instead of its 100."""
    rig = build(models_dir, tmp_path, score_threshold=0.05, max_detections=300)
    anchors = anchors_of(rig)
    total = pixels = different = 0
    for seed, size in enumerate(SIZES if count < 100 else SIZES[1:]):
        rig.given = outputs(count, seed, anchors)
        found = rig.segmenter.segment(Frame(picture(*size, seed)))
        boxes, masks, ids, scores = yolact_reference.instances(rig.outputs, size, 0.05, limit=300)
        kept = masks.any(axis=(1, 2))
        np.testing.assert_array_equal(found.class_ids, ids[kept])
        np.testing.assert_array_equal(found.scores, scores[kept].astype(np.float32))
        np.testing.assert_allclose(found.boxes, boxes[kept], atol=1e-3)
        assert found.class_names == tuple(NAMES[i] for i in ids[kept])
        total, pixels = total + len(found), pixels + int(masks.sum())
        different += different_pixels(found, masks[kept])
    assert total >= min(2 * count, 200)
    assert different <= pixels / 100_000


def test_what_the_stub_itself_puts_out(models_dir, tmp_path):
    rig = build(models_dir, tmp_path, score_threshold=0.3)
    assert rig.segmenter.family == "yolact"
    assert isinstance(rig.segmenter, Segmenter)
    color = picture(150, 210)
    found = rig.segmenter.segment(Frame(color))
    np.testing.assert_allclose(rig.inputs["input"], yolact_reference.network_input(color, NET), atol=1e-5)
    boxes, masks, ids, _ = yolact_reference.instances(rig.outputs, (150, 210), 0.3)
    kept = masks.any(axis=(1, 2))
    assert len(found) == kept.sum() >= 10
    np.testing.assert_array_equal(found.class_ids, ids[kept])
    np.testing.assert_allclose(found.boxes, boxes[kept], atol=1e-3)
    assert different_pixels(found, masks[kept]) <= masks.sum() // 10_000
    rig.segmenter.warm_up()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 40), top_k=st.sampled_from([1, 5, 200]))
def test_fast_nms_is_the_references(seed, count, top_k):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 0.7, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.05, 0.5, (count, 2))], axis=1).astype(np.float32)
    scores = (rng.permutation(3 * count).reshape(count, 3) / (3 * count)).astype(np.float32)
    rows, ids = fast_nms(boxes, scores, -1, 0.5, top_k, 25)
    expected, _, classes, values = yolact_reference.fast_nms(boxes, boxes, scores.T, 0.5, top_k, 25)
    np.testing.assert_array_equal(boxes[rows], expected)
    np.testing.assert_array_equal(ids, classes)
    np.testing.assert_array_equal(scores[rows, ids], values)


def test_fast_nms_is_not_nms():
    """A chain: the second goes because of the first, the third because of the second, although that is gone."""
    boxes = np.float32([[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10], [30, 0, 40, 10]])
    scores = np.float32([[0.9], [0.8], [0.7], [0.6]])
    np.testing.assert_array_equal(fast_nms(boxes, scores, 0.1, 0.5, 200, 100)[0], [0, 3])


def test_a_mask_is_cropped_one_cell_around_its_box_before_it_is_enlarged(models_dir, tmp_path):
    rig = build(models_dir, tmp_path)
    anchors = anchors_of(rig)
    k = int(np.argmin(np.abs(anchors - [0.525, 0.525, 0.15, 0.15]).sum(axis=1)))  # 18..24 cells of 4 px, and one more
    rig.given = outputs(0, 0, anchors)
    rig.given["class"][0, k] = 0.05, 0, 0.9, 0
    rig.given["box"][:], rig.given["proto"][:] = 0, 1
    rig.given["coef"][:] = 1  # all of it is the object
    found = rig.segmenter.segment(Frame(picture(160, 160)))
    assert found.class_names == ("nut",)
    np.testing.assert_allclose(found.boxes, [[72, 72, 96, 96]], atol=1e-3)
    np.testing.assert_array_equal(found.masks.boxes, [[68, 68, 100, 100]])
    assert found.masks.areas[0] > 31 * 31


def test_options(models_dir, tmp_path):
    rig = build(models_dir, tmp_path, score_threshold=0.1)
    rig.given = outputs(60, 3, anchors_of(rig))
    frame = Frame(picture(120, 160))
    rig.given = outputs(60, 3, rig.outputs["anchors"])
    every = rig.segmenter.segment(frame)
    base = to_mapping(rig.segmenter._config)

    def changed(**options):
        return rig.segmenter.with_config(parse(Yolact.Config, {**base, **options})).segment(frame)

    np.testing.assert_array_equal(changed(max_detections=5).scores, every.scores[:5])
    assert set(changed(classes=["nut"]).class_names) == {"nut"}
    assert changed(score_threshold=0.5).scores.min() > 0.5
    assert len(changed(iou_threshold=1.0)) > len(every) > len(changed(iou_threshold=0.1))
    ignore = every.masks[0].dense()[0]
    assert every.scores[0] not in rig.segmenter.segment(Frame(frame.color, ignore=ignore)).scores


def test_raw_scores_and_coefficients_by_the_sidecar(models_dir, tmp_path):
    rig = build(models_dir, tmp_path, {"decoding": {"activation": "softmax", "coefficient_activation": "tanh"}})
    given_outputs = outputs(20, 1, anchors_of(rig))
    plain = build(models_dir, tmp_path)
    plain.given = given_outputs
    frame = Frame(picture(90, 120))
    expected = plain.segmenter.segment(frame)
    with np.errstate(divide="ignore"):
        raw = {
            "class": np.log(given_outputs["class"]) + 3,
            "coef": np.arctanh(given_outputs["coef"].clip(-1 + 1e-6, 1 - 1e-6)),
        }
    rig.given = {**given_outputs, **raw}
    found = rig.segmenter.segment(frame)
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert different_pixels(found, expected.masks.dense()) <= 5


def test_anchors_from_a_file(models_dir, tmp_path):
    rig = build(models_dir, tmp_path)
    anchors = anchors_of(rig)
    np.save(tmp_path / "anchors.npy", anchors)
    other = build(models_dir, tmp_path, {"family": "yolact", "decoding": {"anchors": "anchors.npy"}})
    rig.given = other.given = outputs(20, 1, anchors)
    frame = Frame(picture(90, 120))
    np.testing.assert_array_equal(rig.segmenter.segment(frame).boxes, other.segmenter.segment(frame).boxes)
    np.save(tmp_path / "anchors.npy", anchors[:10])
    short = build(models_dir, tmp_path, {"decoding": {"anchors": "anchors.npy"}})
    with pytest.raises(ValueError, match=r"class: expected \(10, 4\), one row per anchor, got \(1575, 4\)"):
        short.segmenter.segment(frame)
    with pytest.raises(ConfigError, match=r"none\.npy is not a readable \.npy file"):
        build(models_dir, tmp_path, {"decoding": {"anchors": "none.npy"}})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonsense_gives_no_broken_instance(models_dir, tmp_path, value):
    rig = build(models_dir, tmp_path)
    good = outputs(20, 1, anchors_of(rig))
    for name in good:
        rig.given = {**good, name: np.full_like(good[name], value)}
        found = rig.segmenter.segment(Frame(picture(77, 131)))
        assert np.isfinite(found.boxes).all()
        assert np.isfinite(found.scores).all()


# -- what is not certain is refused ------------------------------------------------------------------------------------


def spec(name, *shape):
    return TensorSpec(name, shape, np.dtype("f4"))


def test_roles_by_shape_where_names_are_numbers():
    found = _roles(
        [
            spec("1", 1, 900, 81),
            spec("2", 1, 900, 4),
            spec("3", 1, 900, 32),
            spec("4", 1, 34, 34, 32),
            spec("5", 900, 4),
        ]
    )
    assert found == {"classes": "1", "boxes": "2", "coefficients": "3", "prototypes": "4", "anchors": "5"}
    three_classes = [spec("1", 1, 900, 4), spec("2", 1, 900, 4), spec("3", 1, 900, 32), spec("4", 1, 34, 34, 32)]
    assert _roles([*three_classes, spec("5", 900, 4)]) == {}  # scores and boxes look alike
    assert _roles([spec("1", 1, 900, 32), spec("2", 1, 900, 4), spec("3", 1, 900, 32), spec("4", 1, 34, 34, 32)]) == {}


@pytest.mark.parametrize("export", ["yolov8-seg_tiny_raw", "maskrcnn_tv_tiny", "unet_smp_tiny", "mask2former_tiny"])
def test_another_network_is_refused_with_what_was_seen(models_dir, tmp_path, export):
    with pytest.raises(
        ConfigError, match=r"is not certainly a YOLACT(.|\n)*seen\n  input(.|\n)*family: yolact\n  decoding: "
    ):
        Rig(Yolact, beside(tmp_path, models_dir / "contracts" / f"{export}.onnx", None), input_size=[64, 64])


def test_names_are_needed_and_must_fit(models_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"does not name its classes(.|\n)*names: \[...\]   # without the background"):
        build(models_dir, tmp_path, {"names": []})
    with pytest.raises(ConfigError, match="3 classes, got 4 names"):
        build(models_dir, tmp_path, {"names": ["background", *NAMES]})
    with pytest.raises(ConfigError, match="boxes: no output 'deltas'"):
        build(models_dir, tmp_path, {"decoding": {"boxes": "deltas"}})
