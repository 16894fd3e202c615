# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`video`: a network with memory. Objects are shown once, by a detector or by you, and keep their ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.options import Selected, adapted, option, plugin, refuse_fixed
from seg_perception.own_code import own_class
from seg_perception.plugins import Segmenter
from seg_perception.scene import Frame, Instances
from seg_perception.segmenters.networks.ignore import ignored_share
from seg_perception.segmenters.prompting import BOXES, POINTS, TEXTS, Prompts, prompt_kinds
from seg_perception.segmenters.sam.prompts import Prompt
from seg_perception.segmenters.video.clips import Clips
from seg_perception.segmenters.video.sam2_memory import Sam2Memory
from seg_perception.segmenters.video.session import Followed, NamedSession, Seed, ShownSession

SAM2 = "sam2"
THUMBNAIL = (32, 24)  # px, what a change of the scene is judged by


@dataclass(frozen=True)
class VideoConfig:
    """Which network, who shows it objects, and when it forgets."""

    network: str = option(SAM2, "sam2 = SAM 2's memory by transformers; or module:Class of your network of clips")
    model: str = option("", "checkpoint: a folder for sam2 (config.json, model.safetensors); for yours what it needs")
    device: str = option("cpu", "cpu, cuda, cuda:1 ...")
    texts: tuple[str, ...] = option((), "what a network of clips looks for until it is told otherwise")
    min_score: float = option(0.5, "for a network of clips: objects below this score are dropped", ge=0, le=1)
    prompts: str = option(
        "detector", "who shows objects: the detector, or nobody until live prompts come",
        choices=("detector", "live"), live=True,
    )  # fmt: skip
    detector: Selected = plugin("segmenters", "tabletop", "the segmenter whose instances are shown")
    detect_every: int = option(
        0, "frames after which the detector may add objects; 0 = only while there are none", ge=0, live=True
    )
    seed: str = option("mask", "how they are shown: by their masks or their boxes", choices=("mask", "box"), live=True)
    new_below: float = option(
        0.3, "what the detector finds is new if known objects cover less of it", ge=0, le=1, live=True
    )
    max_objects: int = option(20, "objects followed at a time, each a run of the decoder", ge=1, le=100, live=True)
    lost_after: int = option(30, "frames without being seen after which an object is forgotten", ge=1, live=True)
    scene_change: float = option(
        0.25, "mean change of gray from frame to frame above which all is forgotten; 1 = never", ge=0, le=1, live=True
    )
    max_ignored: float = option(
        0.5, "an instance with more than this share of its mask in the ignore mask is dropped", ge=0, le=1, live=True
    )


@dataclass(eq=False)
class Known:
    """What is remembered of an object beside the network's memory."""

    class_id: int
    name: str
    score: float
    unseen: int = 0


