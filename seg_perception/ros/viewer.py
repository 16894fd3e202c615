# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A consumer of the node's topics that keeps pictures and records of what it sees; also an example of one."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from seg_perception.msg import SegmentedObjectArray
from seg_perception.report import message_record, write_report
from seg_perception.ros.camera import SHOT_QOS
from seg_perception.ros.conversions import stamp_ns
from seg_perception.ros.messages import masks_from_message
from seg_perception.scene import Status

KEPT_RECORDS = 1000  # of an endless run, the newest
KEPT_OPEN = 64  # frames that still wait for one of their messages
TRUTH_PIXELS = 200  # px, truth objects smaller than this are not held against anybody
FOUND_IOU = 0.5


@dataclass
class Arrival:
    """What has arrived of one frame so far."""

    name: str = ""
    result: SegmentedObjectArray | None = None
    overlay: Image | None = None
    truth: Image | None = None
    latency: float = float("nan")  # s, from the color image's stamp to this process


@dataclass
class Tally:
    """Sums over all frames."""

    frames: int = 0
    objects: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    with_grasp: int = 0
    truth: int = 0
    found: int = 0
    scored: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_RECORDS))


class Viewer(Node):
    """Collects results, overlays, names and truth by stamp; `complete` counts the frames that are whole.

    Answers each whole frame on `shot/answer`, for cameras in lock step. `once`: a name that comes again is the same
    frame, sent again. At most `limit` frames are kept.
    """

    def __init__(self, output: Path, once: bool = False, limit: int | None = None) -> None:
        super().__init__("viewer")
        self.output = output
        self._once = once
        self._left = limit if limit is not None else math.inf
        self._names: set[str] = set()
        self._desk = ThreadPoolExecutor(1, thread_name_prefix="desk")  # pictures must not hold up arrivals
        self._answer = self.create_publisher(Header, "shot/answer", QoSProfile(depth=100))
        self.complete = 0
        self.last_line = ""
        self.complaint = ""
        self.tally = Tally()
        self._records: deque[dict[str, Any]] = deque(maxlen=KEPT_RECORDS)
        self._open: OrderedDict[int, Arrival] = OrderedDict()
        self._closed: deque[int] = deque(maxlen=4 * KEPT_OPEN)
        deep = QoSProfile(depth=100)
        for kind, topic, store, qos in (
            (SegmentedObjectArray, "/seg_perception/objects", self._on_result, deep),
            (Image, "/seg_perception/overlay", self._on_overlay, deep),
            (Image, "ground_truth/label_image", self._on_truth, deep),
            (Header, "shot", self._on_shot, SHOT_QOS),
            (DiagnosticArray, "/diagnostics", self._on_diagnostics, deep),
        ):
            self.create_subscription(kind, topic, store, qos)

    def finish(self) -> None:
        """Writes what is still to be written, and objects.json."""
        self._desk.shutdown(wait=True)
        write_report(self.output / "objects.json", list(self._records))

    def summary(self) -> str:
        """What was seen, in words."""
        t = self.tally
        if not t.frames:
            return "no frame came back"
        latency = 1000 * np.array(t.latencies)
        lines = [
            f"{t.frames} frames, {t.objects} objects ({t.objects / t.frames:.1f} a frame), "
            f"{t.with_grasp} with a grasp; "
            f"camera stamp to result {np.median(latency):.0f} ms median, {np.percentile(latency, 95):.0f} ms p95",
        ]
        if t.truth:
            scored = f"in {t.scored} of {t.frames} frames" if t.scored < t.frames else "in all frames"
            lines.append(f"ground truth: {t.found} of {t.truth} visible objects found {scored} (IoU >= {FOUND_IOU})")
        without = {Status(s).name: n for s, n in sorted(t.statuses.items()) if not Status(s).has_3d}
        if without:
            lines.append("without 3D: " + ", ".join(f"{n} {name}" for name, n in without.items()))
        lines.append(f"pictures and objects.json: {self.output}")
        return "\n".join(lines)

    def _on_result(self, message: SegmentedObjectArray) -> None:
        arrival = self._arrival(message.header)
        if arrival is not None and arrival.result is None:
            arrival.result = message
            now = self.get_clock().now().nanoseconds
            arrival.latency = (now - stamp_ns(message.header.stamp)) * 1e-9
            self._close_if_whole(message.header)

    def _on_overlay(self, message: Image) -> None:
        arrival = self._arrival(message.header)
        if arrival is not None:
            arrival.overlay = message
            self._close_if_whole(message.header)

    def _on_truth(self, message: Image) -> None:
        arrival = self._arrival(message.header)
        if arrival is not None:
            arrival.truth = message
            self._close_if_whole(message.header)

    def _on_shot(self, message: Header) -> None:
        arrival = self._arrival(message)
        if arrival is not None:
            arrival.name = message.frame_id
            self._close_if_whole(message)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        bad = [s for s in message.status if s.level != DiagnosticStatus.OK]
        self.complaint = "; ".join(f"{s.name.rpartition(':')[2].strip()}: {s.message}" for s in bad)

    def _arrival(self, header: Header) -> Arrival | None:
        key = stamp_ns(header.stamp)
        if key in self._closed:
            return None
        arrival = self._open.setdefault(key, Arrival())
        while len(self._open) > KEPT_OPEN:
            self._open.popitem(last=False)
        return arrival

    def _close_if_whole(self, header: Header) -> None:
        key = stamp_ns(header.stamp)
        arrival = self._open[key]
        if arrival.result is None or arrival.overlay is None or not arrival.name:
            return
        if arrival.truth is None and self.count_publishers("ground_truth/label_image"):
            return
        del self._open[key]
        self._closed.append(key)
        self._answer.publish(Header(stamp=header.stamp, frame_id=arrival.name))
        if (self._once and arrival.name in self._names) or not self._left:
            return
        self._left -= 1
        self._names.add(arrival.name)
        self._desk.submit(self._write, arrival)

    def _write(self, arrival: Arrival) -> None:
        """The record, the sums and the picture of a whole frame; in a thread of its own."""
        self._records.append(message_record(arrival.result, name=arrival.name, latency=arrival.latency))
        self._count(arrival)
        file = self.output / f"overlay_{arrival.name}.png"
        if not cv2.imwrite(str(file), _array_of(arrival.overlay), [cv2.IMWRITE_PNG_COMPRESSION, 3]):
            self.get_logger().error(f"{file}: cannot be written", once=True)
        self.last_line = self._line(arrival.name, arrival)
        self.complete += 1

    def _count(self, arrival: Arrival) -> None:
        t, objects = self.tally, arrival.result.objects
        t.frames += 1
        t.objects += len(objects)
        t.statuses.update(o.status for o in objects)
        t.with_grasp += sum(len(o.grasps) > 0 for o in objects)
        t.latencies.append(arrival.latency)
        if arrival.truth is not None:
            found, visible = found_objects(arrival.result, _array_of(arrival.truth))
            t.scored += 1
            t.found += found
            t.truth += visible

    def _line(self, name: str, arrival: Arrival) -> str:
        objects = arrival.result.objects
        return (
            f"{name}: {len(objects)} objects, {sum(len(o.grasps) > 0 for o in objects)} with a grasp, "
            f"{1000 * arrival.latency:.0f} ms"
        )


def found_objects(result: SegmentedObjectArray, truth: NDArray[np.uint16]) -> tuple[int, int]:
    """How many of the visible truth objects (label image, 0 = none) have a mask with IoU >= 0.5, and of how many."""
    dense = masks_from_message(result).dense()
    found = visible = 0
    for label in np.unique(truth[truth > 0]):
        region = truth == label
        area = int(region.sum())
        if area < TRUTH_PIXELS:
            continue
        visible += 1
        shared = dense[:, region].sum(axis=1) if len(dense) else np.zeros(0)
        union = dense.sum(axis=(1, 2)) + area - shared if len(dense) else np.ones(0)
        found += bool((shared / union >= FOUND_IOU).any()) if len(dense) else False
    return found, visible


def _array_of(message: Image) -> NDArray:
    kind = np.uint16 if message.encoding == "16UC1" else np.uint8
    flat = np.frombuffer(message.data, kind)
    shape = (message.height, message.width) if kind is np.uint16 else (message.height, message.width, 3)
    return flat.reshape(shape)
