# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a plugin must be able to do, and how one is found: by entry point or by `module:Class`.

A plugin is a class with a nested or module-level `Config` dataclass (see `options`), constructed as `Plugin(config)`.
It never sees the node.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from seg_perception.scene import Frame, GraspPlan, Instances, Object3D, Plane

GROUPS = ("segmenters", "backends", "trackers", "grasp_planners")


class PluginError(ValueError):
    """A plugin that cannot be loaded; one line that names it and lists what exists."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a network; -1 in `shape` = dynamic."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an array of that shape may be given here."""
        return len(shape) == len(self.shape) and all(
            known in (-1, size) for known, size in zip(self.shape, shape, strict=True)
        )


@runtime_checkable
class Backend(Protocol):
    """A runtime; knows nothing of images."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]

    def __call__(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]: ...


@runtime_checkable
class Segmenter(Protocol):
    """A model family: preprocess, decode; owns a Backend if it has a network; may use depth.

    It may have a `model` attribute (one word for the record, e.g. `yolo11n-seg@3f2a91c0`), `problem` (a line about the
    last image, for the diagnostics; empty = none), `warm_up()`, `reset()` (forget what it remembers from frame to
    frame), `reset_tracks()` (only the objects it follows) and `with_config(config)` (the same network, other options).
    """

    class_names: tuple[str, ...]

    def segment(self, frame: Frame) -> Instances: ...


@runtime_checkable
class Tracker(Protocol):
    """Gives identities: (N,) int64 ids > 0, never reused. `reset()`, if it has one, forgets all tracks."""

    def update(self, frame: Frame, instances: Instances, objects: Sequence[Object3D]) -> NDArray[np.int64]: ...


@runtime_checkable
class GraspPlanner(Protocol):
    """Plans grasps of one object: best first, may be empty, with the reason and counts of what was rejected.

    `scene_points` (P, 3) m are foreign points, the object's own left out; `gravity` (3,) unit; all camera frame.
    """

    def plan(
        self, obj: Object3D, scene_points: NDArray, gravity: NDArray, support: Plane | None = None
    ) -> GraspPlan: ...


def available(group: str) -> list[str]:
    """Names of the installed plugins of a group, sorted."""
    return sorted({point.name for point in _points(group)})


def load_plugin(group: str, name: str) -> Any:
    """The plugin class called `name` (an entry point of `seg_perception.<group>` or `module:Class`).

    Raises PluginError: unknown name, broken import, no `Config`.
    """
    if ":" in name:
        point = EntryPoint(name, name, f"seg_perception.{group}")
    else:
        found = [p for p in _points(group) if p.name == name]
        if not found:
            known = available(group)
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            listing = ", ".join(known) or "none: seg_perception is not installed"
            raise PluginError(f"no plugin '{name}' in {group} (known: {listing}, or module:Class){hint}")
        point = found[0]
    installed = ", ".join(available(group))
    try:
        loaded = point.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        raise PluginError(f"plugin '{name}' of {group} cannot be loaded: {error} (known: {installed})") from error
    if not hasattr(loaded, "Config"):
        raise PluginError(f"plugin '{name}' of {group} is no plugin class: it has no Config (known: {installed})")
    return loaded


def require(module: str, extra: str) -> Any:
    """The runtime package `module`, imported now. Raises PluginError with the line that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PluginError(f"{module} is not usable ({error}): pip install 'seg_perception[{extra}]'") from error


def _points(group: str) -> list[EntryPoint]:
    if group not in GROUPS:
        raise PluginError(f"no plugin group '{group}' (known: {', '.join(GROUPS)})")
    return list(_installed(group, tuple(sys.path)))


@lru_cache
def _installed(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Read once for a search path: it takes tens of milliseconds, and a configuration asks dozens of times."""
    return tuple(entry_points(group=f"seg_perception.{group}"))
