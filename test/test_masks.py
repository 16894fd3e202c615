# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Masks: every representation is the same set of pixels, checked against dense arrays and pycocotools."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from seg_perception.masks import Masks, from_coco, to_coco

stacks = hnp.arrays(bool, st.tuples(st.integers(0, 4), st.integers(1, 12), st.integers(1, 15)))
labels = hnp.arrays(np.uint16, st.tuples(st.integers(1, 12), st.integers(1, 15)), elements=st.integers(0, 5))
quick = settings(max_examples=80, deadline=None)


@quick
@given(stacks)
def test_dense_round_trip(dense):
    masks = Masks.from_dense(dense)
    assert (masks.dense() == dense).all()
    assert (masks.height, masks.width) == dense.shape[1:]
    assert (masks.areas == dense.sum(axis=(1, 2))).all()


@quick
@given(stacks)
def test_spans_are_ordered_and_never_touch(dense):
    masks = Masks.from_dense(dense)
    for i in range(len(masks)):
        spans = masks.spans_of(i)
        assert (spans[:, 1] < spans[:, 2]).all()
        for (y0, _, stop), (y1, start, _) in itertools.pairwise(spans):
            assert y0 < y1 or (y0 == y1 and stop < start)


@quick
@given(stacks)
def test_tight_boxes(dense):
    masks = Masks.from_dense(dense)
    for mask, (x, y, w, h), box in zip(dense, masks.rois, masks.boxes, strict=True):
        rows, columns = np.nonzero(mask)
        if len(rows):
            assert (x, y, x + w, y + h) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert box.tolist() == [x, y, x + w, y + h]
        else:
            assert (x, y, w, h) == (0, 0, 0, 0)


@quick
@given(stacks)
def test_run_lengths_round_trip(dense):
    masks = Masks.from_dense(dense)
    counts = [masks.counts(i) for i in range(len(masks))]
    for runs, (_, _, w, h) in zip(counts, masks.rois, strict=True):
        assert runs.sum() == w * h
        assert (runs[1:] > 0).all()  # only the first may be 0
    back = Masks.from_counts(masks.height, masks.width, masks.rois, counts)
    assert (back.dense() == dense).all()
    assert (back.spans == masks.spans).all()


def test_run_lengths_by_hand():
    """.XX.    inside its tight box, row by row: 1 background, 2 object, 1 background ...
    XXXX"""
    masks = Masks.from_dense([[[0, 0, 0, 0, 0], [0, 0, 1, 1, 0], [0, 1, 1, 1, 1]]])
    assert masks.rois[0].tolist() == [1, 1, 4, 2]
    assert masks.counts(0).tolist() == [1, 2, 1, 4]
    assert masks.counts(0).dtype == np.uint32


def test_run_lengths_with_empty_runs():
    masks = Masks.from_counts(3, 4, [[0, 0, 4, 3]], [[0, 2, 0, 3, 1, 0, 6]])
    assert masks.dense()[0].ravel().tolist() == [True] * 5 + [False] * 7
    assert (masks.spans == Masks.from_dense(masks.dense()).spans).all()


@quick
@given(stacks.filter(len))
def test_coco_round_trip(dense):
    assert (from_coco(to_coco(Masks.from_dense(dense))).dense() == dense).all()


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools before NumPy 2
@quick
@given(stacks.filter(len))
def test_coco_as_pycocotools_does_it(dense):
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(dense.transpose(1, 2, 0).astype(np.uint8)))
    ours = to_coco(Masks.from_dense(dense))
    assert [{**t, "counts": t["counts"].decode()} for t in theirs] == ours
    assert (from_coco(theirs).dense() == dense).all()
    assert (coco.decode(ours).transpose(2, 0, 1) == dense).all()


def test_coco_large_and_plain_lists():
    dense = np.random.default_rng(0).random((1, 300, 400)) > 0.5
    dense[0, :, 100:300] = True
    assert (from_coco(to_coco(Masks.from_dense(dense))).dense() == dense).all()
    plain = from_coco([{"size": [2, 3], "counts": [1, 2, 3]}])  # column by column
    assert plain.dense()[0].tolist() == [[False, True, False], [True, False, False]]


