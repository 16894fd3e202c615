# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The openvino backend: the results of ONNX Runtime, the precision that was asked for, and clear lines for the rest."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_onnxruntime import identity_model

from seg_perception.backends.onnxruntime import OnnxRuntime
from seg_perception.backends.openvino import OpenVino, load_openvino, the_core
from seg_perception.options import ConfigError, Selected, parse
from seg_perception.plugins import Backend, PluginError
from seg_perception.scene import Frame
from seg_perception.segmenters.yolo import Yolo

pytest.importorskip("openvino", reason="openvino is not installed: pip install 'seg_perception[openvino]'")

TINY = "contracts/yolo26-seg_tiny_raw.onnx"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "seg_perception" / "openvino"


def start(**options) -> OpenVino:
    return OpenVino(parse(OpenVino.Config, {"threads": 1, **options}))


def reference(model: Path) -> OnnxRuntime:
    return OnnxRuntime(parse(OnnxRuntime.Config, {"model": str(model), "threads": 1}))


def intermediate(model, path: Path) -> Path:
    """Saves an OpenVINO model as IR, weights as they are."""
    load_openvino().save_model(model, str(path), compress_to_fp16=False)
    return path


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# --- the same as ONNX Runtime ---


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int64])
def test_a_model_tells_its_inputs_outputs_and_metadata_and_runs(tmp_path, dtype):
    backend = start(model=str(identity_model(tmp_path / "identity.onnx", dtype)))
    assert isinstance(backend, Backend)
    for specs, name in ((backend.inputs, "x"), (backend.outputs, "y")):
        assert [(s.name, s.shape, s.dtype) for s in specs] == [(name, (1, 2, -1), dtype)]
    assert backend.metadata == {"task": "none"}
    kept = []
    for n in (3, 3, 5, 1):
        x = np.arange(2 * n, dtype=dtype).reshape(1, n, 2).swapaxes(1, 2)  # not contiguous
        x.flags.writeable = False
        kept.append((backend({"x": x})["y"], x))
    for y, x in kept:  # none of them was overwritten by a later call
        np.testing.assert_array_equal(y, x)


def test_half_precision_of_the_model_is_single_precision_at_the_door(tmp_path):
    backend = start(model=str(identity_model(tmp_path / "half.onnx", np.float16)))
    assert backend.inputs[0].dtype == np.float16
    out = backend({"x": np.full((1, 2, 3), 0.1, np.float32)})["y"]
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, np.float32(np.float16(0.1)))


CONTRACTS = ["detr_seg_tiny", "mask2former_tiny", "maskrcnn_roi28_tiny", "sam_tiny_encoder", "stub_solov2_dense"]
CONTRACTS += ["stub_yolact5", "unet_smp_tiny", "yolo11-seg_tiny_raw_dyn", "yolov8-seg_tiny_nms"]


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_family_s_export_gives_the_outputs_of_onnxruntime(models_dir, name):
    """Names, shapes and dtypes too, whatever the sizes of the outputs depend on."""
    path = models_dir / "contracts" / f"{name}.onnx"
    expected, found = reference(path), start(model=str(path))
    assert [(s.name, s.dtype) for s in found.inputs + found.outputs] == [
        (s.name, s.dtype) for s in expected.inputs + expected.outputs
    ]
    assert found.metadata == expected.metadata
    rng = np.random.default_rng(0)
    feed = {}
    for spec in expected.inputs:
        shape = [1 if i == 0 and n < 0 else 64 if n < 0 else n for i, n in enumerate(spec.shape)]
        feed[spec.name] = rng.random(shape).astype(spec.dtype) if spec.dtype.kind == "f" else np.ones(shape, spec.dtype)
    results = found(feed)
    for key, array in expected(feed).items():
        assert results[key].dtype == array.dtype
        scale = np.abs(array).max() if array.dtype.kind == "f" and array.size else 0
        np.testing.assert_allclose(results[key], array, rtol=0, atol=1e-5 * scale + 1e-7, err_msg=key)


def yolo(model: Path, plugin: type) -> Yolo:
    backend = Selected("backends", f"{plugin.__module__}:{plugin.__name__}", parse(plugin.Config, {"threads": 1}))
    return Yolo(Yolo.Config(model=str(model), score_threshold=0.1, backend=backend))


@pytest.mark.parametrize("model", ["yolo11n-seg.onnx", "yolo26n-seg_480x640.onnx"])
def test_real_weights_find_the_same_objects_in_real_photographs(models_dir, data_dir, model):
    ours, theirs = yolo(models_dir / model, OpenVino), yolo(models_dir / model, OnnxRuntime)
    assert ours.class_names == theirs.class_names
    pixels = different = instances = 0
    for path in sorted((data_dir / "ycbv" / "frames").glob("*_rgb.*"))[:4]:
        frame = Frame(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB))
        found, expected = ours.segment(frame), theirs.segment(frame)
        np.testing.assert_array_equal(found.class_ids, expected.class_ids)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.05)
        instances += len(found)
        pixels += int(expected.masks.areas.sum())
        different += int((found.masks.dense() != expected.masks.dense()).sum())
    assert instances >= 8
    assert different <= pixels / 10_000


