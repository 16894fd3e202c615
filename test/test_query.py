# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Networks with queries: masks, classes and scores equal to the dense reference, on every export of the family."""

import numpy as np
import pytest
import query_reference
from contract_models import Rig, beside, blobs, different_pixels, picture
from hypothesis import given, settings
from hypothesis import strategies as st

from seg_perception.options import ConfigError, parse, to_mapping
from seg_perception.plugins import Segmenter
from seg_perception.scene import Frame
from seg_perception.segmenters.query import Query, QueryContract, select

EXPORTS = {family: f"{family}_tiny.onnx" for family in ("mask2former", "maskformer", "oneformer", "eomt")}
EXPORTS |= {"detr": "detr_seg_tiny.onnx", "rfdetr": "rfdetr_hf_tiny.onnx"}
SIDECARS = {
    "oneformer": {"inputs": {"task_inputs": [[0] * 77]}},
    "detr": {"preprocessing": {"resize": "stretch"}},
    "rfdetr": {"decoding": {"no_object": "none"}},
}
SIZES = [(480, 640), (333, 500), (641, 479)]  # height, width
NAMES = ["bolt", "nut", "washer", "screw", "pin"]


def build(models_dir, tmp_path, family, sidecar=None, **options) -> Rig:
    said = {"family": family, "names": NAMES, **SIDECARS.get(family, {}), **(sidecar or {})}
    return Rig(Query, beside(tmp_path, models_dir / "contracts" / EXPORTS[family], said), **options)


def outputs_of(rig: Rig, logits: np.ndarray, maps: np.ndarray) -> None:
    contract = rig.segmenter._contract
    rig.given = {contract.logits: logits[None], contract.maps: maps[None]}
    if contract.boxes:
        rig.given[contract.boxes] = np.tile(np.float32([0.5, 0.5, 0.5, 0.25]), (1, len(logits), 1))


