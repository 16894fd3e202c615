# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Scores of hand-counted label images."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from seg_perception.evaluation import average, drop_depth, overlap_table, score_frame
from seg_perception.masks import Masks


def rectangles(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """(N, 20, 30) masks of x0, y0, x1, y1 rectangles."""
    dense = np.zeros((len(boxes), 20, 30), bool)
    for mask, (x0, y0, x1, y1) in zip(dense, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return dense


TRUTH = np.zeros((20, 30), np.uint8)
TRUTH[0:10, 0:10] = 3  # 100 px; labels need not be consecutive
TRUTH[10:20, 10:30] = 7  # 200 px


def test_perfect_masks_score_one():
    score = score_frame(Masks.from_dense([TRUTH == 7, TRUTH == 3]), TRUTH)
    assert (score.objects, score.predictions) == (2, 2)
    assert score.weighted_overlap == score.mean_iou == score.f_50 == score.f_75 == 1.0


def test_overlaps_are_counted_in_pixels():
    half = rectangles((0, 0, 10, 5), (10, 10, 30, 22), (0, 12, 5, 20))
    overlaps, sizes = overlap_table(Masks.from_dense(half), TRUTH)
    assert_allclose(sizes, [100, 200])
    assert_allclose(overlaps, [[0.5, 0, 0], [0, 1, 0]])
    score = score_frame(Masks.from_dense(half), TRUTH)
    assert_allclose(score.weighted_overlap, (0.5 * 100 + 1.0 * 200) / 300)
    assert_allclose(score.mean_iou, 0.75)
    assert_allclose([score.precision_50, score.recall_50, score.f_50], [2 / 3, 1, 4 / 5])
    assert_allclose([score.precision_75, score.recall_75, score.f_75], [1 / 3, 1 / 2, 2 / 5])


def test_two_masks_cannot_match_one_object():
    both = Masks.from_dense(rectangles((0, 0, 10, 8), (0, 0, 10, 9)))  # IoU 0.8 and 0.9 with the same object
    score = score_frame(both, np.where(TRUTH == 3, 3, 0))
    assert (score.precision_50, score.recall_50) == (0.5, 1.0)


def test_ignored_pixels_count_for_nothing():
    ignore = np.zeros(TRUTH.shape, bool)
    ignore[:, 15:] = True
    masks = Masks.from_dense(rectangles((0, 0, 10, 10), (10, 10, 15, 20), (20, 0, 25, 5)))
    score = score_frame(masks, TRUTH, ignore)
    assert score.predictions == 2  # the third lies in ignored pixels only
    assert score.weighted_overlap == score.f_75 == 1.0


def test_frames_without_objects_or_masks():
    nothing = np.zeros((20, 30), np.uint8)
    empty = score_frame(Masks.empty(20, 30), nothing)
    assert np.isnan(empty.weighted_overlap)
    assert empty.f_50 == 1.0
    missed = score_frame(Masks.empty(20, 30), TRUTH)
    assert (missed.weighted_overlap, missed.precision_50, missed.recall_50, missed.f_50) == (0, 0, 0, 0)
    invented = score_frame(Masks.from_dense(rectangles((0, 0, 5, 5))), nothing)
    assert (invented.precision_50, invented.f_50) == (0, 0)
    summary = average([empty, missed])
    assert (summary["frames"], summary["objects"], summary["weighted_overlap"], summary["f_50"]) == (2, 2, 0.0, 0.5)


def test_sizes_must_agree():
    with pytest.raises(ValueError, match=r"truth: expected \(20, 30\).*got \(5, 5\)"):
        score_frame(Masks.empty(20, 30), np.zeros((5, 5), np.uint8))


def test_dropout_is_the_asked_share_and_repeats():
    depth = np.ones((100, 200), np.float32)
    lost = np.isnan(drop_depth(depth, 0.2, seed=0))
    assert_allclose(lost.mean(), 0.2, atol=0.01)
    assert (lost == np.isnan(drop_depth(depth, 0.2, seed=0))).all()
    assert (lost != np.isnan(drop_depth(depth, 0.2, seed=1))).any()
    assert drop_depth(depth, 0.2).dtype == np.float32
