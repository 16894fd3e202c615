# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From a frame to a scene. Read this file first: it is the whole system in one screen.

frame --segment--> instances --fuse--> objects --track--> ids --smooth--> objects --plan--> grasps --> scene
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.config import Config, load_config
from seg_perception.fusion import fuse
from seg_perception.grasping.planning import pick_order, plan_object
from seg_perception.grasping.surroundings import scene_points
from seg_perception.masks import Masks
from seg_perception.plugins import GraspPlanner, Segmenter, Tracker
from seg_perception.scene import Frame, GraspStatus, Instances, Intrinsics, Object3D, Plane, Scene
from seg_perception.selection import Selection
from seg_perception.smoothing import Smoother
from seg_perception.support import find_supports
from seg_perception.tracking.coasting import with_coasting

OPTICAL_AXIS = np.array([0.0, 0.0, 1.0])


class Pipeline:
    """The stages in order, built from plugins. `segment` and `complete` may run in two threads on two frames."""

    def __init__(
        self, segmenter: Segmenter, tracker: Tracker, planners: Sequence[GraspPlanner], config: Config | None = None
    ) -> None:
        self.segmenter = segmenter
        self.tracker = tracker
        self.planners = tuple(planners)
        self.config = config or Config()
        self._selection = Selection(self.config.selection, self._found_classes)
        self._smoother = Smoother()

    @classmethod
    def from_config(cls, config: Config | Mapping[str, Any]) -> Pipeline:
        """The pipeline a configuration describes; also takes a plain dict. Raises ConfigError, PluginError."""
        tree = config if isinstance(config, Config) else load_config(config)
        planners = [planner.create() for planner in tree.grasping.planners]
        return cls(tree.segmenter.create(), tree.tracker.create(), planners, tree)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class id, as instances have them; empty = not known beforehand."""
        return self._current_selection().class_names

    def process(self, frame: Frame) -> Scene:
        """Everything about one frame."""
        return self.complete(frame, self.segment(frame))

    def segment(self, frame: Frame) -> Instances:
        """The instances of a frame that count, best scores first, at most `max_instances` of them."""
        start = time.perf_counter()
        found = self.segmenter.segment(frame)
        found = self._current_selection().apply(found, frame.depth)
        scores, most = found.scores, self.config.max_instances
        in_order = np.count_nonzero(scores[1:] <= scores[:-1]) == max(len(scores) - 1, 0)
        if len(scores) > most or not in_order:
            found = found[np.argsort(-scores, kind="stable")[:most]]
        return found.timed(time.perf_counter() - start, len(scores) - len(found))

    def complete(self, frame: Frame, instances: Instances, grasps: bool = True, budget: float = 0.0) -> Scene:
        """3D, identity and, unless `grasps` is False, grasps for instances of this frame.

        Planning stops after `budget` seconds (0 = never); objects not reached get GraspStatus.BUDGET.
        """
        clock = Stopwatch({"segment": instances.seconds})
        supports = instances.supports or find_supports(frame, self.config.support, instances.masks)
        clock.lap("support")
        objects = fuse(frame, instances, self.config.fusion, supports)
        clock.lap("fuse")
        ids = self.tracker.update(frame, instances, objects)
        objects = self._smoother.smooth(frame, objects, self.config.smoothing, ids)
        instances, objects = with_coasting(self.tracker, frame, instances, objects, self.config.coast)
        clock.lap("track")
        support = _main_support(objects, supports)
        scene = Scene(frame, instances, tuple(objects), support, clock.laps, getattr(self.segmenter, "model", ""))
        if grasps:
            scene = self.plan(scene, budget=budget)
            scene = replace(scene, objects=tuple(self._smoother.steady(scene.objects, self.config.smoothing)))
            clock.lap("grasp")
        return replace(scene, timings=clock.laps)

    def plan(self, scene: Scene, rows: Sequence[int] | None = None, budget: float = 0.0) -> Scene:
        """The scene with grasps planned for the objects of `rows` (default all), in pick order, within `budget` s."""
        start = time.perf_counter()
        if not self.planners:
            return scene
        objects = list(scene.objects)
        wanted = set(range(len(objects)) if rows is None else rows)
        foreign = scene_points(scene.frame, scene.instances.masks)
        for row in pick_order(scene):
            if row not in wanted:
                continue
            if budget and time.perf_counter() - start > budget:
                objects[row] = replace(
                    objects[row], grasp_status=GraspStatus.BUDGET, grasp_text="over the frame's budget"
                )
                continue
            obj = objects[row]
            down = gravity_of(scene.frame, obj.support or scene.support)
            others = foreign.without(row)
            objects[row] = plan_object(obj, self.planners, others, down, self.config.grasping.max_per_object)
        return replace(scene, objects=tuple(objects))

    def warm_up(self, width: int = 640, height: int = 480) -> None:
        """Compiles and loads what the first frame would otherwise wait for."""
        intrinsics = Intrinsics(width, height, width, width, width / 2, height / 2)
        depth = np.full((height, width), 1.0, np.float32)
        depth[height // 3 : height // 2, width // 3 : width // 2] = 0.9
        bar = np.zeros((height, width), bool)
        bar[:, 2 * width // 3 : 3 * width // 4] = True  # cuts the surface into two pieces, which it takes to join
        frame = Frame(np.zeros((height, width, 3), np.uint8), depth, intrinsics, ignore=bar)
        if hasattr(self.segmenter, "warm_up"):
            self.segmenter.warm_up()
        self.segmenter.segment(frame)
        mask = (depth < 0.95)[None]
        instances = Instances.of(Masks.from_dense(mask))
        warm = Pipeline(self.segmenter, _OneId(), self.planners, self.config)
        warm.complete(frame, instances)
        self.reset()

    @property
    def _found_classes(self) -> tuple[str, ...]:
        return tuple(getattr(self.segmenter, "class_names", ()))

    def _current_selection(self) -> Selection:
        """The selection for the classes that the segmenter finds now: prompts change them."""
        if self._selection.known != self._found_classes:
            self._selection = Selection(self.config.selection, self._found_classes, strict=False)
        return self._selection

    def reset(self) -> None:
        """Forgets what was remembered from earlier frames: objects the segmenter follows, tracks, averages."""
        for stage in (self.segmenter, self.tracker, self._smoother):
            if hasattr(stage, "reset"):
                stage.reset()


def gravity_of(frame: Frame, support: Plane | None) -> NDArray[np.float64]:
    """Down, (3,) unit, camera frame: as known, else against the support's normal, else along the view."""
    if frame.gravity is not None:
        return frame.gravity
    return -support.normal if support is not None else OPTICAL_AXIS


def _main_support(objects: Sequence[Object3D], supports: Sequence[Plane]) -> Plane | None:
    """The surface most objects stand on, else the first one found."""
    if not supports:
        return None
    carried = [sum(o.support is s for o in objects) for s in supports]
    return supports[int(np.argmax(carried))]


class _OneId:
    def update(self, frame: Frame, instances: Instances, objects: Sequence[Object3D]) -> NDArray[np.int64]:
        return np.arange(1, len(instances) + 1)


class Stopwatch:
    """Seconds per stage: `lap(name)` books the time since the last lap."""

    def __init__(self, laps: dict[str, float] | None = None) -> None:
        self.laps = dict(laps or {})
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now
