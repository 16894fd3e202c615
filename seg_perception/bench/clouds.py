# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How far fused clouds are from the truth of rendered scenes: the figures of benchmark/fusion_quality.py."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from seg_perception.bench import Progress, Row
from seg_perception.files import shipped
from seg_perception.options import ConfigError


def run(rows: list[Row], progress: Progress, views: int = 4, scenes: int = 8) -> None:
    """One row per depth noise and per px that masks are too wide: `views` of the demo's table, `scenes` crowded ones.

    Raises ConfigError where the sources are not at hand.
    """
    quality = _sources()
    total = len(quality.NOISES) * len(quality.BLEEDS)
    for row in progress(quality.cloud_quality(views, scenes), total, "clouds", "row"):
        rows.append(row)


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