def random_outputs(queries: int, slots: int, cells: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits with clear winners, and blobs; query 0 is everywhere a little, as background is."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(queries, slots)).astype(np.float32)
    logits[np.arange(queries), rng.integers(0, slots, queries)] += rng.uniform(3, 8, queries)
    maps = blobs(queries, cells, cells, seed)
    if queries:
        maps[0] = 0.2
    return logits, maps


def compare(rig: Rig, family: str, size: tuple[int, int], threshold: float, seed: int = 0) -> tuple[int, int, int]:
    """Instances, mask pixels, and pixels that differ from the reference."""
    found = rig.segmenter.segment(Frame(picture(*size, seed)))
    contract = rig.segmenter._contract
    logits, maps = rig.outputs[contract.logits][0], rig.outputs[contract.maps][0]
    reference = getattr(query_reference, family)
    masks, ids, scores = reference(logits, maps, size, rig.segmenter._size, threshold)
    np.testing.assert_array_equal(found.class_ids, ids)
    np.testing.assert_allclose(found.scores, scores, rtol=2e-5)
    return len(found), int(masks.sum()), different_pixels(found, masks)


@pytest.mark.parametrize("family", EXPORTS)
def test_masks_equal_the_dense_reference(models_dir, tmp_path, family):
    """0, 1, 20, 100 and 300 queries, odd image sizes."""
    rig = build(models_dir, tmp_path, family, score_threshold=0.3, max_detections=300)
    slots = len(NAMES) + (family != "rfdetr")
    instances = pixels = different = 0
    cases = [(0, SIZES[0]), (1, SIZES[0]), *((20, size) for size in SIZES), (100, SIZES[1]), (300, (120, 160))]
    for seed, (queries, size) in enumerate(cases):
        outputs_of(rig, *random_outputs(queries, slots, rig.segmenter._size[0] // 4, seed))
        counts = compare(rig, family, size, 0.3, seed)
        instances, pixels, different = np.add((instances, pixels, different), counts)
    assert instances >= 100
    assert different <= pixels / 100_000


@pytest.mark.parametrize("family", EXPORTS)
def test_what_the_export_itself_puts_out_equals_the_reference(models_dir, tmp_path, family):
    rig = build(models_dir, tmp_path, family, score_threshold=0.0)
    found, pixels, different = compare(rig, family, (120, 160), 0.0)
    if family not in ("oneformer", "detr"):  # random weights make 20 equal queries: none owns 80 % of its pixels
        assert found > 0
    assert different <= pixels / 10_000


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), slots=st.integers(2, 9), queries=st.integers(1, 30))
def test_the_choice_of_queries(seed, slots, queries):
    logits = np.random.default_rng(seed).normal(scale=3, size=(queries, slots)).astype(np.float32)
    soft, hard = query_reference.softmax(logits), query_reference.sigmoid(logits)
    for activation, probabilities in (("softmax", soft), ("sigmoid", hard)):
        for no_object, objects in (("last", probabilities[:, :-1]), ("first", probabilities[:, 1:])):
            contract = QueryContract(activation=activation, no_object=no_object)
            rows, ids, scores = select(logits, contract)
            np.testing.assert_allclose(scores, np.sort(objects.reshape(-1))[::-1][:queries], rtol=1e-5)
            np.testing.assert_allclose(objects[rows, ids], scores, rtol=1e-5)
    rows, ids, scores = select(logits, QueryContract(selection="best"))
    np.testing.assert_array_equal(ids, soft[:, :-1].argmax(axis=1))
    rows, ids, _ = select(logits, QueryContract(selection="winner"))
    np.testing.assert_array_equal(rows, np.flatnonzero(soft.argmax(axis=1) != slots - 1))


@settings(max_examples=200, deadline=None)
@given(image=st.tuples(st.integers(20, 1300), st.integers(20, 1300)), net=st.sampled_from([128, 640]))
def test_eomt_scales_images_to_the_very_pixel_as_transformers_does(image, net):
    place = Query.FAMILIES["eomt"].preprocessing.place(image, (net, net))
    height, width = query_reference.edges(image, net, net)
    assert (place.scaled_height, place.scaled_width) == (min(height, net), min(width, net))


@pytest.mark.parametrize(
    ("image", "scaled"),  # by transformers 5.23, `get_size_with_aspect_ratio(image, 640, 640)`
    [
        ((480, 640), (480, 640)),
        ((479, 641), (478, 640)),
        ((289, 359), (515, 639)),
        ((359, 289), (639, 515)),
        ((720, 1280), (360, 640)),
    ],
)
def test_odd_images_lose_a_pixel_in_eomt(image, scaled):
    place = Query.FAMILIES["eomt"].preprocessing.place(image, (640, 640))
    assert (place.scaled_height, place.scaled_width, place.top, place.left) == (*scaled, 0, 0)


def test_boxes_of_rfdetr_are_its_own_in_image_pixels(models_dir, tmp_path):
    rig = build(models_dir, tmp_path, "rfdetr", score_threshold=0.6)
    outputs_of(rig, np.full((2, 5), -9, np.float32), blobs(2, 28, 28))
    rig.given["logits"][0, 0, 3] = 2
    found = rig.segmenter.segment(Frame(picture(200, 400)))
    np.testing.assert_allclose(found.boxes, [[100, 75, 300, 125]], atol=1e-3)
    assert found.class_names == ("screw",)


def test_rfdetr_of_the_rfdetr_package_is_recognised_by_names(models_dir, tmp_path):
    """Outputs `dets`, `labels` (logits) and `masks`; the last slot is dropped when there is one more than names."""
    rig = build(models_dir, tmp_path, "rfdetr", {"names": NAMES[:4], "decoding": {}})
    assert rig.segmenter._contract.no_object == "last"
    renamed = {"logits": "labels", "pred_boxes": "dets", "pred_masks": "4245"}
    other = Rig.__new__(Rig)
    other.backend = rig.backend
    specs = tuple(type(s)(renamed[s.name], s.shape, s.dtype) for s in rig.backend.outputs)
    query = rig.segmenter

    class Renamed:
        inputs, outputs, metadata = rig.backend.inputs, specs, rig.backend.metadata

    query._backend = Renamed()
    assert query._recognise() == "rfdetr"
    contract, classes = query._bind(Query.FAMILIES["rfdetr"].contract)
    assert (contract.logits, contract.boxes, contract.maps, classes) == ("labels", "dets", "4245", 4)


def test_detr_with_padding_tells_the_network_where_the_image_is(models_dir, tmp_path):
    rig = build(models_dir, tmp_path, "detr", {"preprocessing": {}}, score_threshold=0.3)
    logits = np.full((2, 6), -5, np.float32)
    logits[0, 1] = logits[1, 2] = 5
    maps = np.full((2, 32, 32), -8, np.float32)
    maps[0, :, :16], maps[1, :, 16:] = 8, 8  # left and right half of the input
    outputs_of(rig, logits, maps)
    found = rig.segmenter.segment(Frame(picture(240, 480)))
    mask = rig.inputs["pixel_mask"][0]
    assert mask[:64].all()  # 480x240 in 128x128: 128x64, top left
    assert not mask[64:].any()
    assert (rig.inputs["pixel_values"][0, :, 64:] == 0).all()
    np.testing.assert_array_equal(found.boxes[np.argsort(found.class_ids)], [[0, 0, 240, 240], [240, 0, 480, 240]])


def test_logits_direct_gives_each_query_its_own_smooth_mask(models_dir, tmp_path):
    rig = build(models_dir, tmp_path, "detr", score_threshold=0.3)
    logits, maps = random_outputs(9, 6, 32, 3)
    logits[:, 5] = -9
    outputs_of(rig, logits, maps)
    frame = Frame(picture(300, 400))
    changed = parse(Query.Config, {**to_mapping(rig.segmenter._config), "mask_resize": "logits_direct"})
    found = rig.segmenter.with_config(changed).segment(frame)
    expected = query_reference.enlarge(maps, (300, 400)) > 0
    order = np.argsort(-query_reference.softmax(logits).max(axis=1), kind="stable")
    assert different_pixels(found, expected[order]) <= 3
    assert found.masks.areas.max() == 300 * 400  # query 0 is a little everywhere
    whole = rig.segmenter.segment(frame).masks  # the reference: a pixel has one owner
    assert whole.areas.sum() == np.count_nonzero(whole.label_image())


def test_options_classes_limit_and_ignore(models_dir, tmp_path):
    rig = build(models_dir, tmp_path, "mask2former", score_threshold=0.3)
    assert isinstance(rig.segmenter, Segmenter)
    assert rig.segmenter.class_names == tuple(NAMES)
    outputs_of(rig, *random_outputs(20, 6, 32, 5))
    frame = Frame(picture(240, 320))
    every = rig.segmenter.segment(frame)
    base = to_mapping(rig.segmenter._config)

    def changed(**options):
        return rig.segmenter.with_config(parse(Query.Config, {**base, **options})).segment

    assert (np.diff(every.scores) <= 0).all()
    np.testing.assert_array_equal(changed(max_detections=3)(frame).scores, every.scores[:3])
    name = every.class_names[0]
    assert set(changed(classes=[name])(frame).class_names) == {name}
    ignore = every.masks[0].dense()[0]
    assert every.scores[0] not in rig.segmenter.segment(Frame(frame.color, ignore=ignore)).scores
    with pytest.raises(ConfigError, match="family cannot change"):
        changed(family="maskformer")
    rig.given = {}
    rig.segmenter.warm_up()


def test_nonsense_gives_no_instance(models_dir, tmp_path):
    for family in EXPORTS:
        rig = build(models_dir, tmp_path, family)
        logits, maps = random_outputs(20, 5 + (family != "rfdetr"), 28, 1)
        for value in (np.nan, np.inf, -np.inf):
            outputs_of(rig, np.full_like(logits, value), maps)
            found = rig.segmenter.segment(Frame(picture(77, 131)))
            assert np.isfinite(found.scores).all()
            outputs_of(rig, logits, np.full_like(maps, np.nan))
            assert np.isfinite(rig.segmenter.segment(Frame(picture(77, 131))).scores).all()


# -- what is not certain is refused -----------------------------------------------------------------------------------


def test_three_families_with_the_same_outputs_are_not_guessed(models_dir, tmp_path):
    model = beside(tmp_path, models_dir / "contracts" / "maskformer_tiny.onnx", None)
    with pytest.raises(ConfigError) as error:
        Rig(Query, model)
    text = str(error.value)
    assert "names and shapes are those of several families" in text
    assert "masks_queries_logits   (1, 20, 32, 32) float32" in text
    assert "say it in maskformer_tiny.yaml beside the model:\n  family: mask2former   # or" in text
    assert Rig(Query, model, family="maskformer").segmenter.family == "maskformer"


def test_oneformer_and_detr_are_known_by_their_inputs(models_dir, tmp_path):
    rig = build(models_dir, tmp_path, "oneformer", {"family": ""})
    assert rig.segmenter.family == "oneformer"
    assert build(models_dir, tmp_path, "detr", {"family": ""}).segmenter.family == "detr"
    model = beside(tmp_path, models_dir / "contracts" / "oneformer_tiny.onnx", None)
    with pytest.raises(ConfigError, match=r"further inputs whose values are not known(.|\n)*task_inputs: tokens.npy"):
        Rig(Query, model)


def test_rfdetr_without_names_does_not_guess_the_slot_of_no_object(models_dir, tmp_path):
    model = beside(tmp_path, models_dir / "contracts" / "rfdetr_hf_tiny.onnx", None)
    with pytest.raises(ConfigError, match=r"0 class names for 5 slots(.|\n)*decoding: \{no_object: last\}"):
        Rig(Query, model)
    assert Rig(Query, model, class_names=NAMES).segmenter._contract.no_object == "none"
    assert Rig(Query, model, class_names=NAMES[:4]).segmenter._contract.no_object == "last"
    with pytest.raises(ConfigError, match="3 class names for 5 slots"):
        Rig(Query, model, class_names=NAMES[:3])


@pytest.mark.parametrize("export", ["yolov8-seg_tiny_raw", "maskrcnn_tv_tiny", "unet_smp_tiny", "maskrcnn_roi28_tiny"])
def test_another_network_is_refused_with_what_was_seen(models_dir, tmp_path, export):
    model = beside(tmp_path, models_dir / "contracts" / f"{export}.onnx", None)
    with pytest.raises(ConfigError, match=r"is not certainly a network with queries(.|\n)*seen\n  input"):
        Rig(Query, model)


def test_outputs_that_disagree_are_refused(models_dir, tmp_path):
    with pytest.raises(ConfigError, match="5 classes, got 2 names"):
        build(models_dir, tmp_path, "mask2former", {"names": ["a", "b"]})
    with pytest.raises(ConfigError, match=r"family: expected one of mask2former, .*, got 'sam'"):
        build(models_dir, tmp_path, "mask2former", {"family": "sam"})
    with pytest.raises(ConfigError, match="masks that are enlarged as nearest need stretch"):
        build(models_dir, tmp_path, "mask2former", {"preprocessing": {"resize": "letterbox"}})
    rig = build(models_dir, tmp_path, "mask2former")
    outputs_of(rig, *random_outputs(20, 9, 32, 0))
    with pytest.raises(ValueError, match="expected as many maps as queries"):
        rig.segmenter.segment(Frame(picture(60, 80)))
