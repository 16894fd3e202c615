# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`models inspect`, `annotate`, `build`, `convert`: what a file is, what is wrong with it, what is made of it."""

import configparser
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from tensorrt_packages import with_onnx
from test_onnxruntime import field, identity_model

from seg_perception.cli import main
from seg_perception.options import ConfigError
from seg_perception.scene import Frame
from seg_perception.zoo.onnx_file import quantised, read_onnx
from seg_perception.zoo.runtimes import READS, parse_runtime, runtimes_for
from seg_perception.zoo.subject import recognise


def failure(arguments, capsys):
    assert main(["models", *map(str, arguments)]) == 1
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert error.startswith("seg-perception models: ")
    return error


@pytest.fixture
def unet(models_dir, tmp_path):
    return shutil.copy(models_dir / "contracts/unet_smp_tiny.onnx", tmp_path / "parts.onnx")


# -- inspect -----------------------------------------------------------------------------------------------------------


def test_an_onnx_file_is_read_without_its_weights(models_dir):
    about = read_onnx(models_dir / "yolo11n-seg.onnx")
    assert about.opsets == {"ai.onnx": 17}
    assert about.operators["Conv"] > 50
    assert 2_900_000 < about.weights["float32"] < 3_000_000
    assert (about.precision, about.quantised, about.external) == ("float32", False, False)
    assert read_onnx(models_dir / "contracts/mask2former_tiny.onnx").opsets == {"ai.onnx": 18}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_told(models_dir, tmp_path, share):
    data = (models_dir / "contracts/unet_smp_tiny.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ConfigError, match="not a readable ONNX model"):
        read_onnx(tmp_path / "cut.onnx")


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_no_model_and_no_crash(tmp_path, seed):
    (tmp_path / "noise.onnx").write_bytes(np.random.default_rng(seed).bytes(5000))
    with pytest.raises(ConfigError, match="not a readable ONNX model"):
        read_onnx(tmp_path / "noise.onnx")


def test_a_file_with_integer_arithmetic_is_known_as_such(tmp_path):
    path = identity_model(tmp_path / "q.onnx")
    assert not quantised(path)
    path.write_bytes(path.read_bytes().replace(field(4, b"Identity"), field(4, b"FakeQuantize"))[: 1 << 20])
    path.write_bytes(field(1, 8) + field(7, field(1, field(4, b"DequantizeLinear"))) + field(8, field(2, 17)))
    assert quantised(path)
    assert read_onnx(path).precision == "int8"


def test_inspect_says_what_a_real_model_is(models_dir, capsys):
    path = models_dir / "yolo26n-seg_480x640.onnx"
    assert main(["models", "inspect", str(path), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["segmenter"], about["precision"], about["known_as"]) == ("yolo", "float32", "yolo26n-seg-480x640")
    assert about["licence"] == "AGPL-3.0"
    assert about["inputs"] == [{"name": "images", "shape": [1, 3, 480, 640], "dtype": "float32"}]
    assert len(about["class_names"]) == 80
    support = {row["runtime"]: row["refusal"] for row in about["runtimes"]}
    assert support["onnxruntime"] == ""
    assert {"openvino", "tensorrt"} <= support.keys()


def test_inspect_names_what_a_runtime_refuses(models_dir, capsys):
    pytest.importorskip("openvino")
    path = models_dir / "contracts/yolo26-seg_tiny_e2e.onnx"  # OpenVINO issue 33918
    assert main(["models", "inspect", str(path), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    support = {row["runtime"]: row["refusal"] for row in about["runtimes"]}
    assert support["onnxruntime"] == ""
    assert "GatherElements" in support["openvino"] or "cannot run" in support["openvino"]


def test_a_sam_is_its_encoder_and_the_decoder_beside_it(models_dir, tmp_path, capsys):
    subject = recognise(models_dir / "mobile_sam_encoder.onnx")
    assert (subject.plugin, subject.others[0].name) == ("promptable", "mobile_sam_decoder.onnx")
    alone = shutil.copy(models_dir / "contracts/sam2_tiny_encoder.onnx", tmp_path / "sam2_encoder.onnx")
    subject = recognise(alone, decoder=models_dir / "contracts/sam2_tiny_decoder_points.onnx")
    assert subject.describe().network.dialect == "sam2"
    assert "its decoder is not beside it" in failure(["verify", alone, "--segmenter", "promptable"], capsys)


def test_inspect_of_what_nobody_recognises_shows_what_each_says(unet, capsys):
    assert main(["models", "inspect", str(unet), "--no-support"]) == 0
    printed = capsys.readouterr().out
    assert "no segmenter recognises it" in printed
    assert "semantic: parts.onnx is not certainly" in printed
    assert "does not name its classes" in printed
    assert "input   " in printed


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("none.onnx", None, "no such model file"),
        ("empty.onnx", b"", "it is empty"),
        ("page.onnx", b"<!DOCTYPE html><html>", "not a readable ONNX model"),
        ("net.h5", b"HDF", "expected a file ending in .onnx"),
    ],
)
def test_what_is_no_model_is_one_line(name, content, line, tmp_path, capsys):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for command in ("inspect", "verify", "bench"):
        assert line in failure([command, path], capsys)


# -- annotate ----------------------------------------------------------------------------------------------------------


def test_annotate_writes_a_sidecar_that_settles_the_matter(unet, capsys):
    names = "background,bolt,nut,screw"
    arguments = ["annotate", unet, "--names", names, "--licence", "MIT", "--set", "thresholds.score=0.4"]
    assert main(["models", *map(str, arguments)]) == 0
    said = yaml.safe_load(unet.with_suffix(".yaml").read_text())
    assert said["names"] == ["background", "bolt", "nut", "screw"]
    assert said["thresholds"] == {"score": 0.4}
    assert len(said["sha256"]) == 64
    assert recognise(unet).plugin == "semantic"
    assert main(["models", "annotate", str(unet), "--source", "my own"]) == 0  # the rest stays
    again = yaml.safe_load(unet.with_suffix(".yaml").read_text())
    assert again == {**said, "source": "my own"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--names", "a,b"], "4 classes, got 2 names"),
        (["--family", "unett", "--names", "a,b,c,d"], "unett"),
        (["--set", "familly=semantic"], "unknown key 'familly'; did you mean 'family'?"),
        (["--set", "decoding"], "expected KEY=VALUE, got 'decoding'"),
    ],
)
def test_what_settles_nothing_leaves_the_sidecar_as_it_was(arguments, line, unet, capsys):
    sidecar = unet.with_suffix(".yaml")
    failure(["annotate", unet, *arguments], capsys)
    assert not sidecar.exists()
    sidecar.write_text("names: [background, bolt, nut, screw]  # mine\n")
    failure(["annotate", unet, *arguments], capsys)
    assert sidecar.read_text() == "names: [background, bolt, nut, screw]  # mine\n"


# -- runtimes, build, convert ------------------------------------------------------------------------------------------


def test_what_each_backend_of_this_project_reads_is_known():
    parser = configparser.ConfigParser()
    parser.optionxform = str
    parser.read(Path(__file__).resolve().parents[1] / "entry_points.txt")
    assert set(parser["seg_perception.backends"]) == set(READS)
    assert [runtime.plugin for runtime in runtimes_for(Path("net.xml"))] == ["openvino"]


def test_a_runtime_is_a_name_a_precision_or_a_section():
    assert parse_runtime("openvino").options == {}
    assert parse_runtime("openvino:bf16").name == "openvino bf16"
    assert not parse_runtime("openvino:bf16").exact
    section = parse_runtime("{plugin: onnxruntime, providers: [cuda, cpu]}")
    assert (section.plugin, section.options, section.exact) == ("onnxruntime", {"providers": ["cuda", "cpu"]}, True)
    with pytest.raises(ValueError, match=r"expected \{plugin: NAME"):
        parse_runtime("{name: x}")


def test_build_without_tensorrt_is_one_line(models_dir, capsys):
    error = failure(["build", models_dir / "yolo11n-seg.onnx", "--runtime", "tensorrt", "--precision", "fp16"], capsys)
    assert any(word in error for word in ("is not installed", "no NVIDIA driver", "not usable"))
    assert "precision: expected one of" in failure(
        ["build", models_dir / "yolo11n-seg.onnx", "--precision", "fp17"], capsys
    )


def test_build_keeps_what_it_compiled(models_dir, tmp_path, monkeypatch, capsys):
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = models_dir / "contracts/unet_smp_tiny.onnx"
    assert main(["models", "build", str(model), "--runtime", "openvino", "--json"]) == 0
    folder = json.loads(capsys.readouterr().out)["folder"]
    assert folder == str(tmp_path / "seg_perception/openvino")
    assert list((tmp_path / "seg_perception/openvino/f32").glob("*.blob"))


def test_convert_halves_the_file_and_keeps_its_sidecar_and_its_objects(models_dir, unet, tmp_path, capsys):
    with_onnx()
    assert main(["models", "annotate", str(unet), "--names", "background,bolt,nut,screw", "--source", "here"]) == 0
    assert main(["models", "convert", str(unet), "--fp16"]) == 0
    half = tmp_path / "parts_fp16.onnx"
    assert half.stat().st_size < 0.6 * unet.stat().st_size
    assert read_onnx(half).precision == "float16"
    said = yaml.safe_load(half.with_suffix(".yaml").read_text())
    assert (said["names"], said["source"]) == (["background", "bolt", "nut", "screw"], "here, in float16")
    assert recognise(half).plugin == "semantic"  # its SHA-256 is in the sidecar
    assert "expected a model in float32, got one in float16" in failure(["convert", half, "--fp16"], capsys)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_inputs_are_those_of_the_network_that_is_not_run(models_dir):
    subject = recognise(models_dir / "contracts/yolo26-seg_tiny_raw.onnx")
    (tensor,) = subject.inputs(Frame(np.full((160, 160, 3), 51, np.uint8))).values()
    np.testing.assert_allclose(tensor, np.full((1, 3, 160, 160), 0.2), atol=1e-6)
