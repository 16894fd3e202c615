# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""pick_example over real DDS: two things leave a simulated table, and a hand without a world's reset does it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="mujoco is not installed")

from seg_perception.geometry import transform
from seg_perception.grasping.gripper import load_jaws
from seg_perception.sim.picking.hand import Hand
from seg_perception.sim.picking.things import Thing, box
from seg_perception.sim.picking.world import World

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "pick_example"
DOWN = np.diag([1.0, -1.0, -1.0])


def start(*parameters: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), "--ros-args"]
    for parameter in parameters:
        command += ["-p", parameter]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(1 + int(os.environ.get("ROS_DOMAIN_ID", "0")) % 100)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_two_things_are_picked_and_the_next_picture_is_without_them() -> None:
    process = start("things:=3", "picks:=2", "seed:=1")
    text, _ = process.communicate(timeout=240)
    assert process.returncode == 0, text
    lines = [line for line in text.splitlines() if not line.startswith(("[INFO]", "\x1b", "waiting"))]
    steps = [line.partition(":")[0] for line in lines]
    one_pick = ["segment_once", "get_grasps", "pre-grasp", "grasp", "lift"]
    assert [s for s in steps if s in one_pick] == 2 * one_pick, text
    found, truth = np.array(re.findall(r"segment_once: (\d+) objects.* in truth (\d+) things", text), int).T
    assert truth.tolist() == [3, 2]
    assert found[1] < found[0]  # a mug's handle may count as a thing of its own
    assert lines[-1] == "picked 2 of 2"


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("things:=0", "error: things: expected 1 to 20, got 0"),
        ("gripper:=robotiq", "error: no gripper 'robotiq' (known:"),
        ("gripper:=suction_16", "error: gripper 'suction_16': expected parallel jaws"),
    ],
)
def test_it_says_in_a_line_why_it_cannot_start(parameter: str, words: str) -> None:
    text, _ = (process := start(parameter)).communicate(timeout=60)
    assert process.returncode == 1
    assert words in text
    assert "Traceback" not in text


def test_a_signal_ends_it_and_its_node() -> None:
    process = start("things:=1", "start_node:=false")
    time.sleep(4.0)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Traceback" not in text
    assert "picked 0 of 1" in text


# -- the hand ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def world() -> World:
    """A block of 4 x 4 x 6 cm at the origin and another 20 cm beside it."""
    block = Thing("block", (box((0.04, 0.04, 0.06)),))
    made = World([block, block], load_jaws("robotiq_2f_85"))
    for i in range(2):
        made.place(i, transform(translation=[0.2 * i, 0.0, 0.03]))
    made.step(0.2)
    made.rest = made.state()
    return made


def test_the_hand_lifts_what_is_between_its_fingers_and_only_that(world: World) -> None:
    hand = Hand(world)
    hand.appear(transform(DOWN, [0.0, 0.0, 0.15]), 0.08)
    hand.move(np.array([0.0, 0.0, 0.03]))
    assert hand.held() is None
    hand.close()
    assert hand.held() == 0
    hand.move(np.array([0.0, 0.0, 0.18]))
    assert hand.held() == 0
    assert world.pose(0)[2, 3] == pytest.approx(0.18, abs=0.01)
    assert world.pose(1)[:3, 3] == pytest.approx([0.2, 0.0, 0.03], abs=1e-3)
    hand.park(taken=0)
    assert world.pose(0)[0, 3] > 1.0  # in the bin
    assert world.pose(1)[:3, 3] == pytest.approx([0.2, 0.0, 0.03], abs=1e-3)
    hand.appear(transform(DOWN, [0.2, 0.0, 0.15]), 0.08)
    world.reset()
    assert world.pose(0)[0, 3] > 1.0  # what a pick left behind is the new rest


def test_beside_it_there_is_nothing_to_hold(world: World) -> None:
    hand = Hand(world)
    hand.appear(transform(DOWN, [0.1, 0.0, 0.15]), 0.08)
    hand.move(np.array([0.1, 0.0, 0.03]))
    hand.close()
    assert hand.held() is None
    hand.move(np.array([0.1, 0.0, 0.18]))
    assert hand.held() is None
