# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A STAND-IN of a network that reads texts, with CLIPSeg's and GroupViT's inputs and outputs: the token of a color's
name is on where the image has that color. And a small tokenizer made by the real tokenizers library, as CLIP's: a
start and an end token around each text, the end token the one with the highest id.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from seg_perception.options import option
from seg_perception.plugins import TensorSpec

LENGTH, END, START = 77, 999, 998
WORDS = {"red": 10, "green": 11, "blue": 12, "mug": 20, "a": 21, "photo": 22, "of": 23, "background": 24}
COLORS = {10: (255, 0, 0), 11: (0, 255, 0), 12: (0, 0, 255), 24: (90, 90, 90)}
SIDE = 64


def write_tokenizer(path: Path) -> Path:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({**WORDS, "[UNK]": 1, "<s>": START, "<|endoftext|>": END}, "[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A <|endoftext|>", special_tokens=[("<s>", START), ("<|endoftext|>", END)]
    )
    tokenizer.save(str(path))
    return path


def spec(name, *shape, dtype=np.float32):
    return TensorSpec(name, shape, np.dtype(dtype))


@dataclass(frozen=True)
class Config:
    """The network has no file of its own."""

    model: str = option("", "not read")
    texts: int = option(-1, "how many texts it takes at once; -1 = any number")
    layout: str = option("clipseg", "whose outputs", choices=("clipseg", "groupvit"))


class ColorWords:
    """Logits +4 where the color is the word's, -4 elsewhere."""

    Config = Config
    feeds: ClassVar[list] = []

    def __init__(self, config):
        n, self.layout = config.texts, config.layout
        images = n if self.layout == "clipseg" else 1
        self.inputs = (
            spec("input_ids", n, LENGTH, dtype=np.int64),
            spec("pixel_values", images, 3, SIDE, SIDE),
            spec("attention_mask", n, LENGTH, dtype=np.int64),
        )
        shape = (n, SIDE, SIDE) if self.layout == "clipseg" else (1, n, SIDE, SIDE)
        self.outputs = (spec("logits" if self.layout == "clipseg" else "segmentation_logits", *shape),)
        self.metadata = {}

    def __call__(self, inputs):
        self.feeds.append(inputs)
        image = inputs["pixel_values"][0]
        maps = []
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
            words = ids[mask == 1]
            assert (words[0], words[-1], set(ids[mask == 0])) == (START, END, {END})
            color = next((np.float32(COLORS[w]) / 255 for w in words if w in COLORS), np.full(3, 9, np.float32))
            maps.append(np.where(np.abs(image - color[:, None, None]).max(axis=0) < 0.2, 4, -4))
        maps = np.array(maps, np.float32)
        return {self.outputs[0].name: maps if self.layout == "clipseg" else maps[None]}


def sidecar(**more) -> dict:
    plain = {"mean": [0, 0, 0], "std": [1, 1, 1]}
    text = {"tokenizer": "tokenizer.json"}
    return {"family": "clipseg", "names": ["red mug"], "preprocessing": plain, "text": text, **more}


def picture() -> np.ndarray:
    """Red on the left, green on the right, (120, 192, 3)."""
    color = np.full((120, 192, 3), 90, np.uint8)
    color[30:90, 30:70] = (255, 0, 0)
    color[30:90, 120:170] = (0, 255, 0)
    return color
