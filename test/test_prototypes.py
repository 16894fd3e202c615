# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Masks decoded to spans equal the dense way, for any letterbox, size and number of instances."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yolo_reference import dense_masks, image_boxes, network_input, scaled_size

from seg_perception.segmenters.decoding.prototypes import decode_masks
from seg_perception.segmenters.networks.letterbox import Letterbox

NETS = [(160, 160), (96, 160), (160, 96), (64, 224), (32, 32)]


def random_case(seed, shape, net, count, smooth, channels=8):
    """Prototypes (K, h, w), coefficients and image boxes, some of which hang over the border or are degenerate."""
    rng = np.random.default_rng(seed)
    height, width = net[0] // 4, net[1] // 4
    y, x = np.mgrid[:height, :width]
    waves = [
        np.sin(x * rng.uniform(0.1, 1) + rng.uniform(0, 6)) * np.cos(y * rng.uniform(0.1, 1)) for _ in range(channels)
    ]
    prototypes = np.stack(waves) if smooth else rng.normal(size=(channels, height, width))
    corners = rng.uniform(-0.2, 1.0, (count, 2)) * net[::-1]
    boxes = np.concatenate([corners, corners + rng.uniform(0, 0.8, (count, 2)) * net[::-1]], axis=1).astype(np.float32)
    boxes[: count // 10, 2:] = boxes[: count // 10, :2]  # without area
    coefficients = rng.normal(size=(count, channels)).astype(np.float32)
    return prototypes.astype(np.float32), coefficients, image_boxes(boxes, shape, net)


def assert_equals_dense(prototypes, coefficients, boxes, shape, net):
    masks = decode_masks(prototypes, coefficients, boxes, Letterbox.fit(shape, net))
    expected = dense_masks(prototypes, coefficients, boxes, shape, net)
    assert (len(masks), masks.height, masks.width) == (len(boxes), *shape)
    different = int((masks.dense() != expected).sum())
    assert different <= max(1, expected.sum() // 100_000)  # float32 rounding where a logit is 0
    for i in range(len(masks)):  # ordered, inside the image, never touching
        y, start, stop = masks.spans_of(i).T.astype(np.int64)
        assert (start < stop).all()
        assert (np.diff(y * (shape[1] + 2) + start) > (stop - start)[:-1]).all()
        assert start.min(initial=0) >= 0
        assert stop.max(initial=0) <= shape[1]


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    net=st.sampled_from(NETS),
    count=st.integers(0, 6),
    smooth=st.booleans(),
)
@example(seed=0, shape=(120, 160), net=(160, 160), count=6, smooth=True)  # padding in whole prototype cells
@example(seed=1, shape=(479, 641), net=(160, 160), count=6, smooth=False)
@example(seed=2, shape=(3, 400), net=(160, 160), count=6, smooth=False)  # scaled to a single row
@example(seed=3, shape=(1, 1), net=(32, 32), count=3, smooth=False)
def test_random_outputs(seed, shape, net, count, smooth):
    assert_equals_dense(*random_case(seed, shape, net, count, smooth), shape, net)


def by_pixel(prototypes, coefficients, boxes, letterbox):
    """(N, H, W) bool: each pixel for itself, in float32, for padding in whole cells of the prototypes (4 px)."""
    height, width = letterbox.height, letterbox.width
    rows = slice(letterbox.top // 4, (letterbox.top + letterbox.scaled_height) // 4)
    columns = slice(letterbox.left // 4, (letterbox.left + letterbox.scaled_width) // 4)
    y, y_next, y_weight = samples(height, rows.stop - rows.start)
    x, x_next, x_weight = samples(width, columns.stop - columns.start)
    out = np.zeros((len(boxes), height, width), bool)
    for i, (x0, y0, x1, y1) in enumerate(np.ceil(boxes).astype(int)):
        logits = np.zeros(prototypes[0, rows, columns].shape, np.float32)
        for weight, prototype in zip(coefficients[i], prototypes, strict=True):
            logits += weight * prototype[rows, columns]
        tall = logits[y] * (1 - y_weight[:, None]) + logits[y_next] * y_weight[:, None]
        inside = tall[:, x] * (1 - x_weight) + tall[:, x_next] * x_weight > 0
        out[i, max(y0, 0) : y1, max(x0, 0) : x1] = inside[max(y0, 0) : y1, max(x0, 0) : x1]
    return out


def samples(pixels, knots):
    """Per pixel the knots on both sides, and the weight of the second."""
    source = np.maximum((np.arange(pixels) + 0.5) * knots / pixels - 0.5, 0.0)
    knot = np.minimum(source.astype(int), knots - 1)
    return knot, np.minimum(knot + 1, knots - 1), (source - knot).astype(np.float32)


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("shape", [(120, 160), (96, 160), (480, 640), (41, 55), (7, 13), (1, 200)])
def test_every_pixel_is_what_its_own_interpolation_says(shape, smooth):
    """Exactly, although most pixels are never looked at; with zeros and numbers at the end of float32 among them."""
    net = (96, 160)
    letterbox = Letterbox(*shape, *net, top=8, left=12, scaled_height=80, scaled_width=136)
    for seed in range(6):
        prototypes, coefficients, boxes = random_case(seed, shape, net, 8, smooth)
        prototypes[np.abs(prototypes) < 0.1 * (seed % 3)] = 0
        prototypes[:, ::7] *= np.float32(10.0 ** [0, 30, -30, -37][seed % 4])
        masks = decode_masks(prototypes, coefficients, boxes, letterbox)
        np.testing.assert_array_equal(masks.dense(), by_pixel(prototypes, coefficients, boxes, letterbox))


@pytest.mark.parametrize(
    ("shape", "net"), [((720, 1280), (640, 640)), ((720, 1280), (384, 640)), ((479, 641), (640, 640))]
)
def test_large_images(shape, net):
    assert_equals_dense(*random_case(5, shape, net, 12, True, 32), shape, net)


def test_three_hundred_instances():
    shape, net = (123, 217), (160, 160)
    case = random_case(7, shape, net, 300, True)
    assert_equals_dense(*case, shape, net)
    assert (decode_masks(*case, Letterbox.fit(shape, net)).areas > 0).sum() > 100


def test_a_half_plane_ends_where_its_logit_is_zero():
    """The logit is column - 10.25 in cells of 4 px, cell centres at (column + 0.5) * 4: zero at x = 43 px."""
    prototypes = np.broadcast_to(np.arange(40, dtype=np.float32) - 10.25, (1, 40, 40))
    box = np.array([[0, 5, 160, 8]], np.float32)
    masks = decode_masks(prototypes, np.array([[1]], np.float32), box, Letterbox.fit((160, 160), (160, 160)))
    np.testing.assert_array_equal(masks.spans, [[5, 43, 160], [6, 43, 160], [7, 43, 160]])
    masks = decode_masks(prototypes, np.array([[-1]], np.float32), box, Letterbox.fit((160, 160), (160, 160)))
    np.testing.assert_array_equal(masks.spans, [[5, 0, 43], [6, 0, 43], [7, 0, 43]])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_numbers_spoil_only_their_surroundings(value):
    shape, net = (160, 160), (160, 160)
    prototypes, coefficients, _ = random_case(3, shape, net, 4, True)
    boxes = np.tile(np.float32([0, 0, 160, 160]), (4, 1))
    clean = decode_masks(prototypes, coefficients, boxes, Letterbox.fit(shape, net)).dense()
    prototypes[:, 20, 20] = value  # around pixel 82, 82
    masks = decode_masks(prototypes, coefficients, boxes, Letterbox.fit(shape, net)).dense()
    masks[:, 78:86, 78:86] = clean[:, 78:86, 78:86]
    np.testing.assert_array_equal(masks, clean)


def test_arrays_that_do_not_fit_are_refused_with_numbers():
    letterbox = Letterbox.fit((100, 100), (160, 160))
    boxes, coefficients = np.zeros((2, 4), np.float32), np.zeros((2, 8), np.float32)
    with pytest.raises(ValueError, match=r"coefficients: expected \(2, 9\), got \(2, 8\)"):
        decode_masks(np.zeros((9, 40, 40), np.float32), coefficients, boxes, letterbox)
    with pytest.raises(ValueError, match="prototypes: 40x39 does not divide the network's 160x160"):
        decode_masks(np.zeros((8, 39, 40), np.float32), coefficients, boxes, letterbox)


@settings(max_examples=60, deadline=None)
@given(shape=st.tuples(st.integers(1, 900), st.integers(1, 900)), net=st.sampled_from([*NETS, (480, 640)]))
def test_the_letterbox_is_the_references_and_is_undone_exactly(shape, net):
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    letterbox = Letterbox.fit(shape, net)
    tensor = letterbox.blank()
    letterbox.write(color, tensor)
    np.testing.assert_array_equal(tensor, network_input(color, net))
    height, width = scaled_size(shape, net)
    left, top = letterbox.left, letterbox.top
    whole = np.array([[left, top, left + width, top + height]], np.float32)  # the scaled image in the network
    np.testing.assert_allclose(letterbox.to_image(whole), [[0, 0, shape[1], shape[0]]], rtol=1e-6)
    outside = np.array([[-1e6, -5, 1e6, 1e30]], np.float32)
    np.testing.assert_array_equal(letterbox.to_image(outside), [[0, 0, shape[1], shape[0]]])


def test_a_free_input_size_shrinks_to_whole_strides_around_the_image():
    letterbox = Letterbox.fit((720, 1280), (640, 640), multiple=32)
    assert (letterbox.net_height, letterbox.net_width) == (384, 640)
    assert (letterbox.top, letterbox.left, letterbox.scaled_height, letterbox.scaled_width) == (12, 0, 360, 640)
