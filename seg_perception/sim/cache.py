# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Rendered frames on disk, so that the second run starts at once. A damaged or foreign file is just not there."""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from seg_perception.sim.render import Rendering

DEPTH_UNIT = 0.001  # m; noisy depth is whole millimetres, as a driver publishes it
KEPT_LOOPS = 4
PICTURES = ("color", "depth", "instances")


@dataclass(frozen=True, slots=True)
class FrameCache:
    """One folder per loop; one file per frame, written aside and renamed. Files carry checksums (zip)."""

    folder: Path

    @classmethod
    def of(cls, key: object, root: bool | Path = True) -> FrameCache:
        """The cache of a loop that `key` describes (its repr) and this version of the simulator rendered."""
        base = root if isinstance(root, Path) else default_folder()
        digest = hashlib.sha256(repr(key).encode())
        for source in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(source.read_bytes())
        cache = cls(base / digest.hexdigest()[:16])
        _drop_old_loops(base, cache.folder)
        return cache

    def path(self, k: int) -> Path:
        return self.folder / f"frame_{k:04d}.npz"

    def load(self, k: int) -> Rendering | None:
        """Frame k, or None if it is not there, or not whole."""
        try:
            with np.load(self.path(k)) as file:
                color, depth, instances = (cv2.imdecode(file[n], cv2.IMREAD_UNCHANGED) for n in PICTURES)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, cv2.error):
            return None
        if color is None or depth is None or instances is None:
            return None
        metres = depth.astype(np.float32) * np.float32(DEPTH_UNIT)
        metres[depth == 0] = np.nan
        return Rendering(np.ascontiguousarray(color[..., ::-1]), metres, instances)

    def save(self, k: int, images: Rendering) -> None:
        """Keeps frame k; where the disk refuses, warns, and the frame is rendered again next time."""
        units = np.where(np.isfinite(images.depth), np.round(images.depth / DEPTH_UNIT), 0).astype(np.uint16)
        pictures = zip(PICTURES, (images.color[..., ::-1], units, images.instances), strict=True)
        encoded = {n: cv2.imencode(".png", p, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1] for n, p in pictures}
        aside = self.path(k).with_suffix(f".{os.getpid()}.tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                np.savez(file, **encoded)
            aside.replace(self.path(k))
        except OSError as error:
            warnings.warn(f"rendered frames are not kept in {self.folder}: {error}", RuntimeWarning, stacklevel=2)
            with suppress(OSError):
                aside.unlink(missing_ok=True)


def default_folder() -> Path:
    """$XDG_CACHE_HOME/seg_perception/sim, by default under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seg_perception" / "sim"


def _drop_old_loops(base: Path, current: Path) -> None:
    """Keeps the newest few loops: every new version of the simulator makes new ones."""
    if not base.is_dir():
        return
    others = sorted((f for f in base.iterdir() if f.is_dir() and f != current), key=lambda f: f.stat().st_mtime)
    for folder in others[: max(0, len(others) - KEPT_LOOPS + 1)]:
        shutil.rmtree(folder, ignore_errors=True)
