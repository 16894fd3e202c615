# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which instances count, for any segmenter: classes, scores, names, areas, masks over masks, shared pixels."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seg_perception import Frame, Pipeline
from seg_perception.config import Config, load_config
from seg_perception.options import ConfigError, describe, parse
from seg_perception.scene import Instances
from seg_perception.segmenters.networks.class_names import allowed_classes
from seg_perception.selection import Selection, SelectionConfig

NAMES = ("person", "cup", "bottle", "tv", "laptop")
SHAPE = (40, 60)


def selection(names=NAMES, **values) -> Selection:
    return Selection(parse(SelectionConfig, values), names)


def boxes(*corners) -> np.ndarray:
    """(N, *SHAPE) masks, each a box x0, y0, x1, y1."""
    stack = np.zeros((len(corners), *SHAPE), bool)
    for mask, (x0, y0, x1, y1) in zip(stack, corners, strict=True):
        mask[y0:y1, x0:x1] = True
    return stack


def found(ids, scores, masks=None) -> Instances:
    ids = np.array(ids)
    if masks is None:
        masks = boxes(*[(2 + 6 * i, 4, 6 + 6 * i, 14 + i) for i in range(len(ids))])
    return Instances.from_masks(masks, ids, scores, [NAMES[i] for i in ids])


# -- classes and scores ------------------------------------------------------------------------------------------------


def test_denied_classes_never_count():
    seen = selection(deny=["person", "tv"]).apply(found([0, 1, 3, 2], [0.9, 0.8, 0.7, 0.6]))
    assert seen.class_names == ("cup", "bottle")
    np.testing.assert_allclose(seen.scores, [0.8, 0.6])


def test_each_class_has_its_own_threshold():
    chosen = selection(score_thresholds=["person=0.85", "cup = 0.3"])
    seen = chosen.apply(found([0, 0, 1, 1, 2], [0.9, 0.84, 0.31, 0.3, 0.1]))
    assert seen.class_names == ("person", "cup", "bottle")
    np.testing.assert_allclose(seen.scores, [0.9, 0.31, 0.1])


def test_names_change_and_classes_merge():
    chosen = selection(remap=["tv=screen", "laptop=screen", "cup=mug:9", "bottle=person"])
    seen = chosen.apply(found([3, 4, 1, 2, 0], [0.9, 0.8, 0.7, 0.6, 0.5]))
    assert seen.class_names == ("screen", "screen", "mug", "person", "person")
    np.testing.assert_array_equal(seen.class_ids, [3, 3, 9, 0, 0])
    assert chosen.class_names == (
        "person", "cup", "bottle", "screen", "laptop", "class_5", "class_6", "class_7", "class_8", "mug",
    )  # fmt: skip


def test_classes_can_change_places_and_thresholds_use_the_segmenters_names():
    chosen = selection(remap=["cup=bottle:2", "bottle=cup:1"], score_thresholds=["cup=0.5"])
    seen = chosen.apply(found([1, 1, 2], [0.9, 0.4, 0.3]))
    assert seen.class_names == ("bottle", "cup")
    np.testing.assert_array_equal(seen.class_ids, [2, 1])
    assert chosen.class_names == NAMES


