# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What `seg-perception doctor` sees of the cameras: it subscribes as the node would, listens for some seconds, makes a
frame of what came, and says of each part what the node's diagnostics would say of it, with the fix.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from seg_perception.alignment import LOOKS, AlignmentCheck
from seg_perception.cli.checks import FAIL, OK, WARN, Check
from seg_perception.config import Config
from seg_perception.ros.conversions import ImageError
from seg_perception.ros.feed import Feed, Shot
from seg_perception.ros.frames import Frames
from seg_perception.ros.inputs import Input, Inputs
from seg_perception.ros.reports import Reports
from seg_perception.ros.transforms import LATEST, TransformError, Transforms
from seg_perception.scene import Frame

DISCOVERY = 3.0  # s at most, until publishers are found
FRAMES = 12  # looked at, for the alignment of depth and color
FIX = {
    "color": "start the camera driver, or remap: --remap color/image_raw:=TOPIC (in a config: topics.color)",
    "depth": "start it with depth, or remap: --remap depth/image_rect:=TOPIC (topics.depth: '' goes on without 3D)",
    "color_info": "remap: --remap color/camera_info:=TOPIC",
}
QOS_FIX = "set input_reliability to auto, or let the driver offer what the subscriber asks for"


def check_cameras(config: Config, seconds: float, arguments: Sequence[str] = ()) -> Iterator[Check]:
    """Listens for `seconds` with the topics of `config`, remapped by `arguments` (`a:=b`)."""
    context = Context()
    remaps = [part for pair in arguments for part in ("-r", pair)]
    rclpy.init(args=["--ros-args", *remaps] if remaps else None, context=context,
               signal_handler_options=SignalHandlerOptions.NO)  # fmt: skip
    node = Node("seg_perception_doctor", context=context, enable_rosout=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    spinning = threading.Thread(target=executor.spin, daemon=True)
    spinning.start()
    try:
        yield from Look(node, config, seconds).findings()
    finally:
        executor.shutdown()
        spinning.join(2.0)
        node.destroy_node()
        rclpy.shutdown(context=context)


class Look:
    """One look at the topics of a configuration."""

    def __init__(self, node: Node, config: Config, seconds: float) -> None:
        self._node, self._config, self._seconds = node, config, seconds
        self._reports = Reports(lambda line: None)
        self._transforms = Transforms(node)
        self._feed = Feed(config.sync.slop, depth_expected=bool(config.topics.depth))
        self._feed.streaming = True
        self._inputs = Inputs(node, config, self._feed)
        self._required = [i for i in self._inputs if i.name in ("color", "color_info", "depth")]
        self._problems: dict[str, str] = {}  # by the newest frame
        self._frame: Frame | None = None
        self._alignment = AlignmentCheck()
        self._shot: Shot | None = None

    def findings(self) -> Iterator[Check]:
        """Listens, then one finding for each input and each question about them."""
        self._listen()
        if not any(i.publishers or i.count for i in self._required):
            yield Check("camera", WARN, self._inputs.color.missing_text(), FIX["color"])
            return
        for one in self._required:
            yield self._of_input(one)
        yield self._of_stamps()
        if self._shot is None:
            return
        yield from self._of_frame(self._shot)
        yield from self._of_transforms(self._shot)

    def _listen(self) -> None:
        if self._config.target_frame or self._config.gravity.frame or self._config.workspace.frame:
            try:
                self._transforms.listen()
            except TransformError:
                pass  # said below, with the frame
        self._inputs.open()
        frames = Frames(self._config, self._reports, self._transforms)
        frames.warm_up()
        taking = threading.Thread(target=self._take, args=(frames,), daemon=True)
        taking.start()
        found = time.monotonic() + DISCOVERY
        while time.monotonic() < found and not all(i.publishers for i in self._required):
            time.sleep(0.05)
        end = time.monotonic() + (self._seconds if any(i.publishers for i in self._required) else 0.0)
        while time.monotonic() < end:
            self._inputs.follow()
            time.sleep(0.1)
        self._feed.close()
        taking.join(5.0)
        self._silent = {i.name for i in self._inputs if i.is_quiet}
        self._inputs.close()

    def _take(self, frames: Frames) -> None:
        """Makes frames of what comes, a few a second."""
        pause = self._seconds / FRAMES
        while (shot := self._feed.take()) is not None:
            self._shot = shot
            try:
                self._frame = frames.build(shot, self._config)
            except ImageError:
                self._frame = None  # `reports` has it
            self._problems = {name: self._reports.current(name) for name in ("color", "depth", "calibration")}
            if self._frame is not None:
                self._alignment.look(self._frame)
            time.sleep(pause)

    # -- findings ------------------------------------------------------------------------------------------------------

    def _of_input(self, one: Input) -> Check:
        name = f"camera {one.name}"
        problem = self._problems.get({"color_info": "calibration"}.get(one.name, one.name), "")
        if one.count and (one.name not in self._silent or one.name == "color_info"):
            if problem:
                return Check(name, FAIL, f"'{one.topic}': {problem}", _fix_of(problem))
            facts = (f"{one.rate:.1f} Hz", one.encoding, one.size, f"frame '{one.frame_id}'", one.qos_text)
            if not one.frame_id:
                return Check(name, FAIL, f"'{one.topic}': its messages name no frame", "set the driver's frame_id")
            return Check(name, OK, f"'{one.topic}': {', '.join(fact for fact in facts if fact)}")
        if one.incompatible:
            text = f"'{one.topic}': a publisher's QoS is incompatible: {one.incompatible}; {one.missing_text()}"
            return Check(name, FAIL, text, QOS_FIX)
        text = one.missing_text()
        if "published as" in text:
            transport = "compressed" if one.name == "color" else "compressedDepth"
            squeezed = "CompressedImage and not" in text
            return Check(name, FAIL, text, f"set {one.name}.transport to {transport}" if squeezed else FIX[one.name])
        return Check(name, FAIL, text, FIX[one.name])

    def _of_stamps(self) -> Check:
        inputs, pairer = self._inputs, self._feed.pairer
        for one in (inputs.color, inputs.depth):
            if one is not None and one.clock_problem:
                fix = "let the driver stamp with system time (RealSense: global_time_enabled), or synchronise clocks"
                return Check("camera stamps", WARN, one.clock_problem, fix)
        if inputs.depth is None:
            return Check("camera stamps", OK, "no depth expected")
        if pairer.pairs:
            return Check("camera stamps", OK, f"{pairer.pairs} pairs of {inputs.color.count} color images")
        if not inputs.color.count or not inputs.depth.count:
            return Check("camera stamps", FAIL, "color and depth do not both arrive: nothing to pair", "see above")
        text = inputs.depth_text(self._feed)
        return Check("camera stamps", FAIL, text, "let the driver synchronise color and depth, or raise sync.slop")

    def _of_frame(self, shot: Shot) -> Iterator[Check]:
        frame = self._frame
        if frame is None or shot.pair.depth is None:
            return
        for _ in range(LOOKS):  # a slow machine may have made one frame only
            self._alignment.look(frame)
        if self._alignment.problem and self._config.depth.check_alignment:
            yield Check(
                "camera registration",
                FAIL,
                self._alignment.problem,
                "switch on the driver's align_depth, or calibrate anew",
            )
        elif frame.withheld is None:
            moved = "reprojected here" if "reproject" in self._reports.percentiles() else "as it comes"
            yield Check("camera registration", OK, f"depth lies in the color image ({moved})")
        if frame.depth is not None:
            valid = np.isfinite(frame.depth)
            share = float(valid.mean())
            middle = float(np.median(frame.depth[valid])) if share else float("nan")
            near, far = self._config.fusion.min_depth, self._config.fusion.max_depth
            text = f"{share:.0%} of the pixels have depth, median {middle:.3g} m"
            inside = near <= middle <= far
            fix = "" if inside else f"fusion.min_depth and max_depth keep {near:g} to {far:g} m: move camera or limits"
            yield Check("camera depth range", OK if inside else WARN, text, fix)

    def _of_transforms(self, shot: Shot) -> Iterator[Check]:
        header = shot.pair.color.message.header
        wanted = {
            "target_frame": self._config.target_frame,
            "gravity.frame": self._config.gravity.frame,
            "workspace.frame": self._config.workspace.frame,
        }
        for option, frame in wanted.items():
            if not frame:
                continue
            try:
                self._transforms.lookup(frame, header.frame_id, LATEST, self._config.tf_timeout)
            except TransformError as error:
                fix = (
                    f"publish it (robot_state_publisher, hand-eye calibration), or set {option} to a frame that exists"
                )
                yield Check(f"transform to {option}", FAIL, str(error), fix)
            else:
                yield Check(f"transform to {option}", OK, f"'{header.frame_id}' to '{frame}'")


def _fix_of(problem: str) -> str:
    """What helps against a problem of an input."""
    known = (
        ("units", "set depth.scale to the metres that one unit stands for"),
        ("fx", "calibrate the camera, or let the driver load its calibration file"),
        ("camera_info", "let the driver publish a camera_info for this image size, or remap color/camera_info"),
        (
            "register depth",
            "publish the transform, set depth.extrinsic, or let the driver register depth to color (align_depth)",
        ),
        ("no valid pixel", "uncover the sensor, switch the emitter on, move it away from the table"),
        ("refused", "let the driver publish another encoding: rgb8 or bgr8 for color, 16UC1 or 32FC1 for depth"),
    )
    return next((fix for word, fix in known if word in problem), "mend the driver's settings")
