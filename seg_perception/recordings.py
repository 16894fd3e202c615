# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""MCAP files with RGB-D frames: what the node's ~/capture wrote, and bags of a camera. Needs the extra `capture`.

The color topic is the one whose `camera_info` beside it fits and whose encoding is a picture's; the depth topic is one
of 16UC1 or 32FC1 and the same size. Frames are pairs of them, nearest stamps within 20 ms. Depth must be registered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.calibration import intrinsics_from_info
from seg_perception.encodings import PACKED, PLANAR, ImageError, plane, to_rgb
from seg_perception.folder import FolderError, RgbdFolder, RgbdRecord
from seg_perception.scene import Frame, Intrinsics

DEPTH = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
SLOP = 20_000_000  # ns between the two stamps of a pair
IMAGE, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo"


class RecordingError(FolderError):
    """A file that cannot be read as RGB-D frames; one line that names it, what was found and expected."""


def open_frames(path: str | Path) -> RgbdFolder | Recording:
    """The frames of a folder (meta.json), of an .mcap file or of a folder of those. Raises FolderError."""
    path = Path(path).expanduser()
    files = sorted(path.glob("*.mcap")) if path.is_dir() and not (path / "meta.json").is_file() else []
    if files or path.suffix == ".mcap":
        return Recording(path, files or [path])
    return RgbdFolder(path)


@dataclass(frozen=True, slots=True)
class Pairing:
    """One frame in a file: the log times of its messages."""

    file: Path
    color_topic: str
    depth_topic: str
    color_ns: int
    depth_ns: int
    stamp_ns: int


class Recording:
    """The frames of MCAP files as a sequence of `RgbdRecord`; images are read when asked for."""

    has_truth = False
    ignore_invalid_depth = False

    def __init__(self, path: Path, files: list[Path]) -> None:
        self.path = path
        self._calibrations: dict[Path, Intrinsics] = {}
        self._pairs: list[Pairing] = []
        for file in files:
            if not file.is_file():
                raise RecordingError(f"{file}: no such file")
            self._index(file)
        self.names = [f"{p.file.stem}_{i:04d}" if len(files) == 1 else p.file.stem for i, p in enumerate(self._pairs)]
        if len(set(self.names)) < len(self.names):
            self.names = [f"{name}_{i:04d}" for i, name in enumerate(self.names)]
        self.intrinsics = self._calibrations[self._pairs[0].file]

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[RgbdRecord]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, k: int) -> RgbdRecord:
        pair = self._pairs[k]
        color = _one(pair.file, pair.color_topic, pair.color_ns)
        depth = _metres(_one(pair.file, pair.depth_topic, pair.depth_ns))
        try:
            own = to_rgb(color).copy()  # kernels know arrays that may be written; bytes of a file are others
            frame = Frame(own, depth, self._calibrations[pair.file], color.header.frame_id, pair.stamp_ns)
        except (ImageError, ValueError) as error:
            raise RecordingError(f"{pair.file}: frame {k}: {error}") from error
        return RgbdRecord(self.names[k], frame)

    def _index(self, file: Path) -> None:
        """Finds the topics and the pairs of a file."""
        stamps: dict[str, list[tuple[int, int]]] = {}  # topic -> stamp, log time
        encodings: dict[str, tuple[str, int, int]] = {}
        infos: dict[str, Any] = {}
        for kind, topic, log_ns, message in _messages(file, (IMAGE, INFO)):
            if kind == INFO:
                infos.setdefault(topic, message)
                continue
            stamps.setdefault(topic, []).append((_ns(message.header.stamp), log_ns))
            encodings.setdefault(topic, (message.encoding, message.width, message.height))
        depths = [t for t, (e, *_) in encodings.items() if e in DEPTH]
        colors = [t for t, (e, *_) in encodings.items() if e not in DEPTH and (e in PACKED or e in PLANAR)]
        chosen = next(((c, d) for c in colors for d in depths if encodings[c][1:] == encodings[d][1:]), None)
        if chosen is None:
            listing = ", ".join(f"{t} {e} {w}x{h}" for t, (e, w, h) in encodings.items()) or "no images"
            raise RecordingError(
                f"{file}: expected an image topic and one of depth (16UC1, 32FC1) of the same size, found {listing}"
            )
        color, depth = chosen
        self._calibrations[file] = _calibration(file, infos, color, encodings[color][1:])
        known = len(self._pairs)
        partners = sorted(stamps[depth])
        found = np.array([stamp for stamp, _ in partners])
        for stamp, log_ns in stamps[color]:
            after = min(int(np.searchsorted(found, stamp)), len(found) - 1)
            nearest = min((max(after - 1, 0), after), key=lambda k: abs(int(found[k]) - stamp))
            if abs(int(found[nearest]) - stamp) <= SLOP:
                self._pairs.append(Pairing(file, color, depth, log_ns, partners[nearest][1], stamp))
        if len(self._pairs) == known:
            raise RecordingError(f"{file}: no stamps of '{color}' and '{depth}' are within {SLOP * 1e-9:g} s")


def _messages(file: Path, kinds: tuple[str, ...], **only: Any) -> Iterator[tuple[str, str, int, Any]]:
    """Type, topic, log time and message of those types. Raises RecordingError."""
    try:
        from mcap.reader import make_reader
        from mcap_ros2.decoder import DecoderFactory
    except ImportError as error:
        raise RecordingError(f"{file}: MCAP files need: pip install mcap mcap-ros2-support ({error})") from error
    try:
        with file.open("rb") as stream:
            reader = make_reader(stream, decoder_factories=[DecoderFactory()])
            for item in reader.iter_decoded_messages(**only):
                if item.schema is not None and item.schema.name in kinds:
                    yield item.schema.name, item.channel.topic, item.message.log_time, item.decoded_message
    except RecordingError:
        raise
    except Exception as error:  # the libraries raise what they like on bytes that are no MCAP
        raise RecordingError(f"{file}: not an MCAP file that can be read: {error or type(error).__name__}") from error


def _one(file: Path, topic: str, log_ns: int) -> Any:
    for _, _, _, message in _messages(file, (IMAGE,), topics=[topic], start_time=log_ns, end_time=log_ns + 1):
        return message
    raise RecordingError(f"{file}: the message of '{topic}' at {log_ns} is gone")


def _metres(message: Any) -> NDArray[np.float32]:
    raw = plane(message, DEPTH[message.encoding])
    if message.encoding != "32FC1":
        return np.where((raw > 0) & (raw < 65535), raw * np.float32(0.001), np.nan).astype(np.float32)
    metres = raw.astype(np.float32)
    metres[~((metres > 0) | (metres == -np.inf))] = np.nan
    return metres


def _calibration(file: Path, infos: dict[str, Any], color: str, size: tuple[int, int]) -> Intrinsics:
    beside = color.rsplit("/", 1)[0] + "/camera_info"
    ordered = [infos[t] for t in ([beside] if beside in infos else []) + sorted(infos)]
    for info in ordered:
        if (info.width, info.height) != size:
            continue
        try:
            return intrinsics_from_info(info)
        except ValueError as error:
            raise RecordingError(f"{file}: {error}") from error
    found = ", ".join(f"{t} {i.width}x{i.height}" for t, i in infos.items()) or "none"
    raise RecordingError(f"{file}: expected a camera_info of {size[0]}x{size[1]} for '{color}', found {found}")


def _ns(stamp: Any) -> int:
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)
