# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Live text prompts: the real tokenizers library, CLIPSeg's and GroupViT's contracts, and a STAND-IN of a network that
understands the names of colors (color_words.py), since no trained one is at hand.
"""

import color_words
import numpy as np
import pytest
import sam_stand_in
import yaml
from color_words import END, START, ColorWords
from contract_models import Rig, beside, picture

from seg_perception.options import ConfigError, parse, to_mapping
from seg_perception.plugins import PluginError
from seg_perception.scene import Frame
from seg_perception.segmenters.promptable import Promptable
from seg_perception.segmenters.prompting import PromptError, Prompts, PromptTaker, check_taken
from seg_perception.segmenters.semantic import Semantic
from seg_perception.segmenters.text.inputs import TextConfig, Tokens, text_inputs

pytest.importorskip("tokenizers", reason="the extra text is not installed")
RED, GREEN = (30, 30, 70, 90), (120, 30, 170, 90)


def model_with(folder, **said):
    color_words.write_tokenizer(folder / "tokenizer.json")
    (folder / "net.onnx").write_bytes(b"stand-in")
    (folder / "net.yaml").write_text(yaml.safe_dump(color_words.sidecar(**said)))
    return folder / "net.onnx"


def build(folder, texts=-1, layout="clipseg", options=None, **said):
    values = {"model": str(model_with(folder, **said)), "backend": backend(texts, layout), **(options or {})}
    return Semantic(parse(Semantic.Config, values))


def backend(texts=-1, layout="clipseg"):
    return {"plugin": "color_words:ColorWords", "texts": texts, "layout": layout}


def seen(segmenter, *texts):
    segmenter.look_for(Prompts(texts=texts))
    found = segmenter.segment(Frame(color_words.picture()))
    return {name: tuple(np.round(box).astype(int)) for name, box in zip(found.class_names, found.boxes, strict=True)}


def near(box, expected):
    return np.abs(np.subtract(box, expected)).max() <= 3  # a cell of the map is 3 px


@pytest.mark.parametrize("texts", [-1, 1, 2])
def test_texts_change_between_two_images_and_nothing_is_loaded(tmp_path, texts):
    segmenter = build(tmp_path, texts)
    assert isinstance(segmenter, PromptTaker)
    assert segmenter.prompt_kinds == {"texts"}
    network = segmenter._backend
    first = seen(segmenter)
    assert list(first) == ["red mug"]  # as the sidecar has it
    assert near(first["red mug"], RED)
    both = seen(segmenter, "a green mug", "blue", "RED")  # more than the graph takes at once
    assert segmenter.class_names == ("a green mug", "blue", "RED")
    assert set(both) == {"a green mug", "RED"}
    assert near(both["a green mug"], GREEN)
    assert near(both["RED"], RED)
    assert list(seen(segmenter)) == ["red mug"]
    assert segmenter._backend is network


@pytest.mark.parametrize("texts", [-1, 2])
def test_where_the_best_text_gets_the_pixel_background_is_one_of_them(tmp_path, texts):
    segmenter = build(tmp_path, texts, "groupvit", family="groupvit")
    assert segmenter.class_names == ("red mug", "background")
    assert list(seen(segmenter, "green")) == ["green"]
    assert near(seen(segmenter, "green", "red")["green"], GREEN)
    assert segmenter.class_names == ("green", "red", "background")
    assert ColorWords.feeds[-1]["pixel_values"].shape[0] == 1  # one image, whatever the number of texts


def test_other_options_keep_the_texts(tmp_path):
    segmenter = build(tmp_path, options={"classes": ["red mug"]})
    seen(segmenter, "green")
    changed = segmenter.with_config(parse(Semantic.Config, {**to_mapping(segmenter._config), "min_area": 300}))
    found = changed.segment(Frame(color_words.picture()))
    assert found.class_names == ("green",)
    changed.look_for(Prompts())
    assert changed.segment(Frame(color_words.picture())).class_names == ("red mug",)


def test_text_to_box_to_sam(tmp_path):
    """The promptable segmenter's detector reads the texts; its network draws the masks."""
    detector = {"plugin": "seg_perception.segmenters.semantic:Semantic", "model": str(model_with(tmp_path)),
                "backend": backend()}  # fmt: skip
    sam = Promptable(
        parse(
            Promptable.Config,
            {
                "encoder": __file__, "decoder": __file__, "prompts": "live", "detector": detector, "min_agreement": 0.5,
                "backend": {"plugin": "sam_stand_in:Encoder"},
                "decoder_backend": {"plugin": "sam_stand_in:MetaDecoder"},
            },
        )
    )  # fmt: skip
    assert sam.prompt_kinds == {"boxes", "points", "texts", "roi"}
    assert len(sam.segment(Frame(color_words.picture()))) == 0  # nobody asked yet
    sam_stand_in.MetaDecoder.feeds.clear()
    assert set(seen(sam, "green")) == {"green"}
    assert sam.class_names == ("green",)
    corners = sam_stand_in.MetaDecoder.feeds[-1]["point_coords"][0] * 192 / 64
    assert near(corners.reshape(-1), GREEN)  # the box went in
    found = sam.segment(Frame(color_words.picture()))
    assert found.scores[0] > 0.9  # the text network's
    assert found.mask_scores[0] == pytest.approx(0.5)  # the mask network's
    with pytest.raises(PromptError, match="78 tokens"):
        check_taken(sam, Prompts(texts=(" ".join(["mug"] * 76),)), "promptable")
    sam.look_for(Prompts())
    assert len(sam.segment(Frame(color_words.picture()))) == 0


