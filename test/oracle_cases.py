# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Network outputs made of a seed, the same here and in the environments of the oracles: numpy and nothing else."""

import numpy as np

COUNTS = (0, 1, 100, 300)  # instances
SIZES = {0: (97, 131), 1: (131, 97), 100: (83, 127), 300: (61, 83)}  # height, width of the image: odd
CLASSES = 5
NET, CELLS = 128, 32  # sides of the network's input and of its maps


def blobs(count: int, side: int, seed: int) -> np.ndarray:
    """(count, side, side) float32 logits: round blobs beside each other, a little ragged, with spread edges."""
    rng = np.random.default_rng(seed)
    across = int(np.ceil(np.sqrt(max(count, 1))))
    y, x = np.mgrid[:side, :side] + 0.5
    maps = []
    for i in range(count):
        cy, cx = (np.array([i // across, i % across]) + 0.5 + rng.uniform(-0.2, 0.2, 2)) * side / across
        far = ((y - cy) ** 2 + (x - cx) ** 2) / (0.45 * side / across) ** 2
        maps.append(2 - 1.5 * far + rng.normal(scale=0.2, size=(side, side)))
    return np.array(maps, np.float32).reshape(count, side, side)


def queries(count: int, slots: int, no_object: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Class logits (Q, slots) of `count` likely queries and 12 unlikely ones, and their maps (Q, CELLS, CELLS)."""
    rng = np.random.default_rng(seed)
    total = count + 12
    logits = rng.normal(size=(total, slots)).astype(np.float32) - 6 * (not no_object)
    logits[np.arange(count), rng.integers(0, slots - no_object, count)] += rng.uniform(6, 10, count)
    if no_object:
        logits[count:, -1] += 9
    return logits.astype(np.float32), blobs(total, CELLS, seed)


def boxes(count: int, size: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (count, 4) px in an image of (height, width), some over its edge, and probabilities (count, 28, 28)."""
    rng = np.random.default_rng(seed)
    limits = np.array(size[::-1])
    corners = rng.uniform(-0.1, 0.8, (count, 2)) * limits
    ends = corners + rng.uniform(0.1, 0.4, (count, 2)) * limits
    found = np.concatenate([corners, ends], axis=1).clip(0, [*limits, *limits]).astype(np.float32)
    masks = np.array([blobs(1, 28, seed * 1000 + i)[0] for i in range(count)]).reshape(count, 28, 28)
    return found, (1 / (1 + np.exp(-masks))).astype(np.float32)


def yolo(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (1, 4 + 3 + 32, 525) of a raw head, 160 px, `count` anchors likely; prototypes (1, 32, 40, 40)."""
    rng = np.random.default_rng(seed)
    table = np.zeros((39, 525), np.float32)
    table[:2], table[2:4] = rng.uniform(0, 160, (2, 525)), rng.uniform(15, 60, (2, 525))
    table[4:7] = rng.uniform(0, 0.1, (3, 525))
    chosen = rng.permutation(525)[:count]
    table[4 + rng.integers(0, 3, count), chosen] = rng.permutation(count) / max(count, 1) * 0.6 + 0.35
    table[7:] = rng.normal(size=(32, 525))
    y, x = np.mgrid[:40, :40] / 5
    waves = [np.cos(x * rng.uniform(0.2, 2) + rng.uniform(0, 6)) * np.sin(y * rng.uniform(0.2, 2)) for _ in range(32)]
    return table[None], np.array(waves, np.float32)[None]