# --- precision ---


def spread(model: Path, **options) -> float:
    """Largest difference of the prototypes to ONNX Runtime's, on noise."""
    x = {"images": np.random.default_rng(0).random((1, 3, 160, 160), dtype=np.float32)}
    expected = reference(model)(x)["output1"]
    return float(np.abs(start(model=str(model), **options)(x)["output1"] - expected).max() / np.abs(expected).max())


def test_float32_unless_asked_otherwise(models_dir):
    """On a CPU that has bfloat16, OpenVINO left alone takes it; also from the cache, in any order."""
    model = models_dir / TINY
    if "BF16" not in the_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(ConfigError, match="CPU does not compute in bf16"):
            start(model=str(model), precision="bf16")
        pytest.skip("this CPU has no bfloat16 to tell float32 from")
    for device in ("CPU", "AUTO"):
        assert spread(model, device=device, precision="bf16") > 1e-3
        assert spread(model, device=device) < 1e-5
        assert spread(model, device=device, precision="bf16") > 1e-3


def test_a_precision_that_the_device_lacks_is_refused_not_replaced(models_dir):
    with pytest.raises(ConfigError) as error:
        start(model=str(models_dir / TINY), precision="f16")  # OpenVINO would take bfloat16
    assert one_line(error).startswith("precision: CPU does not compute in f16 (it does in f32")


def quantised(path: Path) -> Path:
    """An IR `y = x` rounded to 256 steps of 1/255."""
    runtime = load_openvino()
    ops = runtime.opset13
    x = ops.parameter([1, 2, 3], np.float32, name="x")
    low, high = (ops.constant(np.float32(v)) for v in (0, 1))
    return intermediate(runtime.Model([ops.fake_quantize(x, low, high, low, high, 256)], [x], "q"), path)


def test_int8_is_computed_only_when_asked_for(tmp_path, models_dir):
    model = str(quantised(tmp_path / "quantised.xml"))
    with pytest.raises(ConfigError, match="set precision: int8") as error:
        start(model=model)
    assert "quantised.xml" in one_line(error)
    backend = start(model=model, precision="int8")
    x = np.linspace(0, 1, 6, dtype=np.float32).reshape(1, 2, 3)
    (y,) = backend({backend.inputs[0].name: x}).values()
    np.testing.assert_allclose(y, np.round(x * 255) / 255, atol=1e-6)
    with pytest.raises(ConfigError, match="needs a model that is quantised"):
        start(model=str(models_dir / TINY), precision="int8")


# --- options ---


def test_options_reach_the_compiled_model(models_dir):
    model = str(models_dir / TINY)
    used = start(model=model, threads=2)._request.get_compiled_model()
    assert used.get_property("INFERENCE_NUM_THREADS") == 2
    assert used.get_property("PERFORMANCE_HINT").upper() == "LATENCY"
    many = start(model=model, performance="throughput")._request.get_compiled_model()
    assert many.get_property("PERFORMANCE_HINT").upper() == "THROUGHPUT"


def test_compiled_models_are_kept_where_the_user_s_caches_are_and_a_broken_one_is_made_anew(models_dir, cache):
    model = str(models_dir / TINY)
    x = {"images": np.random.default_rng(0).random((1, 3, 160, 160), dtype=np.float32)}
    expected = start(model=model, cache=False)(x)["output1"]
    assert not cache.exists()
    loaded = "LOADED_FROM_CACHE"
    assert not start(model=model)._request.get_compiled_model().get_property(loaded)
    assert start(model=model)._request.get_compiled_model().get_property(loaded)
    (blob,) = (cache / "f32").glob("*.blob")
    blob.write_bytes(blob.read_bytes()[:5000])
    backend = start(model=model)
    assert not backend._request.get_compiled_model().get_property(loaded)
    np.testing.assert_array_equal(backend(x)["output1"], expected)


@pytest.mark.parametrize("device", ["QPU", "CPU.7", "AUTO:QPU,CPU", "", "CPU,CPU"])
def test_an_absent_device_lists_what_is_there(tmp_path, device):
    with pytest.raises(ConfigError) as error:
        start(model=str(identity_model(tmp_path / "identity.onnx")), device=device)
    assert one_line(error).startswith("device: ")
    assert "available: CPU" in str(error.value) or "expected one, or AUTO:CPU,CPU" in str(error.value)


