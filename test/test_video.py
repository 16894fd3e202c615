# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Segmenters that remember: SAM 2's memory against transformers itself (random weights: where the masks are means
nothing, that they are the same ones does), and what goes on around it with a STAND-IN of a session that goes by color.
"""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from seg_perception.masks import Masks
from seg_perception.options import ConfigError, parse, to_mapping
from seg_perception.plugins import PluginError
from seg_perception.scene import Frame, Instances
from seg_perception.segmenters.prompting import Prompts
from seg_perception.segmenters.sam.prompts import Prompt
from seg_perception.segmenters.video import segmenter as video
from seg_perception.segmenters.video.sam2_memory import Sam2Memory
from seg_perception.segmenters.video.segmenter import Video
from seg_perception.segmenters.video.session import Followed, Seed, ShownSession
from seg_perception.tracking.session import SessionTracker

SIZE = (60, 80)


def picture(shift: int = 0, hidden: tuple[str, ...] = (), level: int = 90) -> np.ndarray:
    """A red and a green square that move to the right."""
    color = np.full((*SIZE, 3), level, np.uint8)
    for name, value, x in (("red", (250, 0, 0), 5), ("green", (0, 250, 0), 40)):
        if name not in hidden:
            color[20:35, x + shift : x + shift + 15] = value
    return color


class ColorMemory:
    """Remembers the color that an object was shown with."""

    def __init__(self, model, device):
        self.reset()

    def reset(self):
        self.colors = {}

    def step(self, color):
        self.color = color
        return self._answer(list(self.colors))

    def add(self, seeds):
        for i, seed in seeds.items():
            if seed.mask is not None:
                self.colors[i] = np.median(self.color[seed.mask], axis=0)
            elif seed.prompt.box is not None:
                x, y = seed.prompt.box.reshape(2, 2).mean(axis=0).astype(int)
                self.colors[i] = self.color[y, x].astype(float)
            else:
                x, y = seed.prompt.points[0].astype(int)
                self.colors[i] = self.color[y, x].astype(float)
        return self._answer(list(seeds))

    def remove(self, ids):
        for i in ids:
            del self.colors[i]

    def _answer(self, ids):
        masks = [np.abs(self.color - self.colors[i]).max(axis=2) < 30 for i in ids]
        dense = np.array(masks, bool).reshape(-1, *self.color.shape[:2])
        return Followed(np.array(ids, np.int64), Masks.from_dense(dense), np.full(len(ids), 0.8, np.float32))


@pytest.fixture
def build(monkeypatch):
    monkeypatch.setattr(video, "Sam2Memory", ColorMemory)

    def make(**options) -> Video:
        detector = {"plugin": "sam_stand_in:Detector", "boxes": options.pop("boxes", [5.0, 20.0, 20.0, 35.0])}
        return Video(parse(Video.Config, {"detector": detector, **options}))

    return make


def seen(segmenter: Video, color: np.ndarray, stamp: int = 0) -> dict[int, tuple[int, ...]]:
    found = segmenter.segment(Frame(color, stamp_ns=stamp))
    return {int(i): tuple(box.astype(int)) for i, box in zip(found.track_ids, found.boxes, strict=True)}


# -- what goes on around the memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", ["mask", "box"])
def test_shown_once_by_the_detector_and_followed_with_its_class(build, seed):
    segmenter = build(seed=seed)
    assert isinstance(segmenter._session, ShownSession)
    first = segmenter.segment(Frame(picture()))
    assert first.class_names == ("nut",)  # the detector's
    assert first.scores[0] == pytest.approx(0.9)
    assert first.mask_scores[0] == pytest.approx(0.8)  # the memory's
    (identity,) = first.track_ids
    for shift in (5, 10):  # the detector says the same place for ever: it is not asked any more
        assert seen(segmenter, picture(shift)) == {identity: (5 + shift, 20, 20 + shift, 35)}


def test_ids_stay_through_a_hiding_and_end_with_being_lost(build):
    segmenter = build(lost_after=3, prompts="live")
    segmenter.look_for(Prompts(objects=(Prompt(points=[[10, 25]]), Prompt([40, 20, 55, 35])), serial=1))
    assert seen(segmenter, picture()) == {1: (5, 20, 20, 35), 2: (40, 20, 55, 35)}
    assert set(seen(segmenter, picture(hidden=("red",)))) == {2}
    assert set(seen(segmenter, picture(3))) == {1, 2}  # it comes back under its own id
    for _ in range(3):
        assert set(seen(segmenter, picture(hidden=("red",)))) == {2}
    assert set(seen(segmenter, picture())) == {2}  # forgotten, and nobody showed it again
    segmenter.look_for(Prompts(objects=(Prompt(points=[[10, 25]]),), serial=1))  # the same prompt as before
    assert set(seen(segmenter, picture())) == {2}
    segmenter.look_for(Prompts(objects=(Prompt(points=[[10, 25]]),), serial=2))
    assert set(seen(segmenter, picture())) == {3}  # asked anew: what was shown before is replaced
    segmenter.look_for(Prompts(serial=3))
    assert seen(segmenter, picture()) == {}
    segmenter.look_for(Prompts(serial=4, nothing=True))  # a point that no transform leads to yet
    assert seen(segmenter, picture()) == {}
    segmenter.look_for(Prompts(objects=(Prompt(points=[[10, 25]]),), serial=4))
    assert set(seen(segmenter, picture())) == {4}
    segmenter.look_for(Prompts(serial=4, nothing=True))  # out of view now, but it was shown: it is followed
    assert set(seen(segmenter, picture(3))) == {4}


def test_the_detector_adds_what_is_new_and_only_that(build):
    fresh = build(detect_every=2)
    assert set(seen(fresh, picture())) == {1}
    other = to_mapping(fresh._config)
    fresh._detector = fresh._detector.with_config(SimpleNamespace(boxes=(5.0, 20, 20, 35, 40, 20, 55, 35), masks=True))
    found = seen(fresh, picture())  # the second frame: the detector is due
    assert found == {1: (5, 20, 20, 35), 2: (40, 20, 55, 35)}
    for _ in range(4):
        assert set(seen(fresh, picture())) == {1, 2}  # it is due again, and finds nothing new
    few = fresh.with_config(parse(Video.Config, {**other, "max_objects": 1}))
    few.reset_tracks()
    assert len(seen(few, picture())) == 1


def test_another_scene_another_time_and_reset_tracks_begin_anew(build):
    segmenter = build()
    assert set(seen(segmenter, picture(), 10)) == {1}
    assert set(seen(segmenter, picture(2), 20)) == {1}
    assert set(seen(segmenter, picture(level=250), 30)) == {2}  # the light: the whole picture
    assert set(seen(segmenter, picture(level=250), 5)) == {3}  # time went back
    segmenter.reset_tracks()
    assert set(seen(segmenter, picture(level=250), 6)) == {4}


def test_the_tracker_of_sessions_gives_their_ids_on(build):
    tracker = SessionTracker(SessionTracker.Config())
    segmenter = build(boxes=[5.0, 20.0, 20.0, 35.0, 40.0, 20.0, 55.0, 35.0])
    frame = Frame(picture())
    first = tracker.update(frame, segmenter.segment(frame), ())
    hidden = Frame(picture(hidden=("red",)))
    second = tracker.update(hidden, segmenter.segment(hidden), ())
    assert len(first) == 2
    assert second.tolist() == [first[1]]
    plain = Instances.of(Masks.empty(*SIZE, 2))
    third = tracker.update(frame, plain, ())  # no identities: new ones
    assert len({*first, *third}) == 4
    tracker.reset()
    assert not set(tracker.update(frame, segmenter.segment(frame), ())) & {*first, *third}


def test_options_of_the_detector_change_while_the_memory_stays(build):
    segmenter = build()
    seen(segmenter, picture())
    tree = to_mapping(segmenter._config)
    green = parse(Video.Config, {**tree, "detector": {**tree["detector"], "boxes": [40.0, 20.0, 55.0, 35.0]}})
    other = segmenter.with_config(green)
    other.reset_tracks()
    assert list(seen(other, picture()).values()) == [(40, 20, 55, 35)]
    with pytest.raises(ConfigError, match=r"detector\.plugin cannot change"):
        segmenter.with_config(parse(Video.Config, {**tree, "detector": "tabletop"}))


def test_options_that_cannot_change_and_what_is_missing(build, tmp_path):
    segmenter = build()
    changed = {**to_mapping(segmenter._config), "device": "cuda"}
    with pytest.raises(ConfigError, match="device cannot change while"):
        segmenter.with_config(parse(Video.Config, changed))
    with pytest.raises(ConfigError, match="network: expected module:Class, got 'sam3'"):
        build(network="sam3")
    with pytest.raises(ConfigError, match="is its folder on PYTHONPATH"):
        build(network="no_such_module:Net")


def test_without_transformers_one_line_says_what_to_install(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(PluginError, match=r"pip install 'seg_perception\[torch\]'"):
        Sam2Memory(tmp_path)


# -- transformers' own -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small Sam2VideoModel with random weights; its own initial ones are nearly 0 and would prove nothing."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    transformers = pytest.importorskip(
        "transformers", minversion="5.0", reason="transformers is not installed: pip install 'seg_perception[video]'"
    )
    torch.manual_seed(0)
    side = 128
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=16, num_attention_heads=1, blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 1, 2, 2], global_attention_blocks=[3], image_size=[side, side],
        window_positional_embedding_background_size=[4, 4], window_size_per_stage=[4, 4, 4, 4],
    )  # fmt: skip
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[128, 64, 32, 16], fpn_hidden_size=128,
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
    )  # fmt: skip
    config = transformers.Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 128, "image_size": side, "patch_size": 16},
        mask_decoder_config={
            "hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32,
        },
        image_size=side, memory_attention_hidden_size=128, memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32, memory_encoder_hidden_size=128, memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128, memory_fuser_embed_dim=128, memory_fuser_intermediate_dim=32,
        memory_attention_rope_feat_sizes=[8, 8], memory_fuser_num_layers=1,
    )  # fmt: skip
    network = transformers.Sam2VideoModel(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            spread = 1.5 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.normal_(1 if "norm" in name and name.endswith("weight") else 0, spread)
        network.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(4)  # else it sees nothing anywhere
    folder = tmp_path_factory.mktemp("sam2")
    network.save_pretrained(folder)
    return folder


def clip(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 60, (96, 128, 3), np.uint8)
    frames = []
    for k in range(count):
        frame = noise.copy()
        frame[30:60, 20 + 4 * k : 50 + 4 * k] += 150
        frames.append(frame)
    return frames


def reference(checkpoint, frames, size, inputs):
    """Masks and presence of all objects in one session of transformers, as its page shows it; nothing is ever freed.

    `inputs` maps a frame to (id, point, box) shown in it. The processor's part, scaling, is written out: it needs
    torchvision.
    """
    import torch
    import transformers
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    network = transformers.Sam2VideoModel.from_pretrained(checkpoint).eval()
    height, width = frames[0].shape[:2]
    session = Sam2VideoInferenceSession(video_height=height, video_width=width, dtype=torch.float32)
    scale = np.array([size / width, size / height])
    answers = []
    with torch.inference_mode():
        for k, frame in enumerate(frames):
            resized = cv2.resize(frame, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
            pixels = (resized - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
            for number, point, box in inputs.get(k, ()):
                corners = np.array([point] if point else np.reshape(box, (2, 2))) * scale
                labels = [1] if point else [2, 3]
                session.add_point_inputs(
                    session.obj_id_to_idx(number), k,
                    {"point_coords": torch.tensor(corners[None, None], dtype=torch.float32),
                     "point_labels": torch.tensor([[labels]], dtype=torch.int32)},
                )  # fmt: skip
            session.obj_with_new_inputs = [number for number, _, _ in inputs.get(k, ())]
            tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]
            output = network(inference_session=session, frame=tensor, frame_idx=k)
            enlarged = torch.nn.functional.interpolate(
                output.pred_masks.float(), (height, width), mode="bilinear", align_corners=False
            )
            answers.append((enlarged[:, 0].numpy() > 0, output.object_score_logits.reshape(-1).numpy()))
    return answers


def test_sam2_memory_equals_transformers_own_session(checkpoint):
    """20 frames, more than the memory reaches back: two objects from the first, a third that joins later."""
    frames = clip(20)
    shown = {0: [(1, [35.0, 45.0], None), (2, None, [60.0, 20.0, 110.0, 80.0])], 4: [(3, [10.0, 80.0], None)]}
    expected = reference(checkpoint, frames, 128, shown)
    session = Sam2Memory(checkpoint)
    for k, frame in enumerate(frames):
        answers = [session.step(frame)]
        seeds = {i: Seed(Prompt(box, [point] if point else np.empty((0, 2)))) for i, point, box in shown.get(k, ())}
        if seeds:
            answers.append(session.add(seeds))
        masks = np.concatenate([a.masks.dense() for a in answers if len(a.ids)])
        scores = np.concatenate([a.scores for a in answers])
        ids = np.concatenate([a.ids for a in answers])
        assert ids.tolist() == ([1, 2] if k < 4 else [1, 2, 3])
        truth, logits = expected[k]
        np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=2e-3)
        for i, logit in enumerate(logits):
            if abs(logit) > 1e-2:
                mask = truth[i] if logit > 0 else np.zeros_like(truth[i])
                assert (masks[i] != mask).sum() <= masks[i].size / 200, (k, i)  # float32 differs in its last digit


def test_sam2_memory_does_not_grow_and_lets_go(checkpoint):
    session = Sam2Memory(checkpoint)
    frames = clip(40)
    session.step(frames[0])
    session.add({1: Seed(Prompt([20, 30, 50, 60])), 2: Seed(mask=np.eye(96, 128, dtype=bool))})
    for frame in frames[1:]:
        session.step(frame)
    one = session._sessions[1]
    assert len(one.processed_frames) == 1
    assert len(one.output_dict_per_obj[0]["non_cond_frame_outputs"]) <= session._reach + 1
    assert len(one.frames_tracked_per_obj[0]) <= session._reach + 1
    session.remove([1])
    assert session.step(frames[0]).ids.tolist() == [2]
    with pytest.raises(ValueError, match="object 2 is known"):
        session.add({2: Seed(Prompt([20, 30, 50, 60]))})
    session.reset()
    assert len(session.step(frames[0]).ids) == 0


def test_a_folder_that_is_no_sam2(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    with pytest.raises(ConfigError, match="expected a folder"):
        Sam2Memory(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="is no SAM 2 video model"):
        Sam2Memory(tmp_path)


def test_the_segmenter_with_the_real_memory(checkpoint):
    detector = {"plugin": "sam_stand_in:Detector"}
    config = parse(Video.Config, {"model": str(checkpoint), "prompts": "live", "detector": detector})
    segmenter = Video(config)
    segmenter.look_for(Prompts(objects=(Prompt([20, 30, 50, 60]),), serial=1))
    found = [segmenter.segment(Frame(frame)) for frame in clip(3)]
    assert [f.track_ids.tolist() for f in found] == [[1]] * 3
    assert all(0.01 < f.masks.areas[0] / (96 * 128) < 0.5 for f in found)
    assert segmenter.model.startswith("sam2:")
