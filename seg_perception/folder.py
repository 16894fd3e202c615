# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Folders of RGB-D frames: what `run`, `evaluate`, the demo and the folder camera read.

FOLDER/meta.json                     width, height, fx, fy, cx, cy, depth_scale_to_m; optional distortion,
                                     ignore_invalid_depth, and frames: [{"name": NAME}, ...] for their order
FOLDER/frames/NAME_rgb.png or .jpg   color
FOLDER/frames/NAME_depth.png         16 bit, one channel, registered to the color image, 0 = not measured
FOLDER/frames/NAME_instances.png     optional truth, 8 or 16 bit: 0 = none, 1..N = object
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.scene import Frame, Intrinsics

FORMAT = "a folder of RGB-D frames has meta.json, frames/NAME_rgb.png or .jpg, and frames/NAME_depth.png (16 bit)"
META_KEYS = ("width", "height", "fx", "fy", "cx", "cy", "depth_scale_to_m")


class FolderError(ValueError):
    """A folder that cannot be read as RGB-D frames; one line that names the file, what was found and expected."""


@dataclass(frozen=True, slots=True, eq=False)
class RgbdRecord:
    """One frame of a folder. `instances` (H, W) int32, 0 = none, 1..N = object; None where there is no truth."""

    name: str
    frame: Frame
    instances: NDArray[np.int32] | None = None


class RgbdFolder:
    """The frames of a folder as a sequence of `RgbdRecord`; images are read when asked for.

    They come in meta.json's order, else in natural order of their names (2 before 10). Frame k is stamped
    k * `period_ns`. Raises FolderError, here for what is missing and on reading for what an image has wrong.
    """

    def __init__(self, path: str | Path, period_ns: int = 33_333_333, frame_id: str = "camera_color_optical_frame"):
        self.path = Path(path).expanduser()
        self.period_ns = period_ns
        self.frame_id = frame_id
        meta = _read_meta(self.path)
        try:
            fx, fy, cx, cy = (float(meta[key]) for key in META_KEYS[2:6])
            distortion = tuple(float(d) for d in meta.get("distortion") or ())
            self.intrinsics = Intrinsics(int(meta["width"]), int(meta["height"]), fx, fy, cx, cy, distortion)
            self.depth_scale = float(meta["depth_scale_to_m"])
        except (TypeError, ValueError) as error:
            raise FolderError(f"{self.path / 'meta.json'}: {error}") from error
        if not 0 < self.depth_scale < 1:
            raise FolderError(
                f"{self.path / 'meta.json'}: depth_scale_to_m: expected metres per unit between 0 and 1, "
                f"got {self.depth_scale:g}"
            )
        self.ignore_invalid_depth = bool(meta.get("ignore_invalid_depth", False))
        self.names = _names(self.path, meta)
        self._colors = [_color_path(self.path, name) for name in self.names]
        for name in self.names:
            if not self._file(name, "depth").is_file():
                raise FolderError(f"{self._file(name, 'depth')}: no such file, but {name} has a color image")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[RgbdRecord]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, k: int) -> RgbdRecord:
        name = self.names[k]
        bgr = self._read(self._colors[k], cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        color = np.ascontiguousarray(bgr[..., ::-1])
        stamp_ns = range(len(self))[k] * self.period_ns
        frame = Frame(color, self._depth(name), self.intrinsics, self.frame_id, stamp_ns)
        return RgbdRecord(name, frame, self._instances(name))

    @property
    def has_truth(self) -> bool:
        """Every frame has an instances image."""
        return all(self._file(name, "instances").is_file() for name in self.names)

    def _depth(self, name: str) -> NDArray[np.float32]:
        raw = self._read(self._file(name, "depth"), cv2.IMREAD_UNCHANGED)
        if raw.dtype != np.uint16 or raw.ndim != 2:
            raise FolderError(f"{self._file(name, 'depth')}: expected one channel of 16 bit, got {_kind(raw)}")
        metres = raw * np.float32(self.depth_scale)
        metres[raw == 0] = np.nan
        return metres

    def _instances(self, name: str) -> NDArray[np.int32] | None:
        path = self._file(name, "instances")
        if not path.is_file():
            return None
        labels = self._read(path, cv2.IMREAD_UNCHANGED)
        if labels.dtype not in (np.uint8, np.uint16) or labels.ndim != 2:
            raise FolderError(f"{path}: expected one channel of 8 or 16 bit, got {_kind(labels)}")
        return labels.astype(np.int32)

    def _file(self, name: str, what: str) -> Path:
        return self.path / "frames" / f"{name}_{what}.png"

    def _read(self, path: Path, flags: int) -> NDArray:
        data = np.frombuffer(path.read_bytes(), np.uint8)  # imread would write its own lines to stderr
        image = cv2.imdecode(data, flags) if data.size else None
        if image is None:
            raise FolderError(f"{path}: not an image that can be read ({data.size} bytes)")
        (height, width), k = image.shape[:2], self.intrinsics
        if (width, height) != (k.width, k.height):
            raise FolderError(f"{path}: expected {k.width}x{k.height} as in meta.json, got {width}x{height}")
        return image


def _read_meta(folder: Path) -> Mapping[str, Any]:
    if not folder.is_dir():
        raise FolderError(f"{folder}: no such folder; {FORMAT}")
    path = folder / "meta.json"
    if not path.is_file():
        raise FolderError(f"{path}: no such file; {FORMAT}")
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FolderError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(meta, Mapping):
        raise FolderError(f"{path}: expected an object with {', '.join(META_KEYS)}, got {type(meta).__name__}")
    missing = [key for key in META_KEYS if key not in meta]
    if missing:
        raise FolderError(f"{path}: missing {', '.join(missing)} (expected {', '.join(META_KEYS)})")
    return meta


def _names(folder: Path, meta: Mapping[str, Any]) -> tuple[str, ...]:
    if "frames" not in meta:
        found = {p.name.rpartition("_rgb.")[0] for p in (folder / "frames").glob("*_rgb.*")}
        names = tuple(sorted(found, key=_natural))
    else:
        listed = meta["frames"]
        if not isinstance(listed, list):
            raise FolderError(f"{folder / 'meta.json'}: frames: expected a list, got {type(listed).__name__}")
        names = tuple(str(entry.get("name", "")) if isinstance(entry, Mapping) else str(entry) for entry in listed)
        if not all(names):
            raise FolderError(f"{folder / 'meta.json'}: frames[{names.index('')}]: expected a name")
    if not names:
        raise FolderError(f"{folder}: no frames; {FORMAT}")
    return names


def _color_path(folder: Path, name: str) -> Path:
    choices = [folder / "frames" / f"{name}_rgb{ending}" for ending in (".png", ".jpg", ".jpeg")]
    found = next((path for path in choices if path.is_file()), None)
    if found is None:
        raise FolderError(f"{choices[0]}: no such file, neither .jpg; {FORMAT}")
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _kind(image: NDArray) -> str:
    return f"{image.shape[2] if image.ndim == 3 else 1} channels of {image.dtype.itemsize * 8} bit"
