# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Building engines, on the real builder of TensorRT-RTX, which needs no GPU: support, progress, cancel, and refusals.

TensorRT-RTX's Python API is TensorRT 11's; the module is handed in as `trt`. Nothing here executes an engine.
"""

import signal
import threading

import pytest
from tensorrt_packages import real_rtx, with_onnx

from seg_perception.backends.progress import BuildCancelledError, watching
from seg_perception.backends.trt.building import BuildOptions, build_engine
from seg_perception.backends.trt.half import convert_to_half
from seg_perception.backends.trt.log import collecting_logger
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
    assert Parsed(rtx, model, collecting_logger(rtx)).precisions(rtx).keys() == {"FLOAT"}
    built = build_engine(rtx, model, BuildOptions())
    assert len(built.plan) > 1_000_000  # it holds the weights
    again = build_engine(rtx, model, BuildOptions(optimization_level=0, workspace=64), built.timings)
    assert len(again.plan) > 1_000_000


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
        return watcher(progress) if len(calls) == 2 else None

    with watching(watch), pytest.raises(error):
        build_engine(rtx, contracts / "mask2former_tiny.onnx", BuildOptions())
    assert len(calls) == 2
    assert not [thread for thread in threading.enumerate() if thread.name == "tensorrt build"]
    assert build_engine(rtx, contracts / "stub_yolact5.onnx", BuildOptions()).plan  # the next one is not affected


def test_the_report_names_a_node_that_is_not_supported(rtx, contracts):
    assert unsupported_nodes(rtx, contracts / "unet_smp_tiny.onnx") == ()
    (found,) = unsupported_nodes(rtx, contracts / "yolov8-seg_tiny_nms.onnx")
    assert (found.node, found.operator) == ("/NonZero", "NonZero")


def test_a_model_with_nms_is_refused_with_its_node_and_the_way_out(rtx, contracts):
    text = refusal(rtx, contracts / "yolov8-seg_tiny_nms.onnx", BuildOptions())
    assert "node '/NonZero' (op NonZero)" in text
    assert "without NMS in the graph" in text


def test_a_size_that_is_a_float_input_is_named(rtx, contracts):
    text = refusal(rtx, contracts / "sam_ref_decoder_single.onnx", BuildOptions())
    assert "must be int64" in text
    assert "orig_im_size" in text


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
    counts = Parsed(rtx, half, collecting_logger(rtx)).precisions(rtx)
    assert counts["HALF"] > 20 * counts["FLOAT"]  # the casts of inputs and outputs alone
    plan = build_engine(rtx, half, BuildOptions(half=True)).plan
    assert len(plan) < 0.9 * len(build_engine(rtx, model, BuildOptions()).plan)