class Video:
    """Instances that keep their `track_ids`; the tracker `session` makes them the ids of the objects.

    Raises ConfigError: no such checkpoint or class; PluginError: torch or transformers are not installed.
    """

    Config = VideoConfig

    def __init__(self, config: VideoConfig) -> None:
        model = Path(config.model).expanduser()
        self._session: ShownSession | NamedSession
        if config.network == SAM2:
            self._session = Sam2Memory(model, config.device)
        else:
            self._session = Clips(own_class("network", config.network)(model, config.device), config.min_score)
        self.model = f"{config.network}:{model.name}"
        self._detector: Segmenter = config.detector.create()
        self._known: dict[int, Known] = {}
        self._last_id = 0
        self._prompts = Prompts()
        self._shown = 0  # serial of the prompts that were acted on
        self._config = config
        self.reset()

    @property
    def class_names(self) -> tuple[str, ...]:
        if isinstance(self._session, NamedSession):
            return self._prompts.texts or self._config.texts
        return self._detector.class_names if self._config.prompts == "detector" else ("object",)

    def with_config(self, config: VideoConfig) -> Video:
        """The same memory with other options. Raises ConfigError when a network itself would change."""
        refuse_fixed(self._config, config, apart=("detector",))
        other = object.__new__(Video)
        other.__dict__.update(self.__dict__)
        other._detector = adapted(self._detector, self._config.detector, config.detector, "detector")
        other._config = config
        return other

    def warm_up(self) -> None:
        if hasattr(self._detector, "warm_up"):
            self._detector.warm_up()

    def reset(self) -> None:
        """Forgets all objects and what the detector remembers. Ids go on counting."""
        self.reset_tracks()
        if hasattr(self._detector, "reset"):
            self._detector.reset()

    def reset_tracks(self) -> None:
        """Forgets all objects: they are shown anew in the next image."""
        self._session.reset()
        self._known.clear()
        self._frames = 0
        self._stamp = 0
        self._thumbnail: NDArray[np.float32] | None = None
        self._shown = -1

    # -- live prompts --------------------------------------------------------------------------------------------------

    @property
    def prompt_kinds(self) -> frozenset[str]:
        if isinstance(self._session, NamedSession):
            return frozenset({TEXTS})
        return frozenset({BOXES, POINTS}) | (prompt_kinds(self._detector) & {TEXTS})

    def check_prompts(self, prompts: Prompts) -> None:
        if prompts.texts and not isinstance(self._session, NamedSession):
            self._detector.check_prompts(Prompts(texts=prompts.texts))  # type: ignore[attr-defined]

    def look_for(self, prompts: Prompts) -> None:
        """Other objects, shown in the next image; the same prompts again change nothing."""
        if prompts.texts != self._prompts.texts and not isinstance(self._session, NamedSession):
            self._detector.look_for(Prompts(texts=prompts.texts))  # type: ignore[attr-defined]
            self._shown = -1
        if prompts.objects and not prompts.serial:  # asked by hand, not by the node: always meant anew
            self._shown = -1
        self._prompts = prompts

    # -- a segmenter ---------------------------------------------------------------------------------------------------

    def segment(self, frame: Frame) -> Instances:
        thumbnail = _thumbnail(frame)
        if self._is_another_scene(frame, thumbnail):
            self.reset_tracks()
        self._stamp, self._thumbnail = frame.stamp_ns, thumbnail
        if isinstance(self._session, NamedSession):
            self._session.look_for(self._prompts.texts or self._config.texts)
            followed = self._session.step(frame.color)
            return self._named(frame, followed)
        return self._followed(frame, self._session)

    def _named(self, frame: Frame, followed: Followed) -> Instances:
        names = self.class_names
        ids = [names.index(name) for name in followed.names]
        found = Instances.of(
            followed.masks, followed.scores, np.array(ids, np.int32), followed.names, track_ids=followed.ids
        )
        return self._counted(found, frame)

    def _followed(self, frame: Frame, session: ShownSession) -> Instances:
        prompts = self._prompts
        is_new = prompts.serial != self._shown and not prompts.nothing  # what cannot be placed now waits
        asked_anew = is_new and bool(prompts.objects)
        if is_new:
            session.remove(list(self._known))
            self._known.clear()
            self._shown = prompts.serial
        parts = [session.step(frame.color)]
        self._frames += 1
        if asked_anew:
            objects = prompts.fitted(frame.width, frame.height).objects
            parts.append(self._show(session, [Seed(p) for p in objects], [Known(-1, "object", 1.0)] * len(objects)))
        elif self._is_time_to_detect():
            parts.append(self._detected(frame, session, parts[0]))
        ids = np.concatenate([part.ids for part in parts])
        masks = Masks.from_span_lists(
            frame.height, frame.width, [part.masks.spans_of(i) for part in parts for i in range(len(part.ids))]
        )
        there = np.concatenate([part.scores for part in parts])
        self._forget_lost(session, ids, masks.areas > 0)
        known = [self._known.get(int(i), Known(-1, "object", 0.0)) for i in ids]
        found = Instances.of(
            masks,
            np.array([k.score for k in known]),
            np.array([k.class_id for k in known], np.int32),
            [k.name for k in known],
            mask_scores=there,
            track_ids=ids,
        )
        return self._counted(found, frame)

    def _is_time_to_detect(self) -> bool:
        every = self._config.detect_every
        due = not self._known or (every and self._frames % every == 0)
        asked = self._config.prompts == "detector" or self._prompts.texts
        return bool(due and asked and not self._prompts.objects and not self._prompts.nothing)

    def _detected(self, frame: Frame, session: ShownSession, followed: Followed) -> Followed:
        """Shows the session what the detector finds and no known object covers."""
        found = self._detector.segment(frame)
        owned = followed.masks.label_image() > 0
        areas = found.masks.areas
        seeds: list[Seed] = []
        known: list[Known] = []
        for row in np.argsort(-found.scores, kind="stable"):
            if len(self._known) + len(seeds) >= self._config.max_objects:
                break
            mask = found.masks.crop(row, (0, 0, frame.width, frame.height))
            has_mask = areas[row] > 0
            x0, y0, x1, y1 = found.boxes[row].astype(int)
            covered = owned[mask] if has_mask else owned[max(y0, 0) : y1, max(x0, 0) : x1]
            if covered.mean() >= self._config.new_below:
                continue
            by_mask = has_mask and self._config.seed == "mask"
            seeds.append(Seed(mask=mask) if by_mask else Seed(Prompt(found.boxes[row])))
            known.append(Known(int(found.class_ids[row]), found.class_names[row], float(found.scores[row])))
        return self._show(session, seeds, known)

    def _show(self, session: ShownSession, seeds: Sequence[Seed], known: Sequence[Known]) -> Followed:
        ids = range(self._last_id + 1, self._last_id + 1 + len(seeds))
        self._last_id += len(seeds)
        self._known |= {i: Known(k.class_id, k.name, k.score) for i, k in zip(ids, known, strict=True)}
        return session.add(dict(zip(ids, seeds, strict=True)))

    def _forget_lost(self, session: ShownSession, ids: NDArray[np.int64], seen: NDArray[np.bool_]) -> None:
        for object_id, visible in zip(ids.tolist(), seen, strict=True):
            self._known[object_id].unseen = 0 if visible else self._known[object_id].unseen + 1
        lost = [i for i, known in self._known.items() if known.unseen >= self._config.lost_after]
        session.remove(lost)
        for object_id in lost:
            del self._known[object_id]

    def _counted(self, found: Instances, frame: Frame) -> Instances:
        counts = found.masks.areas > 0
        return found[counts & (ignored_share(found.masks, frame.ignore) <= self._config.max_ignored)]

    def _is_another_scene(self, frame: Frame, thumbnail: NDArray[np.float32]) -> bool:
        """The picture changed as a whole, or the time went back."""
        if self._thumbnail is None:
            return False
        change = float(np.abs(thumbnail - self._thumbnail).mean())
        return 0 < frame.stamp_ns < self._stamp or change > self._config.scene_change


def _thumbnail(frame: Frame) -> NDArray[np.float32]:
    small = cv2.resize(frame.color, THUMBNAIL, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
