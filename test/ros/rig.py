# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What stands around the node in these tests: a camera, listeners, a caller. The node has a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import QoSProfile, ReliabilityPolicy
from seg_perception.msg import SegmentedObjectArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from seg_perception.ros.conversions import encode_image, stamp_from_ns, stamp_ns

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT, FOCAL = 320, 240, 300.0
TABLE, TOP = 0.80, 0.74  # m, depth of the table and of the brick's top
BRICK = (130, 108, 190, 132)  # px, x_min y_min x_max y_max of the brick; 59 mm wide: jaws can span it
PATIENCE = 10.0  # s, after which something did not happen
OPTICAL = "camera_color_optical_frame"
RED = "segmenter.plugin:=segmenters_for_tests:RedThings"  # finds the brick


class NodeProcess:
    """The node in a process of its own, with `name:=value` parameters."""

    def __init__(
        self,
        *parameters: str,
        namespace: str,
        program: list[str] | None = None,
        extra: list[str] | None = None,
        wrapper: list[str] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        """`program` instead of the node, `extra` arguments, a `wrapper` command around it all, more `environment`."""
        command = [*(wrapper or []), sys.executable, *(program or ["-m", "seg_perception.ros.node"]), *(extra or [])]
        command += ["--ros-args", "-r", f"__ns:={namespace}"]
        for parameter in parameters:
            command += ["-p", parameter]
        path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, **(environment or {})}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.append(line)

    @property
    def log(self) -> str:
        return "".join(self._lines)

    @property
    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def wait(self, timeout: float = 30.0) -> int:
        """The exit code, once the process ends by itself."""
        code = self.process.wait(timeout)
        self._reader.join(2.0)
        return code

    def stop(self, number: int = signal.SIGINT) -> int:
        """Sends a signal; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.wait(15.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


class Rig:
    """A camera over a red brick on a table, listeners, and a caller, on real topics in `namespace`."""

    def __init__(self, namespace: str, reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("rig", namespace=namespace, context=self.context)
        self.plug_in(reliability)
        self.objects: list[SegmentedObjectArray] = []
        self._statuses: dict[str, tuple[DiagnosticStatus, float]] = {}
        self.listen(SegmentedObjectArray, "seg_perception/objects", self.objects, depth=100)
        self._name = f"{namespace}/seg_perception: "
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.sent: list[int] = []
        self._clients: dict[str, Any] = {}
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(5.0)
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    # -- listening -----------------------------------------------------------------------------------------------------

    def listen(self, kind: Any, topic: str, into: list[Any], depth: int = 5) -> Any:
        return self.node.create_subscription(kind, topic, into.append, depth)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith(self._name):
                self._statuses[status.name.removeprefix(self._name)] = (status, time.monotonic())

    def diagnostic(self, part: str) -> DiagnosticStatus:
        """The newest status of a part, OK with no text if there is none."""
        return self._statuses.get(part, (DiagnosticStatus(), 0.0))[0]

    def problems(self) -> dict[str, str]:
        """What is said of each part that is not OK."""
        return {name: s.message for name, (s, _) in self._statuses.items() if s.level != DiagnosticStatus.OK}

    def wait(self, condition: Callable[[], Any], timeout: float = PATIENCE, what: str = "") -> Any:
        """The first true value of `condition`."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if value := condition():
                return value
            time.sleep(0.005)
        states = {name: (s.level, s.message) for name, (s, _) in self._statuses.items()}
        raise AssertionError(f"did not happen in {timeout} s: {what}; diagnostics: {states}")

    def wait_for_diagnostic(self, part: str, level: bytes, *words: str, **camera: Any) -> DiagnosticStatus:
        """Films (with `camera` options of `shoot`) until a part has this level and all these words."""

        def said() -> Any:
            status = self.diagnostic(part)
            return status if status.level == level and all(w in status.message for w in words) else None

        return self.film(said, what=f"{part} {level} {words}", **camera)

    # -- the camera ----------------------------------------------------------------------------------------------------

    def plug_in(self, reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE) -> None:
        """The camera's driver starts."""
        qos = QoSProfile(depth=2, reliability=reliability)
        publish = self.node.create_publisher
        self.color = publish(Image, "color/image_raw", qos)
        self.color_info = publish(CameraInfo, "color/camera_info", qos)
        self.depth = publish(Image, "depth/image_rect", qos)
        self.depth_info = publish(CameraInfo, "depth/camera_info", qos)

    def unplug(self) -> None:
        """The camera's driver ends."""
        for publisher in (self.color, self.color_info, self.depth, self.depth_info):
            self.node.destroy_publisher(publisher)

    def now(self) -> int:
        return self.node.get_clock().now().nanoseconds

    def shoot(
        self,
        stamp: int | None = None,
        *,
        frame_id: str = OPTICAL,
        color: Callable[[Image], None] | None = None,
        depth: Callable[[Image], None] | None = None,
        info: Callable[[CameraInfo], None] | None = None,
        depth_info: Callable[[CameraInfo], None] | None = None,
        only: tuple[str, ...] = ("color", "depth", "color_info", "depth_info"),
        depth_shift: float = 0.0,
        extra_brick: bool = False,
    ) -> int:
        """Publishes one frame; `color`, `depth`, `info`, `depth_info` spoil the messages first; without
        `depth_info`, `info` spoils both. `depth_shift` s, stamp of depth."""
        stamp = self.now() if stamp is None else stamp
        header = Header(stamp=stamp_from_ns(stamp), frame_id=frame_id)
        depth_header = Header(stamp=stamp_from_ns(stamp + round(depth_shift * 1e9)), frame_id=frame_id)
        messages = {
            "color_info": camera_info(header),
            "depth_info": camera_info(depth_header),
            "depth": encode_image(depth_picture(extra_brick), "16UC1", depth_header),
            "color": encode_image(color_picture(extra_brick), "rgb8", header),
        }
        spoil = {"color": color, "depth": depth, "color_info": info, "depth_info": depth_info or info}
        for name, message in messages.items():
            if name in only:
                if spoil[name] is not None:
                    spoil[name](message)
                getattr(self, name).publish(message)
        self.sent.append(stamp)
        return stamp

    def film(
        self,
        until: Callable[[], Any],
        rate: float = 30.0,
        timeout: float = PATIENCE,
        what: str = "",
        shot: Callable[[], Any] | None = None,
        **camera: Any,
    ) -> Any:
        """Shoots at `rate`, by `shot` where it is given, until the condition is true; its value."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            (shot or self.shoot)(**camera)
            if value := until():
                return value
            time.sleep(1 / rate)
        return self.wait(until, 0.01, what)

    def film_good(self) -> SegmentedObjectArray:
        """Films until a result with 3D comes; that result."""
        start = self.now()
        return self.film(
            lambda: next((m for m in self.objects[-3:] if is_good(m) and stamp_ns(m.header.stamp) >= start), None),
            what="a good result",
        )

    # -- calling -------------------------------------------------------------------------------------------------------

    def call_async(self, kind: Any, name: str, request: Any) -> Any:
        key = f"seg_perception/{name}"
        client = self._clients.get(key) or self._clients.setdefault(key, self.node.create_client(kind, key))
        assert client.wait_for_service(PATIENCE), f"no service {name}"
        return client.call_async(request)

    def call(
        self, kind: Any, name: str, request: Any = None, film: bool = False, timeout: float = PATIENCE, **camera: Any
    ) -> Any:
        """A service's answer, while filming if asked to."""
        future = self.call_async(kind, name, request or kind.Request())
        if film:
            self.film(future.done, timeout=timeout, what=name, **camera)
        else:
            self.wait(future.done, timeout, what=name)
        return future.result()

    def change_state(self, transition: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = transition
        return self.call(ChangeState, "change_state", request, timeout=30.0).success

    def state(self) -> str:
        return self.call(GetState, "get_state").current_state.label

    def parameters(self, *names: str) -> list[Any]:
        """Values of the node's parameters."""
        reply = self.call(GetParameters, "get_parameters", GetParameters.Request(names=list(names)))
        return [parameter_value_to_python(value) for value in reply.values]

    def set_parameters(self, **values: Any) -> Any:
        """Sets parameters together ("__" in a name stands for a dot); the result."""
        parameters: list[ParameterMsg] = [
            Parameter(name.replace("__", "."), value=value).to_parameter_msg() for name, value in values.items()
        ]
        request = SetParametersAtomically.Request(parameters=parameters)
        return self.call(SetParametersAtomically, "set_parameters_atomically", request).result


def is_good(message: SegmentedObjectArray) -> bool:
    return bool(message.objects) and all(o.status < 10 for o in message.objects)


def color_picture(extra_brick: bool = False) -> np.ndarray:
    picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    x0, y0, x1, y1 = BRICK
    picture[y0:y1, x0:x1] = (250, 20, 20)
    if extra_brick:
        picture[y0:y1, x0 - 100 : x1 - 100] = (250, 20, 20)
    return picture


def depth_picture(extra_brick: bool = False) -> np.ndarray:
    picture = np.full((HEIGHT, WIDTH), round(TABLE * 1000), np.uint16)
    x0, y0, x1, y1 = BRICK
    picture[y0:y1, x0:x1] = round(TOP * 1000)
    if extra_brick:
        picture[y0:y1, x0 - 100 : x1 - 100] = round(TOP * 1000)
    return picture


def camera_info(header: Header) -> CameraInfo:
    cx, cy = WIDTH / 2, HEIGHT / 2
    return CameraInfo(
        header=header,
        width=WIDTH,
        height=HEIGHT,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[FOCAL, 0.0, cx, 0.0, FOCAL, cy, 0.0, 0.0, 1.0],
        p=[FOCAL, 0.0, cx, 0.0, 0.0, FOCAL, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )
