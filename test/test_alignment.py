# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The check that finds depth beside color: on real frames, on rendered ones with a sensor's noise, and shifted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from seg_perception.alignment import REACH, AlignmentCheck, find_shift
from seg_perception.folder import RgbdFolder
from seg_perception.scene import Frame
from seg_perception.sim import SimCamera

DIRECTIONS = ((5, 0), (-5, 0), (0, 5), (0, -5))


def shifted(frame: Frame, x: int, y: int) -> Frame:
    """The frame with its depth moved by whole pixels to the right and down."""
    depth = np.full_like(frame.depth, np.nan)
    h, w = depth.shape
    depth[max(0, y) : h + min(0, y), max(0, x) : w + min(0, x)] = frame.depth[
        max(0, -y) : h + min(0, -y), max(0, -x) : w + min(0, -x)
    ]
    return replace(frame, depth=depth)


def watch(frames: Iterable[Frame]) -> str:
    """What the check says in the end."""
    check = AlignmentCheck()
    for frame in frames:
        check.look(frame)
    return check.problem


def named(problem: str) -> list[float]:
    """x and y px in a problem's text."""
    found = re.search(r"\(x ([+-][\d.]+), y ([+-][\d.]+)\)", problem)
    assert found, problem
    return [float(number) for number in found.groups()]


@pytest.fixture(scope="module")
def real(data_dir: Path) -> dict[str, list[Frame]]:
    return {name: [record.frame for record in RgbdFolder(data_dir / name)] for name in ("mosd", "ycbv")}


@pytest.fixture(scope="module")
def rendered() -> list[Frame]:
    cameras = (SimCamera(640, 480, noise="d435"), SimCamera(640, 480, noise="kinect"), SimCamera(1280, 720))
    return [camera.frame(0).frame for camera in cameras]


@pytest.mark.parametrize("name", ["mosd", "ycbv"])
def test_silent_on_every_real_frame(real: dict[str, list[Frame]], name: str) -> None:
    """A camera at rest sees the same again and again: no scene may look shifted."""
    assert [watch([frame] * 5) for frame in real[name]] == [""] * len(real[name])
    assert watch(real[name]) == ""


@pytest.mark.parametrize("shift", DIRECTIONS)
def test_real_frames_shifted_by_five_pixels(real: dict[str, list[Frame]], shift: tuple[int, int]) -> None:
    found = [named(watch([shifted(frame, *shift)] * 3)) for frame in real["mosd"]]  # each scene alone is enough
    assert np.mean(np.linalg.norm(np.subtract(found, shift), axis=1) < 2.0) > 0.9
    assert_allclose(named(watch(shifted(frame, *shift) for frame in real["mosd"])), shift, atol=1.0)
    if shift != (0, -5):  # depth of these frames lies 2 to 3 px below color as it is
        problem = watch(shifted(frame, *shift) for frame in real["ycbv"] * 2)
        assert_allclose(named(problem), np.add(shift, (0.2, 2.6)), atol=1.0)


def test_silent_on_rendered_frames(rendered: list[Frame]) -> None:
    assert [watch([frame] * 5) for frame in rendered] == [""] * 3


@pytest.mark.parametrize("shift", DIRECTIONS)
def test_rendered_frames_shifted_by_five_pixels(rendered: list[Frame], shift: tuple[int, int]) -> None:
    for frame in rendered:
        assert_allclose(named(watch([shifted(frame, *shift)] * 8)), shift, atol=1.5)


def test_depth_that_is_not_registered_at_all(rendered: list[Frame]) -> None:
    for frame in rendered:
        small = frame.depth[::2, ::2]  # as from a lens with twice the view
        depth = np.full_like(frame.depth, np.nan)
        h, w = small.shape
        depth[h // 2 : h // 2 + h, w // 2 : w // 2 + w] = small
        assert watch([replace(frame, depth=depth)] * 5)


def test_warns_after_three_looks_and_stops_when_mended(rendered: list[Frame]) -> None:
    good, bad = rendered[1], shifted(rendered[1], 7, 0)
    check = AlignmentCheck()
    said = []
    for frame in [bad] * 5 + [good] * 5:
        check.look(frame)
        said.append(bool(check.problem))
    assert said[:4] == [False, False, True, True]
    assert said[-1] is False
    check.look(replace(good, depth=None))
    assert check.problem == ""


def test_says_nothing_where_nothing_can_be_seen(rendered: list[Frame]) -> None:
    frame = shifted(rendered[0], 8, 0)
    rng = np.random.default_rng(0)
    grey = np.clip(128 + 1.6 * rng.standard_normal(frame.color.shape), 0, 255).astype(np.uint8)
    assert watch([replace(frame, color=grey)] * 5) == ""  # white things on a white table
    assert watch([replace(frame, depth=np.full_like(frame.depth, 0.8))] * 5) == ""  # a bare wall
    assert watch([replace(frame, depth=np.full_like(frame.depth, np.nan))] * 5) == ""


def summits(*places: tuple[float, float, float]) -> np.ndarray:
    """A map over shifts with summits at x, y of some height."""
    y, x = np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1]
    heights = np.zeros(x.shape) + sum(h * np.exp(-((x - u) ** 2 + (y - v) ** 2) / 12.5) for u, v, h in places)
    return (0.8 + heights).astype(np.float32)


def test_find_shift() -> None:
    def alike(*places: tuple[float, float, float]) -> np.ndarray:
        return np.stack([summits(*places)] * 4)

    assert_allclose(find_shift(alike((-5, 3, 0.5))), (5, -3), atol=0.1)  # color lies left of and below depth
    assert_allclose(find_shift(alike((1, 0, 0.5), (0, 14, 0.7))), (-1, 0), atol=0.2)  # a parallel edge
    assert_allclose(find_shift(alike((12, 0, 0.5))), (-12, 0), atol=0.1)
    assert find_shift(alike((0, 0, 0.02))) is None


def test_swelling_to_both_sides_is_no_shift() -> None:
    right, left = summits((-3, 0, 1.5)), summits((3, 0, 1.5))  # color's edges lie inside on both sides
    assert_allclose(find_shift(np.stack([right, 0.1 * left, summits(), summits()])), (0, 0), atol=0.2)
    right, left = summits((-3 + 5, 0, 1.5)), summits((3 + 5, 0, 1.5))
    assert_allclose(find_shift(np.stack([right, left, summits(), summits()])), (-5, 0), atol=0.2)
