# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Promptable networks: MobileSAM's real weights, exports of every dialect, what prompts them, and what can be wrong."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import sam_reference as reference
import sam_stand_in
import yaml

from seg_perception import Pipeline, load_config
from seg_perception.evaluation import score_frame
from seg_perception.folder import RgbdFolder
from seg_perception.options import ConfigError, parse, to_mapping
from seg_perception.plugins import Segmenter, load_plugin
from seg_perception.scene import Frame, Instances
from seg_perception.segmenters.promptable import Promptable
from seg_perception.segmenters.sam.prompts import Prompt, grid_prompts, inner_points

ONE_THREAD = {"plugin": "onnxruntime", "threads": 1}
MOBILE = ("mobile_sam_encoder.onnx", "mobile_sam_decoder.onnx")
ORACLE = Path(__file__).parent / "oracles" / "sam_masks.npz"
BOX = np.array([0.2, 0.3, 0.7, 0.8])  # shares of the image


def load(folder: Path, encoder: str, decoder: str, **options) -> Promptable:
    files = {"encoder": str(folder / encoder), "decoder": str(folder / decoder)}
    backends = {"backend": ONE_THREAD, "decoder_backend": ONE_THREAD}
    return Promptable(parse(Promptable.Config, {**files, **backends, **options}))


def photo(data_dir: Path, part: str, k: int, size: tuple[int, int] | None = None) -> np.ndarray:
    path = sorted((data_dir / part / "frames").glob("*_rgb.*"))[k]
    color = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return color if size is None else cv2.resize(color, size, interpolation=cv2.INTER_AREA)


class Tap:
    """A backend in front of another one: keeps what went in and came out; `spoil(outputs)` may change that."""

    def __init__(self, backend, spoil=None):
        self.backend, self.spoil = backend, spoil

    def __call__(self, inputs):
        self.inputs = {name: array.copy() for name, array in inputs.items()}
        self.outputs = {name: array.copy() for name, array in self.backend(inputs).items()}
        if self.spoil is not None:
            self.spoil(self.outputs)
        return self.outputs

    def __getattr__(self, name):
        return getattr(self.backend, name)


def tap_decoder(sam: Promptable, spoil=None) -> Tap:
    sam.network._speaker._decoder = Tap(sam.network._speaker._decoder, spoil)
    return sam.network._speaker._decoder


def assert_same_masks(masks: np.ndarray, expected: np.ndarray) -> None:
    """Not more than one pixel in 10 000 differs."""
    assert masks.shape == expected.shape
    assert (masks != expected).sum() <= masks.size / 10_000


# -- real weights ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mobile_sam(models_dir):
    return load(models_dir, *MOBILE)


@pytest.fixture(scope="module")
def meta_decoder(models_dir):
    return reference.session(models_dir / MOBILE[1])


@pytest.mark.parametrize(
    ("part", "k", "size"),
    [("ycbv", 0, None), ("ycbv", 3, (641, 479)), ("mosd", 33, (333, 500)), ("mosd", 40, (1280, 720))],
)
def test_real_masks_equal_the_graph_s_own_on_real_photographs(mobile_sam, meta_decoder, data_dir, part, k, size):
    color = photo(data_dir, part, k, size)
    shape = color.shape[:2]
    encoder = mobile_sam.network._encoder = Tap(mobile_sam.network._encoder)
    embedding = mobile_sam.encode(color)
    mobile_sam.network._encoder = encoder.backend
    np.testing.assert_array_equal(
        encoder.inputs["image_rgb_0_255"], reference.network_image(color, 1024, False, normalise=False)
    )
    whole = np.array([shape[1], shape[0]] * 2)
    asked = [
        (BOX * whole, [], []),
        (None, [whole[:2] * 0.5], [1]),
        (None, [whole[:2] * 0.4, whole[:2] * 0.6, whole[:2] * 0.1], [1, 1, 0]),
        (BOX * whole, [whole[:2] * 0.5], [1]),
    ]
    found = mobile_sam.decode(embedding, [Prompt(box, np.array(points), labels) for box, points, labels in asked])
    raw = encoder.outputs["image_embeddings"]
    for i, (box, points, labels) in enumerate(asked):
        logits, ious = reference.meta_answer(meta_decoder, raw, box, points, labels, shape)
        assert_same_masks(found.masks[i].dense(), logits > 0)
        assert found.scores[i] == pytest.approx(np.clip(ious[0], 0, 1), abs=1e-4)
        assert found.masks.areas[i] > 100


