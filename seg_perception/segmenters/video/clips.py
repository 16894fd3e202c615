# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Networks that read a few images at once and name objects by texts (MTTR), through a few lines of your own code.

    class MyNetwork:                                # named module:Class in the option network
        window = 12                                 # images that it reads at once, the newest last
        def __init__(self, model: Path, device: str): ...
        def __call__(self, clip, texts): ...        # (T, H, W, 3) uint8 RGB with T <= window, a list of texts
            return {"masks": masks,                 # (N, T, h, w): logits, or bool; row n is one object in all images
                    "scores": scores,               # (N,) 0..1
                    "texts": rows}                  # (N,) the text that each object answers

Each new image is read together with those before it. An object is the one of the last answer that it overlaps
most in the images that both answers cover, and keeps its id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.segmenters.video.session import Followed

SAME = 0.3  # least IoU over the images of both answers


class Clips:
    """A NamedSession around a network of clips. Raises ValueError naming what of an answer does not fit."""

    def __init__(self, network: Callable[..., Mapping[str, Any]], min_score: float) -> None:
        self._network = network
        self._min_score = min_score
        self._window = int(getattr(network, "window", 1))
        self._texts: tuple[str, ...] = ()
        self._last_id = 0
        self.reset()

    def reset(self) -> None:
        self._clip: deque[NDArray[np.uint8]] = deque(maxlen=self._window)
        self._before: list[tuple[int, str, NDArray[np.bool_]]] = []

    def look_for(self, texts: Sequence[str]) -> None:
        self._texts = tuple(texts)

    def step(self, color: NDArray[np.uint8]) -> Followed:
        height, width = color.shape[:2]
        self._clip.append(color)
        if not self._texts:
            return Followed(np.empty(0, np.int64), Masks.empty(height, width), np.empty(0, np.float32))
        masks, scores, rows = self._ask()
        order = [n for n in np.argsort(-scores, kind="stable") if scores[n] >= self._min_score]
        names = [self._texts[rows[n]] for n in order]
        above = [masks[n] if masks.dtype == np.bool_ else masks[n] > 0 for n in order]
        ids = self._identities(names, above)
        self._before = list(zip(ids, names, above, strict=True))
        dense = np.array([_enlarged(masks[n, -1], width, height) for n in order], bool).reshape(-1, height, width)
        return Followed(np.array(ids, np.int64), Masks.from_dense(dense), scores[order].astype(np.float32), names)

    def _ask(self) -> tuple[NDArray, NDArray[np.float32], NDArray[np.int64]]:
        clip = np.stack(self._clip)
        answer = self._network(clip, list(self._texts))
        masks, scores, rows = (np.asarray(answer[key]) for key in ("masks", "scores", "texts"))
        n = len(scores)
        if masks.ndim != 4 or masks.shape[:2] != (n, len(clip)) or rows.shape != (n,):
            expected = f"masks ({n}, {len(clip)}, h, w) and texts ({n},)"
            raise ValueError(f"clip network: expected {expected}, got {masks.shape} and {rows.shape}")
        if n and not 0 <= rows.min() <= rows.max() < len(self._texts):
            raise ValueError(f"clip network: expected texts 0..{len(self._texts) - 1}, got {rows.tolist()}")
        return masks, scores, rows

    def _identities(self, names: Sequence[str], masks: Sequence[NDArray[np.bool_]]) -> list[int]:
        """Best score first takes the object that it overlaps most; what overlaps none is new."""
        free = list(self._before)
        ids = []
        for name, mask in zip(names, masks, strict=True):
            rated = [(_overlap(mask, old), i) for i, (_, known, old) in enumerate(free) if known == name]
            best, i = max(rated, default=(0.0, -1))
            if best >= SAME:
                ids.append(free.pop(i)[0])
            else:
                self._last_id += 1
                ids.append(self._last_id)
        return ids


def _overlap(mask: NDArray[np.bool_], old: NDArray[np.bool_]) -> float:
    """IoU over the images that both clips have: the newest of the old one is the last but one of the new one."""
    shared = min(len(mask) - 1, len(old))
    if shared < 1:  # clips of one image: where it was is all that is known
        return _overlap_of(mask[-1:], old[-1:])
    return _overlap_of(mask[-1 - shared : -1], old[-shared:])


def _overlap_of(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    both, either = int((a & b).sum()), int((a | b).sum())
    return both / either if either else 0.0


def _enlarged(mask: NDArray, width: int, height: int) -> NDArray[np.bool_]:
    logits = mask.astype(np.float32) - 0.5 if mask.dtype == np.bool_ else mask.astype(np.float32)
    above: NDArray[np.bool_] = cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR) > 0
    return above
