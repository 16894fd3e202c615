# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The sidecar beside a model file, and the preprocessing that it describes."""

import hashlib

import cv2
import numpy as np
import pytest
from contract_models import beside, picture
from hypothesis import given, settings
from hypothesis import strategies as st

from seg_perception.cli import main
from seg_perception.options import ConfigError, parse
from seg_perception.segmenters.networks.preprocessing import IMAGENET, InputWriter, Preprocessing
from seg_perception.segmenters.networks.sidecar import constant_inputs, read_sidecar
from seg_perception.segmenters.semantic import Semantic
from seg_perception.zoo.embedding import embed
from seg_perception.zoo.subject import recognise

WHOLE = """
family: mask2former
names: {0: bolt, 2: nut}
preprocessing: {resize: letterbox, mean: [0.5, 0.5, 0.5]}
decoding: {grid: 384}
thresholds: {score: 0.7}
inputs: {tokens: [[1, 2, 3]]}
licence: Apache-2.0
source: https://example.org/nets
"""


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"a model")
    return path


def write(model, text):
    model.with_suffix(".yaml").write_text(text)
    return model


def test_a_whole_sidecar(model):
    sidecar = read_sidecar(write(model, WHOLE))
    assert sidecar.family == "mask2former"
    assert sidecar.class_names == ("bolt", "class_1", "nut")
    assert sidecar.preprocessing["resize"] == "letterbox"
    assert (sidecar.thresholds.score, sidecar.thresholds.mask) == (0.7, -1)
    assert sidecar.licence == "Apache-2.0"
    np.testing.assert_array_equal(constant_inputs(sidecar, model.parent)["tokens"], [[1, 2, 3]])


@pytest.mark.parametrize("text", [None, "", "# nothing\n"])
def test_no_sidecar_and_an_empty_one_say_nothing(model, text):
    sidecar = read_sidecar(model if text is None else write(model, text))
    assert (sidecar.family, sidecar.class_names, sidecar.decoding, sidecar.inputs) == ("", (), {}, {})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("familly: eomt", "net.yaml: unknown key 'familly'; did you mean 'family'"),
        ("family: [eomt]", "net.yaml: family: expected a text"),
        ("names: bolt", "net.yaml: names: expected a list or a mapping"),
        ("names: {bolt: 0}", r"net.yaml: names: expected ids 0, 1, 2 ..., got \['bolt'\]"),
        ("thresholds: {score: 2}", "net.yaml: thresholds.score: expected -1 to 1, got 2"),
        ("preprocessing: stretch", "net.yaml: preprocessing: expected a mapping"),
        ("- family", "net.yaml: config: expected a mapping"),
        ("family: {", "net.yaml: not readable as YAML"),
        ("sha256: abc", "written for the model abc..., but net.onnx is "),
    ],
)
def test_what_does_not_fit_is_refused_with_the_sidecars_name(model, text, error):
    with pytest.raises(ConfigError, match=error):
        read_sidecar(write(model, text))


def test_the_sha256_of_the_file_is_accepted(model):
    digest = hashlib.sha256(b"a model").hexdigest()
    assert read_sidecar(write(model, f"sha256: {digest.upper()}")).sha256


def test_constant_inputs_from_a_file_and_broken_ones(model):
    np.save(model.parent / "tokens.npy", np.arange(6).reshape(2, 3))
    sidecar = read_sidecar(write(model, "inputs: {tokens: tokens.npy}"))
    np.testing.assert_array_equal(constant_inputs(sidecar, model.parent)["tokens"], [[0, 1, 2], [3, 4, 5]])
    for value, error in (("none.npy", "none.npy is not a readable"), ("[[1], [2, 3]]", "rows of equal length")):
        with pytest.raises(ConfigError, match=error):
            constant_inputs(read_sidecar(write(model, f"inputs: {{tokens: {value}}}")), model.parent)


# -- preprocessing -----------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    resize=st.sampled_from(["stretch", "letterbox", "longest_side"]),
)
def test_boxes_come_back_by_the_exact_inverse(height, width, resize):
    place = Preprocessing(resize=resize).place((height, width), (96, 128))
    assert place.top + place.scaled_height <= 96
    assert place.left + place.scaled_width <= 128
    assert place.scaled_height == 96 or place.scaled_width == 128
    if resize != "letterbox":
        assert (place.top, place.left) == (0, 0)
    whole = np.float32([[place.left, place.top, place.left + place.scaled_width, place.top + place.scaled_height]])
    np.testing.assert_allclose(place.to_image(whole), [[0, 0, width, height]], rtol=1e-5)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("white", [1.0, 255.0])
