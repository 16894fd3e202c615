# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Running a simple node as a process: one line instead of a traceback, and a clean end on ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

ATTENTION = 0.1  # s between two looks at whether a signal came


def run_node(create: Callable[[], Node], arguments: Sequence[str] | None = None) -> int:
    """Spins `create()` until it is `done` (if it has that) or is told to stop. `--debug` shows tracebacks.

    A signal only sets a flag: raised inside compiled code or a publish call, an interrupt gets lost.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    command = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in command
    node: Node | None = None
    try:
        rclpy.init(args=[w for w in command if w != "--debug"], signal_handler_options=SignalHandlerOptions.NO)
        node = create()
        while not stop.is_set() and not getattr(node, "done", False):
            rclpy.spin_once(node, timeout_sec=ATTENTION)
    except (ValueError, OSError, RuntimeError, ParameterException) as error:
        if debug:
            raise
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 1
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0
