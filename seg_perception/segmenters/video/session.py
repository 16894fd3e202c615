# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a session with memory must be able to do, and what it says about an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.segmenters.sam.prompts import Prompt


@dataclass(frozen=True, slots=True, eq=False)
class Seed:
    """How an object is shown to a session: by a prompt, or by its mask (H, W) bool."""

    prompt: Prompt | None = None
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Followed:
    """The objects of a session in one image: `ids` (N,) > 0, `masks`, empty where one is not to be seen, `scores` (N,)
    that it is there. `names`: a class name for each, where the session knows one."""

    ids: NDArray[np.int64]
    masks: Masks
    scores: NDArray[np.float32]
    names: Sequence[str] = field(default_factory=tuple)


@runtime_checkable
class ShownSession(Protocol):
    """Follows what it is shown (SAM 2). Ids are given by the caller; an object that is not shown is not known."""

    def step(self, color: NDArray[np.uint8]) -> Followed:
        """The known objects in the next image, in the order in which they were added."""

    def add(self, seeds: Mapping[int, Seed]) -> Followed:
        """Further objects by id, shown in the image of the last `step`; they are in the answers from now on."""

    def remove(self, ids: Sequence[int]) -> None: ...

    def reset(self) -> None: ...


@runtime_checkable
class NamedSession(Protocol):
    """Finds and follows what texts name (MTTR); gives the ids itself."""

    def look_for(self, texts: Sequence[str]) -> None: ...

    def step(self, color: NDArray[np.uint8]) -> Followed: ...

    def reset(self) -> None: ...
