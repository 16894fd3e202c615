# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node as a process: autostart, one line instead of a traceback, and a clean end on ctrl-C or SIGTERM."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

LAST_WORDS = 10.0  # s to shut down in; a plugin that hangs is left


def run(arguments: Sequence[str] | None, transform_buffer: Callable[[Any], Any] | None) -> int:
    """Spins the node until a signal comes. 0 = told to stop, 1 = it cannot start, with one line on standard error.

    The executor spins in a thread, so that the main thread hears signals at once. `--debug` shows tracebacks.
    """
    command = list(sys.argv if arguments is None else ["seg_perception_node", *arguments])
    debug = "--debug" in command
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    node = executor = None
    try:
        rclpy.init(args=[w for w in command if w != "--debug"], signal_handler_options=SignalHandlerOptions.NO)
        from seg_perception.ros.node import SegPerceptionNode

        node = SegPerceptionNode(debug=debug)
        if transform_buffer is not None:
            node.transforms.use(transform_buffer(node))
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        return _spin(node, executor, stop)
    except Exception as error:  # noqa: BLE001 - a malformed parameter file, a bad name: rclpy has no common base
        if debug:
            traceback.print_exc()
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        sys.stderr.write(f"error: {lines[0] if lines else type(error).__name__}\n")
        return 1
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if executor is not None:
            executor.shutdown(timeout_sec=0)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()


def _spin(node: Any, executor: SingleThreadedExecutor, stop: threading.Event) -> int:
    failed = threading.Event()
    spinning = threading.Thread(target=_spin_until, args=(node, executor, failed), name="executor", daemon=True)
    spinning.start()

    def start() -> None:
        if not _autostart(node):
            failed.set()
            stop.set()

    if node.parameters.wants_autostart:
        executor.create_task(start)
    stop.wait()
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
        sys.stderr.write("error: a transition or a plugin does not return\n")
        sys.stderr.flush()
        os._exit(1)
    return 1 if failed.is_set() else 0


def _spin_until(node: Any, executor: SingleThreadedExecutor, failed: threading.Event) -> None:
    while not node.finished.is_set():
        try:
            executor.spin_once()
        except (ExternalShutdownException, ShutdownException):
            return
        except Exception as error:  # noqa: BLE001 - one callback's error must not end the node
            node.report(error, "callback")


def _autostart(node: Any) -> bool:
    for trigger in (node.trigger_configure, node.trigger_activate):
        if trigger() != TransitionCallbackReturn.SUCCESS:
            return False
    gc.collect()
    gc.freeze()  # what lives as long as the process is not looked at again in every collection
    return True
