# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Segmenters whose answer a test can predict."""

from __future__ import annotations

import time
from dataclasses import dataclass

import cv2
import numpy as np

from seg_perception.options import option
from seg_perception.scene import Frame, Instances, Plane


@dataclass(frozen=True)
class RedConfig:
    """What is red enough."""

    threshold: int = option(150, "red values above this are object", ge=0, le=255, live=True)
    delay: float = option(0.0, "time that it pretends to need", unit="s", ge=0, le=10, live=True)
    model: str = option("", "a file whose first line is the model's name")


class RedThings:
    """Every red patch is an object of class `brick`; with depth, the plane behind it is the support."""

    Config = RedConfig
    class_names = ("brick", "bolt")

    def __init__(self, config: RedConfig) -> None:
        self.config = config
        self.model = ""
        if config.model:
            with open(config.model, encoding="utf-8") as file:
                self.model = file.readline().strip()
            if self.model == "broken":
                raise ValueError(f"model '{config.model}': found the word broken, expected a name")

    def with_config(self, config: RedConfig) -> RedThings:
        return RedThings(config)

    def segment(self, frame: Frame) -> Instances:
        time.sleep(self.config.delay)
        red = frame.color[:, :, 0].astype(int) - frame.color[:, :, 1]
        if (red < -200).any():  # a green picture
            raise RuntimeError("this picture is green")
        if frame.ignore is not None:
            red[frame.ignore] = 0
        count, labels = cv2.connectedComponents((red > self.config.threshold).astype(np.uint8))
        masks = np.arange(1, count)[:, None, None] == labels
        table = (Plane(np.array([0.0, 0.0, -1.0]), 0.8),)
        found = Instances.from_masks(masks, np.zeros(count - 1), None, ["brick"] * (count - 1))
        return Instances(
            found.boxes,
            found.scores,
            found.class_ids,
            found.class_names,
            found.masks,
            table,
            np.zeros(count - 1, np.int32),
        )


class NeedsNothing(RedThings):
    """The same without `with_config`: its options cannot change while it runs."""

    with_config = property()  # type: ignore[assignment]
