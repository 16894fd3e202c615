# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a promptable segmenter is asked while it runs; MobileSAM's real weights in OpenVINO; real clicks."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import sam_reference as reference
import sam_stand_in
from test_promptable import BOX, GREEN, MOBILE, RED, assert_same_masks, detector, iou, load, photo, squares, stand_in

from seg_perception.cli.console import warm_up
from seg_perception.folder import RgbdFolder
from seg_perception.options import ConfigError, parse, to_mapping
from seg_perception.scene import Frame, Instances
from seg_perception.segmenters.promptable import Promptable
from seg_perception.segmenters.prompting import PromptError, Prompts, PromptTaker, check_taken
from seg_perception.segmenters.sam.prompts import Prompt, inner_points


@pytest.fixture(scope="module")
def mobile_sam(models_dir):
    return load(models_dir, *MOBILE)


@pytest.fixture(scope="module")
def meta_decoder(models_dir):
    return reference.session(models_dir / MOBILE[1])


def asked(*objects, **more) -> Prompts:
    return Prompts(objects=objects, **more)


def test_boxes_and_points_while_it_runs_and_back():
    sam = stand_in("MetaDecoder", detector=detector(GREEN), min_agreement=0.5)
    assert isinstance(sam, PromptTaker)
    assert sam.prompt_kinds == {"boxes", "points", "roi"}
    frame = Frame(squares())
    sam.look_for(asked(Prompt(RED), Prompt(points=[[138, 60]])))
    found = sam.segment(frame)
    assert iou(found.masks, 0, RED) > 0.85
    assert iou(found.masks, 1, GREEN) > 0.85
    assert found.class_names == ("object", "nut")  # where a click meets an object of the detector, it is that object
    np.testing.assert_allclose(found.scores, [0.5, 0.9])  # a box has the network's score, the nut the detector's
    np.testing.assert_allclose(found.mask_scores, [0.5, 0.5])
    np.testing.assert_array_equal(found.support_ids, [-1, 0])
    corners = sam_stand_in.MetaDecoder.feeds[-1]["point_labels"][0]
    np.testing.assert_array_equal(corners, [1, 2, 3])  # the click and the nut's box
    sam.look_for(Prompts())
    assert sam.segment(frame).class_names == ("nut",)


def test_a_click_alone_when_told_so_or_where_the_detector_has_nothing():
    for options in ({"click_finds": "mask", "detector": detector(RED)}, {"detector": detector(GREEN)}):
        sam = stand_in("MetaDecoder", prompts="live", **options)
        frame = Frame(squares())
        assert len(sam.segment(frame)) == 0  # nobody asked
        sam.look_for(asked(Prompt(points=[[40, 60], [138, 60]], labels=[1, 0])))
        found = sam.segment(frame)
        assert found.class_names == ("object",)
        assert iou(found.masks, 0, RED) > 0.85
        np.testing.assert_array_equal(sam_stand_in.MetaDecoder.feeds[-1]["point_labels"][0], [1, 0, -1])


def test_a_second_click_on_an_image_does_not_run_the_encoder_again():
    sam = stand_in("MetaDecoder", prompts="live", detector=detector(RED))
    runs = sam_stand_in.Encoder.runs
    runs.clear()
    for x in (40, 138):
        sam.look_for(asked(Prompt(points=[[x, 60]])))
        assert len(sam.segment(Frame(squares(), stamp_ns=5))) == 1  # decoded from the message anew: another array
    assert len(runs) == 1
    sam.segment(Frame(squares(), stamp_ns=6))
    assert len(runs) == 2
    other = squares()
    other[:60] = 0
    sam.segment(Frame(other, stamp_ns=6))  # a camera that repeats its stamps
    assert len(runs) == 3
    sam.segment(Frame(squares()))
    sam.segment(Frame(squares()))  # no stamp: nothing to know it by
    assert len(runs) == 5


def test_the_roi_keeps_prompts_outside_from_being_asked():
    sam = stand_in("MetaDecoder", detector=detector(RED, GREEN))
    sam.look_for(Prompts(roi=(0.0, 0.0, 100.0, 120.0)))
    sam_stand_in.MetaDecoder.feeds.clear()
    found = sam.segment(Frame(squares()))
    np.testing.assert_allclose(found.boxes, [RED], atol=2)
    assert len(sam_stand_in.MetaDecoder.feeds) == 1
    live = sam.with_config(parse(Promptable.Config, {**to_mapping(sam._config), "prompts": "live"}))
    live.look_for(Prompts(roi=tuple(map(float, GREEN))))
    assert iou(live.segment(Frame(squares())).masks, 0, GREEN) > 0.85  # the box itself, where nothing else is asked
    grid = {"per_side": 4, "min_iou": 0.9, "min_stability": 0.5, "stability_offset": 0.05}
    grid_sam = stand_in("MetaDecoder", prompts="grid", grid=grid)
    grid_sam.look_for(Prompts(roi=tuple(map(float, RED))))
    sam_stand_in.MetaDecoder.feeds.clear()
    assert len(grid_sam.segment(Frame(squares()))) == 1
    points = np.concatenate([feed["point_coords"][0, :1] for feed in sam_stand_in.MetaDecoder.feeds]) * 3
    assert len(points) == 16
    assert (points >= RED[:2]).all() and (points <= RED[2:]).all()  # noqa: PT018