def test_embeddings_stay_valid_and_the_last_one_is_kept(mobile_sam, data_dir):
    color = photo(data_dir, "ycbv", 1)
    first = mobile_sam.encode(color)
    assert mobile_sam.encode(color) is first
    before = mobile_sam.decode(first, [Prompt(points=[[320, 240]])])
    assert mobile_sam.encode(color[:, ::-1].copy()) is not first
    after = mobile_sam.decode(first, [Prompt(points=[[320, 240]])])
    np.testing.assert_array_equal(before.masks.spans, after.masks.spans)
    mobile_sam.reset()
    assert mobile_sam.encode(color) is not first


def test_a_click_finds_the_thing_that_was_clicked_on(mobile_sam, data_dir):
    """The box whose hand-made outline is in the labels of the real frame."""
    record = RgbdFolder(data_dir / "mosd")[33]
    for label in range(1, record.instances.max() + 1):
        truth = Instances.from_masks((record.instances == label)[None])
        clicks = inner_points(truth, 0, 2)
        found = mobile_sam.decode(mobile_sam.encode(record.frame.color), [Prompt(truth.boxes[0], clicks)])
        score = score_frame(found.masks, np.where(record.instances == label, 1, 0), np.isnan(record.frame.depth))
        assert score.mean_iou > 0.8


def test_tabletop_prompts_it_on_real_frames(models_dir, data_dir):
    files = {key: str(models_dir / name) for key, name in zip(("encoder", "decoder"), MOBILE, strict=True)}
    plugin = "seg_perception.segmenters.promptable:Promptable"
    pipeline = Pipeline.from_config({"segmenter": {"plugin": plugin, **files, "detector": {"plugin": "tabletop"}}})
    folder = RgbdFolder(data_dir / "mosd")
    for k in (5, 33):
        record = folder[k]
        scene = pipeline.process(record.frame)
        score = score_frame(scene.instances.masks, record.instances, np.isnan(record.frame.depth))
        assert score.weighted_overlap > 0.85
        assert score.f_50 == 1
        assert scene.support is not None  # tabletop's supports stay with its objects
        assert all(obj.status.has_3d for obj in scene.objects)
        segmenter = pipeline.segmenter
        found = segmenter._detector.segment(record.frame)
        assert not np.array_equal(found.masks.spans, scene.instances.masks.spans)  # they are drawn anew
    assert "mobile_sam_encoder@" in segmenter.model
    assert "mobile_sam_decoder@" in segmenter.model


# -- dialects ----------------------------------------------------------------------------------------------------------


def export(models_dir: Path, dialect: str, kind: str, **options) -> Promptable:
    name = {"hf": "sam", "sam2": "sam2"}[dialect]
    use = {} if kind == "boxes" else {"use_box": False, "inner_points": 1}
    return load(
        models_dir / "contracts", f"{name}_tiny_encoder.onnx", f"{name}_tiny_decoder_{kind}.onnx", **{**use, **options}
    )