@pytest.mark.parametrize(
    ("encodings", "message"),
    [
        ([], "at least one"),
        ([{"size": [2, 3], "counts": [1, 2]}], "mask 0: run lengths add up to 3, expected 2x3"),
        ([{"size": [2, 3], "counts": [7, -1]}], "mask 0"),
        ([{"size": [2, 3], "counts": [6]}, {"size": [3, 2], "counts": [6]}], "mask 1: size"),
        ([{"size": [2, 3], "counts": "o"}], "end in the middle"),
    ],
)
def test_bad_coco(encodings, message):
    with pytest.raises(ValueError, match=message):
        from_coco(encodings)


@quick
@given(labels)
def test_label_image_round_trip(image):
    masks = Masks.from_label_image(image, 5)
    assert len(masks) == 5
    assert (masks.dense() == (image == np.arange(1, 6)[:, None, None])).all()
    assert (masks.label_image() == image).all()
    assert masks.label_image().dtype == np.uint16
    with pytest.raises(ValueError, match="expected an image of"):
        masks.label_image(out=np.zeros((image.shape[0] + 1, 1), np.uint16))


@quick
@given(stacks, st.randoms())
def test_label_image_order(dense, random):
    order = list(range(len(dense)))
    random.shuffle(order)
    expected = np.zeros(dense.shape[1:], np.uint16)
    for i in order:
        expected[dense[i]] = i + 1
    assert (Masks.from_dense(dense).label_image(order) == expected).all()


@pytest.mark.parametrize("image", [np.zeros((2, 2)), np.zeros(4, int), np.array([[-1]]), np.array([[3]])])
def test_bad_label_images(image):
    with pytest.raises(ValueError, match="label image"):
        Masks.from_label_image(image, 2)


@quick
@given(hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.integers(-12, 14), st.integers(-12, 14))
def test_crops_that_hang_over_edges_are_cut(crop, x0, y0):
    expected = np.zeros((10, 12), bool)
    for y, x in np.argwhere(crop):
        if 0 <= y + y0 < 10 and 0 <= x + x0 < 12:
            expected[y + y0, x + x0] = True
    masks = Masks.from_crops(10, 12, [crop], [[x0, y0]])
    assert (masks.dense()[0] == expected).all()


@quick
@given(stacks.filter(len), st.integers(-3, 5), st.integers(-3, 5))
def test_crop_of_any_region(dense, x0, y0):
    padded = np.pad(dense[0], 20)
    masks = Masks.from_dense(dense)
    assert (masks.crop(0, (x0, y0, 7, 6)) == padded[y0 + 20 : y0 + 26, x0 + 20 : x0 + 27]).all()
    x, y, w, h = masks.rois[0]
    assert (masks.crop(0) == dense[0, y : y + h, x : x + w]).all()


def test_indexing_like_an_array():
    dense = np.random.default_rng(1).random((5, 8, 9)) > 0.5
    masks = Masks.from_dense(dense)
    some = np.array([True, False, False, True, False])
    for index in (2, -1, slice(1, 4), slice(None, None, -1), [3, 0], some, np.empty(0, int)):
        assert (masks[index].dense() == dense[np.atleast_1d(np.arange(5)[index])]).all()


def test_empty():
    for count in (0, 3):
        masks = Masks.empty(4, 6, count)
        assert len(masks) == count
        assert masks.dense().shape == (count, 4, 6)
        assert masks.rois.shape == (count, 4)
        assert not masks.label_image().any()
        assert masks.counts(0).size == 0 if count else True


@pytest.mark.parametrize(
    ("rois", "counts", "message"),
    [
        ([[0, 0, 4, 4]], [], "1 ROIs but 0"),
        ([[3, 0, 4, 2]], [[8]], "mask 0: ROI 4x2 at .3, 0. leaves the 6x4 image"),
        ([[0, 0, 2, 2]], [[1, 2]], "mask 0: run lengths add up to 3, expected 2x2"),
        ([[0, 0, 2, 2]], [[6, -2]], "mask 0"),
    ],
)
def test_bad_run_lengths(rois, counts, message):
    with pytest.raises(ValueError, match=message):
        Masks.from_counts(4, 6, rois, counts)


def test_bad_stacks():
    with pytest.raises(ValueError, match=r"\(N, H, W\), got \(4, 5\)"):
        Masks.from_dense(np.zeros((4, 5)))
    with pytest.raises(ValueError, match="offsets"):
        Masks(4, 5, np.zeros((2, 3), np.int32), np.array([0, 1]))
