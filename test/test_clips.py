# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Networks of clips through own code (MTTR's form). The network here is a tiny STAND-IN that goes by color names."""

import numpy as np
import pytest
from test_video import SIZE, picture, seen

from seg_perception.options import parse
from seg_perception.segmenters.prompting import PromptError, Prompts, check_taken
from seg_perception.segmenters.sam.prompts import Prompt
from seg_perception.segmenters.video.clips import Clips
from seg_perception.segmenters.video.segmenter import Video

COLORS = {"red": (250, 0, 0), "green": (0, 250, 0)}


class ColorClips:
    """Logits of each color that a text names, at half the size; reads three images."""

    window = 3
    lengths: list = []  # noqa: RUF012

    def __init__(self, model, device):
        pass

    def __call__(self, clip, texts):
        self.lengths.append(len(clip))
        found = [(row, COLORS[word]) for row, text in enumerate(texts) for word in text.split() if word in COLORS]
        near = [np.abs(clip[:, ::2, ::2].astype(int) - color).max(axis=3) < 30 for _, color in found]
        masks = np.where(np.array(near, bool).reshape(-1, len(clip), SIZE[0] // 2, SIZE[1] // 2), 4.0, -4.0)
        order = np.arange(len(found))[::-1] if len(clip) == 2 else np.arange(len(found))  # rows mean nothing
        scores = np.where(near and masks.max(axis=(1, 2, 3)) > 0, 0.9, 0.1) if found else np.empty(0)
        return {"masks": masks[order], "scores": scores[order], "texts": np.array([r for r, _ in found])[order]}


def build(network="test_clips:ColorClips", **options) -> Video:
    detector = {"plugin": "sam_stand_in:Detector"}
    return Video(parse(Video.Config, {"network": network, "model": "my.pth", "detector": detector, **options}))


def test_texts_are_found_and_keep_their_ids_from_clip_to_clip():
    segmenter = build(texts=["the red one", "green"])
    assert segmenter.class_names == ("the red one", "green")
    assert segmenter.prompt_kinds == {"texts"}
    for shift in (0, 3, 6, 9):
        found = seen(segmenter, picture(shift))
        assert set(found) == {1, 2}
        for i, x in ((1, 5), (2, 40)):  # at half the resolution, a pixel is lost
            np.testing.assert_allclose(found[i], (x + shift, 20, x + 15 + shift, 35), atol=1)
    assert max(ColorClips.lengths) == 3
    segmenter.look_for(Prompts(texts=("green",)))
    assert segmenter.class_names == ("green",)
    assert set(seen(segmenter, picture(9))) == {2}  # the same green one
    segmenter.look_for(Prompts(texts=("green", "red")))
    assert set(seen(segmenter, picture(9))) == {2, 3}
    with pytest.raises(PromptError, match="takes texts, not boxes"):
        check_taken(segmenter, Prompts(objects=(Prompt([1, 2, 3, 4]),)), "video")


def test_nothing_asked_nothing_run():
    segmenter = build()
    ColorClips.lengths.clear()
    assert seen(segmenter, picture()) == {}
    assert ColorClips.lengths == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"masks": np.zeros((2, 9, 4, 4)), "scores": np.ones(2), "texts": np.zeros(2, int)}, r"masks \(2, 1, h, w\)"),
        ({"masks": np.zeros((1, 1, 4, 4)), "scores": np.ones(1), "texts": np.array([3])}, r"texts 0\.\.0, got \[3\]"),
    ],
)
def test_answers_that_do_not_fit(answer, reason):
    clips = Clips(lambda clip, texts: answer, 0.5)
    clips.look_for(["red"])
    with pytest.raises(ValueError, match=reason):
        clips.step(picture())
