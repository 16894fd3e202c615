# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Thinned clouds: how many of each object, and that they lie evenly over what the camera sees of it."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.spatial import cKDTree

from seg_perception.ros.thinning import evenly, fair_share, one_per_cell

H, W, F = 300, 400, 500.0  # px
V, U = np.mgrid[:H, :W]
SHAPES = {
    "box": (U >= 20) & (U < 109) & (V >= 30) & (V < 250),  # 89 columns, a Fibonacci number
    "wide box": (U >= 5) & (U < 395) & (V >= 100) & (V < 200),
    "ring": ((U - 200) ** 2 + (V - 150) ** 2 < 140**2) & ((U - 220) ** 2 + (V - 150) ** 2 > 50**2),
    "leaning pole": (np.abs(U - 100 - V // 3) < 6),
    "holes": (U > 20) & (U < 380) & ((3 * U + 5 * V) % 97 > 20),
}


def pixels_and_points(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M, 2) px and (M, 3) m of a mask on a slanted plane."""
    v, u = np.nonzero(mask)
    z = 0.8 + 0.001 * v + 0.0005 * u
    points = np.stack([(u - 199.5) / F * z, (v - 149.5) / F * z, z], axis=1)
    return np.stack([u, v], axis=1), points.astype(np.float32)


@pytest.mark.parametrize("per_point", [1.3, 2.0, 3.4, 8.0, 21.0, 60.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_points_kept_lie_evenly_in_the_image(shape: str, per_point: float) -> None:
    pixels, points = pixels_and_points(SHAPES[shape])
    count = int(len(points) / per_point)
    chosen = evenly(points, count, F, F)
    assert len(chosen) == count
    assert (np.diff(chosen) > 0).all()  # each once
    assert 0 <= chosen[0] <= chosen[-1] < len(points)
    assert_array_equal(chosen, evenly(points, count, F, F))
    kept = pixels[chosen]
    spacing = np.sqrt(per_point)
    to_kept = cKDTree(kept).query(pixels)[0]
    gaps = min(row.sum() for row in SHAPES[shape] if row.any()) < per_point or shape == "holes"
    assert np.percentile(to_kept, 99) <= (1.5 if gaps else 1.3) * spacing  # no stripes without points
    apart = cKDTree(kept).query(kept, 2)[0][:, 1]
    assert np.median(apart) >= (0.45 if gaps else 0.7) * spacing  # no lines of points
    for half in (pixels[:, 0] < np.median(pixels[:, 0]), pixels[:, 1] < np.median(pixels[:, 1])):
        assert abs(half[chosen].mean() - half.mean()) < 0.03


def test_all_are_kept_where_they_are_few() -> None:
    _, points = pixels_and_points(SHAPES["leaning pole"])
    for count in (len(points), len(points) + 1, 10 * len(points)):
        assert_array_equal(evenly(points, count, F, F), np.arange(len(points)))
    assert len(evenly(points[:0], 5, F, F)) == 0
    assert len(evenly(points, 0, F, F)) == 0


@pytest.mark.parametrize("count", [1, 2, 7, 499, 998, 999])
def test_points_in_no_order_are_thinned_all_the_same(count: int) -> None:
    rng = np.random.default_rng(count)
    points = rng.uniform(-1, 1, (1000, 3)).astype(np.float32)
    points[::7] = np.nan
    points[::5, 2] = 0
    points[::11] = 0
    chosen = evenly(points, count, F, F)
    assert len(set(chosen.tolist())) == count
    assert 0 <= chosen.min() <= chosen.max() < 1000


@pytest.mark.parametrize(
    ("counts", "total", "given"),
    [
        ([10, 20, 30], 60, [10, 20, 30]),
        ([10, 20, 30], 50, [10, 20, 20]),
        ([30, 10, 20], 34, [12, 10, 12]),
        ([100, 100, 100], 100, [33, 33, 33]),
        ([1, 1000, 0], 11, [1, 10, 0]),
        ([5, 5], 1, [0, 0]),
        ([], 10, []),
    ],
)
def test_small_objects_keep_theirs_longest(counts: list[int], total: int, given: list[int]) -> None:
    share = fair_share(counts, total)
    assert [min(count, share) for count in counts] == given
    assert sum(given) <= total


def test_one_point_of_each_cell() -> None:
    points = np.array([[0, 0, 1], [0.001, 0, 1], [0.012, 0, 1], [0.012, 0.001, 1], [0.03, 0, 1]], np.float32)
    assert_array_equal(one_per_cell(points, 0.01), [0, 2, 4])
    assert len(one_per_cell(points[:0], 0.01)) == 0