def test_an_object_without_a_class_gets_a_name():
    instances = Instances.from_masks(boxes((0, 0, 4, 4)))
    seen = selection(("object",), remap=["object=part"]).apply(instances)
    assert (seen.class_names, seen.class_ids.tolist()) == (("part",), [0])
    seen = selection((), remap=["object=part"]).apply(instances)
    assert (seen.class_names, seen.class_ids.tolist()) == (("part",), [-1])


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (
            {"deny": ["persn"]},
            r"selection.deny: no class 'persn'; did you mean 'person'\? known: person, cup",
        ),
        ({"score_thresholds": ["xyz=0.5"]}, "selection.score_thresholds: no class 'xyz'; known: person, cup"),
        ({"remap": ["mug=cup"]}, "selection.remap: no class 'mug'; known: person"),
        ({"remap": ["tv=screen:1"]}, "selection.remap: id 1 for 'screen' is that of class 'cup'"),
        ({"remap": ["tv=screen:7", "laptop=screen:8"]}, "class 'screen' has two ids, 7 and 8"),
        ({"remap": ["tv"]}, "remap: expected OLD=NEW or OLD=NEW:ID, got 'tv'"),
        ({"remap": ["=screen"]}, "remap: expected OLD=NEW"),
        (
            {"score_thresholds": ["cup=much"]},
            "score_thresholds: expected CLASS=SCORE .*, got 'cup=much'",
        ),
        ({"score_thresholds": ["cup=1.5"]}, "got 'cup=1.5'"),
        ({"score_thresholds": ["0.5"]}, "got '0.5'"),
        ({"min_area": 50, "max_area": 20}, "max_area: expected 0 or at least min_area, 50 px, got 20 px"),
        ({"overlap": "best"}, "overlap: expected one of keep, higher_score, nearer, smaller"),
        ({"nms_iou": 1.5}, "nms_iou: expected 0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(values, error):
    with pytest.raises(ConfigError, match=error):
        selection(**values)


# -- masks -------------------------------------------------------------------------------------------------------------


def test_areas_are_bounded():
    instances = found(
        [0, 1, 2], [0.9, 0.8, 0.7], boxes((0, 0, 2, 5), (10, 0, 14, 5), (20, 0, 30, 10))
    )  # 10, 20, 100 px
    np.testing.assert_array_equal(selection(min_area=11).apply(instances).class_ids, [1, 2])
    np.testing.assert_array_equal(selection(max_area=20).apply(instances).class_ids, [0, 1])
    np.testing.assert_array_equal(selection(min_area=20, max_area=20).apply(instances).class_ids, [1])


def test_of_masks_that_cover_each_other_the_better_one_stays():
    masks = boxes((0, 0, 10, 10), (0, 0, 10, 12), (0, 0, 10, 11), (30, 0, 40, 10))  # IoU with the first 0.83, 0.91
    instances = found([1, 1, 2, 1], [0.5, 0.9, 0.8, 0.4], masks)
    np.testing.assert_allclose(selection(nms_iou=0.8).apply(instances).scores, [0.9, 0.8, 0.4])
    np.testing.assert_allclose(selection(nms_iou=0.84).apply(instances).scores, [0.5, 0.9, 0.8, 0.4])
    across = selection(nms_iou=0.8, nms_classes="all").apply(instances)
    np.testing.assert_allclose(across.scores, [0.9, 0.4])
    merged = selection(nms_iou=0.8, remap=["bottle=cup"]).apply(instances)  # one class after remap
    np.testing.assert_allclose(merged.scores, [0.9, 0.4])


def test_a_part_inside_a_better_one_goes():
    masks = boxes((0, 0, 20, 20), (2, 2, 6, 6), (18, 0, 28, 10))  # all of the second, a fifth of the third
    instances = found([1, 1, 1], [0.9, 0.8, 0.7], masks)
    np.testing.assert_allclose(selection(nms_containment=0.5).apply(instances).scores, [0.9, 0.7])
    np.testing.assert_allclose(selection(nms_containment=0.1).apply(instances).scores, [0.9])
    assert len(selection(nms_iou=0.5).apply(instances)) == 3  # IoU 0.04


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), iou=st.sampled_from([0.0, 0.3, 0.6, 0.9]), same=st.booleans())
def test_mask_nms_is_the_greedy_one(seed, iou, same):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 12))
    corners = rng.integers(0, 20, (n, 2))
    masks = boxes(*np.concatenate([corners, corners + rng.integers(1, 20, (n, 2))], axis=1).tolist())
    instances = found(rng.integers(0, 2, n), rng.permutation(n) / 20, masks)
    kept = []
    for i in np.argsort(-instances.scores):
        for j in kept:
            rivals = not same or instances.class_ids[i] == instances.class_ids[j]
            if rivals and (masks[i] & masks[j]).sum() / (masks[i] | masks[j]).sum() > iou:
                break
        else:
            kept.append(i)
    seen = selection(nms_iou=iou, nms_classes="same" if same else "all").apply(instances)
    np.testing.assert_array_equal(seen.scores, instances.scores[sorted(kept)])


@pytest.mark.parametrize(("overlap", "owner"), [("keep", None), ("higher_score", 0), ("nearer", 1), ("smaller", 2)])
def test_who_owns_a_shared_pixel(overlap, owner):
    masks = boxes((0, 0, 20, 10), (10, 0, 30, 20), (10, 5, 20, 15))  # all have the pixels x 10..20, y 5..10
    instances = found([1, 2, 3], [0.9, 0.5, 0.7], masks)
    depth = np.full(SHAPE, 2.0, np.float32)
    depth[:, 20:] = 0.8  # most of the second
    depth[12:20, 10:20] = 0.8
    seen = selection(overlap=overlap).apply(instances, depth)
    dense = seen.masks.dense()
    if owner is None:
        assert dense.sum() == masks.sum()
        return
    assert (dense.sum(axis=0) == masks.any(axis=0)).all()  # one owner each, and none is lost
    assert dense[owner, 5:10, 10:20].all()
    assert seen.masks.areas[owner] == masks[owner].sum()
    np.testing.assert_array_equal(seen.boxes, seen.masks.boxes)


