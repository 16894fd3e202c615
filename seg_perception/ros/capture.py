# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Frames worth keeping go to MCAP files, with what was made of them: those that are uncertain, odd or asked for.

A file holds one frame: the color image and the depth as the pipeline had them (registered, metres), camera_info, the
objects, and why it was kept. Foxglove opens it, `seg-perception run` takes it as input. Written in a thread of its own,
under another name until it is whole; the oldest captures make room.
"""

from __future__ import annotations

import importlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rclpy.serialization import serialize_message
from std_msgs.msg import Header

from seg_perception.config import Config
from seg_perception.options import ConfigError
from seg_perception.ros.conversions import encode_image, stamp_from_ns
from seg_perception.ros.outputs import Messages
from seg_perception.ros.results import Result
from seg_perception.scene import Scene, Status

UNWRITTEN = 2  # frames in memory, at most, that are not written yet
MINUTE = 60.0
LAST_WRITE = 10.0  # s that the end waits for the disk
UNSURE_3D = (Status.NO_VALID_DEPTH, Status.TOO_FEW_POINTS)
SUFFIX, PART = ".mcap", ".mcap.part"


def why_keep(scene: Scene, low: float, high: float) -> str:
    """Why a frame is worth keeping by itself, in one word; empty if it is not. `low`, `high`: the band of scores."""
    scores = scene.instances.scores
    if ((scores > low) & (scores < high)).any():
        return "uncertain"
    if any(o.status in UNSURE_3D for o in scene.objects):
        return "odd"
    return ""


class Capture:
    """From configure to cleanup. `look` at every result; `ask` keeps the next one whatever it is."""

    def __init__(
        self, config: Config, node_name: str, problem: Callable[[str], None], info: Callable[[str], None]
    ) -> None:
        """Raises ConfigError for a folder that cannot be written, and where mcap is not installed."""
        try:
            import mcap.writer  # noqa: F401
        except ImportError as error:
            raise ConfigError(f"capture.folder: needs pip install mcap mcap-ros2-support ({error})") from error
        self.options, self._config, self._name = config.capture, config, node_name
        self._problem, self._info = problem, info
        self.folder = Path(self.options.folder).expanduser()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for half in self.folder.glob(f"*{PART}"):
                half.unlink()  # of a node that was killed
        except OSError as error:
            raise ConfigError(f"capture.folder: cannot write '{self.folder}': {error.strerror or error}") from error
        self.written = 0
        self.skipped = 0  # worth keeping, but over max_per_minute, or the disk is slower than the camera
        self._asked: list[Waiting] = []
        self._lock = threading.Lock()
        self._times: deque[float] = deque()
        self._queue: queue.Queue[tuple[Result, str, list[Waiting]] | None] = queue.Queue(UNWRITTEN)
        self._schemas: dict[type, str] = {}
        self._thread = threading.Thread(target=self._write_all, name="capture", daemon=True)
        self._thread.start()

    def ask(self) -> Waiting:
        """The next result will be kept; its `done` is set then."""
        asked = Waiting()
        with self._lock:
            self._asked.append(asked)
        return asked

    def look(self, result: Result, drifting: bool = False) -> None:
        """Decides on a result; never waits."""
        with self._lock:
            asked, self._asked = self._asked, []
        reason = "asked" if asked else ""
        if not reason and self.options.automatic:
            reason = why_keep(result.scene, *self.options.uncertain) or ("drift" if drifting else "")
            if reason and not self._in_rate():
                self.skipped += 1
                return
        if not reason:
            return
        try:
            self._queue.put_nowait((result, reason, asked))
        except queue.Full:
            self.skipped += 1
            for one in asked:
                one.end("", "captures are written more slowly than they are asked for")

    def close(self) -> None:
        """Writes what waits, and ends."""
        with self._lock:
            asked, self._asked = self._asked, []
        for one in asked:
            one.end("", "the node was cleaned up")
        with suppress(queue.Full):  # a disk that hangs must not hold the node up: the thread is left to it
            self._queue.put(None, timeout=LAST_WRITE)
            self._thread.join(LAST_WRITE)

    def _in_rate(self) -> bool:
        now = time.monotonic()
        while self._times and now - self._times[0] > MINUTE:
            self._times.popleft()
        most = self.options.max_per_minute
        if len(self._times) >= most or (self._times and now - self._times[-1] < MINUTE / most / 4):  # not all at once
            return False
        self._times.append(now)
        return True

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            result, reason, asked = item
            path, error = "", ""
            try:
                path = str(self._write(result, reason))
                self._make_room()
                self.written += 1
                self._info(f"captured ({reason}): {path}")
            except OSError as raised:
                error = f"cannot write to '{self.folder}': {raised.strerror or raised}"
            except Exception as raised:  # noqa: BLE001 - of the writer's library; the next capture may fit
                error = f"not captured: {type(raised).__name__}: {raised}"
            if error:
                self._problem(error)
            for one in asked:
                one.end(path, error)

    def _write(self, result: Result, reason: str) -> Path:
        from mcap.writer import CompressionType, Writer

        stamp = result.stamp_ns
        stem = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}_{stamp}_{reason}"
        path, part = self.folder / f"{stem}{SUFFIX}", self.folder / f"{stem}{PART}"
        try:
            with part.open("wb") as stream:
                writer = Writer(stream, compression=CompressionType.ZSTD)
                writer.start("ros2", "seg_perception")
                for topic, message in self._messages(result):
                    self._add(writer, topic, message, stamp)
                about = {
                    "reason": reason,
                    "model": result.scene.model,
                    "node": self._name,
                    "sequence": str(result.sequence),
                }
                writer.add_metadata("seg_perception", about)
                writer.finish()
            part.rename(path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def _messages(self, result: Result) -> list[tuple[str, Any]]:
        frame = result.scene.frame
        header = Header(stamp=stamp_from_ns(frame.stamp_ns), frame_id=frame.frame_id)
        messages: list[tuple[str, Any]] = [("/color/image_raw", encode_image(frame.color, "rgb8", header))]
        if frame.depth is not None:
            messages.append(("/depth/image_rect", encode_image(frame.depth, "32FC1", header)))
        if result.camera_info is not None:
            messages += [("/color/camera_info", result.camera_info), ("/depth/camera_info", result.camera_info)]
        messages.append((f"{self._name}/objects", Messages(result, self._config).main_with(points=True).message()))
        return messages

    def _add(self, writer: Any, topic: str, message: Any, stamp: int) -> None:
        kind = type(message)
        name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        schema = writer.register_schema(name, "ros2msg", self._definition(kind).encode())
        channel = writer.register_channel(topic, "cdr", schema)
        writer.add_message(channel, stamp, serialize_message(message), stamp)

    def _definition(self, kind: type) -> str:
        if kind not in self._schemas:
            self._schemas[kind] = message_definition(f"{kind.__module__.split('.')[0]}/{kind.__name__}")
        return self._schemas[kind]

    def _make_room(self) -> None:
        files = sorted(self.folder.glob(f"*{SUFFIX}"), key=lambda p: p.stat().st_mtime)
        sizes = [p.stat().st_size for p in files]
        total = sum(sizes)
        for file, size in zip(files[:-1], sizes, strict=False):
            if total <= self.options.max_disk * 1e6:
                return
            file.unlink(missing_ok=True)
            total -= size


class Waiting:
    """A call that waits for its capture: `path`, or `error`, once `done`."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.path = self.error = ""

    def end(self, path: str, error: str) -> None:
        self.path, self.error = path, error
        self.done.set()


