# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The tensorrt backend, from config to results, on a STAND-IN of TensorRT and of the GPU (see tensorrt_standin.py).

What is tested is our own code: caching, memory, shapes, order on the stream, when graphs are recorded, every refusal.
What a real GPU does is seen with scripts/gpu_check.
"""

import importlib.util
import inspect
import json
import logging
import re
import threading
from importlib.machinery import SourceFileLoader
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tensorrt_packages import real_rtx, with_onnx
from tensorrt_standin import GPU_FIELDS, StandIn, StandInDevice

from seg_perception.backends.progress import BuildCancelledError, watching
from seg_perception.backends.tensorrt import Machine, TensorRT
from seg_perception.backends.trt.device import CudaDevice
from seg_perception.backends.trt.driver import Gpu
from seg_perception.options import ConfigError, parse, select
from seg_perception.plugins import Backend
from seg_perception.scene import Frame

ROOT = Path(__file__).resolve().parents[1]
DYNAMIC = ["images=1x3x96x96..1x3x160x160..2x3x320x320"]


@pytest.fixture(scope="module")
def torch():
    with_onnx()
    return pytest.importorskip("torch", reason="torch is not installed: scripts/test --with torch")


@pytest.fixture
def stand_in(torch):
    return StandIn(StandInDevice(torch))


@pytest.fixture
def contracts(models_dir):
    return models_dir / "contracts"


@pytest.fixture
def start(stand_in, tmp_path):
    def start(model, trt=stand_in, gpu=None, **options):
        config = parse(TensorRT.Config, {"model": str(model), "cache": str(tmp_path / "engines"), **options})
        return TensorRT(config, Machine(trt, Gpu(index=0, **{**GPU_FIELDS, **(gpu or {})}), trt.device))

    return start


def reference(model, **inputs):
    session = onnxruntime.InferenceSession(str(model))
    return dict(zip((node.name for node in session.get_outputs()), session.run(None, inputs), strict=True))


def image(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-5, err_msg=name)


# -- running -----------------------------------------------------------------------------------------------------------


def test_results_are_the_model_s_frame_after_frame(start, stand_in, models_dir):
    model = models_dir / "yolo26n-seg_480x640.onnx"
    backend = start(model)
    assert isinstance(backend, Backend)
    assert [(s.name, s.shape, s.dtype) for s in backend.inputs] == [("images", (1, 3, 480, 640), np.float32)]
    assert backend.metadata["task"] == "segment"
    before = stand_in.device.allocations
    kept = []
    for seed in range(3):
        x = image(1, 3, 480, 640, seed=seed)
        kept.append((backend({"images": x}), reference(model, images=x)))
    for got, expected in kept:  # the results of earlier calls are the caller's own
        assert_same(got, expected)
    assert stand_in.device.allocations == before  # memory is kept
    assert stand_in.device.captures == 1
    assert stand_in.device.replays == 1 + 1 + 3  # the trial, the end of the warm-up, then every call


def test_an_input_that_is_not_contiguous_or_read_only_is_taken(start, contracts):
    model = contracts / "unet_smp_tiny.onnx"
    x = np.asfortranarray(image(1, 3, 128, 128))
    x.setflags(write=False)
    assert_same(start(model)({"image": x}), reference(model, image=x))


@pytest.mark.parametrize(
    ("inputs", "line"),
    [
        ({}, "expected inputs image, got none"),
        ({"image": np.zeros((1, 3, 64, 64), np.float32)}, r"input image: expected \(1, 3, 128, 128\), got \(1, 3, 64"),
        ({"image": np.zeros((1, 3, 128, 128))}, "input image: expected float32, got float64"),
    ],
)
def test_a_wrong_input_is_refused_and_the_next_is_not_affected(start, contracts, inputs, line):
    model = contracts / "unet_smp_tiny.onnx"
    backend = start(model)
    with pytest.raises(ValueError, match=line):
        backend(inputs)
    x = image(1, 3, 128, 128)
    assert_same(backend({"image": x}), reference(model, image=x))


def test_shapes_may_change_within_their_range(start, stand_in, contracts):
    model = contracts / "yolo11-seg_tiny_raw_dyn.onnx"
    backend = start(model, shapes=DYNAMIC)
    assert backend.inputs[0].shape == (-1, 3, -1, -1)
    for size in (160, 320, 96, 96, 96, 160):
        x = image(1, 3, size, size, seed=size)
        assert_same(backend({"images": x}), reference(model, images=x))
    for shape in ((1, 3, 352, 320), (1, 3, 64, 96), (3, 3, 160, 160)):
        with pytest.raises(ValueError, match=r"outside what the engine was built for \(1x3x96x96\.\.1x3x160x160"):
            backend({"images": np.zeros(shape, np.float32)})
    x = image(2, 3, 96, 128)
    assert_same(backend({"images": x}), reference(model, images=x))
    assert stand_in.device.captures == 2  # 160 while it warmed up, and 96, which came twice


def test_outputs_whose_size_depends_on_the_data(start, stand_in, tmp_path, caplog):
    from onnx import TensorProto, helper, save

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1000,))
    y = helper.make_tensor_value_info("y", TensorProto.INT64, (1, "found"))
    graph = helper.make_graph([helper.make_node("NonZero", ["x"], ["y"])], "g", [x], [y])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "nonzero.onnx")
    stand_in.data_dependent = {"y"}
    with caplog.at_level(logging.INFO):
        backend = start(tmp_path / "nonzero.onnx")
    assert "depends on the data: no CUDA graph" in caplog.text
    assert backend.outputs[0].shape == (1, -1)
    for count in (3, 0, 900, 5, 1000, 0):
        x = np.zeros(1000, np.float32)
        x[:count] = 1
        np.testing.assert_array_equal(backend({"x": x})["y"], [np.arange(count)])
    assert stand_in.device.captures == 0


def test_a_whole_network_with_nms_in_the_graph(start, stand_in, contracts):
    model = contracts / "maskrcnn_tv_tiny.onnx"
    stand_in.data_dependent = set(reference(model, image=image(3, 160, 160)))
    backend = start(model, shapes=["image=3x160x160"])
    x = image(3, 160, 160, seed=2)
    assert_same(backend({"image": x}), reference(model, image=x))


def test_calls_from_two_threads_take_turns(start, contracts):
    model = contracts / "unet_smp_tiny.onnx"
    backend = start(model)
    images = [image(1, 3, 128, 128, seed=seed) for seed in range(2)]
    expected = [reference(model, image=x) for x in images]
    failures = []

    def call(index):
        for _ in range(20):
            if not np.allclose(backend({"image": images[index]})["logits"], expected[index]["logits"], atol=1e-5):
                failures.append(index)

    threads = [threading.Thread(target=call, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_model_in_float16_is_float32_at_the_door(start, stand_in, contracts, tmp_path):
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = tmp_path / "half.onnx"
    onnx.save(convert_float_to_float16(onnx.load(str(contracts / "sam_tiny_encoder.onnx"))), str(half))
    backend = start(half)
    assert backend.inputs[0].dtype == np.float16
    x = image(1, 3, 256, 256)
    (got,) = backend({backend.inputs[0].name: x}).values()
    (expected,) = reference(half, **{backend.inputs[0].name: x.astype(np.float16)}).values()
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected.astype(np.float32), atol=2e-3)


# -- CUDA graphs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attribute", "value", "line"),
    [
        ("capture_error", "operation not permitted when stream is capturing", "not permitted"),
        ("stale_graph", True, "dif"),
    ],
)
def test_a_graph_that_fails_or_replays_old_results_is_not_used(
    start, stand_in, contracts, caplog, attribute, value, line
):
    setattr(stand_in.device, attribute, value)
    model = contracts / "yolo11-seg_tiny_raw_dyn.onnx"
    backend = start(model, shapes=DYNAMIC, verify=False)
    assert stand_in.device.captures == 1
    caplog.clear()
    backend._execution._use_graph = True  # another trial, in a call whose results are looked at
    for seed in range(3):
        x = image(1, 3, 96, 96, seed=seed)
        assert_same(backend({"images": x}), reference(model, images=x))
    assert stand_in.device.captures == 2
    (record,) = [record for record in caplog.records if "CUDA graph" in record.message]
    assert line in record.message


def test_graphs_can_be_switched_off(start, stand_in, contracts):
    start(contracts / "unet_smp_tiny.onnx", cuda_graph=False)
    assert stand_in.device.captures == 0


# -- engines: built, kept, found again ---------------------------------------------------------------------------------


def test_an_engine_is_built_once_and_kept_with_what_it_was_made_of(start, stand_in, contracts, tmp_path):
    model = contracts / "unet_smp_tiny.onnx"
    seen = []
    with watching(seen.append):
        start(model)
    assert any("building unet_smp_tiny.onnx for TensorRT 10.16.0.0" in progress.text for progress in seen)
    start(model)
    assert stand_in.builds == 1
    files = sorted(path.name for path in (tmp_path / "engines").iterdir() if not path.name.startswith("."))
    assert [name.rpartition(".")[2] for name in files] == ["timings", "engine", "json"]
    facts = json.loads((tmp_path / "engines" / files[2]).read_text())
    assert facts["key"]["gpu"]["name"] == "Stand-in"
    assert facts["verified"]["logits"] < 1e-5
    assert files[1].startswith("unet_smp_tiny-")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gpu": {"name": "Orin", "capability": (8, 7)}}, "the GPU or its driver changed from name Stand-in"),
        ({"optimization_level": 1}, "the optimization level changed from 3 to 1"),
        ({"precision": "fp16"}, "the precision changed from model to fp16 by onnxruntime"),
        ({"version": "10.3.0.0"}, "TensorRT's version changed from TensorRT 10.16.0.0 to TensorRT 10.3.0.0"),
    ],
)
def test_an_engine_of_something_else_is_explained_and_built_anew(start, stand_in, contracts, caplog, change, said):
    model = contracts / "unet_smp_tiny.onnx"
    start(model)
    other = {key: value for key, value in change.items() if key != "version"}
    if "version" in change:
        stand_in.__version__ = change["version"]
    seen = []
    with watching(seen.append), caplog.at_level(logging.INFO):
        start(model, **other)
    assert stand_in.builds == 2
    assert said in caplog.text
    assert any(said in progress.text for progress in seen)
    start(model, **other)
    assert stand_in.builds == 2


def test_a_changed_model_is_built_anew(start, stand_in, contracts, tmp_path, caplog):
    model = tmp_path / "model.onnx"
    for name in ("stub_yolact5", "stub_solov2_dense"):
        model.write_bytes((contracts / f"{name}.onnx").read_bytes())
        with caplog.at_level(logging.INFO):
            start(model)
    assert stand_in.builds == 2
    assert "the model file changed from " in caplog.text


@pytest.mark.parametrize("damage", ["cut", "no json", "refused"])
def test_a_kept_engine_that_is_of_no_use_is_built_anew(start, stand_in, contracts, tmp_path, caplog, damage):
    model = contracts / "unet_smp_tiny.onnx"
    start(model)
    (engine,) = (tmp_path / "engines").glob("*.engine")
    if damage == "cut":
        engine.write_bytes(engine.read_bytes()[:1000])
    elif damage == "no json":
        engine.with_suffix(".json").write_text("{")
    else:
        stand_in.faults.add("deserialize")
        with pytest.raises(ConfigError, match=r"built unet_smp_tiny.onnx, but cannot start it: that is no engine"):
            start(model)
        assert not engine.exists()
        stand_in.faults.clear()
    start(model)
    assert stand_in.builds == 2 + (damage == "refused")
    assert ("damaged" in caplog.text) or ("does not start" in caplog.text)


def test_timings_are_given_to_the_next_build_and_foreign_ones_are_left_aside(start, stand_in, contracts, tmp_path):
    start(contracts / "stub_yolact5.onnx")
    start(contracts / "unet_smp_tiny.onnx")
    assert stand_in.timings_given == [b"", b"timings\x01", b"timings\x01"]  # to build with, and to add to
    (timings,) = (tmp_path / "engines").glob("*.timings")
    timings.write_bytes(b"of another GPU")
    start(contracts / "stub_solov2_dense.onnx")
    assert stand_in.timings_given[3:] == [b"of another GPU", b"", b"of another GPU"]
    assert timings.read_bytes() == b"timings\x03"


def test_timings_that_another_process_kept_meanwhile_are_not_lost(start, stand_in, contracts, tmp_path):
    start(contracts / "stub_yolact5.onnx")
    (timings,) = (tmp_path / "engines").glob("*.timings")
    stand_in.while_building = lambda: timings.write_bytes(b"timings" + bytes([1, 77]))
    start(contracts / "unet_smp_tiny.onnx")
    assert timings.read_bytes() == b"timings" + bytes([1, 2, 77])


def test_plugin_libraries_are_loaded_before_the_model_and_belong_to_the_engine(start, stand_in, contracts, tmp_path):
    library = tmp_path / "libgadgets.so"
    library.write_bytes(b"one")
    for builds in (1, 1):
        start(contracts / "unet_smp_tiny.onnx", plugins=[str(library)])
        assert (stand_in.builds, stand_in.own_plugins) == (builds, True)
    assert stand_in.libraries == [str(library)]  # once per process
    library.write_bytes(b"two")
    start(contracts / "unet_smp_tiny.onnx", plugins=[str(library)])
    assert stand_in.builds == 2  # another library may compute something else
    with pytest.raises(ConfigError, match=r"plugins: no such library: .*libabsent\.so"):
        start(contracts / "unet_smp_tiny.onnx", plugins=[str(tmp_path / "libabsent.so")])
    stand_in.faults.add("library")
    (tmp_path / "libother.so").touch()
    with pytest.raises(ConfigError, match=r"cannot load .*libother\.so: .*cannot open shared object file"):
        start(contracts / "unet_smp_tiny.onnx", plugins=[str(tmp_path / "libother.so")])


def test_a_dla_core_takes_what_it_can(start, stand_in, contracts):
    with pytest.raises(ConfigError, match=r"dla_core: 1, but TensorRT 10.16.0.0 finds no DLA here"):
        start(contracts / "unet_smp_tiny.onnx", dla_core=1)
    stand_in.dla_cores = 2
    backend = start(contracts / "unet_smp_tiny.onnx", dla_core=1)
    (config,) = stand_in.configs
    assert config.default_device_type is stand_in.DeviceType.DLA
    assert (config.DLA_core, stand_in.runtimes[-1].DLA_core) == (1, 1)
    assert stand_in.BuilderFlag.GPU_FALLBACK in config.flags
    for _ in range(4):
        backend({"image": image(1, 3, 128, 128)})
    assert not backend.recorded  # no CUDA graph
    start(contracts / "unet_smp_tiny.onnx")
    assert stand_in.builds == 2  # an engine for the GPU is another one


def test_where_no_engine_may_be_built_the_line_says_which_is_missing(start, stand_in, contracts):
    with pytest.raises(ConfigError, match=r"no engine of unet_smp_tiny.onnx for Stand-in .*on_engine_missing is fail"):
        start(contracts / "unet_smp_tiny.onnx", on_engine_missing="fail")
    assert stand_in.builds == 0
    start(contracts / "unet_smp_tiny.onnx")
    start(contracts / "unet_smp_tiny.onnx", on_engine_missing="fail")  # now there is one
    with pytest.raises(ConfigError, match=r"the GPU or its driver changed from .* on_engine_missing is fail"):
        start(contracts / "unet_smp_tiny.onnx", gpu={"name": "Another"}, on_engine_missing="fail")
    assert stand_in.builds == 1


def test_float16_is_converted_and_compared_with_the_original(start, stand_in, contracts, tmp_path):
    model = contracts / "sam_tiny_encoder.onnx"
    backend = start(model, precision="fp16")
    x = image(1, 3, 256, 256)
    (got,) = backend({backend.inputs[0].name: x}).values()
    (expected,) = reference(model, **{backend.inputs[0].name: x}).values()
    difference = np.sqrt(np.mean((got - expected) ** 2)) / expected.std()
    assert 1e-5 < difference < 0.01  # float16, and not more than that
    (facts,) = (json.loads(path.read_text()) for path in (tmp_path / "engines").glob("*.json"))
    assert 1e-6 < max(facts["verified"].values()) < 0.05


def test_float32_is_not_tf32_unless_that_is_asked_for(start, stand_in, contracts):
    for precision in ("model", "tf32", "fp16"):
        start(contracts / "sam_tiny_encoder.onnx", precision=precision)
    assert stand_in.tf32 == [False, True, True]


def test_an_engine_that_computes_something_else_is_neither_used_nor_kept(start, stand_in, contracts, tmp_path):
    stand_in.faults.add("wrong results")
    with pytest.raises(ConfigError, match=r"disagrees with ONNX Runtime: logits is off by .* not used and not kept"):
        start(contracts / "unet_smp_tiny.onnx")
    assert not list((tmp_path / "engines").glob("*.engine"))


def test_an_engine_kept_unverified_is_verified_when_that_is_asked_for(start, stand_in, contracts):
    model = contracts / "unet_smp_tiny.onnx"
    start(model, verify=False)
    stand_in.faults.add("wrong results")
    with pytest.raises(ConfigError, match="disagrees"):
        start(model)
    stand_in.faults.clear()
    start(model)
    assert stand_in.builds == 1


def test_real_inputs_can_be_given_to_compare_on(start, contracts, tmp_path):
    np.savez(tmp_path / "real.npz", image=image(1, 3, 128, 128))
    start(contracts / "unet_smp_tiny.onnx", reference=str(tmp_path / "real.npz"))
    np.savez(tmp_path / "real.npz", image=image(1, 3, 64, 64))
    with pytest.raises(ConfigError, match=r"reference: image in .*real.npz: expected \(1, 3, 128, 128\)"):
        start(contracts / "unet_smp_tiny.onnx", reference=str(tmp_path / "real.npz"))
    with pytest.raises(ConfigError, match=r"none.npz cannot be read"):
        start(contracts / "unet_smp_tiny.onnx", reference=str(tmp_path / "none.npz"))


def test_a_cancelled_build_leaves_nothing(start, stand_in, contracts, tmp_path):
    with watching(lambda progress: not progress.text.startswith("building unet")), pytest.raises(BuildCancelledError):
        start(contracts / "unet_smp_tiny.onnx")
    assert [path.name for path in (tmp_path / "engines").iterdir() if not path.name.endswith(".lock")] == []


def test_a_kept_engine_is_used_from_a_folder_that_cannot_be_written(start, stand_in, contracts, tmp_path, monkeypatch):
    model = contracts / "unet_smp_tiny.onnx"
    start(model)

    def refuse(self, key):
        raise AssertionError("a kept engine needs no lock")

    monkeypatch.setattr("seg_perception.backends.trt.store.EngineStore.locked", refuse)
    start(model)
    assert stand_in.builds == 1


def test_the_real_builder_s_engine_is_not_kept_when_it_does_not_start(torch, start, contracts, tmp_path):
    """TensorRT-RTX itself on a machine without GPU: it builds, and says why it cannot run; nothing crashes."""
    rtx = real_rtx()
    if torch.cuda.is_available():
        pytest.skip("here is a GPU: see scripts/gpu_check")
    device = StandInDevice(torch)
    config = {"model": str(contracts / "unet_smp_tiny.onnx"), "library": "tensorrt_rtx", "cache": str(tmp_path / "rtx")}
    machine = Machine(rtx, Gpu(index=0, **GPU_FIELDS), device)
    with pytest.raises(ConfigError, match=r"built unet_smp_tiny\.onnx, but cannot start it: no driver") as error:
        TensorRT(parse(TensorRT.Config, config), machine)
    assert "\n" not in str(error.value)
    assert [path.suffix for path in (tmp_path / "rtx").iterdir()] == [".lock"]


def test_a_segmenter_finds_what_it_finds_with_onnxruntime(stand_in, models_dir, tmp_path, monkeypatch):
    machine = Machine(stand_in, Gpu(index=0, **GPU_FIELDS), stand_in.device)
    monkeypatch.setattr("seg_perception.backends.tensorrt.this_machine", lambda config: machine)
    section = {"plugin": "yolo", "model": str(models_dir / "yolo26n-seg_480x640.onnx"), "score_threshold": 0.01}
    backends = ({"plugin": "onnxruntime"}, {"plugin": "tensorrt", "cache": str(tmp_path)})
    color = (255 * image(360, 640, 3)).astype(np.uint8)
    frame = Frame(color, np.ones(color.shape[:2], np.float32))
    expected, got = (select("segmenters", {**section, "backend": b}, "").create().segment(frame) for b in backends)
    assert len(expected) > 0
    np.testing.assert_array_equal(got.class_ids, expected.class_ids)
    np.testing.assert_allclose(got.boxes, expected.boxes, atol=1e-2)
    assert np.count_nonzero(got.masks.dense() != expected.masks.dense()) < 1e-4 * color[..., 0].size


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("no builder", r"cannot build: this installation runs engines but cannot build them .*sm89"),
        ("build", "cannot build unet_smp_tiny.onnx: not enough GPU memory"),
        ("no runtime", "does not start: no driver, or one older"),
        ("context", "cannot prepare unet_smp_tiny.onnx: not enough GPU memory"),
        ("fp8", "image is FP8, expected one of FLOAT, HALF"),
    ],
)
def test_what_tensorrt_refuses_is_one_line_with_the_way_out(start, stand_in, contracts, tmp_path, fault, line):
    stand_in.faults.add(fault)
    with pytest.raises(ConfigError, match=line) as error:
        start(contracts / "unet_smp_tiny.onnx")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "engines").glob("*.engine"))


@pytest.mark.parametrize("call", ["set_input_shape", "set_tensor_address", "infer_shapes", "execute_async_v3"])
def test_no_refusal_at_run_time_is_missed_and_the_next_call_works(start, stand_in, contracts, call):
    model = contracts / "yolo11-seg_tiny_raw_dyn.onnx"
    backend = start(model, shapes=DYNAMIC, cuda_graph=False)
    stand_in.faults.add(call)
    x = image(1, 3, 96, 160)
    line = "wants more inputs: ghost" if call == "infer_shapes" else f"TensorRT 10.16.0.0 refused .*{call} was told to"
    with pytest.raises(RuntimeError, match=line):
        backend({"images": x})
    stand_in.faults.clear()
    assert_same(backend({"images": x}), reference(model, images=x))


def test_an_allocator_that_is_refused_is_an_error(start, stand_in, contracts):
    stand_in.data_dependent = {"logits"}
    stand_in.faults.add("set_output_allocator")
    with pytest.raises(RuntimeError, match="refused an allocator for logits"):
        start(contracts / "unet_smp_tiny.onnx")


def test_an_operator_that_is_not_supported_is_named(start, stand_in, contracts):
    stand_in.unsupported = {"Resize"}
    with pytest.raises(ConfigError, match=r"node '.+' \(op Resize\): this TensorRT has no such operator"):
        start(contracts / "unet_smp_tiny.onnx")


def test_shapes_that_do_not_fit_are_refused_before_anything_is_built(start, stand_in, contracts):
    model = contracts / "yolo11-seg_tiny_raw_dyn.onnx"
    with pytest.raises(ConfigError, match=r"input 'images' .* is dynamic \(\?, 3, \?, \?\): give the size"):
        start(model)
    with pytest.raises(ConfigError, match="no input 'pictures'"):
        start(model, shapes=["pictures=1x3x160x160"])
    assert stand_in.builds == 0


def test_a_file_that_is_no_onnx_model_is_refused(start, contracts, tmp_path):
    for name, data, line in (
        ("model.engine", b"ptrt", "is an engine, which belongs to one GPU"),
        ("text.onnx", b"hello" * 100, "not a readable ONNX model"),
        ("cut.onnx", (contracts / "unet_smp_tiny.onnx").read_bytes()[:5000], "not a readable ONNX model"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ConfigError, match=line) as error:
            start(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="no such model file"):
        start(tmp_path / "none.onnx")


def test_weights_beside_the_model_count_and_must_be_there(start, stand_in, contracts, tmp_path):
    import onnx

    model = tmp_path / "model.onnx"
    whole = onnx.load(str(contracts / "unet_smp_tiny.onnx"))
    onnx.save(whole, str(model), save_as_external_data=True, location="weights.bin")
    weights = tmp_path / "weights.bin"
    from seg_perception.backends.trt.model import read_model

    first = read_model(model).sha256
    data = bytearray(weights.read_bytes())
    data[1000] ^= 1
    weights.write_bytes(data)
    assert read_model(model).sha256 != first
    weights.unlink()
    with pytest.raises(ConfigError, match=r"keeps its weights in weights\.bin, which is not beside it"):
        start(model)


# -- scripts/gpu_check -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpu_check():
    loader = SourceFileLoader("gpu_check", str(ROOT / "scripts" / "gpu_check"))
    spec = importlib.util.spec_from_loader("gpu_check", loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_gpu_check_fills_its_table(gpu_check, stand_in, contracts, tmp_path):
    machine = Machine(stand_in, Gpu(index=0, **GPU_FIELDS), stand_in.device)

    def check(name, *shapes):
        return gpu_check.check_model(machine, "tensorrt", contracts / f"{name}.onnx", "model", list(shapes), 3)

    good = check("unet_smp_tiny")
    dynamic = check("yolo11-seg_tiny_raw_dyn")
    stand_in.faults.add("wrong results")
    wrong = check("unet_smp_tiny")
    assert (good["result"], good["graph"]) == ("ok", "yes")
    assert float(good["median ms"]) > 0
    assert dynamic["result"].startswith("refused: input 'images'")
    assert wrong["result"].startswith("WRONG: the engine of unet_smp_tiny.onnx disagrees")
    text = gpu_check.table([good, dynamic, wrong])
    assert len(text.splitlines()) == 5
    assert len({len(line) for line in text.splitlines()}) == 1


class AtOnce(StandInDevice):
    """What torch queues on a GPU's stream by itself happens at once on the CPU, so the rest must too."""

    def enqueue(self, work):
        work()

    def capture(self, work):
        return (lambda: None) if self.stale_graph else work


