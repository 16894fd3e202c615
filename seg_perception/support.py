# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Support surfaces: the planes that objects stand on, never the floor they do not."""

from __future__ import annotations

from dataclasses import dataclass

from seg_perception.masks import Masks
from seg_perception.options import option
from seg_perception.scene import Frame, Plane


@dataclass(frozen=True)
class SupportConfig:
    """How support surfaces are found."""

    max_supports: int = option(4, "surfaces looked for", ge=0, le=16, live=True)


def find_supports(frame: Frame, config: SupportConfig, masks: Masks | None = None) -> tuple[Plane, ...]:
    return ()