def message_definition(name: str) -> str:
    """The text of a message (`package/Name`) and of all it is made of, as MCAP and rosbag2 want it."""
    rule = "\n" + "=" * 80 + "\n"
    texts: dict[str, str] = {}

    def collect(full: str) -> None:
        package, short = full.split("/")
        text = _definition_file(package, short).read_text(encoding="utf-8")
        texts[full] = text
        for line in text.splitlines():
            kind = line.split("#", 1)[0].split("=", 1)[0].strip().split(" ")[0].split("[")[0].split("<")[0]
            if not kind or (kind[0].islower() and "/" not in kind):
                continue  # built in, or no field
            inner = kind if "/" in kind else f"{package}/{kind}"
            inner = inner.replace("/msg/", "/")
            if inner not in texts:
                collect(inner)

    collect(name)
    first, *others = texts.items()
    return first[1] + "".join(f"{rule}MSG: {full}\n{text}" for full, text in others)


def _definition_file(package: str, name: str) -> Path:
    """`share/PACKAGE/msg/NAME.msg` above the Python package. Raises FileNotFoundError."""
    module = importlib.import_module(package)
    for folder in (Path(root) for start in module.__path__ for root in Path(start).resolve().parents):
        path = folder / "share" / package / "msg" / f"{name}.msg"
        if path.is_file():
            return path
    raise FileNotFoundError(2, f"no definition of {package}/msg/{name} beside its Python package")
