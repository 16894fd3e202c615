# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Running a simple node as a process: one line instead of a traceback, and a clean end on ctrl-C or SIGTERM."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node


def run_node(create: Callable[[], Node], arguments: Sequence[str] | None = None) -> int:
    """Spins `create()` until it is `done` (if it has that) or is told to stop. `--debug` shows tracebacks."""
    command = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in command
    rclpy.init(args=[word for word in command if word != "--debug"])
    node: Node | None = None
    try:
        node = create()
        while rclpy.ok() and not getattr(node, "done", False):
            rclpy.spin_once(node, timeout_sec=0.5)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except (ValueError, OSError) as error:
        if debug:
            raise
        sys.stderr.write(f"error: {error}\n")
        return 1
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0
