# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How far fused clouds are from the truth of rendered scenes: the figures of benchmark/fusion_quality.py."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np

from seg_perception.bench import Progress, Row
from seg_perception.files import shipped
from seg_perception.options import ConfigError
from seg_perception.sim import SimCamera, random_scene

NOISES, BLEEDS = ("none", "d435", "kinect"), (0, 3)
LOOP, APART = 60, 7  # frames of a camera's way around the table; views of the random scenes


def run(rows: list[Row], progress: Progress, views: int = 4, scenes: int = 8) -> None:
    """One row per sensor and per px that masks are too wide: `views` of the demo's table and `scenes` crowded ones.

    Raises ConfigError where the sources are not at hand.
    """
    quality = _sources()
    jobs = [(noise, bleed) for noise in NOISES for bleed in BLEEDS]
    for noise, bleed in progress(jobs, len(jobs), "clouds", "row"):
        shots = [(SimCamera(motion="moving", noise=noise, cache=False), LOOP * v // views) for v in range(views)]
        for k in range(scenes):
            camera = SimCamera(motion="moving", noise=noise, scene=random_scene(k), cache=False)
            shots.append((camera, APART * k))
        rows.append({"noise": noise, "bleed_px": bleed, **_figures(quality.measure(c, k, bleed) for c, k in shots)})


def _figures(shots: Iterable[Iterable[Any]]) -> Row:
    """Of all objects: errors in mm, shares of points."""
    found = np.array([values for shot in shots for values in shot], np.float64)
    centroid, extent, precision, recall, error = found.T
    return {
        "objects": len(found),
        "precision": round(float(precision.mean()), 4),
        "recall": round(float(recall.mean()), 4),
        "p95_error_mm": round(1e3 * float(np.median(error)), 2),
        "extent_error_mm": round(1e3 * float(np.median(extent)), 2),
        "centroid_error_mm": round(1e3 * float(np.median(centroid)), 2),
    }


def _sources() -> ModuleType:
    try:
        path = shipped("benchmark", "fusion_quality.py")
    except FileNotFoundError as error:
        raise ConfigError(f"clouds: needs the repository's sources: {error}") from error
    spec = importlib.util.spec_from_file_location("seg_perception_fusion_quality", path)
    assert spec is not None  # of an existing .py file
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
