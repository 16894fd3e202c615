# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Pairing by stamp, with a clock that the test turns."""

from __future__ import annotations

import numpy as np
import pytest

from seg_perception.ros.sync import HOLD, KEEP, Pair, Pairer, Stamped

MS = 1_000_000  # ns


class Camera:
    """Feeds a pairer; times in ms, arrival a little after the stamp unless told."""

    def __init__(self, slop: float = 0.02, grace: float = 1.0, depth_expected: bool = True) -> None:
        self.pairer = Pairer(slop, grace, depth_expected)

    def color(self, stamp: float, at: float | None = None) -> list[tuple]:
        return told(
            self.pairer.add_color(Stamped(round(stamp * MS), f"c{stamp:g}", (stamp if at is None else at) / 1e3))
        )

    def depth(self, stamp: float, at: float | None = None) -> list[tuple]:
        return told(
            self.pairer.add_depth(Stamped(round(stamp * MS), f"d{stamp:g}", (stamp if at is None else at) / 1e3))
        )

    def poll(self, at: float) -> tuple[list[tuple], float | None]:
        pairs, again = self.pairer.poll(at / 1e3)
        return told(pairs), again


def told(pairs: list[Pair]) -> list[tuple]:
    return [(p.color.message, p.depth.message if p.depth else None) for p in pairs]


def test_equal_stamps_pair_at_once_whatever_comes_first() -> None:
    camera = Camera()
    assert camera.color(0) == []
    assert camera.depth(0, at=3) == [("c0", "d0")]
    assert camera.depth(33) == []
    assert camera.color(33, at=40) == [("c33", "d33")]
    assert camera.pairer.pairs == 2
    assert not camera.pairer.dropped


def test_an_exact_stamp_beats_a_near_one() -> None:
    camera = Camera()
    camera.depth(95, at=100)
    assert camera.color(100) == []  # d95 would do, but a nearer one may come
    assert camera.depth(100, at=104) == [("c100", "d100")]
    assert camera.pairer.dropped["depth image without color"] == 1  # d95


def test_the_nearest_within_slop_once_no_nearer_can_come() -> None:
    camera = Camera()
    camera.depth(92, at=93)
    assert camera.color(100) == []
    assert camera.depth(103) == [("c100", "d103")]  # stamps only grow: this is the nearest


def test_the_nearest_earlier_one_when_nothing_later_comes() -> None:
    camera = Camera()
    camera.depth(92, at=93)
    camera.color(100)
    pairs, again = camera.poll(110)
    assert pairs == []
    assert again == pytest.approx(0.120)  # s, when the slop has passed since it came
    assert camera.poll(120.1)[0] == [("c100", "d92")]


def test_beyond_slop_nothing_pairs_and_the_delta_is_known() -> None:
    camera = Camera()
    for k in range(5):
        camera.depth(50 + 100 * k)
        assert camera.color(100 + 100 * k) == []
    assert abs(camera.pairer.last_delta_ns) == 50 * MS
    assert camera.pairer.pairs == 0


def test_the_newest_pair_wins_and_older_ones_are_counted() -> None:
    camera = Camera()
    for k in range(4):
        camera.color(100 * k)
    assert camera.depth(300) == [("c300", "d300")]
    assert camera.pairer.dropped == {"color image without depth": 3}
    assert camera.depth(100, at=310) == []  # its color is gone
    assert camera.color(400) == []
    assert camera.depth(400) == [("c400", "d400")]


def test_memory_is_bounded() -> None:
    camera = Camera()
    for k in range(1000):
        camera.color(30 * k, at=0)
    assert len(camera.pairer._colors) == KEEP
    assert camera.pairer.dropped["color image without depth"] == 1000 - KEEP


def test_without_depth_color_goes_on_alone_after_the_grace() -> None:
    camera = Camera(grace=1.0)
    alone = []
    for stamp in range(0, 2000, 100):
        alone += camera.color(stamp)
        alone += camera.poll(stamp + HOLD * 1000 + 1)[0]
    assert [c for c, _ in alone] == [f"c{s}" for s in range(900, 2000, 100)]  # c900 when c1000 came
    assert {d for _, d in alone} == {None}


def test_late_depth_ends_going_alone() -> None:
    """Depth that takes longer than the hold to come is waited for again once it is seen to match."""
    camera = Camera(grace=1.0)
    for stamp in range(0, 1500, 100):
        camera.color(stamp)
        camera.poll(stamp + HOLD * 1000 + 1)
    assert camera.depth(1400, at=1490) == []  # c1400 went out alone
    assert camera.color(1500) == []
    assert camera.poll(1500 + HOLD * 1000 + 1)[0] == []
    assert camera.depth(1500, at=1590) == [("c1500", "d1500")]


def test_color_alone_where_no_depth_is_expected() -> None:
    camera = Camera(depth_expected=False)
    assert camera.color(0) == [("c0", None)]


def test_stamps_that_jump_back_begin_anew() -> None:
    camera = Camera()
    camera.color(100_000, at=0)
    assert camera.color(10, at=33) == []
    assert camera.depth(10, at=40) == [("c10", "d10")]
    assert camera.pairer.dropped["stamps jumped back"] == 1


def test_a_drifting_camera_keeps_pairing_within_slop() -> None:
    """Color at 30 Hz, depth at 29.9 Hz with jitter: every pair is within slop, and each image is used once."""
    rng = np.random.default_rng(0)
    color = [("color", t) for t in np.arange(0, 20_000, 1000 / 30)]
    depth = [("depth", t + rng.uniform(-3, 3)) for t in np.arange(7, 20_000, 1000 / 29.9)]
    camera, pairs = Camera(), []
    for kind, stamp in sorted(color + depth, key=lambda item: item[1]):
        pairs += getattr(camera, kind)(stamp)
        pairs += camera.poll(stamp + 5)[0]
    assert len(pairs) > 0.9 * len(depth)
    gaps = [abs(float(c[1:]) - float(d[1:])) for c, d in pairs if d]
    assert max(gaps) <= 20.001
    for side in zip(*pairs, strict=True):
        assert len(set(side)) == len(side)
