# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Live prompts: `~/prompt` and clicks on `clicked_point`, kept as they were asked and put into pixels frame by frame.

A point in metres stays where it is in its own frame, so it follows the scene while the camera moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from geometry_msgs.msg import PointStamped
from numpy.typing import NDArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from seg_perception.geometry import project, transform_points
from seg_perception.ros.calls import BadRequestError, BusyError, Calls
from seg_perception.ros.conversions import stamp_ns
from seg_perception.ros.feed import Wanted
from seg_perception.ros.transforms import LATEST, TransformError
from seg_perception.scene import Frame
from seg_perception.segmenters.prompting import (
    BOXES,
    MOST,
    POINTS,
    ROI,
    TEXTS,
    PromptError,
    Prompts,
    check_taken,
    not_taken,
    prompt_kinds,
)
from seg_perception.segmenters.sam.prompts import OFF, ON, Prompt
from seg_perception.srv import Prompt as PromptSrv

CLICKS = "clicked_point"
OLDEST = 10.0  # s, a point stamped longer ago is refused: what it meant may have moved
SAME_IMAGE = 1.0  # s, a click is answered on the last image if that is not older, else on a new one
SEPARATOR = ";"  # between the texts of a segment_once
Lookup = Callable[[str, Frame], NDArray[np.float64]]  # T_image_frame of a frame id; raises TransformError


@dataclass(frozen=True, eq=False)
class Asked:
    """What was asked for, in its own frames. `objects` hold a box (4,) px or None, and rows of `points`."""

    texts: tuple[str, ...] = ()
    objects: tuple[tuple[NDArray[np.float32] | None, tuple[int, ...]], ...] = ()
    points: tuple[tuple[float, float, float], ...] = ()
    frames: tuple[str, ...] = ()  # of each point; empty = px
    labels: tuple[int, ...] = ()
    roi: tuple[float, float, float, float] | None = None

    @classmethod
    def of(cls, request: Any, now_ns: int, image_ns: int = 0) -> Asked:
        """What a Prompt request says at `now_ns`; `image_ns` is the stamp of the last image. Raises BadRequestError."""
        n = len(request.points)
        labels = list(request.point_labels) or [ON] * n
        owners = list(request.point_objects)
        if len(request.boxes) % 4 or not np.isfinite(request.boxes).all():
            raise BadRequestError(f"boxes: expected 4 finite numbers for each box, got {len(request.boxes)}")
        boxes = np.array(request.boxes, np.float32).reshape(-1, 4)
        owners = owners or list(range(len(boxes), len(boxes) + n))
        if len(labels) != n or any(label not in (ON, OFF) for label in labels):
            raise BadRequestError(f"point_labels: expected 0 or 1 for each of {n} points, got {labels}")
        if len(owners) != n:
            raise BadRequestError(f"point_objects: expected one for each of {n} points, got {len(owners)}")
        count = max([len(boxes), *(owner + 1 for owner in owners)])
        if count > MOST:
            raise BadRequestError(f"boxes and points: expected at most {MOST} objects, got {count}")
        objects = []
        for i in range(count):
            box, rows = (boxes[i] if i < len(boxes) else None), tuple(k for k in range(n) if owners[k] == i)
            if box is not None and not (box[2:] > box[:2]).all():
                raise BadRequestError(f"boxes: expected min < max, got {box.tolist()}")
            if box is None and not any(labels[k] == ON for k in rows):
                raise BadRequestError(f"points: object {i} has neither a box nor a point on it (label 1)")
            objects.append((box, rows))
        for point in request.points:
            check_point(point, now_ns, image_ns)
        asked = cls(
            tuple(text.strip() for text in request.texts),
            tuple(objects),
            tuple((p.point.x, p.point.y, p.point.z) for p in request.points),
            tuple(p.header.frame_id for p in request.points),
            tuple(labels),
        )
        try:
            Prompts(asked.texts, tuple(Prompt(np.float32([0, 0, 1, 1])) for _ in objects))
        except PromptError as error:
            raise BadRequestError(str(error)) from error
        return asked

    @property
    def is_empty(self) -> bool:
        return not (self.texts or self.objects or self.roi)

    @property
    def kinds(self) -> frozenset[str]:
        kinds = {TEXTS} if self.texts else set()
        kinds |= {BOXES for box, _ in self.objects if box is not None} | {POINTS for _, rows in self.objects if rows}
        return frozenset(kinds)

    def at(self, frame: Frame, lookup: Lookup) -> Prompts:
        """The same in pixels of this frame. Raises TransformError; PromptError: behind or outside the image."""
        given = np.array(self.points).reshape(-1, 3)
        pixels = given[:, :2].astype(np.float32)
        for frame_id in dict.fromkeys(filter(None, self.frames)):
            rows = [k for k, name in enumerate(self.frames) if name == frame_id]
            if frame.intrinsics is None:
                raise PromptError("a point in metres needs the camera's calibration (camera_info), and there is none")
            points = transform_points(lookup(frame_id, frame), given[rows])
            if (points[:, 2] <= 0).any():
                raise PromptError(f"a point in '{frame_id}' is behind the camera")
            pixels[rows] = project(frame.intrinsics, points)
        labels = np.array(self.labels, np.float32)
        objects = tuple(Prompt(box, pixels[list(rows)], labels[list(rows)]) for box, rows in self.objects)
        return Prompts(self.texts, objects, self.roi).fitted(frame.width, frame.height)

    def __str__(self) -> str:
        if self.is_empty:
            return "what is configured"
        words = [f"'{text}'" for text in self.texts]
        boxes, points = sum(box is not None for box, _ in self.objects), len(self.points)
        counts = ((boxes, "box", "boxes"), (points, "point", "points"))
        words += [f"{n} {one if n == 1 else several}" for n, one, several in counts if n]
        return ", ".join(words) + (f" in the roi {list(self.roi)}" if self.roi else "")


