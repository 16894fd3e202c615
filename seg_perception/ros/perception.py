# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the workers do with a shot: frame, instances, transforms, scene, messages. From activate to deactivate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node

from seg_perception.config import Config
from seg_perception.geometry import invert, transform_points
from seg_perception.pipeline import Stopwatch
from seg_perception.ros.budget import BudgetWatch
from seg_perception.ros.conversions import ImageError
from seg_perception.ros.cores import settle
from seg_perception.ros.engine import Engine
from seg_perception.ros.feed import Feed, Shot
from seg_perception.ros.frames import Frames
from seg_perception.ros.median_depth import median_depth
from seg_perception.ros.outputs import Outputs
from seg_perception.ros.rehearsal import rehearse
from seg_perception.ros.reports import Reports
from seg_perception.ros.results import History, Result
from seg_perception.ros.sync import JUMP, OFF_CLOCK
from seg_perception.ros.transforms import LATEST, TransformError, Transforms
from seg_perception.ros.watch import Watch
from seg_perception.ros.workers import Segmented, Workers
from seg_perception.scene import Frame, Scene, Status
from seg_perception.segmenters.prompting import Prompts

KNOWN_IDS = 1000  # ids whose age is kept


class Perception:
    """The chain from the feed to the outputs, run by two workers. `config` may be exchanged at any time."""

    def __init__(
        self,
        node: Node,
        config: Config,
        engine: Engine,
        transforms: Transforms,
        outputs: Outputs,
        reports: Reports,
        warmed_up: Callable[[], None],
        prompts_at: Callable[[Frame, Any], Prompts],
    ) -> None:
        self.config = config
        self.feed = Feed(config.sync.slop, depth_expected=bool(config.topics.depth))
        self.history = History(config.history)
        self.began = time.monotonic()
        self.watch: Watch | None = None
        self.ready: float | None = None  # steady s, when frames began to be taken
        self._clock = node.get_clock()
        self._engine = engine
        self._transforms = transforms
        self._outputs = outputs
        self._reports = reports
        self._warmed_up = warmed_up
        self._prompts_at = prompts_at
        self.last_frame: Frame | None = None  # the last that was segmented: clicks mean this one
        self._frames = Frames(config, reports, transforms)
        self._budget = BudgetWatch(reports)
        self._closed = False
        self._sequence = 0
        self._newest_stamp = 0
        self._without_transform = 0  # frames
        self._tracked_in = ""  # the frame that tracks are in
        self._ages: dict[int, int] = {}  # frames that each id was seen in
        self._publishing = threading.Lock()
        self._workers = Workers(self.feed, self._warm_up, self._segment, self._complete, self._failed)

    @property
    def under_way(self) -> dict[str, float]:
        """For how many s the two workers have been at the frame they are at; without those that rest."""
        return self._workers.under_way

    def close(self, timeout: float) -> bool:
        """Ends the workers; False if a plugin does not return within `timeout` s."""
        self._closed = True
        return self._workers.close(timeout)

    def restart(self) -> None:
        """Forgets all frames, tracks and results: the clock jumped back."""
        self.feed.clear()
        self.last_frame = None
        self._engine.reset()
        with self._publishing:
            self.history.clear()
            self._sequence = 0
            self._newest_stamp = 0

    def transform(self, target: str, frame: Frame, timeout: float | None = None) -> NDArray[np.float64]:
        """T_target_image at the frame's stamp. Raises TransformError after `tf_timeout`."""
        wait = self.config.tf_timeout if timeout is None else timeout
        return self._transforms.lookup(target, frame.frame_id, frame.stamp_ns, wait)

    # -- the first worker --------------------------------------------------------------------------------------------

    def _warm_up(self) -> None:
        try:
            pipeline = self._engine.warm_up()
            if pipeline is not None and not self._closed:
                rehearse(self.config, pipeline, self._transforms, self._outputs)
            self._frames.warm_up()
            settle()
        finally:
            self.ready = time.monotonic()
        if not self._closed:
            self._warmed_up()

    def _segment(self, shot: Shot) -> Segmented | None:
        age = (self._clock.now().nanoseconds - shot.pair.stamp_ns) * 1e-9
        if self.config.max_age and age > self.config.max_age:
            self._reports.drop("older than max_age")
            self._lose(shot, f"the image was {age:.2f} s old, max_age is {self.config.max_age:g} s")
            return None
        if self._engine.pipeline is None:
            self._reports.drop(f"no model: {self._engine.absence}")
            self._lose(shot, f"there is no model: {self._engine.absence}")
            return None
        start = time.perf_counter()
        frame = self._frames.build(shot, self.config)
        frame, calls, frames = self._gather(shot, frame)
        own = shot.pair.wanted[0].prompts if shot.pair.wanted else None
        if not calls and (own is not None or not self.feed.streaming):
            return None  # only gathered for a call that wants more frames
        frame = self._with_gravity(frame, timeout=0.0)
        laps = {"pair": shot.waited, "decode": time.perf_counter() - start}
        self.last_frame = frame
        loaded, instances = self._engine.segment(frame, self._prompts_at(frame, own))
        if problem := getattr(loaded.pipeline.segmenter, "problem", ""):
            self._reports.problem("segmenter", problem)
        else:
            self._reports.solved("segmenter")
        return Segmented(shot, frame, loaded, instances, calls, frames, laps, time.perf_counter())

    def _gather(self, shot: Shot, frame: Frame) -> tuple[Frame, tuple, int]:
        """Adds the depth to the calls that fuse several; the frame with fused depth, its calls, how many were fused."""
        calls, frames = [], 1
        for call in shot.pair.wanted:
            if call.frames > 1 and frame.depth is not None:
                if call.depths and call.depths[0].shape != frame.depth.shape:
                    call.depths.clear()
                    call.claimed = 1
                call.depths.append(frame.depth)
                if len(call.depths) < call.frames:
                    continue
                frame = replace(frame, depth=median_depth(call.depths))
                frames = len(call.depths)
            calls.append(call)
        return frame, tuple(calls), frames

    # -- the second worker -------------------------------------------------------------------------------------------

    def _complete(self, segmented: Segmented) -> None:
        config, shot = self.config, segmented.shot
        clock = Stopwatch(segmented.laps)
        clock.laps["handover"] = time.perf_counter() - segmented.done
        if shot.pair.stamp_ns < self._newest_stamp - JUMP:  # a bag that begins again, without /clock
            self._engine.reset()
            self.history.clear()
        self._newest_stamp = shot.pair.stamp_ns
        frame, frame_id, T_header_image, T_workspace_image = self._located(segmented.frame, config)
        clock.lap("transform")
        if self._tracked_in not in ("", frame_id):  # where things were seen there says nothing here
            self._engine.reset_tracks()
        self._tracked_in = frame_id
        grasps = config.grasping.when == "stream"
        budget = config.grasping.budget if self.feed.streaming else 0.0
        scene = self._engine.complete(segmented.loaded, frame, segmented.instances, grasps, budget)
        if grasps:
            self._budget.look(scene, budget)
        scene, inside = _in_workspace(scene, T_workspace_image, config)
        depth = shot.pair.depth
        with self._publishing:
            self._sequence += 1
            result = Result(
                scene=scene,
                frame_id=frame_id,
                T_header_image=T_header_image,
                in_workspace=inside,
                ages=tuple(self._aged(scene)),
                camera_info=self._frames.info_for(shot, frame.width, frame.height),
                depth_delay=(depth.stamp_ns - shot.pair.stamp_ns) * 1e-9 if depth is not None else float("nan"),
                sequence=self._sequence,
                waited=shot.waited,
                frames=segmented.frames,
            )
            clock.laps |= scene.timings
            if not (self.feed.streaming and any(call.prompts is not None for call in segmented.calls)):
                clock.laps |= self._outputs.publish(result, config)  # what a call alone looked for is not the stream's
                self._outputs.publish_timings(result, clock.laps, self._latency(shot))
                self.history.add(result)
                if self.watch is not None:
                    self.watch.look(result, clock.laps, self._latency(shot))
        self._reports.done(clock.laps)
        for call in segmented.calls:
            call.deliver(result, has_depth=depth is not None or not self.feed.pairer.depth_expected)
        self._frames.look_at_alignment(segmented.frame)

    def _latency(self, shot: Shot) -> float:
        """s from the color image's stamp to the publishing of its objects; NaN if the stamp is of another clock."""
        if self.watch is None and not self._outputs.wants("timings"):
            return float("nan")
        since_stamp = (self._clock.now().nanoseconds - shot.pair.stamp_ns) * 1e-9
        now = time.monotonic()
        if abs(since_stamp - (now - shot.pair.color.arrived)) > OFF_CLOCK:
            return float("nan")
        return since_stamp - (now - self._outputs.objects_sent)

    def _aged(self, scene: Scene) -> Iterator[int]:
        """How often each object was seen by now; the ids seen longest ago are forgotten."""
        for obj in scene.objects:
            seen = obj.time_since_seen == 0
            self._ages[obj.id] = age = self._ages.pop(obj.id, 0) + seen  # moves to the end
            yield age
        while len(self._ages) > KNOWN_IDS:
            del self._ages[next(iter(self._ages))]

    def _located(
        self, frame: Frame, config: Config
    ) -> tuple[Frame, str, NDArray[np.float64] | None, NDArray[np.float64] | None]:
        """The frame with gravity, and withheld if a transform is missing; the header's frame and the transforms there
        and into the workspace's frame."""
        frame_id = config.target_frame or frame.frame_id
        T_header_image = T_workspace_image = None
        try:
            T_header_image = self.transform(frame_id, frame)
            if config.target_frame:  # for the tracker; what moves with the camera is no place to remember things in
                frame = replace(frame, T_fixed_camera=T_header_image)
            if config.workspace.is_set:
                T_workspace_image = self.transform(config.workspace.frame or frame_id, frame)
            self._reports.solved("transform")
        except TransformError as error:
            self._without_transform += 1
            self._reports.fact("transform", "frames without", self._without_transform)
            self._reports.problem("transform", str(error))
            if frame.no_3d is None:
                frame = replace(frame, withheld=Status.NO_TRANSFORM, withheld_text=str(error))
        return self._with_gravity(frame, config.tf_timeout), frame_id, T_header_image, T_workspace_image

    def _with_gravity(self, frame: Frame, timeout: float) -> Frame:
        """The frame with the direction of gravity, as far as it is known by now."""
        gravity = self.config.gravity
        if gravity.frame:
            try:
                return replace(frame, gravity=-invert(self._gravity_transform(gravity.frame, frame, timeout))[:3, 2])
            except TransformError as error:
                if timeout:
                    self._reports.problem("gravity", str(error))
                return frame
        return replace(frame, gravity=np.array(gravity.direction)) if any(gravity.direction) else frame

    def _gravity_transform(self, target: str, frame: Frame, timeout: float) -> NDArray[np.float64]:
        if timeout:
            return self.transform(target, frame, timeout)
        try:
            return self.transform(target, frame, 0.0)
        except TransformError:  # not there yet: the newest will do until the second worker waits for it
            return self._transforms.lookup(target, frame.frame_id, LATEST)

    # -- losses ------------------------------------------------------------------------------------------------------

    def _failed(self, where: str, error: Exception, shot: Shot | None) -> None:
        refused = "no color image that can be read, see input color" if isinstance(error, ImageError) else ""
        self._reports.failed(where, error, refused)
        if shot is not None:
            self._lose(shot, f"{where} raised {type(error).__name__}: {error}")

    @staticmethod
    def _lose(shot: Shot, text: str) -> None:
        for call in shot.pair.wanted:
            call.lose(shot.pair, text)


def _in_workspace(
    scene: Scene, T_workspace_image: NDArray[np.float64] | None, config: Config
) -> tuple[Scene, tuple[bool, ...]]:
    """Which objects have their centroid in the workspace; with mode drop, those known to be outside are left out."""
    box = config.workspace
    if not box.is_set:
        return scene, (True,) * len(scene)
    has_3d = np.array([o.status.has_3d for o in scene.objects], bool)
    if T_workspace_image is None or not has_3d.any():
        return scene, (False,) * len(scene)
    centroids = transform_points(T_workspace_image, np.array([o.centroid for o in scene.objects]))
    with np.errstate(invalid="ignore"):
        inside = has_3d & (centroids >= box.min).all(axis=1) & (centroids <= box.max).all(axis=1)
    if box.mode == "drop":
        rows = np.flatnonzero(inside | ~has_3d)
        scene = replace(scene, instances=scene.instances[rows], objects=tuple(scene.objects[i] for i in rows))
        inside = inside[rows]
    return scene, tuple(inside.tolist())
