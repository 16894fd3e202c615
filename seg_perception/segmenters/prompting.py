# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Prompts: what a segmenter shall look for, said while it runs. A segmenter that takes some is a `PromptTaker`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from seg_perception.segmenters.sam.prompts import Prompt

BOXES, POINTS, TEXTS, ROI = "boxes", "points", "texts", "roi"
MOST = 100  # texts or objects at a time


class PromptError(ValueError):
    """A prompt that cannot be taken; one line that names what and why."""


@dataclass(frozen=True, eq=False)
class Prompts:
    """What is looked for: `texts`, one class each; or `objects`, in pixels of the image. Both empty = as configured.

    `roi` (4,) px x_min, y_min, x_max, y_max: only there. `nothing`: what is looked for cannot be seen now. `serial`
    counts the askings: the same places of another serial are meant anew. Raises PromptError: both, or more than MOST.
    """

    texts: tuple[str, ...] = ()
    objects: tuple[Prompt, ...] = ()
    roi: tuple[float, float, float, float] | None = None
    nothing: bool = False
    serial: int = 0

    def __post_init__(self) -> None:
        if self.texts and self.objects:
            raise PromptError("texts: expected either texts or places (boxes, points), got both")
        if max(len(self.texts), len(self.objects)) > MOST:
            raise PromptError(f"expected at most {MOST} texts or objects, got {len(self.texts) + len(self.objects)}")
        for text in self.texts:
            if not text.strip():
                raise PromptError("texts: expected words, got an empty text")

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of prompts among them."""
        kinds = {TEXTS} if self.texts else set()
        kinds |= {BOXES for p in self.objects if p.box is not None} | {POINTS for p in self.objects if len(p.points)}
        return frozenset(kinds)

    def check_inside(self, width: int, height: int) -> None:
        """Raises PromptError for a point outside the image, or a box that has nothing in it."""
        for i, prompt in enumerate(self.objects):
            for x, y in prompt.points:
                if not (0 <= x < width and 0 <= y < height):
                    raise PromptError(f"object {i}: point {x:.0f}, {y:.0f} lies outside the {width}x{height} image")
            if prompt.box is not None and _inside(prompt.box, width, height) is None:
                box = ", ".join(f"{v:.0f}" for v in prompt.box)
                raise PromptError(f"object {i}: box {box} lies outside the {width}x{height} image")

    def fitted(self, width: int, height: int) -> Prompts:
        """The same with boxes cut at the image's edge. Raises PromptError as `check_inside`."""
        self.check_inside(width, height)
        objects = (p if p.box is None else replace(p, box=_inside(p.box, width, height)) for p in self.objects)
        return replace(self, objects=tuple(objects))


@runtime_checkable
class PromptTaker(Protocol):
    """A segmenter that takes prompts while it runs."""

    @property
    def prompt_kinds(self) -> frozenset[str]:
        """Which of boxes, points, texts and roi it takes."""

    def check_prompts(self, prompts: Prompts) -> None:
        """Raises PromptError for prompts of a kind it takes that it cannot take all the same."""

    def look_for(self, prompts: Prompts) -> None:
        """From the next image on; called between two images."""


def prompt_kinds(segmenter: Any) -> frozenset[str]:
    """Which prompts a segmenter takes; none where it is no PromptTaker."""
    return segmenter.prompt_kinds if isinstance(segmenter, PromptTaker) else frozenset()


def not_taken(segmenter: Any, kinds: frozenset[str], name: str) -> str:
    """What the segmenter called `name` takes, and which of `kinds` it does not; empty if it takes them all."""
    known = prompt_kinds(segmenter)
    missing = sorted(kinds - known)
    takes = ", ".join(sorted(known - {ROI})) or "no prompts at all"
    return f"segmenter '{name}' takes {takes}, not {', '.join(missing)}" if missing else ""


def check_taken(segmenter: Any, prompts: Prompts, name: str) -> None:
    """Raises PromptError when the segmenter called `name` cannot take the prompts: says what it takes."""
    if reason := not_taken(segmenter, prompts.kinds, name):
        raise PromptError(reason)
    if prompts.kinds:
        segmenter.check_prompts(prompts)


def _inside(box: Any, width: int, height: int) -> Any:
    cut = np.clip(box, 0, np.float32([width, height, width, height]))
    return cut if (cut[2:] > cut[:2]).all() else None
