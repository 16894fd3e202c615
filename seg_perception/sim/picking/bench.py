# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The pick benchmark: every target of every scene, before every planner, each grasp carried out in physics."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.config import Config, load_config
from seg_perception.grasping.gripper import Gripper, SuctionCup, load_cup, load_gripper, load_grippers
from seg_perception.grasping.surroundings import ScenePoints, scene_points
from seg_perception.masks import Masks
from seg_perception.pipeline import Pipeline, gravity_of
from seg_perception.plugins import GraspPlanner
from seg_perception.scene import Grasp, GraspKind, Instances, Scene
from seg_perception.sim.picking.bound import CUP_NAME, NAME, find_any, find_any_seal
from seg_perception.sim.picking.gallery import tile
from seg_perception.sim.picking.meshes import mesh_kinds
from seg_perception.sim.picking.scenes import SCENES, SPLITS, PickScene, make_scene
from seg_perception.sim.picking.seal import check_seal
from seg_perception.sim.picking.things import Maker, chosen_kinds
from seg_perception.sim.picking.trial import Outcome, Verdict, execute
from seg_perception.sim.picking.world import World

SAME = 0.4  # IoU of the truth and the mask that stands for it
Search = Callable[[World, int, int], tuple[Grasp | None, Verdict]]
MASKS = ("truth", "segmenter")


@dataclass(frozen=True)
class Settings:
    """What is run. `config` is YAML text: its planners are compared, its segmenter finds the masks unless `masks` is
    "truth". Of each target `per_object` grasps are carried out; the first one counts. `things` limits their kinds;
    `meshes` is a folder they are taken from instead."""

    config: str = "{}"
    scenes: tuple[str, ...] = tuple(SCENES)
    trials: int = 60
    split: str = "development"
    skip: int = 0  # seeds
    masks: str = "truth"
    noise: str = "d435"
    things: tuple[str, ...] = ()
    meshes: str = ""
    per_object: int = 1
    bound: bool = False  # also look for any grasp that works, with the truth at hand

    def __post_init__(self) -> None:
        checks = (
            ("scenes", self.scenes, SCENES),
            ("split", (self.split,), SPLITS),
            ("masks", (self.masks,), MASKS),
        )
        for name, values, known in checks:
            for value in values:
                if value not in known:
                    raise ValueError(f"{name}: expected one of {', '.join(known)}, got '{value}'")
        kinds_of(self)


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """What became of one grasp, or of one target without any; `record` is plain, for JSON; `tile` shows a failure."""

    record: dict[str, Any]
    tile: NDArray[np.uint8] | None = None


def run(settings: Settings, jobs: int = 1) -> Iterator[list[Trial]]:
    """Trials, scene by scene, until each kind of scene has had its number of targets; the same for any `jobs`."""
    for kind in settings.scenes:
        left = settings.trials
        for trials in _scenes(settings, kind, jobs):
            targets = list(dict.fromkeys(t.record["target"] for t in trials))[:left]
            left -= len(targets)
            yield [t for t in trials if t.record["target"] in targets]
            if left <= 0:
                break


def _scenes(settings: Settings, kind: str, jobs: int) -> Iterator[list[Trial]]:
    """Without end, in the order of the seeds."""
    seed = SPLITS[settings.split] + settings.skip
    bench_of(settings.config)  # a bad configuration ends here, with its own line
    if jobs == 1:
        while True:
            yield run_scene(settings, kind, seed)
            seed += 1
    context = multiprocessing.get_context("spawn")  # threads of compiled code do not survive a fork
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, context, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    try:
        ahead: list[Future[list[Trial]]] = []
        while True:
            while len(ahead) < 2 * jobs:
                ahead.append(pool.submit(run_scene, settings, kind, seed))
                seed += 1
            yield ahead.pop(0).result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:  # scenes that nobody waits for any more
            process.terminate()