def test_prompts_that_are_refused():
    sam = stand_in("MetaDecoder", prompts="live")
    with pytest.raises(PromptError, match="takes boxes, points, not texts"):
        check_taken(sam, Prompts(texts=("red",)), "promptable")
    boxes_only = stand_in("HuggingFaceDecoder", prompts="live")
    with pytest.raises(PromptError, match="segmenter 'promptable' takes boxes, not points"):
        check_taken(boxes_only, asked(Prompt(points=[[5, 5]])), "promptable")
    with pytest.raises(PromptError, match="object 1: point 192, 5 lies outside the 192x120 image"):
        asked(Prompt(RED), Prompt(points=[[192, 5]])).check_inside(192, 120)
    with pytest.raises(PromptError, match="object 0: box 200, 0, 210, 10 lies outside"):
        asked(Prompt([200, 0, 210, 10])).fitted(192, 120)
    cut = asked(Prompt([-5, 100, 30, 500])).fitted(192, 120)
    np.testing.assert_array_equal(cut.objects[0].box, [0, 100, 30, 120])
    with pytest.raises(PromptError, match="either texts or places"):
        Prompts(texts=("red",), objects=(Prompt(RED),))
    sam.look_for(Prompts(nothing=True))
    assert len(sam.segment(Frame(squares()))) == 0


def test_openvino_in_bf16_is_refused_for_the_decoder_before_it_ends_the_process(models_dir):
    openvino = {"plugin": "openvino", "precision": "bf16"}
    with pytest.raises(
        ConfigError, match=r"decoder_backend.precision: .* ends the process .* leave the decoder at f32"
    ):
        load(models_dir, *MOBILE, decoder_backend=openvino)


def test_where_nobody_can_ask_it_is_said(mobile_sam, capsys):
    def said(segmenter) -> str:
        warm_up(SimpleNamespace(segmenter=segmenter, warm_up=lambda *_: None), 4, 4)
        return capsys.readouterr().err

    for prompts, line in (("live", "detector or grid looks for everything"), ("detector", "")):
        text = said(mobile_sam.with_config(replace(mobile_sam._config, prompts=prompts)))
        assert line in text
        assert bool(line) == bool(text)


# -- real weights in another runtime, and real clicks ------------------------------------------------------------------


@pytest.fixture(scope="module")
def mobile_sam_in_openvino(models_dir):
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    openvino = {"plugin": "openvino", "threads": 1}
    return load(models_dir, *MOBILE, backend=openvino, decoder_backend=openvino)


@pytest.mark.parametrize(("part", "k", "size"), [("ycbv", 3, (641, 479)), ("mosd", 33, None)])
def test_openvino_in_f32_gives_the_masks_of_the_graph_in_onnxruntime(
    mobile_sam_in_openvino, mobile_sam, meta_decoder, data_dir, part, k, size
):
    """The reference has its own embedding, from ONNX Runtime: nothing of it went through OpenVINO."""
    color = photo(data_dir, part, k, size)
    shape = color.shape[:2]
    raw = mobile_sam.network._encoder({"image_rgb_0_255": reference.network_image(color, 1024, False, normalise=False)})
    whole = np.array([shape[1], shape[0]] * 2)
    prompts = [(BOX * whole, [], []), (None, [whole[:2] * 0.5], [1]), (BOX * whole, [whole[:2] * 0.5], [1])]
    seen = mobile_sam_in_openvino.encode(color)
    found = mobile_sam_in_openvino.decode(seen, [Prompt(box, np.array(at), labels) for box, at, labels in prompts])
    for i, (box, at, labels) in enumerate(prompts):
        logits, ious = reference.meta_answer(meta_decoder, raw["image_embeddings"], box, at, labels, shape)
        assert_same_masks(found.masks[i].dense(), logits > 0)
        assert found.scores[i] == pytest.approx(np.clip(ious[0], 0, 1), abs=1e-3)
        assert found.masks.areas[i] > 100


def test_one_click_on_a_real_frame_gives_the_whole_object(mobile_sam, data_dir):
    """In the middle of each hand-made outline; the network alone takes half of them for one of their parts."""
    sam = mobile_sam.with_config(parse(Promptable.Config, {**to_mapping(mobile_sam._config), "prompts": "live"}))
    overlaps = []
    for k in (5, 20, 33):
        record = RgbdFolder(data_dir / "mosd")[k]
        for label in range(1, record.instances.max() + 1):
            truth = record.instances == label
            (click,) = inner_points(Instances.from_masks(truth[None]), 0, 1)
            sam.look_for(asked(Prompt(points=[click])))
            found = sam.segment(record.frame)
            mask = found.masks.dense()[0]
            overlaps.append((mask & truth).sum() / (mask | truth).sum())
            assert found.support_ids[0] >= 0  # tabletop's: the object stands on it
    assert len(overlaps) >= 5
    assert min(overlaps) > 0.7
