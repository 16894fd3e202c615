# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Images to try a network on: a folder of photographs or of RGB-D frames, or the simulated table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from seg_perception.folder import FolderError, RgbdFolder
from seg_perception.scene import Frame

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
SIMULATED = "the simulated table"


@dataclass(frozen=True)
class Samples:
    """Images by name, read one at a time; `source` says where they are from."""

    source: str
    names: tuple[str, ...]
    _folder: Path | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        if self._folder is None:
            from seg_perception.sim import SimCamera

            camera = SimCamera(640, 480, motion="moving", noise="none", frames=60)
            for k, name in enumerate(self.names):
                yield name, camera.frame(k * 60 // len(self)).frame
        elif (self._folder / "meta.json").is_file():
            folder = RgbdFolder(self._folder)
            for name in self.names:
                yield name, folder[folder.names.index(name)].frame
        else:
            for name in self.names:
                yield name, Frame(_picture(self._folder / name))


def samples(folder: Path | None, count: int) -> Samples:
    """At most `count` images, evenly taken from a folder; without one, rendered. Raises FolderError: none are there."""
    if folder is None:
        return Samples(SIMULATED, tuple(f"sim{k}" for k in range(min(count, 3))))
    if not folder.is_dir():
        raise FolderError(f"{folder}: no such folder")
    if (folder / "meta.json").is_file():
        names = RgbdFolder(folder).names
    else:
        names = tuple(sorted(p.name for p in folder.iterdir() if p.suffix.lower() in PICTURES and p.is_file()))
    if not names:
        raise FolderError(f"{folder}: no images ({', '.join(PICTURES)}), and no folder of RGB-D frames")
    chosen = np.unique(np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int))
    return Samples(str(folder), tuple(names[k] for k in chosen), folder)


def _picture(path: Path) -> np.ndarray:
    data = np.frombuffer(path.read_bytes(), np.uint8)  # imread would write its own lines to stderr
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise FolderError(f"{path}: not an image that can be read ({data.size} bytes)")
    return np.ascontiguousarray(image[..., ::-1])
