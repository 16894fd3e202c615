# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A pick controller, small enough to be read: look, choose, pre-grasp, grasp, lift, and look again.

ros2 run seg_perception pick_example --ros-args -p things:=6 -p seed:=1

Perception is real: seg_perception_node in its own process, images over topics, calls over services. The cell is
simulated (`pick_cell.py`): for a robot of yours, replace `cell.hand` by its arm and gripper, and set the node's
`target_frame` to its base. Parameters: those of the cell, `picks` (0 = all things), `config` of the node, and
`start_node` (false = yours is running).
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from seg_perception.msg import Grasp
from seg_perception.ros.demo import Processes
from seg_perception.ros.pick_cell import PickCell
from seg_perception.ros.poses import matrix_from_pose
from seg_perception.srv import GetGrasps, SegmentOnce

NODE = "seg_perception"
FIRST_ANSWER = 300.0  # s; the very first start compiles kernels
ANSWER = 20.0  # s
LIFT = 0.15  # m, at least
TRIES = 2  # per thing


class PickError(RuntimeError):
    """The example cannot go on; one line."""


class Picker:
    """The controller. `cell` is the simulated robot and the node that calls are made from."""

    def __init__(self, cell: PickCell, stop: threading.Event) -> None:
        self._cell, self._stop = cell, stop
        self._segment_once = cell.create_client(SegmentOnce, f"{NODE}/segment_once")
        self._get_grasps = cell.create_client(GetGrasps, f"{NODE}/get_grasps")

    def run(self, picks: int) -> tuple[int, int]:
        """Picks until that many are in the bin, the table is empty, or nothing works; how many, of how many."""
        goal = min(picks or self._cell.left, self._cell.left)
        picked = failed = 0
        self._wait_for_the_node()
        while picked < goal and failed < TRIES * goal and not self._stop.is_set():
            grasp = self.look_and_choose(skip=failed)
            if grasp is None:
                break
            taken = self.pick(grasp)
            picked, failed = picked + (taken is not None), failed + (taken is None)
        return picked, goal

    def look_and_choose(self, skip: int = 0) -> Grasp | None:
        """A picture taken from now on, and the first of its grasps; after failures another one's turn comes."""
        now = self._cell.get_clock().now().to_msg()
        seen = self._call(self._segment_once, SegmentOnce.Request(after=now, timeout=ANSWER))
        self._say(f"segment_once: {seen.message}; in truth {self._cell.left} things")
        request = GetGrasps.Request(after=seen.result.header.stamp, max_per_object=1, timeout=ANSWER)
        request.request.gripper = self._cell.get_parameter("gripper").value
        request.request.kind = Grasp.PARALLEL_JAW
        answer = self._call(self._get_grasps, request)
        self._say(f"get_grasps: {answer.message}")
        for number, reason in zip(answer.failed_ids, answer.failed_reasons, strict=True):
            self._say(f"  not {number}: {reason}")
        return answer.grasps[skip % len(answer.grasps)] if answer.grasps else None

    def pick(self, grasp: Grasp) -> int | None:
        """Carries out a grasp; which thing came up, None if none did."""
        T_world_camera = self._cell.T_world_camera  # poses are in the camera's frame: this is the hand-eye calibration
        T_grasp, T_pregrasp = (
            T_world_camera @ matrix_from_pose(grasp.pose),
            T_world_camera @ matrix_from_pose(grasp.pregrasp_pose),
        )
        d = grasp.retreat_direction
        up = T_world_camera[:3, :3] @ np.array([d.x, d.y, d.z])
        hand = self._cell.hand
        self._cell.blind()
        at = " ".join(f"{v:.3f}" for v in T_grasp[:3, 3])
        self._say(f"pre-grasp: object {grasp.object_id} at {at} m, score {grasp.score:.2f}, open {grasp.width:.3f} m")
        hand.appear(T_pregrasp, grasp.width)
        hand.move(T_grasp[:3, 3])
        hand.close()
        between = hand.held()
        self._say(f"grasp: {'nothing' if between is None else self._cell.name_of(between)} between the fingers")
        hand.move(T_grasp[:3, 3] + max(LIFT, grasp.retreat_distance) * up)
        taken = hand.held()
        self._say(f"lift: {'lost it' if taken is None else f'holds the {self._cell.name_of(taken)}, into the bin'}")
        self._cell.take_away(taken)
        self._cell.look()
        return taken

    def _wait_for_the_node(self) -> None:
        """Until it answers calls: it may have to compile its kernels first."""
        self._say("waiting for the node (its very first start compiles for a minute)")
        deadline = time.monotonic() + FIRST_ANSWER
        while time.monotonic() < deadline and not self._stop.is_set():
            if self._segment_once.wait_for_service(1.0):
                reply = self._call(self._segment_once, SegmentOnce.Request(timeout=5.0), refused_is_fine=True)
                if reply.status == SegmentOnce.Response.OK:
                    return
        if not self._stop.is_set():
            raise PickError(f"no answer from /{NODE}/segment_once within {FIRST_ANSWER:g} s")

    def _call(self, client: Any, request: Any, refused_is_fine: bool = False) -> Any:
        future, done = client.call_async(request), threading.Event()
        future.add_done_callback(lambda _: done.set())
        deadline = time.monotonic() + FIRST_ANSWER
        while not done.wait(0.1):
            if self._stop.is_set() or time.monotonic() > deadline:
                raise PickError(f"no answer from {client.srv_name}")
        reply = future.result()
        nothing = getattr(type(reply), "NO_GRASP", None)
        if reply.status not in (0, nothing) and not refused_is_fine:
            raise PickError(f"{client.srv_name}: {reply.message}")
        return reply

    def _say(self, line: str) -> None:
        print(line, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """0 when every pick that was asked for came up, 1 when not."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    command = list(sys.argv[1:] if arguments is None else arguments)
    rclpy.init(args=command, signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    spinning = threading.Thread(target=executor.spin)
    cell: PickCell | None = None
    try:
        cell = PickCell()
        picks = int(cell.declare_parameter("picks", 0).value)
        config = str(cell.declare_parameter("config", "tabletop").value)
        own = bool(cell.declare_parameter("start_node", True).value)
        executor.add_node(cell)
        spinning.start()
        with Processes() as processes:
            if own:
                processes.start("node", "seg_perception.ros.node", {"config": config, "run": "on_request"})
            picked, goal = Picker(cell, stop).run(picks)
    except (PickError, ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    finally:
        executor.shutdown()
        if spinning.is_alive():
            spinning.join()
        if cell is not None:
            cell.destroy_node()
        rclpy.try_shutdown()
    print(f"picked {picked} of {goal}")
    return 0 if picked == goal else 1


if __name__ == "__main__":
    raise SystemExit(main())