@pytest.mark.parametrize("dialect", ["hf", "sam2"])
def test_masks_and_points_equal_transformers(models_dir, dialect):
    """Its post_process_masks and its normalised coordinates, from test/oracles/make_sam_masks.py."""
    oracle = np.load(ORACLE)
    sam = export(models_dir, dialect, "points")
    assert sam.network.dialect == dialect
    for k, (height, width) in enumerate(oracle["sizes"].tolist()):
        maps = reference.smooth_maps(k, 1, 3, 64)

        def spoil(outputs, maps=maps):
            outputs["pred_masks"][:] = maps
            if "object_score_logits" in outputs:
                outputs["object_score_logits"][:] = 1

        tap = tap_decoder(sam, spoil)
        corners = np.array([[0.1 * width, 0.2 * height], [0.7 * width, 0.9 * height]])
        embedding = sam.encode(np.zeros((height, width, 3), np.uint8))
        proposals = sam.network.decode(embedding, [Prompt(points=corners)], "all")
        np.testing.assert_allclose(tap.inputs["input_points"][0, 0], oracle[f"{dialect}_points_{k}"], atol=1e-3)
        count = 3 * height * width
        expected = np.unpackbits(oracle[f"{dialect}_{k}"], count=count).reshape(3, height, width).astype(bool)
        assert expected.any(axis=(1, 2)).all()
        assert_same_masks(proposals.masks().dense(), expected)
        sam.network._speaker._decoder = tap.backend


@pytest.mark.parametrize("size", [(641, 479), (333, 500), (1280, 720)])
@pytest.mark.parametrize("kind", ["boxes", "points"])
@pytest.mark.parametrize("dialect", ["hf", "sam2"])
def test_split_exports_see_image_and_prompts_as_their_processor_makes_them(models_dir, data_dir, dialect, kind, size):
    """At the median of the logits: with random weights they are all on one side of 0."""
    sam = export(models_dir, dialect, kind)
    sam.network._encoder = encoder = Tap(sam.network._encoder)
    tap = tap_decoder(sam)
    color = photo(data_dir, "ycbv", 0, size)
    shape, stretch = color.shape[:2], dialect == "sam2"
    embedding = sam.encode(color)
    image = reference.network_image(color, 256, stretch, normalise=True)
    np.testing.assert_allclose(encoder.inputs["pixel_values"], image, atol=1e-5)
    whole = np.array([*size, *size])
    corners = [np.array([0.1, 0.1, 0.1 * k, 0.9]) * whole for k in range(3, 8)]
    points = [np.array([[0.2, 0.1 * k]]) * size for k in range(5)]
    prompts = [Prompt(box) for box in corners] if kind == "boxes" else [Prompt(points=p) for p in points]
    proposals = sam.network.decode(embedding, prompts)
    given = tap.inputs["input_boxes"].reshape(-1, 2) if kind == "boxes" else tap.inputs["input_points"].reshape(-1, 2)
    asked = np.concatenate([box.reshape(2, 2) for box in corners] if kind == "boxes" else points)
    np.testing.assert_allclose(given, reference.network_points(asked, shape, 256, stretch), atol=1e-3)
    maps, ious = tap.outputs["pred_masks"][0], tap.outputs["iou_scores"][0]
    best = ious.argmax(axis=1)
    level = float(np.median(maps[np.arange(5), best]))
    expected = np.stack(
        [reference.full_logits(m[b], shape, 256, stretch) > level for m, b in zip(maps, best, strict=True)]
    )
    assert 0.1 < expected.mean() < 0.9
    assert_same_masks(proposals.masks(level).dense(), expected)
    np.testing.assert_array_equal(proposals.ious, ious.max(axis=1))


def test_sam2_says_where_there_is_no_object(models_dir):
    def spoil(outputs):
        outputs["pred_masks"][:] = 1
        outputs["object_score_logits"][0, :, 0] = [1, -0.1, 0.1]

    sam = export(models_dir, "sam2", "boxes")
    tap_decoder(sam, spoil)
    found = sam.decode(sam.encode(np.zeros((60, 80, 3), np.uint8)), [Prompt([5, 5, 50, 50])] * 3)
    np.testing.assert_array_equal(found.masks.areas, [4800, 0, 4800])


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_meta_exports_equal_their_own_graph(models_dir, kind):
    """With an encoder of the same embedding; segment-anything's graph enlarges the masks itself."""
    contracts = models_dir / "contracts"
    sam = load(contracts, "sam_tiny_encoder.onnx", f"sam_ref_decoder_{kind}.onnx")
    assert sam.network.dialect == "meta"
    decoder = reference.session(contracts / f"sam_ref_decoder_{kind}.onnx")
    color = np.random.default_rng(0).integers(0, 255, (150, 225, 3)).astype(np.uint8)
    embedding = sam.encode(color)
    box, clicks = np.array([20, 30, 150, 120]), np.array([[100, 60], [40, 50]])
    for b, points in ((box, []), (None, clicks[:1]), (None, clicks), (box, clicks[:1])):
        labels = [1] * len(points)
        logits, ious = reference.meta_answer(
            decoder, embedding.features["image_embeddings"], b, points, labels, (150, 225), 256
        )
        prompt = Prompt(b, points, labels)
        best = 1 + int(ious[1:].argmax()) if kind == "multi" else 0
        auto = best if b is None and len(points) == 1 else 0
        for choice, k in (("auto", auto), ("single", 0), ("best", best)):
            proposals = sam.network.decode(embedding, [prompt], choice)
            level = float(np.median(logits[k]))
            assert_same_masks(proposals.masks(level).dense()[0], logits[k] > level)
            assert proposals.ious[0] == pytest.approx(ious[k], abs=1e-5)


