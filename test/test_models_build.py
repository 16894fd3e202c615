# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`models build` for TensorRT, on a STAND-IN of TensorRT and of the GPU; `models inspect` on the real TensorRT-RTX."""

import json
import os
import signal

import pytest
from tensorrt_packages import real_rtx, with_onnx
from tensorrt_standin import GPU_FIELDS, StandIn, StandInDevice

from seg_perception.backends import tensorrt
from seg_perception.backends.tensorrt import Machine
from seg_perception.backends.trt.driver import Gpu
from seg_perception.cli import main
from seg_perception.cli.models import shared


@pytest.fixture
def arguments(models_dir, tmp_path, monkeypatch):
    """`models build` as on a machine with a GPU, and progress told without a pause."""
    with_onnx()
    torch = pytest.importorskip("torch", reason="torch is not installed: scripts/test --with torch")
    trt = StandIn(StandInDevice(torch))
    machine = Machine(trt, Gpu(index=0, **GPU_FIELDS), trt.device)
    monkeypatch.setattr(tensorrt, "this_machine", lambda config: machine)
    monkeypatch.setattr(shared, "EVERY", -1.0)
    model = models_dir / "contracts/yolo26-seg_tiny_raw.onnx"
    return ["models", "build", str(model), "--precision", "fp16", "--option", f"cache={tmp_path / 'engines'}"]


def test_an_engine_is_built_with_progress_and_kept(arguments, tmp_path, capsys):
    assert main([*arguments, "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert (result["folder"], result["inputs"]) == (str(tmp_path / "engines"), ["images"])
    assert len(list((tmp_path / "engines").glob("*.engine"))) == 1
    assert "building" in printed.err
    assert "(100%)" in printed.err


def test_ctrl_c_leaves_no_engine(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shared, "say", lambda line: os.kill(os.getpid(), signal.SIGINT))
    assert main(arguments) == 130
    assert capsys.readouterr().err.strip() == "seg-perception: interrupted"
    assert not list((tmp_path / "engines").glob("*.engine"))


def test_inspect_names_the_node_that_tensorrt_rtx_cannot_run(models_dir, capsys):
    real_rtx()
    for name, refused in (("yolov8-seg_tiny_nms", "NonZero"), ("yolov8-seg_tiny_raw", "")):
        assert main(["models", "inspect", str(models_dir / f"contracts/{name}.onnx"), "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)["runtimes"]
        (row,) = (row for row in rows if "tensorrt_rtx" in row["runtime"])
        assert refused in row["refusal"]
        assert bool(row["refusal"]) == bool(refused)
