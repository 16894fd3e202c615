# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which of a segmenter's instances count, under what name, and who owns a pixel: the same for every segmenter.

In this order: classes that never count, scores by class, new names, areas, masks that cover each other, shared pixels.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.options import ConfigError, option
from seg_perception.scene import Instances
from seg_perception.spans import shared_pixels

MOST_CLASSES = 100_000


@dataclass(frozen=True)
class SelectionConfig:
    """Which instances count. Classes are called as the segmenter calls them; its own `classes` says which it finds."""

    deny: tuple[str, ...] = option((), "names of classes that never count", live=True)
    score_thresholds: tuple[str, ...] = option(
        (), "CLASS=SCORE: instances of the class up to this score are dropped, on top of the segmenter's own threshold",
        live=True,
    )  # fmt: skip
    remap: tuple[str, ...] = option(
        (), "OLD=NEW or OLD=NEW:ID: another name for a class; without ID that of the class called NEW, else of the "
        "first OLD; several classes may become one", live=True,
    )  # fmt: skip
    min_area: int = option(0, "instances with fewer mask pixels are dropped", unit="px", ge=0, live=True)
    max_area: int = option(0, "instances with more mask pixels are dropped; 0 = no limit", unit="px", ge=0, live=True)
    nms_iou: float = option(
        1.0, "of two masks with a higher IoU only the one with the better score stays; 1 = both do", ge=0, le=1,
        live=True,
    )  # fmt: skip
    nms_containment: float = option(
        1.0, "a mask with more than this share of its pixels in one with a better score is dropped; 1 = never", ge=0,
        le=1, live=True,
    )  # fmt: skip
    nms_classes: str = option(
        "same", "masks that compete: of the same class, after remap, or of all", choices=("same", "all"), live=True
    )
    overlap: str = option(
        "keep", "who owns a pixel of several masks: all of them, the one with the higher score, the nearer one (by "
        "median depth; what has none is behind), or the smaller one",
        choices=("keep", "higher_score", "nearer", "smaller"), live=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        for key in ("deny", "score_thresholds", "remap"):  # [''] is how an empty list is written for ROS
            object.__setattr__(self, key, tuple(text for text in getattr(self, key) if text.strip()))
        if self.max_area and self.max_area < self.min_area:
            raise ValueError(f"max_area: expected 0 or at least min_area, {self.min_area} px, got {self.max_area} px")
        self.thresholds()
        for text in self.remap:
            renaming(text)

    def thresholds(self) -> dict[str, float]:
        """Class name -> least score. Raises ConfigError."""
        found = {}
        for text in self.score_thresholds:
            name, _, score = text.rpartition("=")
            try:
                found[name.strip()] = float(score)
            except ValueError:
                name = ""
            if not name.strip() or not 0 <= found[name.strip()] <= 1:
                raise ConfigError(f"score_thresholds: expected CLASS=SCORE with a score 0 to 1, got '{text}'")
        return found


@dataclass(frozen=True)
class Renaming:
    """Class `old` is called `new` and has the id `id`; -1 = not said."""

    old: str
    new: str
    id: int = -1


def renaming(text: str) -> Renaming:
    """`OLD=NEW` or `OLD=NEW:ID`. Raises ConfigError."""
    old, equals, new = (part.strip() for part in text.partition("="))
    name, colon, number = (part.strip() for part in new.rpartition(":"))
    if colon and number.isdecimal() and int(number) < MOST_CLASSES:
        new, class_id = name, int(number)
    else:
        class_id = -1
    if not (equals and old and new):
        raise ConfigError(f"remap: expected OLD=NEW or OLD=NEW:ID, got '{text}'")
    return Renaming(old, new, class_id)


class Selection:
    """A config bound to the names that a segmenter has for its classes; none = they are not known beforehand.

    `class_names` are the names by id after remap. Raises ConfigError for a name that the segmenter does not have (not
    with `strict` off: prompts come and go) and for two classes of one id.
    """

    def __init__(self, config: SelectionConfig, class_names: Sequence[str], strict: bool = True) -> None:
        self.config = config
        self.known = tuple(class_names)
        self._thresholds = config.thresholds()
        renamings = [renaming(text) for text in config.remap]
        if strict and self.known:
            for key, names in (
                ("deny", config.deny),
                ("score_thresholds", self._thresholds),
                ("remap", [r.old for r in renamings]),
            ):
                for name in names:
                    if name not in self.known:
                        raise ConfigError(f"selection.{key}: no class '{name}'; {_hint(name, self.known)}")
        self._ids, self.class_names = _renamed(self.known, renamings, strict)
        self._idle = config == SelectionConfig()

    def apply(self, found: Instances, depth: NDArray[np.float32] | None = None) -> Instances:
        """The instances that count, in their order; `depth` (H, W) m is for `overlap: nearer`."""
        if self._idle or len(found) == 0:
            return found
        config, names = self.config, found.class_names
        counts = np.array([name not in config.deny for name in names], np.bool_)
        counts &= found.scores > np.array([self._thresholds.get(name, -1.0) for name in names], np.float32)
        found = self._rename(found if counts.all() else found[counts])
        found = self._of_area(found)
        if len(found) > 1 and min(config.nms_iou, config.nms_containment) < 1:
            found = found[self._uncovered(found)]
        if len(found) > 1 and config.overlap != "keep":
            found = self._of_area(self._divide(found, depth))
        return found

    def _rename(self, found: Instances) -> Instances:
        if not self._ids:
            return found
        renamed = [self._ids.get(name, (name, -1)) for name in found.class_names]
        ids = [own if new < 0 else new for own, (_, new) in zip(found.class_ids, renamed, strict=True)]
        return replace(found, class_ids=np.array(ids, np.int32), class_names=tuple(name for name, _ in renamed))

    def _of_area(self, found: Instances) -> Instances:
        low, high = self.config.min_area, self.config.max_area
        if not (low or high):
            return found
        areas = found.masks.areas
        fits = (areas >= low) & ((areas <= high) if high else True)
        return found if fits.all() else found[fits]

    def _uncovered(self, found: Instances) -> NDArray[np.int64]:
        """Rows that stay: best first, one goes when a better one that stays covers it too much."""
        masks, areas, config = found.masks, found.masks.areas, self.config
        rois = masks.rois
        shared = shared_pixels(masks.spans, masks.offsets, rois, masks.spans, masks.offsets, rois)
        united = areas[:, None] + areas[None] - shared
        covered = shared > config.nms_iou * united
        if config.nms_containment < 1:
            covered |= shared > config.nms_containment * areas[:, None]
        if config.nms_classes == "same":
            covered &= found.class_ids[:, None] == found.class_ids[None]
        kept: list[int] = []
        for row in np.argsort(-found.scores, kind="stable"):
            if not covered[row, kept].any():
                kept.append(int(row))
        return np.sort(np.array(kept, np.int64))

    def _divide(self, found: Instances, depth: NDArray[np.float32] | None) -> Instances:
        """Each pixel belongs to one instance; those that keep none are left out."""
        masks, areas = found.masks, found.masks.areas
        keys = [found.scores]  # the last one decides first
        if self.config.overlap == "smaller":
            keys.append(-areas)
        elif self.config.overlap == "nearer" and depth is not None:
            keys.append(-_median_depths(masks.spans, masks.offsets, depth))
        # Of equal ones the first row owns the pixel, so it is painted last.
        order = np.lexsort([-np.arange(len(found)), *keys])
        divided = Masks.from_label_image(masks.label_image(order), len(found))
        less = divided.areas < areas
        if not less.any():
            return found
        boxes = np.where(less[:, None], divided.boxes, found.boxes)
        return replace(found, masks=divided, boxes=boxes)[(divided.areas > 0) | (areas == 0)]


def _renamed(
    names: tuple[str, ...], renamings: Sequence[Renaming], strict: bool
) -> tuple[dict[str, tuple[str, int]], tuple[str, ...]]:
    """Old name -> new name and id, and all names by id."""
    said: dict[str, int] = {}
    for r in renamings:
        if said.setdefault(r.new, r.id) not in (-1, r.id) and r.id >= 0:
            raise ConfigError(f"selection.remap: class '{r.new}' has two ids, {said[r.new]} and {r.id}")
        said[r.new] = max(said[r.new], r.id)
    out, after = {}, list(names)
    gone = {r.old for r in renamings if r.new != r.old}
    for r in renamings:
        class_id = said[r.new]
        if class_id < 0 and r.new in names:
            class_id = names.index(r.new)
        if class_id < 0 and r.old in names:
            class_id = said[r.new] = names.index(r.old)
        out[r.old] = (r.new, class_id)
        if class_id < 0:
            continue  # class-agnostic, or a class that is not there now
        after += [f"class_{i}" for i in range(len(after), class_id + 1)]
        owner = names[class_id] if class_id < len(names) else r.new
        if strict and owner not in (r.new, r.old) and owner not in gone:
            raise ConfigError(f"selection.remap: id {class_id} for '{r.new}' is that of class '{owner}'")
        after[class_id] = r.new
    return out, tuple(after)


def _hint(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    listing = ", ".join(known[:12]) + (f" ... {len(known)} in all" if len(known) > 12 else "")
    return f"did you mean '{close[0]}'? known: {listing}" if close else f"known: {listing}"


@njit(cache=True, nogil=True)
def _median_depths(spans, offsets, depth):  # type: ignore[no-untyped-def]
    """(N,) the median of each mask's measured depth; inf where nothing is measured."""
    n = len(offsets) - 1
    out = np.full(n, np.inf)
    for i in range(n):
        count = 0
        for s in range(offsets[i], offsets[i + 1]):
            count += spans[s, 2] - spans[s, 1]
        values = np.empty(count, np.float32)
        count = 0
        for s in range(offsets[i], offsets[i + 1]):
            for x in range(spans[s, 1], spans[s, 2]):
                z = depth[spans[s, 0], x]
                if 0 < z < np.inf:
                    values[count] = z
                    count += 1
        if count:
            out[i] = np.median(values[:count])
    return out