def stand_in(decoder: str, **options) -> Promptable:
    files = {"encoder": __file__, "decoder": __file__}
    backends = {
        "backend": {"plugin": "sam_stand_in:Encoder"},
        "decoder_backend": {"plugin": f"sam_stand_in:{decoder}"},
    }
    return Promptable(parse(Promptable.Config, {**files, **backends, **options}))


def squares() -> np.ndarray:
    """A red and a green square, on gray; (120, 192, 3). Everything on whole cells of the stand-in's maps."""
    color = np.full((120, 192, 3), 100, np.uint8)
    color[48:84, 24:60] = (255, 0, 0)
    color[36:84, 120:156] = (0, 255, 0)
    return color


RED, GREEN = np.array([24, 48, 60, 84]), np.array([120, 36, 156, 84])


def test_efficientsam_s_contract_prompts_in_the_image_s_own_pixels():
    sam = stand_in("EfficientSamDecoder", use_box=True)
    assert sam.network.dialect == "efficientsam"
    color = squares()
    found = sam.decode(sam.encode(color), [Prompt(RED), Prompt(points=[[100, 60]]), Prompt(GREEN)])
    feed = sam_stand_in.EfficientSamDecoder.feeds[-1]
    np.testing.assert_array_equal(feed["orig_im_size"], [120, 192])
    y, x = np.mgrid[:120, :192]
    centers = [(42, 66), (100, 60), (138, 60)]
    expected = np.stack([np.hypot(x - cx, y - cy) < 10 for cx, cy in centers])  # the middle one has the best IoU
    np.testing.assert_array_equal(found.masks.dense(), expected)
    np.testing.assert_allclose(found.scores, 0.9)


def test_a_graph_with_a_fixed_number_of_prompts_gets_that_many():
    sam = stand_in("HuggingFaceDecoder")
    feeds = sam_stand_in.HuggingFaceDecoder.feeds
    feeds.clear()
    found = sam.decode(sam.encode(squares()), [Prompt(b) for b in (RED, GREEN, RED, GREEN, RED)])
    assert [feed["input_boxes"].shape for feed in feeds] == [(1, 3, 4)] * 2
    red, green = found.masks.areas[:2]
    np.testing.assert_array_equal(found.masks.areas, [red, green, red, green, red])
    assert red == pytest.approx(36 * 36, rel=0.1)
    assert green == pytest.approx(48 * 36, rel=0.1)


# -- what prompts it ---------------------------------------------------------------------------------------------------


def detector(*boxes, **options):
    numbers = [float(v) for box in boxes for v in box]
    return {"plugin": "sam_stand_in:Detector", "boxes": numbers, **options}


def iou(masks, i, box):
    truth = np.zeros((masks.height, masks.width), np.int32)
    truth[box[1] : box[3], box[0] : box[2]] = 1
    return score_frame(masks[i], truth).mean_iou


