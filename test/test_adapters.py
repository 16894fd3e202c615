# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Adapters for your own code: each form of output through its decoder, with STAND-IN networks on PyTorch."""

import numpy as np
import pytest
import yaml
from color_words import picture, write_tokenizer

from seg_perception.backends.adapter import Adapter, AdapterConfig
from seg_perception.options import ConfigError, parse
from seg_perception.scene import Frame
from seg_perception.segmenters.instances import InstanceNetwork
from seg_perception.segmenters.prompting import Prompts
from seg_perception.segmenters.semantic import Semantic
from seg_perception.segmenters.video.segmenter import Video

RED, GREEN = (30, 30, 70, 90), (120, 30, 170, 90)


class Plain:
    """No PyTorch at all: what an adapter must have, and no more."""

    inputs = ("x 1x2",)
    outputs = ("y -1x2", "n -1 int64")
    answer: dict = {"y": np.ones((3, 2), np.float64), "n": [1, 2]}  # noqa: RUF012

    def __init__(self, model, device):
        self.model, self.device = model, device

    def __call__(self, inputs):
        return self.answer


class SaysNothing:
    pass


class SaysNonsense(Plain):
    inputs = ("x one two three",)


def adapter(tmp_path, code, **options) -> Adapter:
    (tmp_path / "net.pth").write_bytes(b"weights")
    return Adapter(AdapterConfig(str(tmp_path / "net.pth"), f"test_adapters:{code}", **options))


def test_names_shapes_and_types_are_what_the_class_says(tmp_path):
    made = adapter(tmp_path, "Plain", device="cuda:1")
    assert [(s.name, s.shape, s.dtype.name) for s in made.inputs] == [("x", (1, 2), "float32")]
    assert [(s.name, s.shape, s.dtype.name) for s in made.outputs] == [("y", (-1, 2), "float32"), ("n", (-1,), "int64")]
    assert (made._network.model, made._network.device) == (tmp_path / "net.pth", "cuda:1")
    found = made({"x": np.zeros((1, 2), np.float32)})
    assert (found["y"].dtype, found["n"].tolist()) == (np.float32, [1, 2])
    with pytest.raises(ValueError, match="x"):
        made({"x": np.zeros((1, 3), np.float32)})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"y": np.ones((3, 3)), "n": []}, r"y: expected \(-1, 2\), got \(3, 3\)"),
        ({"y": np.ones((3, 2))}, "no output 'n'"),
    ],
)
def test_answers_that_do_not_fit(tmp_path, monkeypatch, answer, reason):
    made = adapter(tmp_path, "Plain")
    monkeypatch.setattr(Plain, "answer", answer)
    with pytest.raises(ValueError, match=reason):
        made({"x": np.zeros((1, 2), np.float32)})


@pytest.mark.parametrize(
    ("code", "reason"),
    [("None_", "cannot be loaded"), ("SaysNothing", "has no inputs"), ("SaysNonsense", "expected NAME SIZES")],
)
def test_classes_that_do_not_fit(tmp_path, code, reason):
    with pytest.raises(ConfigError, match=reason):
        adapter(tmp_path, code)
    with pytest.raises(ConfigError, match="code: name your adapter"):
        Adapter(AdapterConfig(str(tmp_path / "net.pth")))


# -- one example for each form -----------------------------------------------------------------------------------------


@pytest.fixture
def build(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    import adapter_examples

    checkpoint = adapter_examples.write_checkpoint(tmp_path / "net.pth")

    def make(segmenter, code, **sidecar):
        checkpoint.with_suffix(".yaml").write_text(yaml.safe_dump(sidecar))
        backend = {"plugin": "seg_perception.backends.adapter:Adapter", "code": f"adapter_examples:{code}"}
        return segmenter(parse(segmenter.Config, {"model": str(checkpoint), "backend": backend}))

    return make


STRETCHED = {"resize": "stretch"}


def assert_at(found, *boxes):
    """To a cell of the network's 64 x 64 input, which is 3 x 2 pixels."""
    assert len(found) == len(boxes)
    np.testing.assert_allclose(found.boxes, boxes, atol=4)
    for mask, (x0, y0, x1, y1) in zip(found.masks.dense(), boxes, strict=True):
        assert mask[y0 + 5 : y1 - 5, x0 + 5 : x1 - 5].all()


def test_boxes_and_masks_in_them(build):
    segmenter = build(
        InstanceNetwork, "BoxesAndMasks", family="detectron2", names=["bolt", "nut"], preprocessing=STRETCHED
    )
    found = segmenter.segment(Frame(picture()))
    assert_at(found, RED)
    assert found.class_names == ("nut",)
    assert found.scores[0] == pytest.approx(0.9)
    assert len(segmenter.segment(Frame(np.zeros((120, 192, 3), np.uint8)))) == 0


def test_polygons(build):
    segmenter = build(InstanceNetwork, "Polygons", family="polygon", names=["bolt"], preprocessing=STRETCHED)
    assert_at(segmenter.segment(Frame(picture())), RED)


def test_maps_of_texts(build, tmp_path):
    pytest.importorskip("tokenizers", reason="the extra text is not installed")
    write_tokenizer(tmp_path / "tokenizer.json")
    segmenter = build(
        Semantic, "TextMaps", family="groupvit", names=["red"], text={"tokenizer": "tokenizer.json"},
        preprocessing={"mean": [0, 0, 0], "std": [1, 1, 1]},
    )  # fmt: skip
    assert_at(segmenter.segment(Frame(picture())), RED)
    segmenter.look_for(Prompts(texts=("a green mug", "blue")))
    found = segmenter.segment(Frame(picture()))
    assert_at(found, GREEN)
    assert found.class_names == ("a green mug",)


def test_clips(build, tmp_path):
    values = {
        "network": "adapter_examples:RednessClips", "model": str(tmp_path / "net.pth"), "texts": ["the red one"],
        "detector": {"plugin": "sam_stand_in:Detector"},
    }  # fmt: skip
    segmenter = Video(parse(Video.Config, values))
    for _ in range(3):
        found = segmenter.segment(Frame(picture()))
        assert_at(found, RED)
        assert found.track_ids.tolist() == [1]
        assert found.class_names == ("the red one",)
