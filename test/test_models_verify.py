# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`models verify`, `bench` and `quantize`: the real models on every runtime, and runtimes that are wrong are told."""

import json
import os
import signal
import time

import numpy as np
import pytest
from tensorrt_packages import with_onnx

from seg_perception.backends.onnxruntime import OnnxRuntime
from seg_perception.backends.openvino import the_core
from seg_perception.cli import main
from seg_perception.masks import Masks
from seg_perception.scene import Instances
from seg_perception.zoo.agreement import Comparison, matched, output_difference

YOLO11, YOLO26, SAM = "yolo11n-seg.onnx", "yolo26n-seg_480x640.onnx", "mobile_sam_encoder.onnx"
TINY = "contracts/yolo26-seg_tiny_raw.onnx"


class Shifted(OnnxRuntime):
    """Puts out prototypes that are a little off."""

    def __call__(self, inputs):
        outputs = super().__call__(inputs)
        return {name: array + 0.3 * array.std() * (array.ndim == 4) for name, array in outputs.items()}


class Nan(OnnxRuntime):
    def __call__(self, inputs):
        return {name: array * np.float32(np.nan) for name, array in super().__call__(inputs).items()}


class Dies(OnnxRuntime):
    def __call__(self, inputs):
        raise OSError("the device\nis gone")


class Crashes(OnnxRuntime):
    def __call__(self, inputs):
        os.kill(os.getpid(), signal.SIGSEGV)


class Interrupted(OnnxRuntime):
    def __call__(self, inputs):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1.0)


