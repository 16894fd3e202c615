# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The sizes that an engine with dynamic inputs is built for: smallest, usual and largest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seg_perception.options import ConfigError

Shape = tuple[int, ...]
FORM = "NAME=1x3x480x640, or NAME=SMALLEST..USUAL..LARGEST"


@dataclass(frozen=True, slots=True)
class Range:
    """The shapes of one input; the engine is fastest at `usual`."""

    smallest: Shape
    usual: Shape
    largest: Shape

    def holds(self, shape: Sequence[int]) -> bool:
        """Whether an input of this shape can be run."""
        return len(shape) == len(self.usual) and all(
            low <= n <= high for low, n, high in zip(self.smallest, shape, self.largest, strict=True)
        )

    def __str__(self) -> str:
        return "..".join("x".join(map(str, shape)) for shape in (self.smallest, self.usual, self.largest))


def parse_shapes(texts: Sequence[str]) -> dict[str, Range]:
    """The option `shapes`: one `NAME=1x3x480x640` or `NAME=SMALLEST..USUAL..LARGEST` per input."""
    ranges = {}
    for text in texts:
        name, _, rest = text.rpartition("=")
        parts = rest.split("..")
        if not name or len(parts) not in (1, 3) or not all(re.fullmatch(r"\d+(x\d+)*", part) for part in parts):
            raise ConfigError(f"shapes: expected {FORM}, got '{text}'")
        shapes = [tuple(map(int, part.split("x"))) for part in parts]
        low, usual, high = shapes * 3 if len(shapes) == 1 else shapes
        found = Range(low, usual, high)
        if len(low) != len(high) or not found.holds(usual):
            raise ConfigError(
                f"shapes: {name}: expected smallest <= usual <= largest, each with as many sizes, got {rest}"
            )
        ranges[name] = found
    return ranges


def fit_ranges(model: str, inputs: Mapping[str, Shape], ranges: Mapping[str, Range]) -> dict[str, Range]:
    """The range of every dynamic input (-1 in its shape). Raises ConfigError: one is missing, unknown, does not fit."""
    for name, given in ranges.items():
        if name not in inputs:
            raise ConfigError(f"shapes: {model} has no input '{name}' (inputs: {', '.join(inputs)})")
        fixed = inputs[name]
        for shape in (given.smallest, given.usual, given.largest):
            if len(shape) != len(fixed) or any(n not in (-1, m) for n, m in zip(fixed, shape, strict=True)):
                raise ConfigError(f"shapes: {name} of {model} is {_text(fixed)}, got {given}")
    dynamic = {name: shape for name, shape in inputs.items() if -1 in shape}
    missing = [name for name in dynamic if name not in ranges]
    if missing:
        name = missing[0]
        raise ConfigError(
            f"input '{name}' of {model} is dynamic {_text(inputs[name])}: give the size you use in the backend's "
            f"shapes, e.g. '{name}={_example(inputs[name])}', or a range, SMALLEST..USUAL..LARGEST"
        )
    return {name: ranges[name] for name in dynamic}


def _text(shape: Shape) -> str:
    return "(" + ", ".join("?" if n == -1 else str(n) for n in shape) + ")"


def _example(shape: Shape) -> str:
    usual = [1, *shape[1:-2], 480, 640] if len(shape) == 4 else list(shape)
    return "x".join(str(u if n == -1 else n).replace("-1", "1") for n, u in zip(shape, usual, strict=True))
