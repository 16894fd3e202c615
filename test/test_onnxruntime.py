# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The onnxruntime backend: what a model says of itself, results, and one clear line for all that can be wrong."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from seg_perception.backends.onnxruntime import OnnxRuntime, _providers
from seg_perception.options import ConfigError, parse
from seg_perception.plugins import Backend, PluginError

ONNX_TYPE = {np.float32: 1, np.uint8: 2, np.int64: 7, np.float16: 10}


def field(number: int, value: int | bytes) -> bytes:
    """One protobuf field: a small number, or bytes with their length."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


def identity_model(path: Path, dtype: type = np.float32) -> Path:
    """An ONNX file `y = x` for (1, 2, n) tensors, n free, written by hand since this needs no other package."""
    sizes = field(1, field(1, 1)) + field(1, field(1, 2)) + field(1, field(2, b"n"))
    tensor = field(2, field(1, field(1, ONNX_TYPE[dtype]) + field(2, sizes)))
    node = field(1, b"x") + field(2, b"y") + field(4, b"Identity")
    graph = field(1, node) + field(2, b"g") + field(11, field(1, b"x") + tensor) + field(12, field(1, b"y") + tensor)
    entry = field(14, field(1, b"task") + field(2, b"none"))
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(2, 17)) + entry)
    return path


def start(**options) -> OnnxRuntime:
    return OnnxRuntime(parse(OnnxRuntime.Config, options))


def test_a_model_tells_its_inputs_outputs_and_metadata_and_runs(tmp_path):
    backend = start(model=str(identity_model(tmp_path / "identity.onnx")))
    assert isinstance(backend, Backend)
    for specs, name in ((backend.inputs, "x"), (backend.outputs, "y")):
        assert [(s.name, s.shape, s.dtype) for s in specs] == [(name, (1, 2, -1), np.float32)]
    assert backend.metadata["task"] == "none"
    x = np.arange(6, dtype=np.float32).reshape(1, 3, 2).swapaxes(1, 2)  # not contiguous
    np.testing.assert_array_equal(backend({"x": x})["y"], x)


def test_half_precision_of_the_model_is_single_precision_at_the_door(tmp_path):
    backend = start(model=str(identity_model(tmp_path / "half.onnx", np.float16)))
    assert backend.inputs[0].dtype == np.float16
    out = backend({"x": np.full((1, 2, 3), 0.1, np.float32)})["y"]
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, np.float32(np.float16(0.1)))


def test_options_reach_the_session(tmp_path):
    model = str(identity_model(tmp_path / "identity.onnx"))
    for options in ({"threads": 1}, {"threads": 2, "spinning": True}, {"graph_optimization": "none"}):
        backend = start(model=model, **options)
        np.testing.assert_array_equal(backend({"x": np.ones((1, 2, 1), np.float32)})["y"], 1)
    used = start(model=model, threads=3, graph_optimization="basic")._session.get_session_options()
    assert used.intra_op_num_threads == 3
    assert used.graph_optimization_level.name == "ORT_ENABLE_BASIC"
    assert used.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize(
    ("inputs", "line"),
    [
        ({}, "expected inputs x, got none"),
        ({"z": np.zeros((1, 2, 3), np.float32)}, "expected inputs x, got z"),
        ({"x": np.zeros((1, 3, 3), np.float32)}, r"input x: expected \(1, 2, -1\), got \(1, 3, 3\)"),
        ({"x": np.zeros((2, 3), np.float32)}, r"input x: expected \(1, 2, -1\), got \(2, 3\)"),
        ({"x": np.zeros((1, 2, 3))}, "input x: expected float32, got float64"),
    ],
)
def test_a_wrong_input_is_refused_with_what_was_expected(tmp_path, inputs, line):
    with pytest.raises(ValueError, match=line):
        start(model=str(identity_model(tmp_path / "identity.onnx")))(inputs)


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_missing_model_is_named_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        start(model="models/none.onnx")
    assert str(tmp_path / "models" / "none.onnx") in one_line(error)
    with pytest.raises(ConfigError, match="name is empty"):
        start()
    with pytest.raises(ConfigError, match="no such model file"):
        start(model=str(tmp_path))  # a folder


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_truncated_model_is_one_line(tmp_path, models_dir, keep):
    whole = (models_dir / "contracts" / "yolo26-seg_tiny_raw.onnx").read_bytes()
    path = tmp_path / "truncated.onnx"
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(ConfigError) as error:
        start(model=str(path))
    assert one_line(error).startswith(f"not a readable ONNX model: {path}")


def test_a_foreign_file_and_a_graph_it_cannot_run_are_one_line(tmp_path):
    text = tmp_path / "text.onnx"
    text.write_text("segmenter: {plugin: yolo}\n" * 50)
    with pytest.raises(ConfigError) as error:
        start(model=str(text))
    assert "not a readable ONNX model" in one_line(error)
    unknown = tmp_path / "unknown.onnx"
    unknown.write_bytes(identity_model(unknown).read_bytes().replace(b"Identity", b"Idontity"))
    with pytest.raises(ConfigError) as error:
        start(model=str(unknown))
    assert "cannot load" in one_line(error)
    assert "Idontity" in one_line(error)


def test_providers_are_named_short_or_long_and_an_absent_one_lists_what_is_there(tmp_path):
    model = str(identity_model(tmp_path / "identity.onnx"))
    start(model=model, providers=["CPUExecutionProvider"])
    with pytest.raises(ConfigError) as error:
        start(model=model, providers=["quantum", "cpu"])
    assert "'quantum'" in one_line(error)
    assert "cpu" in one_line(error).partition("available:")[2]
    with pytest.raises(ConfigError, match="at least one of"):
        start(model=model, providers=[])


def available() -> list[str]:
    return [name.removesuffix("ExecutionProvider").lower() for name in onnxruntime.get_available_providers()]


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "openvino"])
def test_a_provider_runs_with_the_result_of_the_cpu(models_dir, provider):
    """Where this onnxruntime has it and its driver is there."""
    model = str(models_dir / "contracts" / "yolo26-seg_tiny_raw.onnx")
    x = {"images": np.random.default_rng(0).random((1, 3, 160, 160), dtype=np.float32)}
    try:
        backend = start(model=model, providers=[provider])
    except ConfigError as error:
        pytest.skip(str(error))
    found = backend(x)
    for name, expected in start(model=model)(x).items():
        np.testing.assert_allclose(found[name], expected, atol=1e-4 * np.abs(expected).max())


def test_io_binding_gives_the_same_results_for_changing_shapes(tmp_path):
    model = str(identity_model(tmp_path / "identity.onnx"))
    plain, bound = start(model=model), start(model=model, io_binding="on")
    kept = []
    for n in (3, 3, 7, 1):
        x = np.random.default_rng(n).random((1, 2, n), dtype=np.float32)
        before = x.copy()
        kept.append((bound({"x": x})["y"], plain({"x": x})["y"]))
        np.testing.assert_array_equal(x, before)
    for found, expected in kept:  # none of them was overwritten by a later call
        np.testing.assert_array_equal(found, expected)
    half = start(model=str(identity_model(tmp_path / "half.onnx", np.float16)), io_binding="on")
    assert half({"x": np.full((1, 2, 3), 0.1, np.float32)})["y"].dtype == np.float32


def test_io_binding_is_used_by_itself_only_where_a_gpu_comes_first(tmp_path):
    model = str(identity_model(tmp_path / "identity.onnx"))
    assert start(model=model)._binding is None
    assert start(model=model, io_binding="on")._binding is not None


class GpuBuild:
    """Stands in for an onnxruntime with GPU providers, to see what they would be given."""

    def get_available_providers(self):
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


def test_provider_options_reach_their_provider(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options = {
        "providers": ["tensorrt", "cuda", "cpu"],
        "device": 1,
        "provider_options": ["cuda.use_tf32=1", "cuda.a=b=c"],
    }
    chosen = _providers(GpuBuild(), parse(OnnxRuntime.Config, options))
    assert list(chosen) == ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert chosen["CUDAExecutionProvider"] == {"device_id": "1", "use_tf32": "1", "a": "b=c"}
    assert chosen["TensorrtExecutionProvider"]["trt_engine_cache_path"].startswith(str(tmp_path))
    plain = _providers(GpuBuild(), parse(OnnxRuntime.Config, {"providers": ["cuda"]}))
    assert plain == {"CUDAExecutionProvider": {"device_id": "0", "use_tf32": "0"}}  # float32 unless asked otherwise


@pytest.mark.parametrize("text", ["x", "cpu.x", "cuda.x=1", "cpu=1"])
def test_a_provider_option_that_belongs_to_nothing_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=r"expected PROVIDER.KEY=VALUE with one of cpu, got"):
        start(model=str(identity_model(tmp_path / "identity.onnx")), provider_options=[text])


def test_an_option_that_the_provider_does_not_know_is_one_line(tmp_path):
    if "openvino" not in available():
        pytest.skip("this onnxruntime has no provider that checks its options (onnxruntime-openvino has one)")
    with pytest.raises(ConfigError, match="nonsense") as error:
        start(
            model=str(identity_model(tmp_path / "identity.onnx")),
            providers=["openvino"],
            provider_options=["openvino.nonsense=1"],
        )
    assert "/onnxruntime" not in one_line(error)


def test_without_onnxruntime_the_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(PluginError, match=r"seg_perception\[onnx\]"):
        start(model=str(identity_model(tmp_path / "identity.onnx")))