def runtime(name):
    return ["--runtime", f"{{plugin: 'test_models_verify:{name}'}}"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def photographs(data_dir):
    return ["--images", str(data_dir / "ycbv")]


def verify(capsys, *arguments):
    code = main(["models", "verify", *map(str, arguments), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == (not report["ok"])
    return {verdict["runtime"]: verdict for verdict in report["verdicts"]}


# -- verify ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "count", "instances"), [(YOLO11, 3, 6), (YOLO26, 3, 6), (SAM, 1, 9)])
def test_openvino_gives_the_masks_of_onnxruntime(model, count, instances, models_dir, photographs, capsys):
    pytest.importorskip("openvino")
    found = verify(capsys, models_dir / model, *photographs, "--count", count, "--runtime", "openvino")["openvino"]
    assert found["verdict"] == "equal"
    assert found["expected"] >= instances
    assert (found["missing"], found["extra"]) == (0, 0)
    assert found["pixels"] <= 1e-4
    assert found["outputs"] < 1e-3


def test_a_lower_precision_is_close_and_said_to_be(models_dir, photographs, capsys):
    pytest.importorskip("openvino")
    if "BF16" not in the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16")
    found = verify(capsys, models_dir / YOLO26, *photographs, "--runtime", "openvino:bf16")["openvino bf16"]
    assert found["verdict"] == "close"
    assert 1e-4 < found["pixels"] < 0.05


def test_wrong_runtimes_are_told_and_the_others_still_tried(models_dir, photographs, capsys):
    asked = [word for name in ("Shifted", "Nan", "Dies", "Crashes", "OnnxRuntime") for word in runtime(name)]
    arguments = [models_dir / YOLO26, *photographs, "--count", 2, *asked, "--runtime", "tensorrt:fp16"]
    found = {name.rpartition(":")[2]: verdict for name, verdict in verify(capsys, *arguments).items()}
    assert found["Shifted"]["verdict"] == found["Nan"]["verdict"] == "DIFFERS"
    assert found["Shifted"]["mean_iou"] < 0.999
    assert found["Nan"]["outputs"] is None  # infinite: JSON has no such number
    assert found["Nan"]["missing"] == found["Nan"]["expected"] > 0
    assert (found["Dies"]["verdict"], found["Dies"]["reason"]) == ("FAILED", "OSError: the device is gone")
    assert found["Crashes"]["verdict"] == "not run"
    assert "it ends the process (SIGSEGV) on yolo26n-seg_480x640.onnx" in found["Crashes"]["reason"]
    assert found["OnnxRuntime"]["verdict"] == "equal"
    if found["tensorrt fp16"]["verdict"] == "not run":
        assert found["tensorrt fp16"]["reason"]


def test_the_table_is_for_people(models_dir, photographs, capsys):
    arguments = [str(models_dir / YOLO26), *photographs, "--count", "1", *runtime("Dies")]
    assert main(["models", "verify", *arguments]) == 1
    printed = capsys.readouterr().out
    assert "yolo26n-seg_480x640.onnx, 1 images of" in printed
    assert "FAILED" in printed
    assert "the device is gone" in printed


def test_ctrl_c_ends_it_in_one_line(models_dir, photographs, capsys):
    assert main(["models", "verify", str(models_dir / YOLO26), *photographs, *runtime("Interrupted")]) == 130
    printed = capsys.readouterr()
    assert printed.err.strip().splitlines()[-1] == "seg-perception: interrupted"
    assert printed.out == ""


def test_without_images_the_simulated_table_serves(models_dir, capsys):
    found = verify(capsys, models_dir / TINY, "--count", 1, *runtime("OnnxRuntime"))
    assert next(iter(found.values()))["verdict"] == "equal"


# -- what is compared --------------------------------------------------------------------------------------------------


def squares(*corners, side=10, classes=None, scores=None):
    dense = np.zeros((len(corners), 60, 80), bool)
    for mask, (x, y) in zip(dense, corners, strict=True):
        mask[y : y + side, x : x + side] = True
    return Instances.of(Masks.from_dense(dense), scores, classes)


def compared(expected, found, want=({},), got=({},)):
    comparison = Comparison()
    comparison.add(expected, found, want, got)
    return comparison.result()


def test_equal_instances_are_equal_in_any_order():
    result = compared(squares((5, 5), (40, 20)), squares((40, 20), (5, 5)))
    assert (result.matched, result.least_iou, result.pixels, result.equal) == (2, 1.0, 0.0, True)


def test_a_square_beside_its_place_by_one_pixel():
    result = compared(squares((5, 5)), squares((6, 5)))
    assert result.mean_iou == pytest.approx(90 / 110)
    assert result.pixels == pytest.approx(20 / 100)
    assert (result.equal, result.close) == (False, True)


def test_more_and_less_and_other_classes_are_counted():
    result = compared(squares((5, 5), (40, 20), classes=[0, 1]), squares((5, 5), (40, 20), (60, 40), classes=[0, 2, 0]))
    assert (result.expected, result.found, result.matched, result.missing, result.extra) == (2, 3, 1, 1, 2)
    assert not result.close


def test_scores_are_compared_pair_by_pair():
    result = compared(squares((5, 5), (40, 20), scores=[0.9, 0.5]), squares((40, 20), (5, 5), scores=[0.48, 0.9]))
    assert result.scores == pytest.approx(0.02)
    assert not result.equal


def test_one_mask_twice_is_told_apart_by_its_scores():
    twice = squares((5, 5), (5, 5), scores=[0.9, 0.4])
    assert matched(twice, twice[np.array([1, 0])]) == [(0, 1, 100), (1, 0, 100)]


@pytest.mark.parametrize(
    ("got", "off"),
    [
        ([0.0, 1.0, 2.0], 0.0),
        ([2.0, 0.0, 1.0], 0.0),  # a top-k in another order
        ([0.1, 1.1, 2.1], 0.1 / np.std([0, 1, 2])),
        ([0.0, np.nan, 2.0], np.inf),
    ],
)
def test_outputs_are_compared_in_spreads(got, off):
    assert output_difference(np.array(got), np.array([0.0, 1.0, 2.0])) == pytest.approx(off)


def test_an_output_of_one_number_has_a_scale_too():
    assert output_difference(np.float32([1.0000001]), np.float32([1.0])) < 1e-3
    assert output_difference(np.zeros(3), np.zeros(3)) == 0


# -- bench -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [YOLO11, YOLO26, SAM])
def test_bench_times_the_real_models_and_names_the_machine(model, models_dir, photographs, tmp_path, capsys):
    out = tmp_path / "bench.json"
    arguments = [str(models_dir / model), *photographs, "--count", "1", "--seconds", "1", "--callers", "1"]
    assert main(["models", "bench", *arguments, "--runtime", "onnxruntime", "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    (speed,) = report["runtimes"]
    assert speed["calls"] >= 5
    assert 0 < speed["median"] <= speed["p95"]
    assert speed["median"] < speed["segment"]
    assert speed["throughput"] > 0
    assert report["machine"]["cores"] >= 1
    printed = capsys.readouterr().out
    assert report["machine"]["processor"] in printed
    assert "onnxruntime" in printed


def test_bench_says_what_did_not_run(models_dir, photographs, capsys):
    arguments = [str(models_dir / TINY), *photographs, "--count", "1", "--seconds", "1", *runtime("Dies")]
    assert main(["models", "bench", *arguments]) == 1
    assert "OSError: the device is gone" in capsys.readouterr().out


# -- quantize ----------------------------------------------------------------------------------------------------------


def quantised(capsys, source, target, photographs, *more):
    arguments = [str(source), "--int8", *photographs, "--check", "2", "--output", str(target), *more, "--json"]
    main(["models", "quantize", *arguments])
    return json.loads(capsys.readouterr().out)


def test_int8_for_openvino_says_what_it_costs(models_dir, photographs, tmp_path, capsys):
    pytest.importorskip("nncf", reason="nncf is not installed: pip install 'seg_perception[quantize]'")
    report = quantised(capsys, models_dir / YOLO26, tmp_path / "y.xml", photographs)
    agreement = report["agreement"]
    assert 1e-3 < agreement["outputs"] < 0.5
    assert agreement["matched"] >= 4
    assert 0.8 < agreement["mean_iou"] < 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["y.bin", "y.xml"]
    assert (tmp_path / "y.bin").stat().st_size < 0.5 * (models_dir / YOLO26).stat().st_size
    compare = [str(tmp_path / "y.xml"), "--reference", str(models_dir / YOLO26), *photographs, "--count", "1"]
    main(["models", "verify", *compare])
    assert "openvino int8" in capsys.readouterr().out
    assert main(["models", "bench", str(tmp_path / "y.xml"), *photographs, "--count", "1", "--seconds", "1"]) == 0


def test_int8_as_an_onnx_file(models_dir, photographs, tmp_path, capsys):
    with_onnx()
    report = quantised(capsys, models_dir / YOLO26, tmp_path / "y.onnx", photographs, "--keep", "/model.23/.*")
    assert 1e-3 < report["agreement"]["outputs"] < 0.5
    assert report["agreement"]["matched"] >= 4
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["y.onnx"]
    assert main(["models", "inspect", str(tmp_path / "y.onnx"), "--no-support", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["quantised"], about["precision"], about["segmenter"]) == (True, "int8", "yolo")


def test_what_cannot_be_quantised_is_one_line_and_leaves_nothing(models_dir, photographs, tmp_path, capsys):
    for more, line in ((["--keep", "Sigmoidd"], "has no operators Sigmoidd"), (["--output", "y.bin"], "expected .xml")):
        arguments = [str(models_dir / TINY), "--int8", "--form", "qdq", *photographs, "--count", "1"]
        with_onnx()
        output = ["--output", str(tmp_path / "y.onnx")]
        assert main(["models", "quantize", *arguments, *output, *more]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert line in error
        assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []
