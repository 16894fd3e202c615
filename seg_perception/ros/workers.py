# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The two worker threads: one segments, one completes and publishes, each on its own frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from seg_perception.ros.engine import Loaded
from seg_perception.ros.feed import Feed, Shot, Wanted
from seg_perception.scene import Frame, Instances


class Handover:
    """A slot for one item between two threads. The giver waits until it is empty before it begins the next item, so
    nothing that was begun is lost and nothing grows old in a queue."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: Any = None
        self._closed = False

    def wait_empty(self) -> bool:
        """Until the slot is free; False once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is None or self._closed)
            return not self._closed

    def put(self, item: Any) -> None:
        with self._changed:
            self._item = item
            self._changed.notify_all()

    def take(self) -> Any:
        """The item, as soon as there is one; None once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._closed)
            item, self._item = (None if self._closed else self._item), None
            self._changed.notify_all()
            return item

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


@dataclass(frozen=True, slots=True, eq=False)
class Segmented:
    """A frame between the two workers; `calls` get its result."""

    shot: Shot
    frame: Frame
    loaded: Loaded
    instances: Instances
    calls: tuple[Wanted, ...]
    frames: int  # fused into the depth image
    laps: dict[str, float]  # s per stage so far
    done: float  # perf_counter when it was segmented


class Workers:
    """Runs `segment(shot) -> Segmented | None` and `complete(segmented)` in two threads until closed.

    An exception loses that frame only: `failed(where, error, shot)` hears of it.
    """

    def __init__(
        self,
        feed: Feed,
        prepare: Callable[[], None],
        segment: Callable[[Shot], Segmented | None],
        complete: Callable[[Segmented], None],
        failed: Callable[[str, Exception, Shot | None], None],
    ) -> None:
        self._feed = feed
        self._prepare = prepare
        self._segment = segment
        self._complete = complete
        self._failed = failed
        self._handover = Handover()
        self._begun: dict[str, float] = {}  # steady s, of what is under way
        self._threads = [
            threading.Thread(target=self._segment_frames, name="segment", daemon=True),
            threading.Thread(target=self._complete_frames, name="complete", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def close(self, timeout: float) -> bool:
        """Ends both threads, at the latest when their plugin returns. False if one still runs after `timeout` s."""
        self._feed.close()
        self._handover.close()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def under_way(self) -> dict[str, float]:
        """For how many s the segmentation and the completion have been at their frames; without one that rests."""
        now = time.monotonic()
        return {where: now - begun for where, begun in tuple(self._begun.items())}

    def _segment_frames(self) -> None:
        try:
            self._prepare()
        except Exception as error:  # noqa: BLE001 - plugins raise what they like; the one place that counts and goes on
            self._failed("warm-up", error, None)
        while self._handover.wait_empty():
            shot = self._feed.take()
            if shot is None:
                return
            self._begun["segmentation"] = time.monotonic()
            try:
                segmented = self._segment(shot)
            except Exception as error:  # noqa: BLE001 - as above
                self._failed("segmentation", error, shot)
                continue
            finally:
                del self._begun["segmentation"]
            if segmented is not None:
                self._handover.put(segmented)

    def _complete_frames(self) -> None:
        while (segmented := self._handover.take()) is not None:
            self._begun["completion"] = time.monotonic()
            try:
                self._complete(segmented)
            except Exception as error:  # noqa: BLE001 - as above
                self._failed("completion", error, segmented.shot)
            finally:
                del self._begun["completion"]