@pytest.mark.parametrize("masks", [True, False])
def test_class_score_and_support_come_from_the_detector_and_masks_from_the_network(masks):
    loose = [RED + np.array([-4, -4, 3, 4]), GREEN + np.array([-3, -3, 3, 3])]
    sam = stand_in("MetaDecoder", detector=detector(*loose, masks=masks), min_agreement=0.5)
    found = sam.segment(Frame(squares()))
    assert sam.class_names == ("bolt", "nut")
    assert found.class_names == ("nut", "bolt")
    np.testing.assert_array_equal(found.class_ids, [1, 0])
    np.testing.assert_allclose(found.scores, [0.9, 0.8])
    assert len(found.supports) == 1
    np.testing.assert_array_equal(found.support_ids, 0)
    for i, box in enumerate((RED, GREEN)):
        assert iou(found.masks, i, box) > 0.85
        np.testing.assert_allclose(found.boxes[i], box, atol=2)  # of the mask, not of the detector


@pytest.mark.parametrize(("rule", "expected"), [("detector", 0.9), ("mask", 0.5), ("product", 0.45)])
def test_score_rules(rule, expected):
    sam = stand_in("MetaDecoder", detector=detector(RED), score=rule)
    np.testing.assert_allclose(sam.segment(Frame(squares())).scores, [expected], rtol=1e-6)


def test_a_mask_that_disagrees_with_the_detector_s():
    """A box around both squares has gray in its middle: the network's mask is the background."""
    both = np.array([24, 36, 156, 84])
    frame = Frame(squares())
    sam = stand_in("MetaDecoder", detector=detector(both, RED))
    found = sam.segment(frame)
    assert len(found) == 2
    np.testing.assert_array_equal(found.boxes[0], both)  # the detector's own mask
    assert iou(found.masks, 0, both) == 1
    assert iou(found.masks, 1, RED) > 0.85
    changed = to_mapping(sam._config)
    drop = sam.with_config(parse(Promptable.Config, {**changed, "disagreement": "drop"}))
    assert drop.segment(frame).class_names == ("bolt",)
    free = sam.with_config(parse(Promptable.Config, {**changed, "min_agreement": 0.0}))
    assert free.segment(frame).masks.areas[0] > 10_000
    sure = sam.with_config(parse(Promptable.Config, {**changed, "disagreement": "drop", "min_mask_iou": 0.51}))
    assert len(sure.segment(frame)) == 0


def test_without_prompts_the_network_does_not_run():
    sam = stand_in("MetaDecoder", detector=detector())
    sam_stand_in.Encoder.runs.clear()
    assert len(sam.segment(Frame(squares()))) == 0
    assert sam_stand_in.Encoder.runs == []


def test_most_prompts_and_the_ignore_mask():
    sam = stand_in("MetaDecoder", detector=detector(GREEN, RED, GREEN), max_prompts=2)
    found = sam.segment(Frame(squares()))
    np.testing.assert_allclose(found.scores, [0.9, 0.8])
    assert found.dropped == 1
    ignore = np.zeros((120, 192), bool)
    ignore[:, :100] = True
    left = sam.segment(Frame(squares(), ignore=ignore))
    np.testing.assert_allclose(left.boxes, [GREEN], atol=2)


def test_points_and_a_box_by_hand():
    sam = stand_in("MetaDecoder", prompts="points", points=[40.0, 60.0])
    assert sam.class_names == ("object",)
    found = sam.segment(Frame(squares()))
    assert iou(found.masks, 0, RED) > 0.85
    assert found.scores[0] == pytest.approx(0.95)  # a single point: the best of the last three
    changed = {**to_mapping(sam._config), "points": [], "box": [float(v) for v in GREEN]}
    found = sam.with_config(parse(Promptable.Config, changed)).segment(Frame(squares()))
    assert iou(found.masks, 0, GREEN) > 0.85
    assert found.scores[0] == pytest.approx(0.5)  # a box: the first


