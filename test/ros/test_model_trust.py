# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a caller of ~/set_model may name: a file in a trusted folder. Nothing that is code, or lets code run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from seg_perception.srv import SetModel

from seg_perception.config import load_config
from seg_perception.ros.model_swap import ModelSwap, RefusedError

KIND = SetModel.Response


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Any]:
    """The configuration that a request leads to; the node's own model is trusted/first.onnx."""
    for name in ("trusted/first.onnx", "trusted/second.onnx", "elsewhere/other.onnx", "trustedtoo/third.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "trusted" / "linked.onnx").symlink_to(tmp_path / "elsewhere" / "other.onnx")
    tree = {"segmenter": {"plugin": "yolo", "model": str(tmp_path / "trusted" / "first.onnx")}}
    config = load_config(tree)
    parameters = SimpleNamespace(config=config, replace=lambda name, values: load_config({name: values}))
    node = SimpleNamespace(parameters=parameters, create_service=lambda *_, **__: None)
    swap = ModelSwap(node, None)
    return lambda **request: swap._wanted_config(SetModel.Request(**request))


def test_a_file_in_the_folder_of_the_configured_model_is_taken(ask, tmp_path: Path) -> None:
    for name in ("second.onnx", "second", str(tmp_path / "trusted" / "second.onnx")):
        assert ask(model=name).segmenter.config.model == str(tmp_path / "trusted" / "second.onnx")
    assert ask(model="linked").segmenter.config.model == str(tmp_path / "trusted" / "linked.onnx")  # its owner's doing
    config = ask(options="{score_threshold: 0.5, classes: [cup, a bowl], backend: {threads: 2}}").segmenter.config
    assert (config.score_threshold, config.classes, config.backend.config.threads) == (0.5, ("cup", "a bowl"), 2)


@pytest.mark.parametrize("name", ["../elsewhere/other.onnx", "../trustedtoo/third.onnx", "/etc/hostname"])
def test_a_file_outside_is_refused(ask, name: str) -> None:
    with pytest.raises(RefusedError, match="outside the trusted folders") as error:
        ask(model=name)
    assert error.value.status == KIND.UNTRUSTED


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ("model: second.onnx", "model"),
        ("backend: {plugin: torch, trust_pickle: true}", "backend.trust_pickle"),
        ("backend: {plugin: torch, module: my_nets}", "backend.module"),
        ("backend: {provider_options: [tensorrt.trt_extra_plugin_lib_paths=evil]}", "backend.provider_options"),
        ("backend: {plugin: tensorrt, plugins: [libevil]}", "backend.plugins"),
        ("backend: {plugin: tensorrt, cache: engines}", "backend.cache"),
        ("backend: {plugin: kserve, url: 'far.example:8001'}", "backend.url"),
        ("backend: {plugin: 'colorsys:Evil'}", "backend.plugin"),
        ("{plugin: promptable, encoder: e.onnx}", "encoder"),
        ("classes: [cup, ../../etc/passwd]", "classes"),
        ("backend: {shapes: [images=a.npz]}", "backend.shapes"),
    ],
)
def test_options_name_neither_files_nor_code(ask, options: str, key: str) -> None:
    with pytest.raises(RefusedError, match=f"'{key}' ") as error:
        ask(options=options)
    assert error.value.status == KIND.UNTRUSTED


def test_a_segmenter_from_anywhere_is_not_even_imported(ask) -> None:
    sys.modules.pop("colorsys", None)
    with pytest.raises(RefusedError, match="code from anywhere") as error:
        ask(segmenter="colorsys:Evil")
    assert error.value.status == KIND.UNTRUSTED
    assert "colorsys" not in sys.modules
