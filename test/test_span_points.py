# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Points straight from runs and depth, against NumPy on dense masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from seg_perception.geometry import unproject
from seg_perception.masks import Masks
from seg_perception.scene import Intrinsics
from seg_perception.span_points import points_under

PINHOLE = Intrinsics(64, 48, 60.0, 61.0, 31.3, 24.8)
BENT = Intrinsics(64, 48, 60.0, 61.0, 31.3, 24.8, (0.1, -0.05, 0.001, 0.002, 0.01))


def scene(seed, count=3, share=0.5, holes=0.1):
    rng = np.random.default_rng(seed)
    dense = rng.uniform(size=(count, 48, 64)) < share
    depth = rng.uniform(0.5, 1.5, (48, 64)).astype(np.float32)
    depth[rng.uniform(size=depth.shape) < holes] = rng.choice([np.nan, 0.0, np.inf, -np.inf, -1.0])
    color = rng.integers(0, 256, (48, 64, 3), np.uint8)
    return dense, depth, color


def reference(dense, depth, intrinsics, near, far):
    with np.errstate(invalid="ignore"):
        rows, columns = np.nonzero(dense & (depth >= near) & (depth <= far))
    return rows, columns, unproject(intrinsics, np.stack([columns, rows], axis=1), depth[rows, columns])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 4),
    st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.sampled_from([PINHOLE, BENT]),
)
def test_points_and_moments_are_those_of_dense_masks(seed, count, share, holes, intrinsics):
    dense, depth, color = scene(seed, count, share, holes)
    found = points_under(Masks.from_dense(dense), depth, intrinsics, color, near=0.6, far=1.4)
    assert len(found.means) == count
    for i in range(count):
        rows, columns, truth = reference(dense[i], depth, intrinsics, np.float32(0.6), np.float32(1.4))
        assert_allclose(found.of(i), truth, atol=2e-6)
        assert_array_equal(found.colors[found.offsets[i] : found.offsets[i + 1]], color[rows, columns])
        if len(truth):
            assert_allclose(found.means[i], truth.mean(axis=0), atol=1e-6)
            assert_allclose(found.covariances[i], np.cov(truth.T, bias=True).reshape(3, 3), atol=1e-6)
        else:
            assert not found.means[i].any()


def test_moments_of_a_thin_sheet_are_exact():
    """A plane one millimetre thick, 0.9 m away: the sums must not drown it."""
    rng = np.random.default_rng(0)
    depth = (0.9 + rng.normal(0, 0.001, (480, 640))).astype(np.float32)
    intrinsics = Intrinsics(640, 480, 600.0, 600.0, 319.5, 239.5)
    dense = np.ones((1, 480, 640), bool)
    found = points_under(Masks.from_dense(dense), depth, intrinsics)
    truth = found.points.astype(np.float64)
    assert_allclose(found.means[0], truth.mean(axis=0), atol=1e-7)
    assert_allclose(found.covariances[0], np.cov(truth.T, bias=True), rtol=2e-4, atol=2e-8)
    assert found.covariances[0][2, 2] == pytest.approx(1e-6, rel=0.02)


def test_nothing_and_misfits():
    dense, depth, color = scene(0)
    empty = points_under(Masks.empty(48, 64, 2), depth, PINHOLE)
    assert (len(empty.points), len(empty.colors), empty.offsets.tolist()) == (0, 0, [0, 0, 0])
    masks = Masks.from_dense(dense)
    with pytest.raises(ValueError, match=r"depth: expected \(48, 64\)"):
        points_under(masks, depth[1:], PINHOLE)
    with pytest.raises(ValueError, match=r"color: expected \(48, 64, 3\)"):
        points_under(masks, depth, PINHOLE, color[1:])
    assert len(points_under(masks, depth, PINHOLE).colors) == 0