def test_a_grid_finds_each_thing_once():
    grid = {"per_side": 8, "min_iou": 0.9, "min_stability": 0.5, "stability_offset": 0.05}
    sam = stand_in("MetaDecoder", prompts="grid", grid=grid)
    found = sam.segment(Frame(squares()))
    assert len(found) == 3  # and the background
    assert sorted(max(iou(found.masks, i, box) for i in range(3)) > 0.85 for box in (RED, GREEN)) == [True, True]
    changed = to_mapping(sam._config)
    changed["grid"]["min_iou"] = 0.96
    assert len(sam.with_config(parse(Promptable.Config, changed)).segment(Frame(squares()))) == 0
    changed["grid"].update(min_iou=0.9, min_stability=1.0, stability_offset=1.0)
    assert len(sam.with_config(parse(Promptable.Config, changed)).segment(Frame(squares()))) == 0


def test_grid_prompts_lie_in_the_middle_of_equal_cells():
    points = np.concatenate([prompt.points for prompt in grid_prompts(30, 60, 3)])
    np.testing.assert_allclose(points[:4], [[10, 5], [30, 5], [50, 5], [10, 15]])


def test_inner_points_are_inside_and_apart():
    ring = np.zeros((60, 60), bool)
    ring[5:55, 5:55] = True
    ring[12:48, 12:55] = False  # a C
    points = inner_points(Instances.from_masks(ring[None]), 0, 3)
    assert len(points) == 3
    assert all(ring[int(y), int(x)] for x, y in points)
    assert min(np.hypot(*(points[i] - points[j])) for i in range(3) for j in range(i)) >= 3
    assert inner_points(Instances.from_masks(np.zeros((1, 9, 9), bool)), 0, 3).shape == (0, 2)


# -- options and what is wrong -----------------------------------------------------------------------------------------


def test_other_options_share_the_networks_and_another_network_does_not(models_dir):
    sam = stand_in("MetaDecoder", detector=detector(RED))
    tree = to_mapping(sam._config)
    other = sam.with_config(parse(Promptable.Config, {**tree, "score": "mask", "detector": detector(GREEN)}))
    assert other.network is sam.network
    np.testing.assert_allclose(other.segment(Frame(squares())).boxes, [GREEN], atol=2)
    np.testing.assert_allclose(sam.segment(Frame(squares())).boxes, [RED], atol=2)
    for key, value in (("encoder", "x.onnx"), ("dialect", "hf"), ("decoder_backend", ONE_THREAD)):
        with pytest.raises(ConfigError, match=f"{key} cannot change"):
            sam.with_config(parse(Promptable.Config, {**tree, key: value}))
    with pytest.raises(ConfigError, match=r"detector\.plugin cannot change"):
        sam.with_config(parse(Promptable.Config, {**tree, "detector": {"plugin": "tabletop"}}))


