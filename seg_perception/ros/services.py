# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The services. They answer in every lifecycle state and never hang; every reply has a line that says what happened."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.callback_groups import ReentrantCallbackGroup
from std_srvs.srv import SetBool, Trigger

from seg_perception.grasping.planning import pick_order
from seg_perception.ros import grasp_requests
from seg_perception.ros.calls import BadRequestError, BusyError, Calls
from seg_perception.ros.conversions import stamp_ns
from seg_perception.ros.feed import MAX_FRAMES, Wanted
from seg_perception.ros.outputs import Messages
from seg_perception.ros.perception import Perception
from seg_perception.ros.prompts import LivePrompts
from seg_perception.ros.results import Result
from seg_perception.ros.selection import Selection, listed, only_points_of
from seg_perception.ros.transforms import TransformError
from seg_perception.scene import GraspStatus, Status
from seg_perception.srv import GetGrasps, SegmentOnce

LONGEST = 600.0  # s, the longest timeout that is taken


class Services:
    """`node` is a SegPerceptionNode: what it has of `perception` decides whether a call can be served."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self.calls = Calls(node)
        self.prompts = LivePrompts(node, self.calls)
        group = ReentrantCallbackGroup()
        for kind, name, handler in (
            (SegmentOnce, "segment_once", self._on_segment_once),
            (GetGrasps, "get_grasps", self._on_get_grasps),
            (SetBool, "enable", self._on_enable),
            (Trigger, "reset_tracks", self._on_reset_tracks),
        ):
            node.create_service(kind, f"~/{name}", handler, callback_group=group)

    # -- segment_once --------------------------------------------------------------------------------------------------

    async def _on_segment_once(self, request: Any, response: Any) -> Any:
        perception = self._node.perception
        if perception is None:
            return _say(response, SegmentOnce.Response.NOT_ACTIVE, self._not_active())
        try:
            own = self.prompts.of_call(request)
            selection = Selection.of(request, (own and own.texts) or self._node.class_names)
            wanted = self._wanted(request, max(1, request.frames))
            wanted.prompts = own
        except BadRequestError as error:
            return _say(response, SegmentOnce.Response.BAD_REQUEST, str(error))
        try:
            return await self._with_frame(
                perception, wanted, lambda: self._segmented(perception, wanted, selection, request, response)
            )
        except BusyError as error:
            return _say(response, SegmentOnce.Response.BUSY, str(error))
        except BadRequestError as error:
            return _say(response, SegmentOnce.Response.BAD_REQUEST, str(error))
        except Exception as error:  # noqa: BLE001 - a call must not hang because of an error in here
            return _say(response, SegmentOnce.Response.FAILED, self._node.report(error, "segment_once"))

    def _segmented(
        self, perception: Perception, wanted: Wanted, selection: Selection, request: Any, response: Any
    ) -> Any:
        """The answer, once the frame is there; in the call's thread."""
        kind = SegmentOnce.Response
        wanted.done.wait(wanted.timeout)
        status, text = kind.OK, ""
        result = wanted.result
        if result is None:
            if wanted.ended:
                return _say(response, kind.NOT_ACTIVE, wanted.ended)
            result = wanted.fallback
            if result is None:
                return _say(
                    response, *self._no_frame(wanted, kind.TIMEOUT_NO_COLOR, kind.TIMEOUT_NO_DEPTH, kind.FAILED)
                )
            status, text = kind.TIMEOUT_NO_DEPTH, f"masks only: {self._node.inputs.depth_text(perception.feed)}"
        perception.history.returned(result)
        scene, frame = result.scene, result.scene.frame
        if status == kind.OK and frame.no_3d is not None and perception.feed.pairer.depth_expected:
            status = kind.NO_TRANSFORM if frame.withheld is Status.NO_TRANSFORM else kind.FAILED
            text = f"masks only: {frame.no_3d[0].name}: {frame.no_3d[1]}"
        rows = selection.rows(result)
        scene = grasp_requests.without_grasps(scene)
        if request.grasps:
            frame_id = request.target_frame or result.frame_id
            scene = self._planned(perception, result, rows, request.grasps, request.grasp_request, frame_id)
        result = replace(result, scene=scene)
        result, problem = self._relocated(perception, result, request.target_frame)
        if problem:
            status, text = kind.NO_TRANSFORM, problem
        messages = Messages(result, perception.config)
        clouds = only_points_of(messages.clouds, scene, rows)
        message = messages.main_with(request.with_points, clouds).message()
        keep = {scene.objects[row].id for row in rows}
        message.objects = [o for o in message.objects if o.id in keep]
        response.result = message
        with_3d = sum(o.status < Status.NO_DEPTH_IMAGE for o in message.objects)
        text = text or f"{len(message.objects)} objects, {with_3d} with 3D"
        problem = self._node.reports.current("depth")
        if status == kind.OK and not with_3d and problem:  # an empty table, or a blind camera?
            text += f"; depth: {problem}"
        return _say(response, status, text)

    # -- get_grasps ----------------------------------------------------------------------------------------------------

    async def _on_get_grasps(self, request: Any, response: Any) -> Any:
        kind = GetGrasps.Response
        ids = [int(i) for i in request.object_ids]
        perception = self._node.perception
        if perception is None:
            return _refuse(response, kind.NOT_ACTIVE, self._not_active(), ids)
        try:
            for name in request.classes:
                Selection.check_class(name, self._node.class_names)
            if not request.max_age >= 0:
                raise BadRequestError(f"max_age: expected at least 0 s, got {request.max_age:g}")
            wanted = self._wanted(request, 1, any_frame=stamp_ns(request.after) == 0)
            kept = perception.history.newest(ids)
            if kept is not None and kept.stamp_ns >= wanted.after_ns and (not wanted.after_ns or _holds(kept, ids)):
                return await self.calls.run(lambda: self._grasps(perception, kept, request, response))

            def wait_and_answer() -> Any:
                wanted.done.wait(wanted.timeout)
                if wanted.ended:
                    return _refuse(response, kind.NOT_ACTIVE, wanted.ended, ids)
                result = wanted.result or wanted.fallback
                if result is None:
                    return _refuse(response, *self._no_frame(wanted, kind.TIMEOUT, kind.TIMEOUT, kind.FAILED), ids)
                perception.history.returned(result)
                return self._grasps(perception, result, request, response)

            return await self._with_frame(perception, wanted, wait_and_answer)
        except BadRequestError as error:
            return _refuse(response, kind.BAD_REQUEST, str(error), ids)
        except Exception as error:  # noqa: BLE001 - a call must not hang because of an error in here
            text = str(error) if isinstance(error, BusyError) else self._node.report(error, "get_grasps")
            return _refuse(response, kind.FAILED, text, ids)

    def _grasps(self, perception: Perception, result: Result, request: Any, response: Any) -> Any:
        """Grasps on a result that is there; in the call's thread."""
        kind = GetGrasps.Response
        asked = [int(i) for i in request.object_ids]
        age = (self._node.get_clock().now().nanoseconds - result.stamp_ns) * 1e-9
        response.header = Messages(result, perception.config).header
        if request.max_age > 0 and age > request.max_age:
            text = f"the result is {age:.2f} s old, max_age is {request.max_age:g} s"
            return _refuse(response, kind.TOO_OLD, text, asked)
        scene = result.scene
        names = [name or "object" for name in scene.instances.class_names]
        rows = [
            row
            for row, obj in enumerate(scene.objects)
            if (not asked or obj.id in asked) and (not request.classes or names[row] in request.classes)
        ]
        failures = {i: "no such object in the result" for i in asked if i not in result.ids}
        failures |= {i: "of another class" for i in asked if i in result.ids - {scene.objects[r].id for r in rows}}
        if not rows:
            what = [f"ids {listed(asked)}"] if asked else []
            what += [f"classes {listed(request.classes)}"] if request.classes else []
            _fail(response, failures)
            held = f"ids {listed(sorted(result.ids))}" if result.ids else "no objects"
            text = f"no {' of '.join(what) or 'objects'} in the result, which has {held}"
            return _say(response, kind.NO_SUCH_OBJECT, text)
        frame_id = request.target_frame or result.frame_id
        planned = self._planned(perception, result, rows, request.max_per_object, request.request, frame_id)
        moved, problem = self._relocated(perception, replace(result, scene=planned), request.target_frame)
        messages = Messages(moved, perception.config)
        response.header = messages.header
        if moved.T_header_image is None:
            _fail(response, failures | {scene.objects[row].id: problem for row in rows})
            return _say(response, kind.NO_TRANSFORM, problem)
        by_id = {o.id: o for o in messages.main_with(points=False).message().objects}
        order = [planned.objects[row].id for row in pick_order(planned) if row in set(rows)]
        grasps = [grasp for i in order for grasp in by_id[i].grasps]
        response.grasps = grasps[: request.max_total] if request.max_total else grasps
        served = {grasp.object_id for grasp in response.grasps}
        for row in rows:
            obj = planned.objects[row]
            if obj.grasp_status is not GraspStatus.FOUND:
                failures[obj.id] = obj.grasp_text or obj.grasp_status.name
            elif obj.id not in served:
                failures[obj.id] = f"beyond max_total ({request.max_total})"
        _fail(response, failures)
        if not grasps:
            reasons = "; ".join(f"{i}: {reason}" for i, reason in failures.items())
            return _say(response, kind.NO_GRASP, f"no grasp for any of {len(rows)} objects: {reasons}")
        return _say(response, kind.OK, f"{len(response.grasps)} grasps on {len(served)} objects")

    # -- enable, reset_tracks ------------------------------------------------------------------------------------------

    async def _on_enable(self, request: Any, response: Any) -> Any:
        if self._node.perception is None:
            response.success, response.message = False, self._not_active()
            return response
        self._node.enable(request.data)
        response.success = True
        response.message = f"streaming is {'on' if self._node.streaming else 'off'}"
        if request.data and not self._node.streaming:
            response.message += " (run is on_request)"
        return response

    async def _on_reset_tracks(self, request: Any, response: Any) -> Any:
        if self._node.perception is None:
            response.success, response.message = False, self._not_active()
            return response
        try:
            await self.calls.run(self._node.engine.reset_tracks)
        except BusyError as error:
            response.success, response.message = False, str(error)
            return response
        response.success, response.message = True, "tracks are forgotten, the next objects get new ids"
        return response

    # -- shared --------------------------------------------------------------------------------------------------------

    async def _with_frame(self, perception: Perception, wanted: Wanted, answer: Callable[[], Any]) -> Any:
        """Runs `answer` while inputs are subscribed for it."""
        perception.feed.want(wanted)
        self._node.update_inputs()
        try:
            return await self.calls.run(answer)
        finally:
            perception.feed.unwant(wanted)
            self._node.update_inputs()

    def _wanted(self, request: Any, frames: int, any_frame: bool = False) -> Wanted:
        timeout = float(request.timeout)
        if not 0 <= timeout <= LONGEST:
            raise BadRequestError(f"timeout: expected 0 to {LONGEST:g} s, got {timeout:g}")
        if frames > MAX_FRAMES:
            raise BadRequestError(f"frames: expected at most {MAX_FRAMES}, got {frames}")
        after = 0 if any_frame else stamp_ns(request.after) or self._node.get_clock().now().nanoseconds
        return Wanted(after, timeout or self._node.perception.config.segment_once.timeout, frames)

    def _no_frame(self, wanted: Wanted, no_color: int, no_depth: int, failed: int) -> tuple[int, str]:
        """Status and line of a call that ran out of time."""
        inputs, feed = self._node.inputs, self._node.perception.feed
        within = f"within {wanted.timeout:g} s"
        if wanted.error:
            return failed, f"no frame came through {within}: {wanted.error}"
        if inputs.color.stamp_ns is None or inputs.color.stamp_ns < wanted.after_ns:
            missing = inputs.color.missing_text()
            return no_color, f"no color image stamped at or after {wanted.after_ns / 1e9:.9f} {within}: {missing}"
        return no_depth, f"no depth image {within}: {inputs.depth_text(feed)}"

    def _planned(
        self, perception: Perception, result: Result, rows: list[int], count: int, request: Any, reply_frame: str
    ) -> Any:
        """The result's scene with grasps; `reply_frame` is that of an approach axis which names none."""
        frame = result.scene.frame

        def rotation_to_camera(frame_id: str) -> NDArray[np.float64]:
            try:
                return perception.transform(frame_id or reply_frame, frame)[:3, :3].T
            except TransformError as error:
                raise BadRequestError(f"approach_axis: {error}") from error

        return grasp_requests.plan(result.scene, self._node.engine.pipeline, rows, count, request, rotation_to_camera)

    def _relocated(self, perception: Perception, result: Result, target: str) -> tuple[Result, str]:
        """The result in another frame, and why that is not possible."""
        if not target or target == result.frame_id:
            problem = result.scene.frame.withheld_text if result.T_header_image is None else ""
            return result, problem
        try:
            T: NDArray[np.float64] | None = perception.transform(target, result.scene.frame)
            problem = ""
        except TransformError as error:
            T, problem = None, str(error)
        return replace(result, frame_id=target, T_header_image=T), problem

    def _not_active(self) -> str:
        node = self._node
        cause = f": {node.problem}" if node.problem else ""
        return f"the node is {node.state_label}, not active{cause}"


def _say(response: Any, status: int, text: str) -> Any:
    response.status, response.message = status, " ".join(text.split())
    return response


def _refuse(response: Any, status: int, text: str, ids: Collection[int]) -> Any:
    """No grasps at all: every object that was asked for has the same reason."""
    _say(response, status, text)
    _fail(response, dict.fromkeys(ids, response.message))
    return response


def _holds(result: Result, ids: Collection[int]) -> bool:
    return not ids or bool(result.ids.intersection(ids))


def _fail(response: Any, failures: dict[int, str]) -> None:
    response.failed_ids = [i for i in failures if 0 <= i < 2**32]
    response.failed_reasons = [failures[i] for i in response.failed_ids]
