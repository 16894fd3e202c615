# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node. Configure: parameters, plugins, model. Activate: subscriptions and workers.

ros2 run seg_perception seg_perception_node --ros-args -p config:=tabletop,realsense
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from seg_perception.config import Config
from seg_perception.msg import ModelStatus
from seg_perception.pipeline import Pipeline
from seg_perception.ros.cores import use_cores
from seg_perception.ros.diagnostics import Diagnostics
from seg_perception.ros.engine import Engine, class_names, model_name
from seg_perception.ros.inputs import Inputs
from seg_perception.ros.model_build import ModelBuild
from seg_perception.ros.model_status import ModelStatusTopic
from seg_perception.ros.model_swap import ModelSwap
from seg_perception.ros.outputs import Outputs
from seg_perception.ros.parameters import Parameters
from seg_perception.ros.perception import Perception
from seg_perception.ros.reports import Reports
from seg_perception.ros.services import Services
from seg_perception.ros.transforms import TransformError, Transforms
from seg_perception.ros.watch import CaptureService, Watch

FOLLOW_PERIOD = 0.25  # s between two looks at what the publishers offer
LAST_FRAME = 3.0  # s that deactivate waits for the plugins to finish their frame
LAST_KERNEL = 0.5  # s that it waits for the warm-up
SAY_WARMING_UP = 2.0  # s of warming up after which the log says so
RUNNING = (ModelStatus.READY, ModelStatus.FALLBACK)
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class SegPerceptionNode(LifecycleNode):
    """RGB-D topics in, objects out."""

    def __init__(self, debug: bool = False, **kwargs: Any) -> None:
        super().__init__("seg_perception", **kwargs)
        self._debug = debug
        self.stopping = threading.Event()  # the process was told to end
        self.finished = threading.Event()
        self.left_behind = False  # a thread still runs in a plugin
        self.state_label = "unconfigured"
        self.problem = ""  # why the last transition failed
        self.engine = Engine()
        self.inputs: Inputs | None = None
        self.perception: Perception | None = None
        self.outputs: Outputs | None = None
        self.watch: Watch | None = None
        self._enabled = True
        self._said = ""  # the last line about warming up
        self.reports = Reports(lambda line: self.get_logger().warning(line))
        self.transforms = Transforms(self)
        self.model_build = ModelBuild(self)
        self.parameters = Parameters(
            self, lambda: self.engine.pipeline is not None or self.model_build.running, self._apply
        )
        self.model_status = ModelStatusTopic(self)
        self.services_of_node = Services(self)
        self._model_swap = ModelSwap(self, self.services_of_node.calls)
        self._capture_service = CaptureService(self, self.services_of_node.calls)
        self._diagnostics = Diagnostics(self)
        self._follow = self.create_timer(
            FOLLOW_PERIOD, self._follow_publishers, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._jumps = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True),
            post_callback=self._on_clock_jump,
        )
        _answer_impossible_transitions(self)

    # -- what others ask ---------------------------------------------------------------------------------------------

    @property
    def streaming(self) -> bool:
        """Whether frames are processed that no call waits for."""
        return self.perception is not None and self._enabled and self.parameters.config.run == "stream"

    @property
    def class_names(self) -> Sequence[str]:
        return class_names(self.engine.pipeline)

    def enable(self, on: bool) -> None:
        """Switches the stream on or off; calls work in any case."""
        self._enabled = on
        self.update_inputs()

    def update_inputs(self) -> None:
        """Subscribes while somebody needs frames."""
        if self.perception is None or self.inputs is None:
            return
        feed = self.perception.feed
        feed.streaming = self.streaming
        if self.streaming or feed.calls:
            self.inputs.open()
        else:
            self.inputs.close()

    def report(self, error: Exception, where: str) -> str:
        """Logs an error in one line, with the traceback if debugging; the line."""
        text = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, ValueError | TransformError):
            text = f"{type(error).__name__}: {text}"
        self.get_logger().error(f"{where}: {text}")
        if self._debug:
            self.get_logger().error("".join(traceback.format_exception(error)))
        return text

    def take_segmenter(self, old: Pipeline, new: Pipeline) -> bool:
        """Another segmenter takes the next frame, and the parameters say so; False if `old` is not in use any more."""
        if self.engine.pipeline is not old:
            return False
        self.model_build.cancel(0.0)  # nobody waits for that one any more
        self.engine.use(new)
        self.parameters.adopt(new.config, "segmenter")
        if self.perception is not None:
            self.perception.config = self.parameters.config
            self.say_ready()
        return True

    # -- lifecycle ---------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("configure", "inactive", self._configure, undo=self._cleanup)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition(
            "activate", "active", lambda: self._activate(state), undo=lambda: self._deactivate(state)
        )

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("deactivate", "inactive", lambda: self._deactivate(state))

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("cleanup", "unconfigured", self._cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        def shut_down() -> None:
            self._deactivate(state)
            self._cleanup()

        return self._transition("shutdown", "finalized", shut_down)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self.on_cleanup(state)

    def _transition(
        self, name: str, goal: str, action: Callable[[], None], undo: Callable[[], None] | None = None
    ) -> TransitionCallbackReturn:
        """Does it or says why not; rclpy would swallow the exception."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises, the node stays up and says so
            self.problem = f"{name} failed: {self.report(error, name)}"
            if undo is not None:
                undo()
            if name == "configure":
                self.model_status.say(ModelStatus.FAILED, None, self.problem)
            return FAILURE
        self.problem = ""
        self.state_label = goal
        return SUCCESS

    def _configure(self) -> None:
        self.model_status.say(ModelStatus.LOADING)
        config = self.parameters.load()
        use_cores(config.cpu)
        self.model_build.load(config)
        self.outputs = Outputs(self)
        self.watch = Watch(self, config)
        self._listen_to_transforms(config)
        if not self.model_build.running:
            self.model_status.say(ModelStatus.WARMING_UP, self.engine.pipeline, "warms up when activated")

    def _activate(self, state: LifecycleState) -> None:
        super().on_activate(state)
        config = self.parameters.config
        self._said = ""
        self.perception = Perception(
            self,
            config,
            self.engine,
            self.transforms,
            self.outputs,
            self.reports,
            self.say_ready,
            self.services_of_node.prompts.at,
        )
        self.perception.watch = self.watch
        self.inputs = Inputs(self, config, self.perception.feed)
        self.outputs.activate()
        self.update_inputs()

    def _deactivate(self, state: LifecycleState) -> None:
        if self.inputs is not None:
            self.inputs.close()
            self.inputs = None
        if self.perception is not None:
            self.perception.feed.end_calls("the node was deactivated")
            perception, self.perception = self.perception, None
            compiling = perception.ready is None
            if not perception.close(LAST_KERNEL if compiling else LAST_FRAME):
                self.left_behind = True
                if compiling:
                    self.get_logger().info("deactivated while kernels are compiled")
                else:
                    self.get_logger().error("deactivate: a plugin does not return; its thread is left behind")
        super().on_deactivate(state)

    def _cleanup(self) -> None:
        if self.outputs is not None:
            self.outputs.destroy()
            self.outputs = None
        if self.watch is not None:
            self.watch.close()
            self.watch = None
        if not self.model_build.cancel():
            self.left_behind = True
        self.engine.unload()
        self.services_of_node.prompts.forget()
        self.model_status.say(ModelStatus.UNLOADED)

    def say_ready(self) -> None:
        """The model is in use, unless an engine is still being built or could not be."""
        if not self.model_build.say():
            self.model_status.say(ModelStatus.READY, self.engine.pipeline)
        if self.outputs is not None:
            self.outputs.say_labels(self.class_names)

    # -- changes while running ---------------------------------------------------------------------------------------

    def _apply(self, config: Config) -> None:
        """Live options, from the next frame on. Raises ConfigError if a plugin cannot."""
        names = tuple(self.class_names)
        if self.engine.pipeline is not None:  # else the model that is being built takes them
            self.engine.use(self.engine.prepare(self.model_build.running_config(config)))
        if self.perception is not None:
            self.perception.config = config
            self.perception.feed.pairer.slop_ns = round(config.sync.slop * 1e9)
        if self.watch is not None:
            self.watch.follow(config)
        if self.perception is not None and tuple(self.class_names) != names:
            self.say_ready()
        self._listen_to_transforms(config)

    def _listen_to_transforms(self, config: Config) -> None:
        if config.target_frame or config.gravity.frame or config.workspace.frame:
            try:
                self.transforms.listen()
            except TransformError as error:
                self.report(error, "transforms")

    def _follow_publishers(self) -> None:
        if self.inputs is not None:
            self.inputs.follow()
            self._diagnostics.look()
            self._say_progress()

    def _say_progress(self) -> None:
        """A line when warming up takes long, and one when frames are taken."""
        perception, said = self.perception, self._said
        if perception.ready is None:
            if not said and time.monotonic() - perception.began > SAY_WARMING_UP:
                self._said = "warming up; the very first start compiles kernels, for about a minute"
        elif not said.startswith("ready") and self.model_status.message.state in RUNNING:
            images = [f"'{i.topic}'" for i in (self.inputs.color, self.inputs.depth) if i is not None]
            listening = "listening to" if self.inputs.opened is not None else "on request, from"
            self._said = f"ready: {model_name(self.engine.pipeline)}, {listening} {' and '.join(images)}"
        if self._said != said:
            self.get_logger().info(self._said)

    def _on_clock_jump(self, jump: Any) -> None:
        self.get_logger().warning("the clock was set back or exchanged: transforms, tracks and results are forgotten")
        self.transforms.clear()
        perception = self.perception
        if perception is not None:
            perception.feed.clear()
            self.services_of_node.calls.start(perception.restart)

    def destroy_node(self) -> None:
        self._jumps.unregister()
        self.services_of_node.calls.close()
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()  # rclpy forgets it, and it holds the middleware's participant


def _answer_impossible_transitions(node: LifecycleNode) -> None:
    """rclpy raises on a transition that the state does not allow, and the caller would wait for ever."""
    service = node._service_change_state
    change_state = service.callback

    def callback(request: Any, response: Any) -> Any:
        try:
            return change_state(request, response)
        except Exception as error:  # noqa: BLE001 - rclpy's RCLError is not importable by a public name
            node.get_logger().warning(f"transition refused: {' '.join(str(error).split())}")
            response.success = False
            return response

    service.callback = callback
