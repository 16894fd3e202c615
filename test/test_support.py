# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Support surfaces of scenes with known tables, floors, walls and shelves."""

import numpy as np
import pytest
from box_world import ROOM, Box, camera, look, seen, table
from numpy.testing import assert_allclose, assert_array_equal

from seg_perception.geometry import invert, ray_table
from seg_perception.masks import Masks
from seg_perception.scene import Intrinsics, Plane
from seg_perception.support import SupportConfig, find_supports, support_under
from seg_perception.surfaces.depth_cells import fit_depth_cells

CONFIG = SupportConfig()
CAN = Box((0.1, 0.0, 0.0), (0.07, 0.07, 0.12), 1)


def assert_is_table(plane: Plane, T_world_camera: np.ndarray, height: float = 0.0, tolerance: float = 2e-3) -> None:
    """The plane is z = `height` of the world to within `tolerance` m around the table's middle, its normal up."""
    world = plane.transformed(T_world_camera)
    assert_allclose(world.normal, [0, 0, 1], atol=5e-3)
    assert_allclose(world.heights([[0.0, 0.0, height], [0.2, 0.2, height], [-0.2, -0.2, height]]), 0, atol=tolerance)


@pytest.mark.parametrize("noise", [0.0, 0.0015])
@pytest.mark.parametrize(
    "eye",
    [(0.0, -0.75, 0.55), (0.0, -1.2, 0.4), (0.3, -0.3, 0.9), (0.0, -0.02, 1.0)],
    ids=["near", "flat", "steep", "top"],
)
def test_the_table_is_the_support_and_the_floor_never(eye, noise):
    T = camera(eye)
    frame, _ = look((*ROOM, table(), CAN), T, noise=noise)
    found = find_supports(frame, CONFIG)
    assert_is_table(found[0], T)
    for plane in found:  # no plane is the floor's, 0.75 m below
        assert plane.transformed(T).heights([0.0, 0.0, -0.75]) < -0.3


def test_a_small_table_before_a_large_floor():
    T = camera((0.0, -0.5, 0.8))
    frame, _ = look((*ROOM, table(size=(0.3, 0.25)), CAN), T, noise=0.001)
    cells_of_floor = (frame.depth > 1.2).mean()
    assert cells_of_floor > 0.5
    assert_is_table(find_supports(frame, CONFIG)[0], T)


def test_the_floor_when_asked_for_or_alone():
    T = camera((0.0, -0.9, 0.5), (0.0, 0.0, -0.75))
    frame, _ = look((*ROOM, Box((0.1, 0.3, -0.75), (0.2, 0.2, 0.2), 1)), T)
    assert_is_table(find_supports(frame, CONFIG)[0], T, height=-0.75)
    T = camera((0.0, -0.9, 1.0))
    both, _ = look((*ROOM, table()), T)
    heights = sorted(p.transformed(T).d for p in find_supports(both, SupportConfig(floor_gap=0.0)))
    assert_allclose(heights, [0.0, 0.75], atol=3e-3)


def test_two_tables_and_a_shelf():
    boxes = (
        *ROOM,
        table(size=(0.6, 0.8), at=(-0.4, 0.0)),
        table(-0.2, (0.6, 0.8), (0.4, 0.0)),
        table(0.3, (0.8, 0.25), (0.0, 0.7)),
    )
    T = camera((0.0, -1.0, 0.9))
    frame, _ = look(boxes, T, noise=0.001)
    heights = sorted(-p.transformed(T).d for p in find_supports(frame, CONFIG))
    assert_allclose(heights, [-0.2, 0.0, 0.3], atol=3e-3)


def test_a_box_top_is_no_support_but_a_podium_is():
    T = camera((0.0, -0.9, 0.8))
    small, _ = look((table(), Box((0.0, 0.1, 0.0), (0.3, 0.2, 0.1), 1)), T)
    assert_allclose([p.transformed(T).d for p in find_supports(small, CONFIG)], [0], atol=2e-3)
    large, _ = look((table(size=(1.6, 1.2)), Box((0.0, 0.1, 0.0), (0.8, 0.5, 0.1), 1)), T)
    assert_allclose(sorted(-p.transformed(T).d for p in find_supports(large, CONFIG)), [0, 0.1], atol=2e-3)


@pytest.mark.parametrize("roll", [0, 20, 180])
def test_the_camera_may_be_turned_and_gravity_may_be_known(roll):
    T = camera(roll=roll)
    frame, _ = look((*ROOM, table(), CAN), T)
    gravity = T[:3, :3].T @ [0.0, 0.0, -1.0]
    assert_is_table(find_supports(seen(frame, gravity=gravity), CONFIG)[0], T)
    if roll < 90:
        assert_is_table(find_supports(frame, CONFIG)[0], T)


def test_gravity_decides_between_table_and_wall():
    T = camera((0.0, 0.5, 0.3), (0.0, 1.6, -0.1))  # mostly wall
    frame, _ = look((*ROOM, table(size=(1.2, 2.2), at=(0.0, 0.5))), T)
    gravity = T[:3, :3].T @ [0.0, 0.0, -1.0]
    for known in (None, gravity):
        planes = find_supports(seen(frame, gravity=known), CONFIG)
        assert_is_table(planes[0], T)
        assert len(planes) == 1


@pytest.mark.parametrize("size", [(320, 240), (848, 480), (1280, 720)])
def test_other_resolutions(size):
    focal = 0.9 * size[0]
    T = camera()
    frame, _ = look((*ROOM, table(), CAN), T, Intrinsics(*size, focal, focal, size[0] / 2, size[1] / 2), 0.001)
    assert_is_table(find_supports(frame, CONFIG)[0], T)