def test_it_is_imported_without_its_telemetry():
    """Importing openvino would start a process that reports it over the network."""
    code = (
        "import json, sys; from seg_perception.backends.openvino import the_core;"
        "the_core(); import multiprocessing;"
        "print(json.dumps([m for m in sys.modules if m.split('.')[0] == 'openvino_telemetry']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("order", ["first, second", "second, first"])
def test_ctrl_c_is_heard_after_models_have_gone_in_any_order(tmp_path, order):
    """OpenVINO sets the signals' stack for each Core of its own and puts back that of one which has gone."""
    model = identity_model(tmp_path / "identity.onnx")
    load = f"OpenVino(OpenVinoConfig({str(model)!r}, cache=False))"
    code = (
        "import faulthandler, gc, signal; faulthandler.enable();"  # gives the thread a stack for signals
        "from seg_perception.backends.openvino import OpenVino, OpenVinoConfig;"
        f"first = {load}; second = {load};"
        + "".join(f"del {name}; gc.collect();" for name in order.split(", "))
        + "signal.raise_signal(signal.SIGINT)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT
    assert done.stderr.endswith("KeyboardInterrupt\n")


# --- what can be wrong ---


@pytest.mark.parametrize(
    ("inputs", "line"),
    [
        ({}, "expected inputs x, got none"),
        ({"x": np.zeros((1, 3, 3), np.float32)}, r"input x: expected \(1, 2, -1\), got \(1, 3, 3\)"),
        ({"x": np.zeros((1, 2, 3))}, "input x: expected float32, got float64"),
    ],
)
def test_a_wrong_input_is_refused_with_what_was_expected(tmp_path, inputs, line):
    with pytest.raises(ValueError, match=line):
        start(model=str(identity_model(tmp_path / "identity.onnx")))(inputs)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_truncated_model_is_one_line(tmp_path, models_dir, keep, capfd):
    whole = (models_dir / TINY).read_bytes()
    path = tmp_path / "truncated.onnx"
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(ConfigError) as error:
        start(model=str(path))
    assert one_line(error).startswith(f"not a readable ONNX model: {path}: ")
    path.write_text("segmenter: {plugin: yolo}\n" * 50)
    with pytest.raises(ConfigError, match="not a readable ONNX model"):
        start(model=str(path))
    assert capfd.readouterr().err == ""


def test_a_broken_ir_is_one_line(tmp_path):
    path = quantised(tmp_path / "model.xml")
    text = path.read_text()
    for broken in (text[: len(text) // 2], "<net></net>", "nothing"):
        path.write_text(broken)
        with pytest.raises(ConfigError) as error:
            start(model=str(path), precision="int8")
        assert one_line(error).startswith(f"not a readable OpenVINO model: {path}: ")
    path.write_text(text)
    path.with_suffix(".bin").unlink()
    with pytest.raises(ConfigError, match=r"no model\.bin"):
        start(model=str(path), precision="int8")


def test_missing_files_other_formats_and_graphs_it_cannot_run_are_one_line(tmp_path):
    with pytest.raises(ConfigError, match="no such model file"):
        start(model=str(tmp_path / "none.onnx"))
    other = tmp_path / "weights.pt"
    other.write_bytes(b"PK")
    with pytest.raises(ConfigError, match=r"expected an ONNX file \(\.onnx\) or an OpenVINO IR \(\.xml\), got '\.pt'"):
        start(model=str(other))
    unknown = tmp_path / "unknown.onnx"
    unknown.write_bytes(identity_model(unknown).read_bytes().replace(b"Identity", b"Idontity"))
    with pytest.raises(ConfigError, match="Idontity") as error:
        start(model=str(unknown))
    assert str(unknown) in one_line(error)


def test_class_names_come_with_an_ir_too(tmp_path, models_dir):
    model = the_core().read_model(str(models_dir / TINY))
    path = intermediate(model, tmp_path / "net.xml")
    names = start(model=str(path)).metadata["names"]
    assert names == start(model=str(models_dir / TINY)).metadata["names"]
    (tmp_path / "metadata.yaml").write_text("task: segment\nnames:\n  0: cup\n  1: bowl\nargs: {nms: false}\n")
    metadata = start(model=str(path)).metadata  # beside it, as Ultralytics exports
    assert (metadata["names"], metadata["args"]) == ("{0: 'cup', 1: 'bowl'}", "{'nms': False}")
    for broken in ("names: [a", "- a list"):
        (tmp_path / "metadata.yaml").write_text(broken)
        with pytest.raises(ConfigError) as error:
            start(model=str(path))
        assert one_line(error).startswith(str(tmp_path / "metadata.yaml"))


def test_without_openvino_the_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(PluginError, match=r"seg_perception\[openvino\]"):
        start(model=str(identity_model(tmp_path / "identity.onnx")))
