# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""float16 models: what they compute is compared with the float32 model in ONNX Runtime on the CPU."""

import numpy as np
import onnxruntime
import pytest
from tensorrt_packages import with_onnx

from seg_perception.backends.trt.half import convert_to_half, converter
from seg_perception.options import ConfigError


@pytest.fixture(autouse=True)
def onnx():
    with_onnx()
    import onnx

    return onnx


def outputs_of(path, feed):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options).run(None, feed)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("contracts/yolov8-seg_tiny_raw.onnx", 0.002),
        ("contracts/yolo26-seg_tiny_e2e.onnx", 0.002),
        ("contracts/detr_seg_tiny.onnx", 0.02),  # its converted graph holds one cast twice, which ONNX forbids
        ("contracts/sam_tiny_encoder.onnx", 0.005),
    ],
)
def test_a_converted_model_computes_the_same(onnx, models_dir, tmp_path, name, tolerance):
    source, target = models_dir / name, tmp_path / "half.onnx"
    convert_to_half(source, target)
    whole, half = onnx.load(str(source)), onnx.load(str(target))
    assert target.stat().st_size < 0.7 * source.stat().st_size
    for a, b in zip([*whole.graph.input, *whole.graph.output], [*half.graph.input, *half.graph.output], strict=True):
        assert (a.name, a.type.tensor_type.elem_type) == (b.name, b.type.tensor_type.elem_type)  # float32 at the door
    rng = np.random.default_rng(1)
    feed = {}
    for node in onnxruntime.InferenceSession(str(source)).get_inputs():
        floats = node.type == "tensor(float)"
        feed[node.name] = rng.random(node.shape, np.float32) if floats else np.ones(node.shape, np.int64)
    for expected, got in zip(outputs_of(source, feed), outputs_of(target, feed), strict=True):
        spread = np.std(expected)
        assert np.sqrt(np.mean((got - expected) ** 2)) < tolerance * spread


def test_a_file_that_cannot_be_converted_is_one_line_and_leaves_nothing(tmp_path, models_dir):
    source, target = tmp_path / "broken.onnx", tmp_path / "half.onnx"
    source.write_bytes((models_dir / "contracts" / "unet_smp_tiny.onnx").read_bytes()[:100_000])
    with pytest.raises(ConfigError, match="not a readable ONNX model") as error:
        convert_to_half(source, target)
    assert "\n" not in str(error.value)
    assert not target.exists()


def test_the_converter_names_itself_with_its_version():
    assert converter() == f"onnxruntime.transformers.float16 {onnxruntime.__version__}"