def test_values_order_and_padding_of_the_input(color, white):
    mean, std = np.array(IMAGENET.mean) * white, np.array(IMAGENET.std) * white
    rule = Preprocessing("longest_side", color, white, tuple(mean), tuple(std), padding=114.0)
    image = picture(60, 100)
    tensor, _ = InputWriter(rule, (128, 128)).write(image)
    scaled = cv2.resize(image, (128, 77), interpolation=cv2.INTER_LINEAR)
    if color == "bgr":
        scaled = scaled[..., ::-1]
    expected = np.full((128, 128, 3), 114.0)
    expected[:77] = scaled
    expected = (expected / 255 * white - mean) / std
    np.testing.assert_allclose(tensor[0], expected.transpose(2, 0, 1), rtol=1e-5, atol=1e-6)


def test_without_a_gray_the_padding_is_zero_and_a_new_size_starts_anew():
    writer = InputWriter(Preprocessing("letterbox", mean=(0.5, 0.5, 0.5)), (64, 64))
    tensor, place = writer.write(np.full((10, 20, 3), 255, np.uint8))
    assert (place.top, place.scaled_height) == (16, 32)
    assert (tensor[0, :, :16] == 0).all()
    assert (tensor[0, :, 16:48] == 0.5).all()
    tensor, place = writer.write(np.full((20, 10, 3), 255, np.uint8))
    assert (tensor[0, :, :, :16] == 0).all()


@pytest.mark.parametrize("values", [{"mean": (0.0,)}, {"std": (1.0, 0.0, 1.0)}])
def test_odd_normalisation_is_refused(values):
    with pytest.raises(ConfigError, match="expected"):
        Preprocessing(**values)


# -- inside the file ---------------------------------------------------------------------------------------------------

SAID = {"family": "semantic", "names": ["background", "bolt", "nut", "pin"], "thresholds": {"score": 0.3}}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_sidecar_inside_an_onnx_file_is_as_good_as_one_beside_it(models_dir, tmp_path, runtime):
    pytest.importorskip(runtime)
    model = beside(tmp_path, models_dir / "contracts" / "unet_smp_tiny.onnx", None)
    plain = model.read_bytes()
    for said in (
        {**SAID, "names": ["a", "b", "c", "d"]},
        {**SAID, "sha256": "0" * 64},
    ):  # the second replaces the first
        embed(model, said)
    assert 0 < len(model.read_bytes()) - len(plain) < 200
    network = Semantic(parse(Semantic.Config, {"model": str(model), "backend": runtime}))
    assert (network.family, network.class_names[1:], network._score_threshold) == (
        "semantic",
        ("bolt", "nut", "pin"),
        0.3,
    )
    assert not list(tmp_path.glob("*.yaml")) + list(tmp_path.glob(".*part"))
    model.with_suffix(".yaml").write_text("names: [background, x, y, z]")  # the file beside it has the last word
    network = Semantic(parse(Semantic.Config, {"model": str(model), "backend": runtime}))
    assert (network.class_names[1:], network._score_threshold) == (("x", "y", "z"), 0.3)


def test_annotate_embeds_and_the_tools_find_it(models_dir, tmp_path, capsys):
    model = beside(tmp_path, models_dir / "contracts" / "unet_smp_tiny.onnx", None)
    assert (
        main(["models", "annotate", str(model), "--names", ",".join(SAID["names"]), "--family", "semantic", "--embed"])
        == 0
    )
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert read_sidecar(model).sha256 == digest
    model.with_suffix(".yaml").unlink()
    subject = recognise(model)
    assert (subject.plugin, subject.describe().class_names) == ("semantic", tuple(SAID["names"]))
    capsys.readouterr()


def test_what_cannot_carry_a_sidecar(tmp_path):
    for name, content in (("net.xml", b"<net/>"), ("net.onnx", b"no protobuf")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=r"only an ONNX file|not (a readable|an) ONNX"):
            embed(tmp_path / name, SAID)
        assert (tmp_path / name).read_bytes() == content
    with pytest.raises(ConfigError, match=r"net.onnx: its metadata 'seg_perception': unknown key 'familly'"):
        read_sidecar(tmp_path / "net.onnx", {"seg_perception": "familly: eomt"})
