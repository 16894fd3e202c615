# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node as a process: autostart, one line instead of a traceback, and a clean end on ctrl-C or SIGTERM.

    ros2 run seg_perception seg_perception_node --ros-args -p config:=tabletop,realsense

The node itself is in lifecycle_node.py; it is imported once signals are heard.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

TURN = 0.0005  # s that a thread keeps Python's lock while another wants it; the default is 5 ms, see docs/decisions.md
LAST_WORDS = 10.0  # s to shut down in; a plugin that hangs is left
INTERRUPTED = 130  # exit code of a process that was told to stop before it ran
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main(arguments: Sequence[str] | None = None, transform_buffer: Callable[[Any], Any] | None = None) -> int:
    """Spins the node until a signal comes. 0 = told to stop, 1 = it cannot start, with one line on standard error.

    The executor spins in a thread, so that the main thread hears signals at once. `--debug` shows tracebacks.
    `transform_buffer(node)` makes another buffer than tf2's (tests).
    """
    stop = threading.Event()
    for number in SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    command = list(sys.argv if arguments is None else ["seg_perception_node", *arguments])

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read at import; our matrices are small
    sys.setswitchinterval(TURN)
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions
    from rclpy.utilities import remove_ros_args

    from seg_perception.memory import keep_freed_memory
    from seg_perception.ros.lifecycle_node import SegPerceptionNode

    keep_freed_memory()
    parser = argparse.ArgumentParser("seg_perception_node", epilog="Parameters and remappings come after --ros-args.")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    node = executor = None
    code, debug = 1, "--debug" in command
    try:
        parser.parse_args(remove_ros_args(command)[1:])
        if stop.is_set():
            return INTERRUPTED
        rclpy.init(args=[w for w in command if w != "--debug"], signal_handler_options=SignalHandlerOptions.NO)
        node = SegPerceptionNode(debug=debug)
        if transform_buffer is not None:
            node.transforms.use(transform_buffer(node))
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        code = _spin(node, executor, stop)
    except Exception as error:  # noqa: BLE001 - a malformed parameter file, a bad name: rclpy has no common base
        if debug:
            traceback.print_exc()
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        sys.stderr.write(f"error: {lines[0] if lines else type(error).__name__}\n")
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if executor is not None:
            executor.shutdown(timeout_sec=0)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    if node is not None and (node.left_behind or node.services_of_node.calls.working):
        _leave(code)
    return code


def _spin(node: Any, executor: Any, stop: threading.Event) -> int:
    failed = threading.Event()
    spinning = threading.Thread(target=_spin_until, args=(node, executor), name="executor", daemon=True)
    spinning.start()

    def start() -> None:
        if not _autostart(node, stop) and not stop.is_set():
            failed.set()
            stop.set()

    if node.parameters.wants_autostart:
        executor.create_task(start)
    stop.wait()
    node.stopping.set()
    ended = threading.Event()

    def end() -> None:
        if node.state_label != "finalized":
            node.trigger_shutdown()
        ended.set()

    executor.create_task(end)
    clean = ended.wait(LAST_WORDS)
    deadline = time.monotonic() + 1.0
    while node.services_of_node.calls.running and time.monotonic() < deadline:
        time.sleep(0.01)  # calls that were woken send their answers
    node.finished.set()
    executor.wake()
    spinning.join(1.0)
    if not clean:
        sys.stderr.write("error: a transition does not return\n")
        node.left_behind = True
    return 1 if failed.is_set() or not clean else 0


def _spin_until(node: Any, executor: Any) -> None:
    from rclpy.executors import ExternalShutdownException, ShutdownException

    while not node.finished.is_set():
        try:
            executor.spin_once()
        except (ExternalShutdownException, ShutdownException):
            return
        except Exception as error:  # noqa: BLE001 - one callback's error must not end the node
            node.report(error, "callback")


def _leave(code: int) -> None:
    """Ends the process while a thread still runs in a plugin or a compiler, where Python's own end would abort, and the
    C library's too. The node is destroyed by now: with its context goes the middleware, and its shared memory."""
    import rclpy

    gc.collect()
    rclpy.get_default_context().destroy()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _autostart(node: Any, stop: threading.Event) -> bool:
    """Configures and activates, unless told to stop; False if the node cannot."""
    from rclpy.lifecycle import TransitionCallbackReturn

    for trigger in (node.trigger_configure, node.trigger_activate):
        if stop.is_set():
            return True  # the executor may already have run what ends the node: no transition is allowed then
        if trigger() != TransitionCallbackReturn.SUCCESS:
            return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
