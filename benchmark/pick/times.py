#!/usr/bin/env python3
# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How long planning takes in clutter, one thread: from depth and mask, the planner alone, and eight objects of a frame.

OMP_NUM_THREADS=1 benchmark/pick/times.py --scenes 20
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from seg_perception.config import load_config
from seg_perception.fusion import fuse
from seg_perception.grasping import plan_grasps
from seg_perception.grasping.gripper import load_jaws
from seg_perception.grasping.surroundings import scene_points
from seg_perception.masks import Masks
from seg_perception.pipeline import Pipeline, gravity_of
from seg_perception.plugins import GraspPlanner
from seg_perception.scene import Frame, GraspPlan, Instances
from seg_perception.sim.picking.scenes import make_scene
from seg_perception.support import SupportConfig, find_supports

IN_A_FRAME = 8
TRIES = 3  # the quickest counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=20, help="clutter scenes of development seeds")
    parser.add_argument("--first", type=int, default=4100, help="seed")
    parser.add_argument("--planner", default="antipodal")
    options = parser.parse_args()
    pipeline = Pipeline.from_config(load_config(overrides=[f"grasping.planners=[{options.planner}]"]))
    pipeline.warm_up()
    (planner,) = pipeline.planners
    kind = "suction" if options.planner == "suction" else "parallel"
    alone: list[float] = []
    whole: list[float] = []
    fused: list[float] = []
    frames: list[float] = []
    for seed in range(options.first, options.first + options.scenes):
        picture = make_scene("clutter", seed, load_jaws("robotiq_2f_85"))
        if picture is None:
            continue
        frame = picture.view.frame
        masks = Masks.from_label_image(picture.view.labels, len(picture.world.things))
        scene = pipeline.complete(frame, Instances.of(masks), grasps=False)
        points, dense = scene_points(frame, masks), masks.dense()
        supports = find_supports(frame, SupportConfig(), masks)
        for row in picture.targets:
            obj = scene.objects[row]
            down = gravity_of(frame, obj.support or scene.support)
            ask: Any = (frame.depth, dense[row], frame.intrinsics, down)
            whole.append(quickest(lambda ask=ask: plan_grasps(*ask, kind=kind)))
            one: Any = (planner, frame, Masks.from_dense(dense[row : row + 1]), supports, down)
            fused.append(quickest(lambda one=one: fuse_and_plan(*one)))
            asked: Any = (obj, points.without(row), down, obj.support)
            alone.append(quickest(lambda asked=asked: planner.plan(*asked)))
        seen = [row for row, obj in enumerate(scene.objects) if obj.status.has_3d][:IN_A_FRAME]
        if len(seen) == IN_A_FRAME:
            frames.append(quickest(lambda scene=scene, seen=seen: pipeline.plan(scene, seen)))
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {len(alone)} objects, {options.planner}")
    for name, times in (
        ("the planner alone", alone),
        ("from depth and mask, the frame's support known", fused),
        ("from depth and mask, the support searched for each time", whole),
        (f"{IN_A_FRAME} objects of a frame, {len(frames)} frames", frames),
    ):
        if times:
            print(f"{name}: median {np.median(times):.1f} ms, p95 {np.percentile(times, 95):.1f} ms")


def fuse_and_plan(planner: GraspPlanner, frame: Frame, masks: Masks, supports: Any, down: Any) -> GraspPlan:
    (obj,) = fuse(frame, Instances.of(masks), None, supports)
    return planner.plan(obj, scene_points(frame, masks).without(0), down, obj.support)


def quickest(call: Callable[[], Any]) -> float:
    """ms of wall time."""
    best = np.inf
    for _ in range(TRIES):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return 1000 * best


if __name__ == "__main__":
    main()