def test_a_lens_with_distortion():
    lens = Intrinsics(640, 480, 570.0, 570.0, 319.5, 239.5, (0.12, -0.25, 0.001, -0.0005, 0.08))
    T = camera()
    frame, _ = look((*ROOM, table(), CAN), T, lens)
    assert_is_table(find_supports(frame, CONFIG)[0], T)


def test_masks_are_not_surfaces():
    T = camera((0.0, -0.5, 0.5))
    frame, labels = look((table(size=(0.5, 0.4)), Box((0.0, 0.0, 0.0), (0.46, 0.36, 0.15), 1)), T)
    masks = Masks.from_label_image(labels)
    planes = find_supports(frame, SupportConfig(max_size=0.2), masks)
    assert_allclose([p.transformed(T).d for p in planes], [0], atol=3e-3)


LENS = (0.12, -0.25, 0.001, -0.0005, 0.08)


@pytest.mark.parametrize("distortion", [(), LENS], ids=["straight", "lens"])
@pytest.mark.parametrize("width", [320, 640, 1280])
def test_cells_of_depth_are_planes_along_the_rays(width, distortion):
    k = Intrinsics(width, width * 3 // 4, 0.9 * width, 0.9 * width, width / 2, width * 3 / 8, distortion)
    rays = ray_table(k)
    a, b, c = 0.3, 0.5, 1.1  # 1/z = a x + b y + c
    w = rays[..., 0] * a + rays[..., 1] * b + c
    depth = (1 / w).astype(np.float32)
    shape = depth.shape
    hidden, ignored = np.zeros((2, *shape), bool)
    hidden[: shape[0] // 3, : width // 4] = True
    ignored[-shape[0] // 3 :, : width // 4] = True
    step = shape[0] // 2 + width // 160
    depth[step:, width // 2 :] += 0.1  # through the middle of cells
    depth[: shape[0] // 4, width // 2 :: 5] = np.nan
    masks = Masks.from_dense(hidden[None])
    cells = fit_depth_cells(depth, k, masks, ignored, 0.2, 3.0)
    v, u = np.indices(cells.rms.shape) * cells.size + cells.size // 2
    known = np.isfinite(cells.rms)
    assert_array_equal(known, ~(hidden | ignored)[v, u])
    before = known & (u + cells.size < width // 2)  # of the step
    tolerance = 2e-5 if distortion else 2e-6  # within a cell the lens is taken as straight
    x, y, w, gx, gy = np.moveaxis(cells.planes[before], -1, 0)
    assert_allclose(w, a * x + b * y + c, atol=10 * tolerance)
    assert_allclose(np.median([gx, gy], axis=1), [a, b], rtol=2e-3)
    assert_allclose(x, rays[v, u, 0][before], atol=1.1 * cells.side)
    assert cells.rms[before].max() < 10 * tolerance
    edge = (v == step) & (u > width // 2 + cells.size)
    assert edge.sum() > 30
    assert cells.rms[edge].min() > 0.01  # nothing that is taken for a plane
    fifth = known & (v < shape[0] // 4 - cells.size) & (u > width // 2 + cells.size)
    assert_allclose(cells.planes[fifth][:, 2], cells.planes[fifth][:, :2] @ [a, b] + c, atol=10 * tolerance)


def test_nothing_to_find():
    frame, _ = look((*ROOM, table()), camera())
    assert find_supports(frame, SupportConfig(max_supports=0)) == ()
    assert find_supports(seen(frame, depth=None), CONFIG) == ()
    assert find_supports(seen(frame, intrinsics=None), CONFIG) == ()
    for value in (np.nan, 0.0, np.inf, -np.inf, 100.0):
        assert find_supports(seen(frame, depth=np.full_like(frame.depth, value)), CONFIG) == ()
    rough = np.random.default_rng(0).uniform(0.5, 2.0, frame.depth.shape).astype(np.float32)
    assert find_supports(seen(frame, depth=rough), CONFIG) == ()


def test_masks_of_another_size_are_refused():
    frame, labels = look((table(), CAN), camera())
    with pytest.raises(ValueError, match="masks: expected 480x640 like the image, got 240x320"):
        find_supports(frame, CONFIG, Masks.from_label_image(labels[::2, ::2]))


def test_the_robot_is_ignored():
    T = camera()
    frame, labels = look((table(), Box((0.0, 0.0, 0.25), (0.9, 0.4, 0.05), 9)), T)
    planes = find_supports(seen(frame, ignore=labels == 9), CONFIG)
    assert_allclose([p.transformed(T).d for p in planes], [0], atol=2e-3)


def test_which_support_an_object_stands_on():
    T = camera()
    T_camera_world = invert(T)
    planes = [Plane(np.array([0.0, 0.0, 1.0]), -h).transformed(T_camera_world) for h in (0.0, 0.3, 0.32)]

    def column(low: float, high: float) -> np.ndarray:
        world = np.column_stack([np.zeros(50), np.zeros(50), np.linspace(low, high, 50)])
        return world @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]

    assert support_under(column(0.0, 0.1), planes) == 0
    assert support_under(column(0.1, 0.25), planes) == 0  # its foot is hidden
    assert support_under(column(0.305, 0.4), planes) == 1
    assert support_under(column(0.32, 0.5), planes) == 2
    assert support_under(column(0.9, 1.0), planes) == -1
    assert support_under(column(-0.2, 0.0), planes) == -1
    assert support_under(np.empty((0, 3)), planes) == -1
    assert support_under(column(0.0, 0.1), []) == -1
