# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The yolo segmenter on real weights and real photographs, on every head's export, and on what can be wrong."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from contract_models import beside
from yolo_reference import dense_masks, detections, image_boxes, network_input

from seg_perception.options import ConfigError, describe, parse, to_mapping
from seg_perception.plugins import Segmenter
from seg_perception.scene import Frame
from seg_perception.segmenters.yolo import Yolo

NMS_IN_GRAPH, RAW = "yolo11n-seg.onnx", "yolo26n-seg_480x640.onnx"
ODD_SIZES = [(641, 479), (1280, 720), (333, 500)]  # width, height
EXPORTS = ["yolov8-seg_tiny_raw", "yolov8-seg_tiny_nms", "yolo11-seg_tiny_raw_dyn", "yolo26-seg_tiny_raw"]
EXPORTS += ["yolo26-seg_tiny_e2e", "fastsam_tiny_raw"]


def load(model: Path | str, **options) -> Yolo:
    return Yolo(
        parse(Yolo.Config, {"model": str(model), "backend": {"plugin": "onnxruntime", "threads": 1}, **options})
    )


def photo(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    color = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return color if size is None else cv2.resize(color, size, interpolation=cv2.INTER_AREA)


class Tap:
    """A backend in front of another one: keeps what went in and came out; `spoil(outputs)` may change that."""

    def __init__(self, yolo: Yolo, spoil=None):
        self.backend, self.spoil = yolo._backend, spoil
        yolo._backend = self

    def __call__(self, inputs):
        self.inputs = {name: array.copy() for name, array in inputs.items()}
        self.outputs = {name: array.copy() for name, array in self.backend(inputs).items()}
        if self.spoil is not None:
            self.spoil(self.outputs)
        return self.outputs

    def __getattr__(self, name):
        return getattr(self.backend, name)


def compare(yolo: Yolo, tap: Tap, color: np.ndarray, net: tuple[int, int], score: float) -> tuple[int, int, int]:
    """Instances, mask pixels and different mask pixels of one frame against the dense reference."""
    found = yolo.segment(Frame(color))
    (tensor,) = tap.inputs.values()
    np.testing.assert_array_equal(tensor, network_input(color, net))
    predictions, prototypes = sorted(tap.outputs.values(), key=np.ndim)
    boxes, scores, ids, coefficients = detections(predictions, len(yolo.class_names), yolo._head.final, score, 0.7)
    boxes = image_boxes(boxes, color.shape[:2], net)
    expected = dense_masks(prototypes[0], coefficients, boxes, color.shape[:2], net)
    kept = expected.any(axis=(1, 2))
    np.testing.assert_array_equal(found.class_ids, ids[kept])
    np.testing.assert_array_equal(found.scores, scores[kept])
    np.testing.assert_allclose(found.boxes, boxes[kept], atol=1e-3)
    assert found.class_names == tuple(yolo.class_names[i] for i in ids[kept])
    assert found.boxes.dtype == np.float32
    different = found.masks.dense() != expected[kept]
    assert (different.sum(axis=(1, 2)) <= 1 + expected[kept].sum(axis=(1, 2)) // 1000).all()
    return len(found), int(expected.sum()), int(different.sum())


@pytest.mark.parametrize(("model", "net"), [(NMS_IN_GRAPH, (640, 640)), (RAW, (480, 640))])
def test_real_masks_equal_the_dense_reference_on_real_photographs(models_dir, data_dir, model, net):
    yolo = load(models_dir / model, score_threshold=0.1)
    tap = Tap(yolo)
    paths = (
        sorted((data_dir / "ycbv" / "frames").glob("*_rgb.*"))
        + sorted((data_dir / "mosd" / "frames").glob("*_rgb.*"))[::9]
    )
    frames = [photo(path) for path in paths[:5]]
    frames += [photo(path, ODD_SIZES[i % 3]) for i, path in enumerate(paths)]
    counts = np.sum([compare(yolo, tap, frame, net, 0.1) for frame in frames], axis=0)
    instances, pixels, different = counts
    assert instances >= 20
    assert different <= pixels / 100_000


@pytest.mark.parametrize("model", [NMS_IN_GRAPH, RAW])
def test_the_bus_and_four_persons(models_dir, model):
    """On the two photographs of Ultralytics' wheel, where $SEG_PERCEPTION_TEST_PHOTOS has them."""
    folder = Path(os.environ.get("SEG_PERCEPTION_TEST_PHOTOS", ""))
    if not (folder / "bus.jpg").is_file():
        pytest.skip("$SEG_PERCEPTION_TEST_PHOTOS names no folder with bus.jpg and zidane.jpg")
    yolo = load(models_dir / model)
    bus = yolo.segment(Frame(photo(folder / "bus.jpg")))
    assert sorted(bus.class_names) == ["bus"] + ["person"] * 4
    zidane = yolo.segment(Frame(photo(folder / "zidane.jpg")))
    assert zidane.class_names.count("person") == 2


def random_detections(outputs, final):
    """Random weights find nothing and score everything alike: known detections instead, prototypes as they are."""
    rng = np.random.default_rng(0)
    predictions = min(outputs.values(), key=np.ndim)
    if not final:
        scores = predictions[0, 4:-32]
        scores[:] = rng.permutation(scores.size).reshape(scores.shape) / scores.size
        return
    table = predictions[0]
    table[:] = 0  # as NMS in the graph pads
    rows = table[:40]
    rows[:, :2] = rng.uniform(-20, 120, (40, 2))
    rows[:, 2:4] = rows[:, :2] + rng.uniform(0, 60, (40, 2))
    rows[:, 4] = np.linspace(1, 0.9, 40)
    rows[:, 5] = rng.integers(0, 3, 40)
    rows[:, 6:] = rng.normal(size=(40, 32))


@pytest.mark.parametrize("export", EXPORTS)
def test_every_export_is_recognised_and_decodes_like_the_reference(models_dir, data_dir, export):
    path = models_dir / "contracts" / f"{export}.onnx"
    final = "raw" not in export
    picture = next((data_dir / "ycbv" / "frames").glob("*_rgb.*"))
    instances = 0
    for size in (*ODD_SIZES, (640, 480)):
        yolo = load(path, score_threshold=0.95)
        net = (160, 160)
        if "dyn" in export:  # the smallest multiple of 32 around the scaled image
            net = {(641, 479): (128, 160), (1280, 720): (96, 160), (333, 500): (160, 128), (640, 480): (128, 160)}[size]
        tap = Tap(yolo, lambda outputs: random_detections(outputs, final))
        found, pixels, different = compare(yolo, tap, photo(picture, size), net, 0.95)
        assert different <= 1 + pixels // 100_000
        instances += found
    assert instances >= 20
    assert yolo._head.final == final
    assert yolo.class_names == (("0",) if "fastsam" in export else ("0", "1", "2"))


def test_yolov5_with_objectness_and_anchors_first(models_dir, data_dir):
    """The layout of the export.py of yolov5, on a stub of it."""
    yolo = load(models_dir / "contracts" / "stub_yolov5_seg.onnx", class_names=["a", "b", "c"], score_threshold=0.5)
    assert yolo._head.kind == "v5"
    rng = np.random.default_rng(0)

    def detections(outputs):
        rows = outputs["output0"][0]
        rows[:, 4:8] = rng.uniform(0, 0.4, (len(rows), 4))
        rows[:40, 4], rows[:40, 5] = np.linspace(0.99, 0.8, 40), rng.uniform(0.7, 1, 40)  # objectness, class a
        rows[:40, :2], rows[:40, 2:4] = rng.uniform(0, 160, (40, 2)), rng.uniform(10, 80, (40, 2))
        rows[40, 4:8] = 0.6, 0.7, 0.1, 0.1  # 0.42 in all: not above the threshold
        rows[:40, 8:] = rng.normal(size=(40, 32))

    tap = Tap(yolo, detections)
    picture = photo(next((data_dir / "ycbv" / "frames").glob("*_rgb.*")), (641, 479))
    found, pixels, different = compare(yolo, tap, picture, (160, 160), 0.5)
    assert found >= 20
    assert different <= 1 + pixels // 100_000


def test_a_free_input_size_can_be_chosen_and_a_fixed_one_not(models_dir, data_dir):
    color = photo(next((data_dir / "ycbv" / "frames").glob("*_rgb.*")), (640, 480))
    yolo = load(models_dir / "contracts" / "yolo11-seg_tiny_raw_dyn.onnx", input_size=320)
    tap = Tap(yolo)
    yolo.segment(Frame(color))
    assert tap.inputs["images"].shape == (1, 3, 256, 320)
    with pytest.raises(ConfigError, match="fixed at 640x480, got 320"):
        load(models_dir / RAW, input_size=320)
    load(models_dir / RAW, input_size=640)


def test_it_is_a_segmenter_and_says_which_file_it_runs(models_dir):
    yolo = load(models_dir / RAW)
    assert isinstance(yolo, Segmenter)
    assert yolo.model == "yolo26n-seg_480x640@ecf39ad3"
    assert len(yolo.class_names) == 80
    assert yolo.class_names[0] == "person"
    yolo.warm_up()


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shelf(data_dir):
    return Frame(photo(sorted((data_dir / "ycbv" / "frames").glob("*_rgb.*"))[0]))


def test_thresholds_classes_and_limit(models_dir, shelf):
    base = load(models_dir / RAW, score_threshold=0.05)
    every = base.segment(shelf)
    assert len(every) >= 5
    assert (np.diff(every.scores) <= 0).all()
    middle = float(np.sort(every.scores)[-3])
    changed = parse(Yolo.Config, {**to_mapping(base._config), "score_threshold": middle})
    assert base.with_config(changed).segment(shelf).scores.min() > middle
    changed = parse(Yolo.Config, {**to_mapping(base._config), "max_detections": 2})
    np.testing.assert_array_equal(base.with_config(changed).segment(shelf).scores, every.scores[:2])
    name = every.class_names[0]
    changed = parse(Yolo.Config, {**to_mapping(base._config), "classes": [name]})
    only = base.with_config(changed).segment(shelf)
    assert set(only.class_names) == {name}
    assert len(only) == every.class_names.count(name)
    changed = parse(Yolo.Config, {**to_mapping(base._config), "iou_threshold": 1.0})
    assert len(base.with_config(changed).segment(shelf)) > len(every)
    assert len(base.segment(shelf)) == len(every)  # the first one is as it was


def test_other_thresholds_share_the_network_and_another_network_does_not(models_dir):
    base = load(models_dir / RAW)
    other = base.with_config(parse(Yolo.Config, {**to_mapping(base._config), "score_threshold": 0.9}))
    assert other._backend is base._backend
    tree = to_mapping(base._config)
    for key, value in (
        ("model", str(models_dir / NMS_IN_GRAPH)),
        ("backend", {"plugin": "onnxruntime", "threads": 2}),
        ("class_names", ["thing"] * 80),
    ):
        with pytest.raises(ConfigError, match=f"{key} cannot change"):
            base.with_config(parse(Yolo.Config, {**tree, key: value}))


def test_live_options_are_marked():
    live = {leaf.name for leaf in describe(Yolo.Config()) if leaf.live}
    assert {"score_threshold", "iou_threshold", "max_detections", "classes"} <= live
    assert "model" not in live


def test_own_class_names_and_an_unknown_one(models_dir):
    contracts = models_dir / "contracts"
    yolo = load(contracts / "yolov8-seg_tiny_raw.onnx", class_names=["bolt", "nut", "washer"])
    assert yolo.class_names == ("bolt", "nut", "washer")
    with pytest.raises(ConfigError, match="3 classes, got 2 names"):
        load(contracts / "yolov8-seg_tiny_raw.onnx", class_names=["bolt", "nut"])
    with pytest.raises(ConfigError, match="no class 'persn'; did you mean 'person'"):
        load(models_dir / RAW, classes=["persn"])
    with pytest.raises(ConfigError, match=r"no class 'xyzzy'; known: person, bicycle.*80 in all"):
        load(models_dir / RAW, classes=["xyzzy"])


def test_an_instance_mostly_ignored_is_dropped_and_others_stay_whole(models_dir, shelf):
    yolo = load(models_dir / RAW, score_threshold=0.1)
    every = yolo.segment(shelf)
    robot = every.masks[0].dense()[0]
    columns = np.arange(shelf.width)
    middle = np.quantile(np.nonzero(robot)[1], [0.25, 0.75])
    seen = yolo.segment(Frame(shelf.color, ignore=robot & (columns < middle[1])))
    assert every.scores[0] not in seen.scores
    seen = yolo.segment(Frame(shelf.color, ignore=robot & (columns < middle[0])))
    assert seen.scores[0] == every.scores[0]
    assert seen.masks.areas[0] == every.masks.areas[0]


# -- outputs that are odd ----------------------------------------------------------------------------------------------


def test_nothing_found(models_dir):
    for model in (RAW, NMS_IN_GRAPH):
        found = load(models_dir / model).segment(Frame(np.full((77, 131, 3), 114, np.uint8)))
        assert len(found) == 0
        assert (found.masks.height, found.masks.width) == (77, 131)


def test_rows_that_are_not_numbers_are_dropped_and_said_once(models_dir, shelf, caplog):
    yolo = load(models_dir / RAW, score_threshold=0.1)
    whole = yolo.segment(shelf)

    def spoil(outputs):
        table = outputs["output0"][0]
        best = table[4:84].max(axis=0)
        table[0, best > 0.99 * best.max()] = np.inf  # the box of the best one
        table[4, best < 0.1] = np.nan  # scores of what nobody wanted anyhow
        table[90, best < 0.1] = -np.inf

    Tap(yolo, spoil)
    found = yolo.segment(shelf)
    assert np.isfinite(found.boxes).all()
    assert whole.scores[0] not in found.scores
    assert set(whole.scores[2:]) <= set(found.scores)
    yolo.segment(shelf)
    assert len([r for r in caplog.records if "NaN or inf" in r.message]) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("model", [RAW, NMS_IN_GRAPH])
def test_outputs_of_nothing_but_nonsense_give_no_instance(models_dir, shelf, model, value):
    yolo = load(models_dir / model)
    Tap(yolo, lambda outputs: [array.fill(value) for array in outputs.values()])
    assert len(yolo.segment(shelf)) == 0


def test_boxes_over_the_border_are_cut_and_those_without_area_go(models_dir, shelf):
    yolo = load(models_dir / RAW)

    def boxes(outputs):
        table, prototypes = outputs["output0"][0], outputs["output1"]
        prototypes[:] = 1
        table[:] = 0
        table[84:] = 1  # every mask is its box
        rows = [[0, 0, 100, 80], [640, 480, 100, 80], [300, 200, 1e6, 1e6], [100, 100, 0, 50], [-500, -500, 10, 10]]
        table[:4, :5] = np.array(rows).T
        table[4, :5] = [0.9, 0.8, 0.7, 0.6, 0.5]

    Tap(yolo, boxes)
    found = yolo.segment(shelf)
    np.testing.assert_allclose(found.boxes, [[0, 0, 50, 40], [590, 440, 640, 480], [0, 0, 640, 480]], atol=1e-3)
    np.testing.assert_array_equal(found.masks.boxes, found.boxes)


def test_three_hundred_detections(models_dir, shelf):
    yolo = load(models_dir / RAW)

    def crowd(outputs):
        table, prototypes = outputs["output0"][0], outputs["output1"]
        prototypes[:] = 1
        table[:] = 0
        table[84:] = 1
        n = 1000
        table[0, :n], table[1, :n] = np.arange(n) % 40 * 16 + 8, np.arange(n) // 40 * 16 + 8
        table[2:4, :n] = 8
        table[4, :n] = np.linspace(0.9, 0.3, n)

    Tap(yolo, crowd)
    found = yolo.segment(shelf)
    assert len(found) == 300
    assert (found.masks.areas == 64).all()


def test_outputs_of_another_shape_are_refused(models_dir, shelf):
    yolo = load(models_dir / RAW)
    tap = Tap(yolo)
    tap.spoil = lambda outputs: outputs.update(output0=outputs["output0"][:, :-1])
    with pytest.raises(ValueError, match=r"output0: expected \(1, 116, 'anchors'\), got \(1, 115, 6300\)"):
        yolo.segment(shelf)


# -- files that are wrong ----------------------------------------------------------------------------------------------


def test_no_model_missing_model_and_a_broken_one(tmp_path, models_dir, monkeypatch):
    with pytest.raises(ConfigError, match=r"no network file is named; .*yolo export"):
        Yolo(Yolo.Config())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"no such file: {tmp_path}/nets/none.onnx"):
        load("nets/none.onnx")
    (tmp_path / "half.onnx").write_bytes((models_dir / RAW).read_bytes()[:100_000])
    with pytest.raises(ConfigError, match=f"not a readable ONNX model: {tmp_path}/half.onnx"):
        load("half.onnx")
    with pytest.raises(ConfigError, match=r"backend\.model: given by the segmenter"):
        load(models_dir / RAW, backend={"plugin": "onnxruntime", "model": "other.onnx"})


@pytest.mark.parametrize(
    ("export", "options", "reason"),
    [
        ("maskrcnn_tv_tiny", {}, "an output of 3 and an output of 4 dimensions"),
        ("unet_smp_tiny", {}, "an output of 3 and an output of 4 dimensions"),
        ("mask2former_tiny", {}, ""),
        ("stub_yolov5_seg", {}, "set class_names"),
        ("stub_yolov5_seg", {"class_names": ["a", "b"]}, "output0 fits neither head"),
    ],
)
def test_another_network_is_refused_with_what_was_seen_and_expected(models_dir, export, options, reason):
    with pytest.raises(ConfigError) as error:
        load(models_dir / "contracts" / f"{export}.onnx", **options)
    text = str(error.value)
    assert f"{export}.onnx is not certainly a YOLO segmentation network" in text
    assert reason in text
    seen, _, expected = text.partition("expected\n")
    assert "input" in seen
    assert "float32" in seen
    assert "prototypes    (1, K, height / 4, width / 4)" in expected
    assert f"say it in {export}.yaml beside the model:\n  family: yolo_raw   # or yolo_final, yolov5" in expected


def test_a_sidecar_settles_what_a_file_without_metadata_is(models_dir, tmp_path):
    export = models_dir / "contracts" / "stub_yolov5_seg.onnx"
    said = {"family": "yolov5", "names": ["a", "b", "c"], "thresholds": {"score": 0.4}}
    yolo = load(beside(tmp_path, export, said))
    assert (yolo._head.kind, yolo.class_names, yolo._score_threshold) == ("v5", ("a", "b", "c"), 0.4)
    assert load(beside(tmp_path, export, said), score_threshold=0.6)._score_threshold == 0.6
    assert load(beside(tmp_path, export, said), class_names=["x", "y", "z"]).class_names == ("x", "y", "z")
    with pytest.raises(ConfigError, match=r"output0 has 40, but its head has 6 \+ 32 columns"):
        load(beside(tmp_path, export, {**said, "family": "yolo_final"}))
    with pytest.raises(ConfigError, match="family: expected one of yolo, yolo_raw, yolo_final, yolov5, got 'eomt'"):
        load(beside(tmp_path, export, {**said, "family": "eomt"}))
    with pytest.raises(ConfigError, match=r"stub_yolov5_seg\.yaml: decoding: a YOLO has its own"):
        load(beside(tmp_path, export, {**said, "decoding": {"grid": 384}}))


def test_names_in_a_sidecar_stand_before_those_of_the_metadata(models_dir, tmp_path):
    model = beside(tmp_path, models_dir / "contracts" / "yolov8-seg_tiny_raw.onnx", {"names": ["bolt", "nut", "pin"]})
    yolo = load(model)
    assert (yolo.class_names, yolo._score_threshold) == (("bolt", "nut", "pin"), 0.25)
    assert not yolo._head.final


def test_a_yolo_for_another_task_is_named(models_dir):
    from seg_perception.segmenters.decoding.yolo_head import recognise

    backend = load(models_dir / RAW)._backend
    backend.metadata = {**backend.metadata, "task": "detect"}
    with pytest.raises(ConfigError, match="is a YOLO for 'detect', expected one for 'segment'"):
        recognise(backend, "yolo11n.onnx")


@pytest.mark.parametrize("export", ["yolov8-seg_tiny_raw", "yolov8-seg_tiny_nms", "yolo26-seg_tiny_e2e"])
def test_without_metadata_shapes_and_class_names_decide(models_dir, export):
    from seg_perception.segmenters.decoding.yolo_head import recognise

    backend = load(models_dir / "contracts" / f"{export}.onnx")._backend
    backend.metadata = {}
    head = recognise(backend, export, ("a", "b", "c"))
    assert head.final == ("raw" not in export)
    if not head.final:
        with pytest.raises(ConfigError, match="fits neither head"):
            recognise(backend, export, ("a", "b"))