def test_nearer_without_depth_is_the_higher_score_and_what_has_no_depth_is_behind():
    masks = boxes((0, 0, 20, 10), (10, 0, 30, 10))
    instances = found([1, 2], [0.5, 0.9], masks)
    assert selection(overlap="nearer").apply(instances).masks.areas.tolist() == [100, 200]
    depth = np.full(SHAPE, np.nan, np.float32)
    depth[:10, :10] = 3.0  # of the first alone
    assert selection(overlap="nearer").apply(instances, depth).masks.areas.tolist() == [200, 100]


def test_an_instance_that_keeps_no_pixel_goes_and_the_area_counts_after_that():
    masks = boxes((0, 0, 20, 20), (5, 5, 10, 10), (0, 18, 22, 20))
    instances = found([1, 2, 3], [0.9, 0.8, 0.7], masks)
    seen = selection(overlap="higher_score").apply(instances)
    np.testing.assert_array_equal(seen.class_ids, [1, 3])
    assert seen.masks.areas.tolist() == [400, 4]
    np.testing.assert_array_equal(seen.boxes[1], [20, 18, 22, 20])
    assert len(selection(overlap="higher_score", min_area=10).apply(instances)) == 1


def test_boxes_of_untouched_instances_stay_the_segmenters_own():
    masks = boxes((0, 0, 10, 10), (5, 0, 15, 10), (30, 0, 40, 10))
    wide = np.float32([[0, 0, 12, 12], [4, 0, 16, 12], [29, 0, 41, 12]])
    instances = replace(found([1, 2, 3], [0.9, 0.8, 0.7], masks), boxes=wide)
    seen = selection(overlap="higher_score").apply(instances)
    np.testing.assert_array_equal(seen.boxes, [[0, 0, 12, 12], [10, 0, 15, 10], [29, 0, 41, 12]])


# -- in the pipeline ---------------------------------------------------------------------------------------------------


class Fixed:
    """A segmenter that always finds three things."""

    class Config:
        pass

    class_names = NAMES

    def segment(self, frame):
        return found([0, 1, 2], [0.3, 0.9, 0.6])


def pipeline(values, segmenter=None) -> Pipeline:
    return Pipeline(segmenter or Fixed(), None, (), parse(Config, {"tracker": "none", "selection": values}))


def test_the_pipeline_selects_before_it_counts():
    frame = Frame(np.zeros((*SHAPE, 3), np.uint8))
    seen = pipeline({"deny": ["cup"]}).segment(frame)
    assert seen.class_names == ("bottle", "person")
    few = Pipeline(Fixed(), None, (), parse(Config, {"selection": {"deny": ["cup"]}, "max_instances": 1})).segment(
        frame
    )
    assert (few.class_names, few.dropped) == (("bottle",), 1)
    assert pipeline({"remap": ["tv=screen"]}).class_names == ("person", "cup", "bottle", "screen", "laptop")
    with pytest.raises(ConfigError, match=r"selection.deny: no class 'dog'; known: person"):
        pipeline({"deny": ["dog"]})


def test_an_empty_text_says_nothing():
    """A ROS parameter file cannot have an empty list of texts: it has ['']."""
    assert parse(SelectionConfig, {"deny": [""], "remap": [" "], "score_thresholds": [""]}) == SelectionConfig()
    assert allowed_classes([""], NAMES).all()


def test_prompts_may_change_the_classes_while_it_runs():
    segmenter = Fixed()
    line = pipeline({"deny": ["cup"], "remap": ["tv=screen"]}, segmenter)
    segmenter.class_names = ("person", "cup", "bottle")
    assert line.segment(Frame(np.zeros((*SHAPE, 3), np.uint8))).class_names == ("bottle", "person")
    assert line.class_names == ("person", "cup", "bottle")


def test_every_option_is_live_and_read_from_a_config():
    leaves = [leaf for leaf in describe(Config()) if leaf.name.startswith("selection.")]
    assert len(leaves) == 9
    assert all(leaf.live for leaf in leaves)
    config = load_config({"selection": {"remap": ["object=part:3"], "overlap": "nearer"}})
    assert config.selection.remap == ("object=part:3",)
