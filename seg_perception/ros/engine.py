# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The pipeline in use, and its exchange between two frames."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from seg_perception.config import Config
from seg_perception.options import adapted
from seg_perception.pipeline import Pipeline
from seg_perception.scene import Frame, Instances, Scene
from seg_perception.segmenters.prompting import Prompts, PromptTaker


@dataclass(eq=False)
class Loaded:
    """A pipeline and the id that its tracker's ids are counted from; None until its first frame is completed."""

    pipeline: Pipeline
    first_id: int | None = None
    warm: bool = False


class Engine:
    """Runs the two halves of the pipeline in two threads, one frame each, and exchanges it between two frames.

    A frame is completed by the pipeline that segmented it. Ids are never reused while the node lives: a tracker that
    starts again at 1 is lifted over all ids given so far.
    """

    def __init__(self) -> None:
        self._loaded: Loaded | None = None
        self.absence = ""  # why there is no pipeline although one is wanted
        self._last_id = 0
        self._segmenting = threading.Lock()
        self._completing = threading.Lock()

    @property
    def pipeline(self) -> Pipeline | None:
        """The one that takes the next frame."""
        return self._loaded.pipeline if self._loaded is not None else None

    def unload(self) -> None:
        """Frees the model."""
        self._loaded, self.absence = None, ""

    def warm_up(self) -> Pipeline | None:
        """Lets the first frame not pay for compilation; the pipeline, None if there was nothing to do."""
        loaded = self._loaded
        with self._segmenting, self._completing:
            if loaded is None or loaded.warm:
                return None
            loaded.pipeline.warm_up()
            loaded.warm = True
            return loaded.pipeline

    def segment(self, frame: Frame, prompts: Prompts) -> tuple[Loaded, Instances]:
        """The frame's instances, of what `prompts` say where the segmenter takes them, and what must complete them."""
        with self._segmenting:
            loaded = self._loaded
            if loaded is None:
                raise RuntimeError("no model is loaded")
            if isinstance(loaded.pipeline.segmenter, PromptTaker):
                loaded.pipeline.segmenter.look_for(prompts)
            return loaded, loaded.pipeline.segment(frame)

    def look_for(self, prompts: Prompts) -> None:
        """Tells the segmenter at once, so that its class names are those of the prompts."""
        with self._segmenting:
            if self._loaded is not None and isinstance(self._loaded.pipeline.segmenter, PromptTaker):
                self._loaded.pipeline.segmenter.look_for(prompts)

    def complete(self, loaded: Loaded, frame: Frame, instances: Instances, grasps: bool, budget: float) -> Scene:
        """3D, identities and grasps of what `segment` found."""
        with self._completing:
            scene = loaded.pipeline.complete(frame, instances, grasps, budget)
            if loaded.first_id is None:
                loaded.first_id = self._last_id
            objects = scene.objects
            if loaded.first_id:
                objects = tuple(replace(o, id=o.id + loaded.first_id) for o in objects)
            self._last_id = max([self._last_id, *(o.id for o in objects)])
            return replace(scene, objects=objects, model=model_name(loaded.pipeline))

    def prepare(self, config: Config) -> Pipeline:
        """A pipeline for changed live options that shares network and tracks with the one in use.

        Raises ConfigError naming what cannot change without cleanup.
        """
        old = self.pipeline
        if old is None:
            raise RuntimeError("no model is loaded")
        segmenter = adapted(old.segmenter, old.config.segmenter, config.segmenter, "segmenter")
        tracker = adapted(old.tracker, old.config.tracker, config.tracker, "tracker")
        planners = old.planners
        if config.grasping.planners != old.config.grasping.planners:
            planners = tuple(planner.create() for planner in config.grasping.planners)
        return Pipeline(segmenter, tracker, planners, config)

    def use(self, pipeline: Pipeline, warm: bool | None = None) -> None:
        """`pipeline` takes the next frame; the one under way is finished by the old one. It is as `warm` as the old one
        unless that is said."""
        old = self._loaded
        warm = (old is None or old.warm) if warm is None else warm
        # Its tracker is the old one, or the old one's tracks under other options: it counts on where the old one was.
        self._loaded = Loaded(pipeline, old.first_id if old is not None else None, warm)

    def reset(self) -> None:
        """Forgets everything remembered from earlier frames. Waits for the frames under way."""
        with self._segmenting, self._completing:
            if self._loaded is not None:
                self._loaded.pipeline.reset()
                self._loaded.first_id = None

    def reset_tracks(self) -> None:
        """Forgets the tracks; the next objects are new. Waits for the frame under way."""
        with self._segmenting:
            if self._loaded is not None and hasattr(self._loaded.pipeline.segmenter, "reset_tracks"):
                self._loaded.pipeline.segmenter.reset_tracks()
        with self._completing:
            if self._loaded is not None and hasattr(self._loaded.pipeline.tracker, "reset"):
                self._loaded.pipeline.tracker.reset()
                self._loaded.first_id = None


def model_name(pipeline: Pipeline | None) -> str:
    """`plugin:model` of a pipeline; the plugin alone where there is no network."""
    if pipeline is None:
        return ""
    model = getattr(pipeline.segmenter, "model", "")
    plugin = pipeline.config.segmenter.plugin
    return f"{plugin}:{model}" if model else plugin


def class_names(pipeline: Pipeline | None) -> Sequence[str]:
    """Names by class id; empty = class-agnostic."""
    return pipeline.class_names if pipeline is not None else ()
