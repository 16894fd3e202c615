# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Building engines, on the real builder of TensorRT-RTX, which needs no GPU: support, progress, cancel, and refusals.

TensorRT-RTX's Python API is TensorRT 11's; the module is handed in as `trt`. Nothing here executes an engine.
"""

import gc
import signal
import threading
from types import SimpleNamespace

import pytest
from tensorrt_packages import real_rtx, with_onnx

from seg_perception.backends import tensorrt
from seg_perception.backends.progress import BuildCancelledError, watching
from seg_perception.backends.trt.building import BuildOptions, build_engine
from seg_perception.backends.trt.driver import probe
from seg_perception.backends.trt.half import convert_to_half
from seg_perception.backends.trt.log import collecting_logger, reason
from seg_perception.backends.trt.network import Parsed, unsupported_nodes
from seg_perception.backends.trt.profiles import parse_shapes
from seg_perception.options import ConfigError


@pytest.fixture(scope="module")
def rtx():
    return real_rtx()


@pytest.fixture(scope="module")
def contracts(models_dir):
    return models_dir / "contracts"


def refusal(*arguments) -> str:
    with pytest.raises(ConfigError) as error:
        build_engine(*arguments)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_model_is_built_and_its_types_are_the_file_s(rtx, contracts):
    model = contracts / "unet_smp_tiny.onnx"
    assert Parsed(rtx, model).precisions(rtx).keys() == {"FLOAT"}
    built = build_engine(rtx, model, BuildOptions())
    assert len(built.plan) > 1_000_000  # it holds the weights
    again = build_engine(rtx, model, BuildOptions(optimization_level=0, workspace=64))
    assert built.timings(b"") == b""  # TensorRT-RTX measures nothing
    assert len(again.plan) > 1_000_000


def test_an_engine_for_one_kind_of_gpu_and_none_for_a_kind_it_does_not_know(rtx, contracts):
    model = contracts / "unet_smp_tiny.onnx"
    sizes = {sm: len(build_engine(rtx, model, BuildOptions(capability=sm)).plan) for sm in ((7, 5), (8, 9))}
    assert sizes[7, 5] != sizes[8, 9]
    text = refusal(rtx, model, BuildOptions(capability=(9, 0)))
    assert "does not run on compute capability 9.0 (it does on 7.5, 8.0, 8.6, 8.9, 12.0, 12.1)" in text
    assert "library: tensorrt" in text


def test_progress_rises_and_is_told_in_the_thread_that_asked(rtx, contracts):
    seen, threads = [], set()

    def watch(progress):
        seen.append(progress)
        threads.add(threading.get_ident())

    with watching(watch):
        build_engine(rtx, contracts / "mask2former_tiny.onnx", BuildOptions())
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert 0.5 < fractions[-1] <= 1
    assert "mask2former_tiny.onnx" in seen[0].text
    assert threads == {threading.get_ident()}


def interrupt(progress):
    signal.raise_signal(signal.SIGINT)


def fail(progress):
    raise ZeroDivisionError("a watcher with a fault")


@pytest.mark.parametrize(
    ("watcher", "error"),
    [(lambda progress: False, BuildCancelledError), (interrupt, KeyboardInterrupt), (fail, ZeroDivisionError)],
)
def test_a_build_is_cancelled_by_its_watcher_or_by_ctrl_c(rtx, contracts, watcher, error):
    calls = []

    def watch(progress):
        calls.append(progress)
        return watcher(progress)

    mark = collecting_logger(rtx).mark()
    with watching(watch), pytest.raises(error):
        build_engine(rtx, contracts / "mask2former_tiny.onnx", BuildOptions())
    assert len(calls) == 1
    assert "BuildCanceled" in " ".join(collecting_logger(rtx).since(mark))  # TensorRT stopped, it was not waited for
    assert not [thread for thread in threading.enumerate() if thread.name == "tensorrt build"]
    assert build_engine(rtx, contracts / "stub_yolact5.onnx", BuildOptions()).plan  # the next one is not affected


def test_the_report_names_a_node_that_is_not_supported(rtx, contracts):
    assert unsupported_nodes(rtx, contracts / "unet_smp_tiny.onnx") == ()
    (found,) = unsupported_nodes(rtx, contracts / "yolov8-seg_tiny_nms.onnx")
    assert (found.node, found.operator) == ("/NonZero", "NonZero")


def test_the_report_needs_a_gpu_with_tensorrt_and_none_with_tensorrt_rtx(rtx, contracts, monkeypatch):
    monkeypatch.setattr(tensorrt, "load_library", lambda library: rtx)
    (found,) = tensorrt.unsupported("tensorrt_rtx", contracts / "maskrcnn_tv_tiny.onnx")
    assert found.node == "/m/rpn/NonZero"
    monkeypatch.setattr(
        tensorrt, "load_library", lambda library: SimpleNamespace(__name__="tensorrt", __version__="11.4")
    )
    monkeypatch.setattr(tensorrt, "probe", lambda: probe(0, "libcuda-that-is-not-there.so.1"))
    with pytest.raises(ConfigError, match="no NVIDIA driver"):
        tensorrt.unsupported("tensorrt", contracts / "maskrcnn_tv_tiny.onnx")


def test_a_model_with_nms_is_refused_with_its_node_and_the_way_out(rtx, contracts):
    text = refusal(rtx, contracts / "yolov8-seg_tiny_nms.onnx", BuildOptions())
    assert "node '/NonZero' (op NonZero)" in text
    assert "without NMS in the graph" in text


def test_a_size_that_is_a_float_input_is_named(rtx, contracts):
    text = refusal(rtx, contracts / "sam_ref_decoder_single.onnx", BuildOptions())
    assert "must be int64" in text
    assert "orig_im_size" in text


def test_each_build_has_its_own_reason_though_tensorrt_keeps_the_first_logger(rtx, contracts):
    alive = [Parsed(rtx, contracts / "stub_yolact5.onnx")]
    dynamic = contracts / "yolo11-seg_tiny_raw_dyn.onnx"
    alive.append(Parsed(rtx, dynamic))
    runtime = rtx.Runtime(collecting_logger(rtx))
    mark = collecting_logger(rtx).mark()
    assert runtime.deserialize_cuda_engine(b"no engine at all, but long enough for a header" * 10) is None
    assert "no engine, or a damaged one" in reason(collecting_logger(rtx).since(mark))
    mark = collecting_logger(rtx).mark()
    assert alive[1].builder.build_serialized_network(alive[1].network, alive[1].builder.create_builder_config()) is None
    assert reason(collecting_logger(rtx).since(mark)).startswith("an input is dynamic: set backend.shapes")
    gc.collect()
    assert "/NonZero" in refusal(rtx, contracts / "yolov8-seg_tiny_nms.onnx", BuildOptions())


def test_dynamic_inputs_need_shapes_that_fit(rtx, contracts):
    model = contracts / "yolo11-seg_tiny_raw_dyn.onnx"

    def with_shapes(*texts):
        return BuildOptions(ranges=parse_shapes(texts))

    assert "'images=1x3x480x640'" in refusal(rtx, model, BuildOptions())
    assert "no input 'image'" in refusal(rtx, model, with_shapes("image=1x3x160x160"))
    assert "(?, 3, ?, ?), got 1x1x160x160" in refusal(rtx, model, with_shapes("images=1x1x160x160"))
    assert "(?, 3, ?, ?), got 160x160" in refusal(rtx, model, with_shapes("images=160x160"))
    assert build_engine(rtx, model, with_shapes("images=1x3x128x160..1x3x160x160..2x3x320x320")).plan


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_model_is_one_line(rtx, contracts, tmp_path, share):
    whole = (contracts / "stub_yolact5.onnx").read_bytes()
    path = tmp_path / "truncated.onnx"
    path.write_bytes(whole[: int(share * len(whole))])
    assert f"cannot read {path}" in refusal(rtx, path, BuildOptions())


def test_a_missing_and_a_foreign_file_are_one_line(rtx, tmp_path):
    path = tmp_path / "foreign.onnx"
    assert f"cannot read {path}" in refusal(rtx, path, BuildOptions())
    path.write_bytes(b"hello" * 100)  # which the parser reads as a network of nothing
    assert f"cannot read {path}" in refusal(rtx, path, BuildOptions())


def test_float16_comes_from_the_file_and_its_absence_is_an_error(rtx, contracts, tmp_path):
    with_onnx()
    model, half = contracts / "unet_smp_tiny.onnx", tmp_path / "unet_half.onnx"
    assert "no float16 in it" in refusal(rtx, model, BuildOptions(half=True))
    convert_to_half(model, half)
    counts = Parsed(rtx, half).precisions(rtx)
    assert counts["HALF"] > 20 * counts["FLOAT"]  # the casts of inputs and outputs alone
    plan = build_engine(rtx, half, BuildOptions(half=True)).plan
    assert len(plan) < 0.9 * len(build_engine(rtx, model, BuildOptions()).plan)