def test_it_is_a_segmenter_found_by_name():
    assert load_plugin("segmenters", "promptable") is Promptable
    sam = stand_in("MetaDecoder", detector=detector(RED))
    assert isinstance(sam, Segmenter)
    sam.warm_up()
    config = load_config("sam")
    assert config.segmenter.config.detector.plugin == "tabletop"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "expected a box or a point on the object"),
        ({"points": [[3, 4]], "labels": [0]}, "expected a box or a point on the object"),
        ({"points": [[3, 4]], "labels": [2]}, "label 0 or 1"),
        ({"points": [[3, 4], [5, 6]], "labels": [1]}, "each of 2 points"),
        ({"box": [5, 5, 5, 9]}, "with an area"),
        ({"box": [5, 5, np.nan, 9]}, "with an area"),
        ({"points": [[np.inf, 4]]}, "finite"),
    ],
)
def test_prompts_that_ask_for_nothing(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        Prompt(**arguments)


def test_prompts_that_the_decoder_cannot_take():
    sam = stand_in("MetaDecoder")
    seen = sam.encode(squares())
    with pytest.raises(ValueError, match="prompt 1: a point lies outside the 192x120 image"):
        sam.decode(seen, [Prompt(RED), Prompt(points=[[193, 5]])])
    boxes_only = stand_in("HuggingFaceDecoder")
    with pytest.raises(ValueError, match="prompt 0: has 1 points, this decoder takes 0"):
        boxes_only.decode(boxes_only.encode(squares()), [Prompt(points=[[5, 5]])])
    assert len(boxes_only.decode(boxes_only.encode(squares()), [])) == 0
    with pytest.raises(ConfigError, match="takes 0 points: it needs the box"):
        stand_in("HuggingFaceDecoder", use_box=False)


def test_points_only_decoders_are_prompted_by_points(models_dir):
    sam = export(models_dir, "hf", "points", use_box=True, inner_points=0, detector=detector(RED), min_agreement=0.0)
    tap = tap_decoder(sam)
    sam.segment(Frame(squares()))
    x, y = tap.inputs["input_points"][0, 0, 0] * 192 / 256
    assert RED[0] < x < RED[2]
    assert RED[1] < y < RED[3]


@pytest.mark.parametrize("field", ["pred_masks", "iou_scores"])
def test_nan_is_no_object(models_dir, field):
    def spoil(outputs):
        outputs["pred_masks"][:] = 1
        outputs[field][:] = np.nan

    sam = export(models_dir, "hf", "boxes", detector=detector(RED, masks=False), min_mask_iou=0.1)
    tap_decoder(sam, spoil)
    assert len(sam.segment(Frame(squares()))) == 0


@pytest.mark.parametrize(
    ("encoder", "decoder", "options", "reason"),
    [
        ("../mobile_sam_decoder.onnx", "../mobile_sam_encoder.onnx", {}, "its decoder has another contract"),
        ("../mobile_sam_encoder.onnx", "sam_tiny_decoder_boxes.onnx", {}, "of two different networks"),
        ("sam2_tiny_encoder.onnx", "sam_tiny_decoder_boxes.onnx", {}, "image_embeddings does not come from"),
        ("unet_smp_tiny.onnx", "sam_ref_decoder_single.onnx", {}, "of two different networks"),
        ("detr_seg_tiny.onnx", "sam_ref_decoder_single.onnx", {}, "not exactly one image input"),
    ],
)
def test_files_that_do_not_belong_together(models_dir, encoder, decoder, options, reason):
    with pytest.raises(ConfigError) as error:
        load(models_dir / "contracts", encoder, decoder, **options)
    text = str(error.value)
    assert reason in text
    assert "encoder input" in text
    assert "decoder output" in text


def test_a_missing_file_and_no_file(models_dir):
    with pytest.raises(ConfigError, match=r"no such file: .*none\.onnx"):
        load(models_dir, "none.onnx", MOBILE[1])
    with pytest.raises(ConfigError, match="tells how to export"):
        Promptable(parse(Promptable.Config, {}))


def test_an_encoder_with_an_unknown_input_needs_a_sidecar(tmp_path):
    class Unknown(sam_stand_in.Encoder):
        def __init__(self):
            super().__init__()
            self.inputs = (sam_stand_in.spec("x", 1, 3, 64, 64),)

    from seg_perception.segmenters.networks.sidecar import read_sidecar
    from seg_perception.segmenters.sam.network import PromptNetwork

    decoder = sam_stand_in.MetaDecoder()
    model = tmp_path / "encoder.onnx"
    with pytest.raises(ConfigError, match="'x' does not say which values it takes"):
        PromptNetwork(Unknown(), decoder, "auto", read_sidecar(model), "this")
    values = {"preprocessing": {"white": 2.0, "mean": [0.5, 0.5, 0.5], "std": [1, 1, 1]}}
    model.with_suffix(".yaml").write_text(yaml.safe_dump(values))
    network = PromptNetwork(Unknown(), decoder, "auto", read_sidecar(model), "this")
    embedding = network.encode(np.full((64, 64, 3), 255, np.uint8)).features["image_embeddings"]
    np.testing.assert_allclose(embedding, 1.5)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"points": [1.0, 2.0, 3.0]}, "pairs x, y"),
        ({"points": [1.0, 2.0], "point_labels": [1, 0]}, "point_labels: expected 1, got 2"),
        ({"box": [1.0]}, "x_max, y_max, got 1"),
        ({"prompts": "points"}, "neither points nor box"),
        ({"prompts": "clicks"}, "detector, points, grid"),
    ],
)
def test_options_that_do_not_fit(options, reason):
    with pytest.raises(ConfigError, match=reason):
        parse(Promptable.Config, options)
