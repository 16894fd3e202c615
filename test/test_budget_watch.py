# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Planning that does not reach all objects of the stream's frames is named, and not for a single slow frame."""

from __future__ import annotations

import numpy as np

from seg_perception.ros.budget import BudgetWatch
from seg_perception.ros.reports import Reports
from seg_perception.scene import Frame, GraspStatus, Instances, Object3D, Scene, Status


def scene(reached: int, objects: int) -> Scene:
    frame = Frame(np.zeros((4, 4, 3), np.uint8))
    instances = Instances.from_masks(np.ones((objects, 4, 4), bool), np.ones(objects))
    done = [Object3D(Status.NO_VALID_DEPTH, grasp_status=GraspStatus.NO_3D)] * reached
    late = [Object3D(Status.NO_VALID_DEPTH, grasp_status=GraspStatus.BUDGET)] * (objects - reached)
    return Scene(frame, instances, (*done, *late))


def test_a_budget_that_is_too_small_is_said_after_several_frames_and_until_it_suffices() -> None:
    reports = Reports(lambda line: None)
    watch = BudgetWatch(reports)
    watch.look(scene(4, 12), 0.05)
    watch.look(scene(5, 12), 0.05)
    assert reports.current("grasping") == ""
    watch.look(scene(7, 12), 0.05)
    assert reports.current("grasping").startswith("grasping.budget 0.05 s reaches 4 of 12 objects: raise it")
    watch.look(scene(12, 12), 0.05)
    assert reports.current("grasping")  # one quick frame does not end it
    for _ in range(8):
        watch.look(scene(12, 12), 0.05)
    assert reports.current("grasping") == ""
    for _ in range(30):  # now and then a slow one
        watch.look(scene(12, 12), 0.05)
        assert reports.current("grasping") == ""
    watch.look(scene(11, 12), 0.05)
    assert reports.current("grasping") == ""
