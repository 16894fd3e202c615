# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A camera that keeps time: pairs at exact instants, and a word about it when it could not keep up itself.

Runs as a process of its own. Each line on its standard input is `FRAMES RATE`; it publishes that many pairs at that
rate (Hz) and answers with one line of JSON: sent, skipped (instants that had passed before it got to them), late_ms and
publish_ms (percentiles). It ends with its input.
"""

from __future__ import annotations

import json
import sys
import time

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from seg_perception.bench.timing import percentiles
from seg_perception.folder import RgbdFolder
from seg_perception.ros.camera import camera_info, depth_image
from seg_perception.ros.conversions import encode_image
from seg_perception.scene import Frame
from seg_perception.sim import SimCamera

LOOP = 12  # frames, made before the first is sent
OPTICAL = "camera_color_optical_frame"
LEAD = 0.002  # s before its instant in which a frame is waited for without sleeping


class BenchCamera(Node):
    """Color and depth with one stamp, made beforehand: publishing is all that happens at an instant."""

    def __init__(self) -> None:
        super().__init__("bench_camera")
        size = [int(self.declare_parameter(name, value).value) for name, value in (("width", 1280), ("height", 720))]
        source = str(self.declare_parameter("source", "").value)
        frames = _frames(source, *size)
        header = Header(frame_id=OPTICAL)
        self._shots = [
            (encode_image(f.color, "rgb8", header), depth_image(f.depth, "16UC1", header), f.intrinsics) for f in frames
        ]
        qos = QoSProfile(depth=2)  # reliable, as all common drivers offer it
        self._color, self._depth = (
            self.create_publisher(Image, topic, qos) for topic in ("color/image_raw", "depth/image_rect")
        )
        self._infos = [
            self.create_publisher(CameraInfo, topic, qos) for topic in ("color/camera_info", "depth/camera_info")
        ]

    def shoot(self, frames: int, rate: float) -> dict[str, object]:
        """What became of it."""
        period = 1 / rate
        begin = time.monotonic() + period
        late, took = [], []
        skipped = sent = 0
        for k in range(frames):
            instant = begin + k * period
            if time.monotonic() > instant + period:
                skipped += 1
                continue
            _wait_until(instant)
            late.append(time.monotonic() - instant)
            self._publish(sent)
            took.append(time.monotonic() - instant - late[-1])
            sent += 1
        return {"sent": sent, "skipped": skipped, "late_ms": percentiles(late), "publish_ms": percentiles(took)}

    def _publish(self, k: int) -> None:
        color, depth, intrinsics = self._shots[k % len(self._shots)]
        stamp = self.get_clock().now().to_msg()
        color.header.stamp = depth.header.stamp = stamp
        info = camera_info(intrinsics, color.header)
        for publisher in self._infos:
            publisher.publish(info)
        self._depth.publish(depth)
        self._color.publish(color)


def _frames(source: str, width: int, height: int) -> list[Frame]:
    if source:
        folder = RgbdFolder(source)
        return [record.frame for record, _ in zip(folder, range(LOOP), strict=False)]
    camera = SimCamera(width, height, motion="still", frames=LOOP)
    return [camera.frame(k).frame for k in range(LOOP)]


def _wait_until(instant: float) -> None:
    left = instant - time.monotonic()
    if left > LEAD:
        time.sleep(left - LEAD)
    while time.monotonic() < instant:
        time.sleep(0)


def main() -> int:
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        camera = BenchCamera()
        _say({"ready": True})
        for line in sys.stdin:
            frames, rate = line.split()
            _say(camera.shoot(int(frames), float(rate)))
    except (KeyboardInterrupt, BrokenPipeError):
        return 130
    except ValueError as error:
        _say({"error": " ".join(str(error).split())})
        return 1
    return 0


def _say(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
