# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Do images and results still look as they did when all was well? A reference profile, and how far the stream left it.

A frame is a handful of numbers (FEATURES). The profile is the range that nearly all reference frames lay in; the drift
of a feature is the share of the last frames outside. A robot that stands still sees one point of each range for hours,
so distributions are not compared: only what the reference never showed counts.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.options import ConfigError, option
from seg_perception.scene import Frame, Scene

FEATURES = {  # name -> what it is, and the least width of a range
    "brightness": ("mean grey value, 0 to 255", 20.0),
    "contrast": ("standard deviation of the grey values", 10.0),
    "detail": ("mean difference of neighbouring grey values: low when out of focus or dirty", 1.0),
    "depth_valid": ("share of pixels with depth", 0.05),
    "depth_median": ("median depth, m", 0.05),
    "objects": ("objects per frame", 2.0),
    "score": ("mean score of the objects", 0.05),
    "object_area": ("mean share of the image that an object takes", 0.005),
    "object_depth_valid": ("mean valid depth ratio of the objects", 0.05),
    "without_3d": ("share of objects without 3D", 0.05),
}
OUTSIDE = 0.01  # share of the reference frames left out of a range, half at each end
MARGIN = 0.1  # of a range's width, added at each end
LEAST_FRAMES = 20  # of a reference; fewer say too little
ROWS = 16  # image rows from one looked at to the next


@dataclass(frozen=True)
class DriftConfig:
    """Comparison of the stream with a reference profile (`seg-perception profile`)."""

    profile: str = option("", "JSON file that seg-perception profile wrote; empty = no comparison")
    threshold: float = option(
        0.3, "share of the last frames outside the reference's range that is a warning", ge=0.01, le=1, live=True
    )
    window: int = option(300, "frames looked at", ge=10, le=100000)


def features_of(scene: Scene) -> dict[str, float]:
    """The numbers of one frame; those that cannot be had are left out."""
    found = _of_frame(scene.frame)
    count = len(scene)
    found["objects"] = float(count)
    if count:
        pixels = scene.frame.width * scene.frame.height
        found["score"] = float(np.mean(scene.instances.scores))
        found["object_area"] = float(np.mean(scene.instances.masks.areas)) / pixels
        found["object_depth_valid"] = float(np.mean([o.valid_depth_ratio for o in scene.objects]))
        found["without_3d"] = float(np.mean([not o.status.has_3d for o in scene.objects]))
    return found


def _of_frame(frame: Frame) -> dict[str, float]:
    rows = frame.color[::ROWS, :, 1].astype(np.float32)  # green is nearly grey
    found = {
        "brightness": float(rows.mean()),
        "contrast": float(rows.std()),
        "detail": float(np.abs(np.diff(rows, axis=1)).mean()) if frame.width > 1 else 0.0,
    }
    if frame.depth is not None:
        depth = frame.depth[::ROWS]
        valid = np.isfinite(depth) & (depth > 0)
        found["depth_valid"] = float(valid.mean())
        if valid.any():
            found["depth_median"] = float(np.median(depth[valid]))
    return found


@dataclass(frozen=True)
class Range:
    """Where nearly all reference values of a feature lie."""

    low: float
    high: float
    mean: float

    @classmethod
    def of(cls, name: str, values: NDArray[np.float64]) -> Range:
        low, high = np.quantile(values, [OUTSIDE / 2, 1 - OUTSIDE / 2])
        width = max(high - low, FEATURES[name][1])
        middle = (low + high) / 2
        half = width / 2 + MARGIN * width
        return cls(float(middle - half), float(middle + half), float(values.mean()))


@dataclass(frozen=True)
class Profile:
    """The ranges of a reference, by feature."""

    ranges: Mapping[str, Range]
    frames: int
    model: str = ""

    @classmethod
    def learn(cls, scenes: Iterable[Scene]) -> Profile:
        """From scenes in which all was well. Raises ValueError for fewer than 20."""
        values: dict[str, list[float]] = {}
        frames, model = 0, ""
        for scene in scenes:
            frames, model = frames + 1, scene.model
            for name, value in features_of(scene).items():
                values.setdefault(name, []).append(value)
        if frames < LEAST_FRAMES:
            raise ValueError(f"profile: expected at least {LEAST_FRAMES} frames to learn from, got {frames}")
        kept = {name: np.array(v) for name, v in values.items() if len(v) >= LEAST_FRAMES}
        return cls({name: Range.of(name, v) for name, v in kept.items()}, frames, model)

    @classmethod
    def read(cls, path: str | Path) -> Profile:
        """Raises ConfigError naming the file and what is wrong with it."""
        try:
            tree = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
            ranges = {str(name): Range(**values) for name, values in tree["ranges"].items()}
            unknown = sorted(set(ranges) - set(FEATURES))
            if unknown or not ranges:
                raise ValueError(
                    f"expected some of the features {', '.join(FEATURES)}, got {', '.join(unknown) or 'none'}"
                )
            return cls(ranges, int(tree["frames"]), str(tree.get("model", "")))
        except OSError as error:
            raise ConfigError(f"drift.profile: cannot read '{path}': {error.strerror or error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"drift.profile: '{path}' is no profile of seg-perception profile: {error}") from error

    def as_dict(self) -> dict[str, Any]:
        ranges = {n: {"low": r.low, "high": r.high, "mean": r.mean} for n, r in self.ranges.items()}
        return {"frames": self.frames, "model": self.model, "ranges": ranges}


class Drift:
    """How far the last frames are from a profile. One thread looks; others may read `shares`.

    `shares`: feature -> share of the last frames outside the reference's range; only where enough frames were seen.
    """

    def __init__(self, profile: Profile, config: DriftConfig) -> None:
        self.profile, self.config = profile, config
        self._values: dict[str, deque[float]] = {name: deque(maxlen=config.window) for name in profile.ranges}
        self.shares: dict[str, float] = {}

    def look(self, scene: Scene) -> None:
        """Takes a frame into account."""
        for name, value in features_of(scene).items():
            if name in self._values:
                self._values[name].append(value)
        shares = {}
        for name, values in self._values.items():
            if len(values) >= LEAST_FRAMES:
                known, array = self.profile.ranges[name], np.array(values)
                shares[name] = float(((array < known.low) | (array > known.high)).mean())
        self.shares = shares

    @property
    def score(self) -> float:
        """The largest share, 0..1."""
        return max(self.shares.values(), default=0.0)

    @property
    def problem(self) -> str:
        """What left its range, in one line; empty while nothing did."""
        far = {name: share for name, share in self.shares.items() if share >= self.config.threshold}
        parts = []
        for name, share in sorted(far.items(), key=lambda item: -item[1]):
            known, now = self.profile.ranges[name], float(np.mean(self._values[name]))
            parts.append(
                f"{name} {now:.3g} (reference {known.low:.3g} to {known.high:.3g}, {share:.0%} of frames outside)"
            )
        return "; ".join(parts)
