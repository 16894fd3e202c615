# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Service calls that take time: each waits in a thread of its own while the executor goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future as Submitted
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rclpy.task import Future

MOST = 8  # calls at the same time


class BusyError(Exception):
    """Too many calls at once."""


class BadRequestError(ValueError):
    """A request that makes no sense; one line naming the field."""


class Calls:
    """Runs functions in threads; handlers await them. `node` is a SegPerceptionNode."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._pool = ThreadPoolExecutor(MOST, thread_name_prefix="call")
        self.running = 0
        self._working = 0
        self._lock = threading.Lock()

    @property
    def working(self) -> bool:
        """Whether one of the threads has something to do: the interpreter would wait for it."""
        return self._working > 0

    async def run(self, function: Callable[[], Any]) -> Any:
        """What `function` returns or raises. Raises BusyError at once when too many are running."""
        if self.running >= MOST:
            raise BusyError(f"{MOST} calls are being answered already")
        executor = self._node.executor
        future: Future = Future(executor=executor)

        def work() -> None:
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001 - it rises again where it is awaited
                future.set_exception(error)
            executor.wake()

        self.running += 1
        try:
            self._submit(work)
            return await future
        finally:
            self.running -= 1

    def start(self, function: Callable[[], None]) -> None:
        """Runs `function` in the background; what it raises is logged."""

        def work() -> None:
            try:
                function()
            except Exception as error:  # noqa: BLE001 - nobody awaits it
                self._node.report(error, "background")

        self._submit(work)

    def _submit(self, work: Callable[[], None]) -> None:
        def counted() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._working -= 1

        with self._lock:
            self._working += 1
        self._pool.submit(counted).add_done_callback(self._forget_cancelled)

    def _forget_cancelled(self, submitted: Submitted) -> None:
        if submitted.cancelled():
            with self._lock:
                self._working -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
