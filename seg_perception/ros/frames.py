# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From messages to a `Frame`: decoding, and the checks that decide whether its depth can be trusted."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image

from seg_perception.alignment import AlignmentCheck
from seg_perception.config import Config
from seg_perception.registration import register_depth
from seg_perception.ros.conversions import (
    ImageError,
    decode_color,
    decode_compressed_color,
    decode_compressed_depth,
    decode_depth,
    decode_ignore_mask,
    intrinsics_from_info,
    same_camera,
)
from seg_perception.ros.extrinsics import T_color_depth
from seg_perception.ros.feed import Shot
from seg_perception.ros.reports import Reports
from seg_perception.ros.transforms import TransformError, Transforms
from seg_perception.scene import Frame, Intrinsics, Status

NEAREST, FARTHEST = 0.03, 60.0  # m, median depth that a camera over a table may have
LOOK_PERIOD = 1.0  # s between two looks at the alignment of depth and color


class Frames:
    """Makes frames of shots. What is wrong with an input goes to `reports` under its name; the frame goes on without
    3D where it can."""

    def __init__(self, config: Config, reports: Reports, transforms: Transforms) -> None:
        self._config = config
        self._reports = reports
        self._transforms = transforms
        self._alignment = AlignmentCheck()
        self._looked = float("-inf")
        self._calibrations: dict[str, tuple[CameraInfo, Intrinsics]] = {}
        self._color_rectified = _is_rectified(config.topics.color)
        self._depth_rectified = _is_rectified(config.topics.depth)

    def build(self, shot: Shot, config: Config) -> Frame:
        """The frame of a shot, with the live options of `config`. Raises ImageError when color cannot be read."""
        color = self._color(shot.pair.color.message)
        header = shot.pair.color.message.header
        depth, withheld, text = self._depth(shot, color.shape[1], color.shape[0], config)
        intrinsics, bad_calibration = self._intrinsics(shot, color.shape[1], color.shape[0])
        if withheld is None and depth is not None and intrinsics is None:
            withheld, text = Status.BAD_INTRINSICS, bad_calibration
        return Frame(
            color=color,
            depth=depth,
            intrinsics=intrinsics,
            frame_id=header.frame_id,
            stamp_ns=shot.pair.stamp_ns,
            ignore=self._ignore(shot.ignore, color.shape[:2]),
            withheld=withheld,
            withheld_text=text,
        )

    def warm_up(self) -> None:
        """Compiles what depth may need, so that no frame waits for it."""
        camera = Intrinsics(64, 48, 50.0, 50.0, 32.0, 24.0, (0.1, 0.0, 0.0, 0.0, 0.0))
        depth = register_depth(np.ones((48, 64), np.float32), camera, camera, np.eye(4))
        AlignmentCheck().look(Frame(np.zeros((48, 64, 3), np.uint8), depth))

    def info_for(self, shot: Shot, width: int, height: int) -> CameraInfo | None:
        """The calibration that 3D is computed with, if there is one of this size."""
        infos = [shot.color_info, shot.depth_info]
        size = (width, height)
        if shot.pair.depth is not None and self._misfit(shot, size, size):
            del infos[1]  # depth is moved into the color camera's pixels
        elif self._config.sync.camera_info == "depth":
            infos.reverse()
        return next((info for info in infos if info is not None and _size(info) == size), None)

    def look_at_alignment(self, frame: Frame) -> None:
        """Whether depth lies on color, now and then. It takes a while: for the worker that has time for it."""
        if not self._config.depth.check_alignment:
            return
        now = time.monotonic()
        if now - self._looked >= LOOK_PERIOD:
            self._looked = now
            self._alignment.look(frame)
        if frame.depth is not None and self._alignment.problem:
            self._reports.problem("alignment", self._alignment.problem)
        else:
            self._reports.solved("alignment")

    def _color(self, message: Any) -> NDArray[np.uint8]:
        decode = decode_color if isinstance(message, Image) else decode_compressed_color
        try:
            color = decode(message)
        except ImageError as error:
            self._reports.problem("color", f"refused: {error}")
            raise
        self._reports.solved("color")
        return color

    def _depth(
        self, shot: Shot, width: int, height: int, config: Config
    ) -> tuple[NDArray[np.float32] | None, Status | None, str]:
        """Depth in the color image's pixels, or why there is none."""
        if shot.pair.depth is None:
            topic = self._config.topics.depth
            return None, Status.NO_DEPTH_IMAGE, f"no depth image on '{topic}' pairs with this color image"
        message = shot.pair.depth.message
        decode = decode_depth if isinstance(message, Image) else decode_compressed_depth
        try:
            depth = decode(message, self._config.depth.scale)
        except ImageError as error:
            self._reports.problem("depth", f"refused: {error}")
            return None, Status.NO_DEPTH_IMAGE, f"depth image refused: {error}"
        valid = np.isfinite(depth[::8, ::8]).mean()
        self._reports.fact("depth", "valid [%]", f"{100 * valid:.0f}")
        doubtful = _nothing_measured(message, depth) or _other_units(message, depth)
        misfit = self._misfit(shot, (width, height), (depth.shape[1], depth.shape[0]))
        if misfit:
            try:
                depth = self._reprojected(shot, depth, (width, height), config)
            except ValueError as error:
                text = f"{misfit}: {error}"
                self._reports.problem("depth", text)
                return None, Status.DEPTH_MISALIGNED, text
        if doubtful:
            self._reports.problem("depth", doubtful)
        else:
            self._reports.solved("depth")
        return depth, None, ""

    def _misfit(self, shot: Shot, color_size: tuple[int, int], depth_size: tuple[int, int]) -> str:
        """Why depth is not in the color image's pixels; empty if it is."""
        registered = self._config.depth.registered
        if registered == "false":
            return "depth.registered is false"
        if color_size != depth_size:
            return f"depth is {depth_size[0]}x{depth_size[1]} but color is {color_size[0]}x{color_size[1]}"
        if registered == "true":
            return ""
        color_frame = shot.pair.color.message.header.frame_id
        depth_frame = shot.pair.depth.message.header.frame_id
        if color_frame != depth_frame:
            return f"depth is in frame '{depth_frame}' but color is in '{color_frame}'"
        color_k = self._calibration("color", shot.color_info, self._color_rectified)
        depth_k = self._calibration("depth", shot.depth_info, self._depth_rectified)
        if isinstance(color_k, str) or isinstance(depth_k, str) or same_camera(color_k, depth_k):
            return ""  # one of them says nothing: the frame and the size have to do
        return f"K of depth ({_show(depth_k)}) differs from K of color ({_show(color_k)}) by more than 1 px"

    def _reprojected(
        self, shot: Shot, depth: NDArray[np.float32], color_size: tuple[int, int], config: Config
    ) -> NDArray[np.float32]:
        """Depth moved into the color image. Raises ValueError with what is missing and what would help."""
        if config.depth.registered == "true":
            raise ValueError("that is not registered, as depth.registered says; set it to auto")
        start = time.perf_counter()
        depth_size = (depth.shape[1], depth.shape[0])
        color_k = self._fitting("color", shot.color_info, color_size)
        depth_k = self._fitting("depth", shot.depth_info, depth_size)
        try:
            T = T_color_depth(shot.pair.color.message.header, shot.pair.depth.message.header, config, self._transforms)
        except TransformError as error:
            raise ValueError(
                f"{error}; let the driver register depth to color, or set depth.extrinsic, "
                "or depth.registered to true if it is"
            ) from error
        registered = register_depth(depth, depth_k, color_k, T)
        self._reports.stage("reproject", time.perf_counter() - start)
        return registered

    def _fitting(self, which: str, info: CameraInfo | None, size: tuple[int, int]) -> Intrinsics:
        """The calibration of images of this size. Raises ValueError if there is none."""
        rectified = self._color_rectified if which == "color" else self._depth_rectified
        calibration = self._calibration(which, info, rectified)
        if isinstance(calibration, Intrinsics) and (calibration.width, calibration.height) == size:
            return calibration
        found = calibration if isinstance(calibration, str) else f"got one of {calibration.width}x{calibration.height}"
        topics = self._config.topics
        topic = topics.color_info if which == "color" else topics.depth_info
        raise ValueError(
            f"reprojecting it needs a camera_info of {size[0]}x{size[1]} on '{topic}', {found}; "
            "let the driver register depth to color"
        )

    def _intrinsics(self, shot: Shot, width: int, height: int) -> tuple[Intrinsics | None, str]:
        """The calibration for images of this size, or why there is none."""
        info = self.info_for(shot, width, height)
        if info is None:
            topics = self._config.topics
            topic = topics.color_info if self._config.sync.camera_info == "color" else topics.depth_info
            given = shot.color_info or shot.depth_info
            found = f"one of {given.width}x{given.height}" if given is not None else "none"
            text = f"no camera_info of {width}x{height} on '{topic}', got {found}"
            self._reports.problem("calibration", text)
            return None, text
        which = "color" if info is shot.color_info else "depth"
        rectified = self._color_rectified if which == "color" else self._depth_rectified
        calibration = self._calibration(which, info, rectified)
        if isinstance(calibration, str):
            self._reports.problem("calibration", calibration)
            return None, calibration
        self._reports.solved("calibration")
        return calibration, ""

    def _calibration(self, which: str, info: CameraInfo | None, rectified: bool) -> Intrinsics | str:
        """The intrinsics of a camera_info, made once for each that differs; a line if it is missing or unusable."""
        if info is None:
            return f"no camera_info of {which}"
        known = self._calibrations.get(which)
        if known is not None and _same_info(known[0], info):
            return known[1]
        try:
            made = intrinsics_from_info(info, rectified and any(info.d) and info.p[0] > 0)
        except ValueError as error:
            return str(error)
        self._calibrations[which] = (info, made)
        return made

    def _ignore(self, message: Image | None, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        if message is None:
            return None
        if (message.height, message.width) != size:
            self._reports.problem(
                "ignore_mask", f"is {message.width}x{message.height} but color is {size[1]}x{size[0]}: not used"
            )
            return None
        try:
            mask = decode_ignore_mask(message)
        except ImageError as error:
            self._reports.problem("ignore_mask", f"refused: {error}")
            return None
        self._reports.solved("ignore_mask")
        return mask


def _is_rectified(topic: str) -> bool:
    """Whether a topic's name says that lens distortion is undone in its images (image_proc's convention)."""
    return "rect" in topic.rsplit("/", 1)[-1]


def _nothing_measured(message: Any, depth: NDArray[np.float32]) -> str:
    """That no pixel of a depth image is valid; empty if one is."""
    if np.isfinite(depth[::8, ::8]).any() or np.isfinite(depth).any():  # the first look is nearly always enough
        return ""
    raw = isinstance(message, Image)
    found = "all 0" if raw and not np.frombuffer(message.data, np.uint8).any() else "all 0, NaN or out of range"
    return f"no valid pixel ({found}): is the depth sensor on, uncovered, and nothing nearer than it can measure?"


def _other_units(message: Any, depth: NDArray[np.float32]) -> str:
    """That depth is in other units than its encoding says, going by distances no such camera has; empty if not."""
    sample = depth[::8, ::8]
    sample = sample[np.isfinite(sample)]
    middle = float(np.median(sample)) if len(sample) else 1.0
    if NEAREST <= middle <= FARTHEST:
        return ""
    encoding = getattr(message, "encoding", "") or message.format
    likely = "metres" if middle < NEAREST else "millimetres"
    scale = 1.0 if middle < NEAREST else 0.001
    return (
        f"median depth is {middle:.4g} m: are the units of this {encoding} {likely}? set depth.scale to {scale:g} then"
    )


def _size(info: CameraInfo) -> tuple[int, int]:
    """Size of the images that come with `info`, after binning and region of interest."""
    roi = info.roi
    width, height = (roi.width, roi.height) if roi.width and roi.height else (info.width, info.height)
    return width // max(1, info.binning_x), height // max(1, info.binning_y)


def _same_info(a: CameraInfo, b: CameraInfo) -> bool:
    return a is b or (
        (a.width, a.height, a.binning_x, a.binning_y) == (b.width, b.height, b.binning_x, b.binning_y)
        and a.roi == b.roi
        and np.array_equal(a.k, b.k)
        and np.array_equal(a.p, b.p)
        and a.d == b.d
    )


def _show(k: Intrinsics) -> str:
    return f"fx={k.fx:.1f} fy={k.fy:.1f} cx={k.cx:.1f} cy={k.cy:.1f}"