@pytest.mark.parametrize(("stale", "result"), [(False, "ok"), (True, "WRONG: results differ")])
def test_gpu_check_finds_a_graph_that_replays_nothing(gpu_check, torch, stale, result):
    device = AtOnce(torch)
    device.stale_graph = stale
    assert gpu_check.check_device(device)["result"] == result


def test_gpu_check_says_when_there_is_nothing_to_check(gpu_check, monkeypatch, capsys):
    def no_driver(index):
        raise ConfigError("no NVIDIA driver (libcuda.so.1 is not there)")

    monkeypatch.setattr(gpu_check, "probe", no_driver)
    assert gpu_check.main([]) == 2
    assert capsys.readouterr().out == "nothing was checked: no NVIDIA driver (libcuda.so.1 is not there)\n"


# -- the real device, as far as a CPU can tell -------------------------------------------------------------------------


def test_what_the_device_asks_of_torch_exists(torch):
    """Names and parameters only; that they work is seen with scripts/gpu_check."""
    assert {"stream", "capture_error_mode"} <= set(inspect.signature(torch.cuda.graph.__init__).parameters)
    assert "thread_local" in (torch.cuda.graph.__doc__ or "")
    assert {"record", "synchronize"} <= set(dir(torch.cuda.Event))
    assert "blocking" in inspect.signature(torch.cuda.Event.__new__).parameters
    assert hasattr(torch.cuda.CUDAGraph, "replay")
    assert issubclass(torch.cuda.OutOfMemoryError, RuntimeError)


def test_a_torch_without_cuda_is_one_line(torch):
    if torch.cuda.is_available():
        pytest.skip("this torch has a GPU")
    with pytest.raises(ConfigError, match=rf"torch {re.escape(torch.__version__)} cannot use the GPU: it is a build"):
        CudaDevice(torch, 0)
