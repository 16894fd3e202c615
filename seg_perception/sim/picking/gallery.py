# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of what failed: the target and its grasp on the color image, with the reason, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.draw import overlay
from seg_perception.masks import Masks
from seg_perception.scene import Grasp, Scene
from seg_perception.sim.picking.trial import Verdict

SIDE, FOOT = 240, 34  # px, of a tile, and of the lines under it
COLUMNS = 6
INK, PAPER = (235, 235, 235), (24, 24, 24)


def tile(
    scene: Scene, truth: Masks, target: int, row: int | None, grasp: Grasp | None, verdict: Verdict
) -> NDArray[np.uint8]:
    """(SIDE + FOOT, SIDE, 3) RGB around a target: instance `row` that stands for it, and the grasp that was tried."""
    picture = scene.frame.color
    if row is not None:
        grasps = () if grasp is None else (grasp,)
        shown = replace(scene, instances=scene.instances[[row]], objects=(replace(scene.objects[row], grasps=grasps),))
        picture = overlay(picture, shown, boxes=False, labels=False)
    x, y, w, h = truth.rois[target].tolist()
    left = int(np.clip(x + w // 2 - SIDE // 2, 0, scene.frame.width - SIDE))
    top = int(np.clip(y + h // 2 - SIDE // 2, 0, scene.frame.height - SIDE))
    out = np.full((SIDE + FOOT, SIDE, 3), PAPER, np.uint8)
    out[:SIDE] = picture[top : top + SIDE, left : left + SIDE]
    score = "" if grasp is None else f"   score {grasp.score:.2f}"
    where = " ".join(filter(None, (verdict.part, verdict.other)))
    for k, line in enumerate((verdict.outcome.value + score, where)):
        at = (4, SIDE + 13 + 15 * k)
        cv2.putText(out, line[:44], at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, INK, 1, cv2.LINE_AA)
    return out


def grid(tiles: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The tiles in rows of COLUMNS."""
    rows = -(-len(tiles) // COLUMNS)
    out = np.full((rows * (SIDE + FOOT), min(len(tiles), COLUMNS) * SIDE, 3), PAPER, np.uint8)
    for k, picture in enumerate(tiles):
        y, x = k // COLUMNS * (SIDE + FOOT), k % COLUMNS * SIDE
        out[y : y + SIDE + FOOT, x : x + SIDE] = picture
    return out