def run_scene(settings: Settings, kind: str, seed: int) -> list[Trial]:
    """Every target of the scene of that seed, before every planner."""
    bench = bench_of(settings.config)
    scene = make_scene(kind, seed, bench.gripper, settings.noise, kinds_of(settings))
    if scene is None:
        return []
    seen = _Seen.of(scene, bench.pipeline, settings.masks)
    trials = []
    for target in scene.targets:
        about = {
            "scene": kind,
            "seed": seed,
            "target": target,
            "thing": scene.world.things[target].name,
            "visible": float(scene.view.visible[target]),
            "pixels": int(seen.truth.areas[target]),
        }
        for name, planner in bench.planners.items():
            start = time.perf_counter()
            grasps, verdict = seen.plan(target, planner)
            about |= {"planner": name, "milliseconds": 1000 * (time.perf_counter() - start)}
            tried = [(g, bench.execute(scene, target, g)) for g in grasps[: settings.per_object]]
            for rank, (grasp, outcome) in enumerate(tried or [(None, verdict)]):
                picture = None if outcome.outcome.success else seen.picture(target, grasp, outcome)
                trials.append(Trial({**about, "rank": rank, **_record(grasp, outcome)}, picture))
        for name, search in bench.bounds.items() if settings.bound else ():
            start = time.perf_counter()
            found, outcome = search(scene.world, target, seed)
            about |= {"planner": name, "milliseconds": 1000 * (time.perf_counter() - start)}
            picture = None if outcome.outcome.success else seen.picture(target, None, outcome)
            trials.append(Trial({**about, "rank": 0, **_record(found, outcome)}, picture))
    return trials


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What perception makes of a scene; `rows` says which instance stands for which target."""

    scene: Scene
    points: ScenePoints
    truth: Masks
    rows: dict[int, int]

    @classmethod
    def of(cls, scene: PickScene, pipeline: Pipeline, masks: str) -> _Seen:
        frame = scene.view.frame
        truth = Masks.from_label_image(scene.view.labels, len(scene.world.things))
        if masks == "truth":
            instances = Instances.of(truth)
            rows = {target: target for target in scene.targets}
        else:
            instances = pipeline.segment(frame)
            rows = _best_rows(scene.view.labels, instances.masks, scene.targets)
        done = pipeline.complete(frame, instances, grasps=False)
        return cls(done, scene_points(frame, instances.masks), truth, rows)

    def plan(self, target: int, planner: GraspPlanner) -> tuple[Sequence[Grasp], Verdict]:
        """Grasps of the target, or why there is none."""
        row = self.rows.get(target)
        if row is None:
            return (), Verdict(Outcome.UNSEEN)
        obj = self.scene.objects[row]
        if not obj.status.has_3d:
            return (), Verdict(Outcome.NO_3D, other=f"{obj.status.name}: {obj.status_text}")
        down = gravity_of(self.scene.frame, obj.support or self.scene.support)
        plan = planner.plan(obj, self.points.without(row), down, obj.support)
        return tuple(plan), Verdict(Outcome.NO_GRASP, other=plan.reason)

    def picture(self, target: int, grasp: Grasp | None, verdict: Verdict) -> NDArray[np.uint8]:
        return tile(self.scene, self.truth, target, self.rows.get(target), grasp, verdict)


class Bench:
    """What all scenes share: the pipeline, its planners, and the gripper that the world's hand is."""

    def __init__(self, config: Config) -> None:
        chosen = config.grasping.planners
        if not chosen:
            raise ValueError("grasping.planners: expected at least one")
        for selected in chosen:
            if not hasattr(selected.config, "gripper"):
                raise ValueError(
                    f"planner '{selected.plugin}' has no option 'gripper': nobody knows what it grasps with"
                )
        self.pipeline = Pipeline.from_config(config)
        self.planners = {s.plugin: planner for s, planner in zip(chosen, self.pipeline.planners, strict=True)}
        self.grippers = {g.name: g for s in chosen for g in load_grippers(s.config.gripper)}
        jaws = {g.name: g for g in self.grippers.values() if isinstance(g, Gripper)}
        if len(jaws) > 1:
            raise ValueError(f"planners: expected one gripper for all, got {', '.join(sorted(jaws))}")
        cups = [g for g in self.grippers.values() if isinstance(g, SuctionCup)]
        self.bounds: dict[str, Search] = {NAME: find_any} if jaws else {}
        if cups:
            self.bounds[CUP_NAME] = partial(_with_cups, cups)
        self.gripper = next(iter(jaws.values()), None) or load_gripper(
            "robotiq_2f_85"
        )  # parked when only cups are tried
        self.pipeline.warm_up()

    def execute(self, scene: PickScene, target: int, grasp: Grasp) -> Verdict:
        T_world_grasp = scene.view.T_world_camera @ grasp.T_camera_grasp
        if grasp.kind == GraspKind.SUCTION:
            scene.world.reset()
            return check_seal(scene.world, target, T_world_grasp, load_cup(self.grippers[grasp.gripper]))
        return execute(scene.world, target, T_world_grasp, grasp)


def _with_cups(cups: Sequence[SuctionCup], world: World, target: int, seed: int) -> tuple[Grasp | None, Verdict]:
    return find_any_seal(world, target, cups, seed)


@lru_cache(maxsize=1)
def bench_of(config: str) -> Bench:
    """The bench of a configuration in YAML, once per process."""
    import yaml

    return Bench(load_config(yaml.safe_load(config) or {}))


def kinds_of(settings: Settings) -> dict[str, Maker]:
    """What the things are made by. Raises ValueError for a kind or a mesh that is not there."""
    return mesh_kinds(settings.meshes, settings.things) if settings.meshes else chosen_kinds(settings.things)


def _best_rows(labels: NDArray[np.uint16], masks: Masks, targets: Sequence[int]) -> dict[int, int]:
    """The mask that fits each target best, if it fits at all."""
    rows = {}
    areas = np.bincount(labels.ravel(), minlength=max(targets, default=0) + 2)
    owners = [np.bincount(_under(labels, masks.spans_of(i)), minlength=len(areas)) for i in range(len(masks))]
    for target in targets:
        shared = np.array([own[target + 1] for own in owners])
        overlaps = shared / (masks.areas + areas[target + 1] - shared)
        if len(overlaps) and overlaps.max() >= SAME:
            rows[target] = int(np.argmax(overlaps))
    return rows


def _under(labels: NDArray[np.uint16], spans: NDArray[np.int32]) -> NDArray[np.uint16]:
    return np.concatenate([labels[y, a:b] for y, a, b in spans]) if len(spans) else labels[:0, 0]


def _record(grasp: Grasp | None, verdict: Verdict) -> dict[str, Any]:
    record: dict[str, Any] = {
        "outcome": verdict.outcome.value,
        "picked": verdict.outcome.success,
        "part": verdict.part,
        "other": verdict.other,
        "slip": verdict.slip,
    }
    if grasp is not None:
        record |= {
            "gripper": grasp.gripper,
            "score": grasp.score,
            "width": grasp.width,
            "object_width": grasp.object_width,
        }
    return record