# -- the contracts -----------------------------------------------------------------------------------------------------


def test_clipseg_s_graph_gets_the_tokens_of_each_text(models_dir, tmp_path):
    """The graph is transformers' CLIPSeg with random weights and two texts at once; another text, another map."""
    color_words.write_tokenizer(tmp_path / "tokenizer.json")
    said = {"names": ["red", "green"], "text": {"tokenizer": "tokenizer.json"}, "thresholds": {"mask": 0.4}}
    rig = Rig(Semantic, beside(tmp_path, models_dir / "contracts" / "clipseg_tiny.onnx", said))
    assert rig.segmenter.family == "clipseg"
    frame = Frame(picture(120, 160))
    maps = {}
    for text in ("red", "a photo of a mug"):
        rig.segmenter.look_for(Prompts(texts=(text,)))
        rig.segmenter.segment(frame)
        maps[text] = rig.outputs["logits"][0]
        assert rig.segmenter.class_names == (text,)
    np.testing.assert_array_equal(rig.inputs["input_ids"][0, :9], [START, 21, 22, 23, 21, 20, END, END, END])
    np.testing.assert_array_equal(rig.inputs["attention_mask"][0, :9], [1] * 7 + [0] * 2)
    assert rig.inputs["input_ids"].shape == (2, 77)
    assert np.abs(maps["red"] - maps["a photo of a mug"]).max() > 1e-3


def test_groupvit_s_graph_takes_texts(models_dir, tmp_path):
    color_words.write_tokenizer(tmp_path / "tokenizer.json")
    said = {"names": ["red"], "text": {"tokenizer": "tokenizer.json", "template": "a photo of a {}"}}
    rig = Rig(Semantic, beside(tmp_path, models_dir / "contracts" / "groupvit_tiny.onnx", said))
    rig.segmenter.look_for(Prompts(texts=("red", "green", "blue", "mug")))
    rig.segmenter.segment(Frame(picture(120, 160)))
    assert rig.segmenter.class_names == ("red", "green", "blue", "mug", "background")
    np.testing.assert_array_equal(rig.inputs["input_ids"][1, :7], [START, 21, 22, 23, 21, 24, END])


def test_embeddings_made_beforehand(models_dir, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "words.npz", **{name: rng.normal(size=32) for name in ("a red mug", "a bolt", "a nut")})
    said = {"names": ["a bolt"], "text": {"embeddings": "words.npz"}}
    rig = Rig(Semantic, beside(tmp_path, models_dir / "contracts" / "clipseg_tiny_cond.onnx", said))
    rig.segmenter.look_for(Prompts(texts=("a nut", "a red mug")))
    rig.segmenter.segment(Frame(picture(60, 80)))
    with np.load(tmp_path / "words.npz") as words:
        expected = np.stack([words["a nut"], words["a red mug"]]).astype(np.float32)
    np.testing.assert_array_equal(rig.inputs["conditional_embeddings"], expected)
    with pytest.raises(PromptError, match="'a red mugg' has no embedding beside the model; there are a red mug"):
        rig.segmenter.check_prompts(Prompts(texts=("a red mugg",)))


# -- what is wrong -----------------------------------------------------------------------------------------------------


def test_a_network_without_a_text_section_takes_no_texts(models_dir, tmp_path):
    said = {"names": ["background", "bolt", "nut", "washer"]}
    rig = Rig(Semantic, beside(tmp_path, models_dir / "contracts" / "unet_smp_tiny.onnx", said))
    with pytest.raises(PromptError, match="segmenter 'semantic' takes no prompts at all, not texts"):
        check_taken(rig.segmenter, Prompts(texts=("red",)), "semantic")
    rig.segmenter.look_for(Prompts())  # harmless


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ({}, "expected either tokenizer or embeddings"),
        ({"tokenizer": "a", "embeddings": "b"}, "expected either tokenizer or embeddings"),
        ({"tokenizer": "none.json"}, "not a readable tokenizer.json"),
        ({"tokenizer": "net.yaml"}, "not a readable tokenizer.json"),
        ({"tokenizer": "tokenizer.json", "pad": "<none>"}, "no token <none>"),
        ({"tokenizer": "tokenizer.json", "template": "a"}, "where the text goes"),
        ({"embeddings": "none.npz"}, "not exactly one input"),
    ],
)
def test_sections_that_do_not_fit(tmp_path, text, reason):
    if not text:
        with pytest.raises(ConfigError, match=reason):
            TextConfig()
        return
    with pytest.raises(ConfigError, match=reason):
        build(tmp_path, text=text)


def test_texts_that_ask_for_nothing_and_too_much():
    with pytest.raises(PromptError, match="empty text"):
        Prompts(texts=("red", " "))
    with pytest.raises(PromptError, match="at most 100"):
        Prompts(texts=tuple(map(str, range(101))))


def test_without_the_library_one_line_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tokenizers", None)
    path = tmp_path / "tokenizer.json"
    with pytest.raises(PluginError, match=r"seg_perception\[text\]"):
        Tokens(TextConfig(tokenizer="t"), path, color_words.spec("input_ids", 1, 77, dtype=np.int64), None)
    assert text_inputs({}, tmp_path, ()) is None