def check_point(message: PointStamped, now_ns: int, image_ns: int) -> None:
    """Raises BadRequestError for a point that is not finite, or was stamped long ago and not by the last image."""
    p = message.point
    if not np.isfinite([p.x, p.y, p.z]).all():
        raise BadRequestError(f"points: expected finite numbers, got {p.x}, {p.y}, {p.z}")
    stamp = stamp_ns(message.header.stamp)
    age = (now_ns - stamp) * 1e-9
    if stamp not in (0, image_ns) and age > OLDEST:
        raise BadRequestError(f"points: stale: stamped {age:.1f} s ago, expected at most {OLDEST:g} s")


class LivePrompts:
    """Takes prompts and has them ready for each frame. `node` is a SegPerceptionNode."""

    def __init__(self, node: Any, calls: Calls) -> None:
        self._node = node
        self._calls = calls
        self._asked = Asked()
        self._serial = 0
        group = ReentrantCallbackGroup()
        node.create_service(PromptSrv, "~/prompt", self._on_prompt, callback_group=group)
        Node.create_subscription(node, PointStamped, CLICKS, self._on_click, 5, callback_group=group)

    # -- for each frame ------------------------------------------------------------------------------------------------

    def at(self, frame: Frame, own: Asked | None = None) -> Prompts:
        """What to look for in a frame: `own` of a call, else what was asked for last.

        Without transform, or with the point out of view, nothing is looked for, and a report says so.
        """
        asked = self._asked if own is None else own
        pipeline = self._node.engine.pipeline
        if asked.is_empty or pipeline is None or not asked.kinds <= prompt_kinds(pipeline.segmenter):
            return Prompts(serial=self._serial)
        try:
            prompts = replace(asked.at(frame, self._lookup_now), serial=self._serial)
            self._node.reports.solved("prompt")
            return prompts
        except (TransformError, PromptError) as error:
            if own is not None:
                raise
            self._node.reports.problem("prompt", str(error))
            return Prompts(nothing=True, serial=self._serial)

    def _lookup_now(self, frame_id: str, frame: Frame) -> NDArray[np.float64]:
        """At the stamp, else, since a transform mostly comes after the image, the newest."""
        transforms = self._node.transforms
        try:
            return transforms.lookup(frame.frame_id, frame_id, frame.stamp_ns)
        except TransformError:
            return transforms.lookup(frame.frame_id, frame_id, LATEST)

    def _lookup_patiently(self, frame_id: str, frame: Frame) -> NDArray[np.float64]:
        transforms, wait = self._node.transforms, self._node.parameters.config.tf_timeout
        try:
            return transforms.lookup(frame.frame_id, frame_id, LATEST)
        except TransformError:
            return transforms.lookup(frame.frame_id, frame_id, frame.stamp_ns, wait)

    # -- taking --------------------------------------------------------------------------------------------------------

    def of_call(self, request: Any) -> Asked | None:
        """What a SegmentOnce request looks for by itself, None = nothing. Raises BadRequestError."""
        plugin, segmenter = self._segmenter()
        texts = tuple(text.strip() for text in request.prompt.split(SEPARATOR)) if request.prompt else ()
        roi = tuple(float(v) for v in request.roi)
        takes_roi = any(roi) and ROI in prompt_kinds(segmenter)
        if not texts and not takes_roi:
            return None
        asked = replace(Asked(texts) if texts else self._asked, roi=roi if takes_roi else None)
        try:
            check_taken(segmenter, Prompts(asked.texts), plugin)
        except PromptError as error:
            raise BadRequestError(f"prompt: {error}") from error
        return asked

    def forget(self) -> None:
        """Back to what is configured."""
        self._asked, self._serial = Asked(), self._serial + 1

    def _take(self, asked: Asked) -> tuple[int, str]:
        """Status of Prompt and a line; what is asked for holds from now on if the status is OK."""
        kind, node = PromptSrv.Response, self._node
        perception = node.perception
        if perception is None:
            return kind.NOT_ACTIVE, f"the node is {node.state_label}, not active"
        plugin, segmenter = self._segmenter()
        if reason := not_taken(segmenter, asked.kinds, plugin):
            return kind.UNSUPPORTED, reason
        seen, note = perception.last_frame, ""
        try:
            if seen is not None:
                check_taken(segmenter, asked.at(seen, self._lookup_patiently), plugin)
            else:
                check_taken(segmenter, Prompts(asked.texts), plugin)
                note = " (no image has come yet: places are checked on the first)" if asked.objects else ""
        except PromptError as error:
            return kind.BAD_REQUEST, str(error)
        except TransformError as error:
            return kind.NO_TRANSFORM, str(error)
        self._asked, self._serial = asked, self._serial + 1
        if asked.texts or asked.is_empty:
            node.engine.look_for(Prompts(asked.texts, serial=self._serial))
            node.say_ready()  # with the class names that there are now
        return kind.OK, f"looking for {asked}{note}"

    async def _on_prompt(self, request: Any, response: Any) -> Any:
        kind = PromptSrv.Response
        try:
            asked = Asked.of(request, self._now(), self._last_stamp())
            response.status, response.message = await self._calls.run(lambda: self._take(asked))
            if response.status == kind.OK and self._node.streaming:
                self._calls.start(self._answer)
        except (BadRequestError, BusyError) as error:
            response.status, response.message = kind.BAD_REQUEST, str(error)
        except Exception as error:  # noqa: BLE001 - a call must not hang because of an error in here
            response.status, response.message = kind.BAD_REQUEST, self._node.report(error, "prompt")
        return response

    def _on_click(self, message: PointStamped) -> None:
        def answer() -> None:
            try:
                request = PromptSrv.Request(points=[message])
                status, text = self._take(Asked.of(request, self._now(), self._last_stamp()))
            except BadRequestError as error:
                status, text = PromptSrv.Response.BAD_REQUEST, str(error)
            if status != PromptSrv.Response.OK:
                self._node.get_logger().warning(f"click not taken: {text}")
                return
            self._node.get_logger().info(f"click: {text}")
            self._answer(stamp_ns(message.header.stamp))

        self._calls.start(answer)

    def _answer(self, stamp: int = 0) -> None:
        """A result that is made for the prompt: of the last image, which the network has seen, else of the next.

        The last image is meant when it is not old, or when the prompt has its `stamp`.
        """
        node, perception = self._node, self._node.perception
        if perception is None:
            return
        seen, now = perception.last_frame, self._now()
        wanted = Wanted(now, node.parameters.config.segment_once.timeout)
        fresh = seen is not None and (abs(now - seen.stamp_ns) <= SAME_IMAGE * 1e9 or stamp == seen.stamp_ns)
        if not (fresh and perception.feed.again(wanted)):
            perception.feed.want(wanted)
        node.executor.create_task(node.update_inputs)
        if not wanted.done.wait(wanted.timeout):
            reason = wanted.error or "no image, or the network is slow"
            node.get_logger().warning(f"prompt: no result within {wanted.timeout:g} s: {reason}")
        perception.feed.unwant(wanted)
        node.executor.create_task(node.update_inputs)

    def _segmenter(self) -> tuple[str, Any]:
        pipeline = self._node.engine.pipeline
        if pipeline is None:
            return self._node.parameters.config.segmenter.plugin, None
        return pipeline.config.segmenter.plugin, pipeline.segmenter

    def _last_stamp(self) -> int:
        perception = self._node.perception
        return perception.last_frame.stamp_ns if perception is not None and perception.last_frame is not None else 0

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)
