# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The mailbox between the subscriptions and the segmenting worker: newest pair wins, unless a call waits for one."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image

from seg_perception.ros.conversions import stamp_ns
from seg_perception.ros.sync import Pair, Pairer, Stamped

GRACE = 1.0  # s, wall time without a pair (or a camera_info) after which color goes on alone
MAX_FRAMES = 30  # frames that one call may ask for
REPLACED = "pair replaced by a newer one"


@dataclass(eq=False)
class Wanted:
    """What a waiting call needs: `frames` pairs stamped at or after `after_ns`; `result` once it is there.

    `fallback` is a result without depth, for a call that runs out of time. `depths` gathers what is to be fused.
    """

    after_ns: int
    timeout: float
    frames: int = 1
    claimed: int = 0
    alone_claimed: bool = False
    depths: list[NDArray[np.float32]] = field(default_factory=list)
    prompts: Any = None  # what it looks for by itself: its pairs answer nobody else
    result: Any = None
    fallback: Any = None
    error: str = ""  # how the last frame for this call was lost
    ended: str = ""  # why nothing more will come
    done: threading.Event = field(default_factory=threading.Event)

    def deliver(self, result: Any, has_depth: bool) -> None:
        """Takes a result; the call wakes up unless it still hopes for depth."""
        if has_depth:
            self.result = result
            self.done.set()
        elif self.fallback is None:
            self.fallback = result

    def lose(self, pair: Pair, error: str) -> None:
        """A frame of this call was lost: the next one counts."""
        self.error = error
        if pair.depth is None:
            self.alone_claimed = False
        else:
            self.claimed -= 1


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """A pair with the newest calibrations and ignore mask at the time it was taken."""

    pair: Pair
    color_info: CameraInfo | None
    depth_info: CameraInfo | None
    ignore: Image | None
    waited: float  # s, wall time since the color image arrived


class Feed:
    """Callbacks put messages in, the worker takes shots out. Bounded; thread-safe."""

    def __init__(self, slop: float, depth_expected: bool) -> None:
        self.pairer = Pairer(slop, GRACE, depth_expected)
        self.streaming = False  # take pairs that no call waits for
        self._ready = threading.Condition()
        self._taken: Pair | None = None  # the last one
        self._newest: Pair | None = None
        self._claimed: deque[Pair] = deque()
        self._wanted: list[Wanted] = []
        self._color_info: CameraInfo | None = None
        self._depth_info: CameraInfo | None = None
        self._ignore: Image | None = None
        self._opened = time.monotonic()
        self._paired = 0.0
        self._closed = False

    # -- the subscriptions' side ---------------------------------------------------------------------------------

    def open(self) -> None:
        """Inputs were subscribed: missing ones get their grace."""
        with self._ready:
            self._opened = time.monotonic()
            self.pairer.clear()

    def on_color(self, message: Any) -> None:
        with self._ready:
            self._offer(self.pairer.add_color(_stamped(message)))

    def on_depth(self, message: Any) -> None:
        with self._ready:
            self._offer(self.pairer.add_depth(_stamped(message)))

    def on_color_info(self, message: CameraInfo) -> None:
        with self._ready:
            first, self._color_info = self._color_info is None, message
            if first:
                self._ready.notify_all()

    def on_depth_info(self, message: CameraInfo) -> None:
        with self._ready:
            first, self._depth_info = self._depth_info is None, message
            if first:
                self._ready.notify_all()

    def on_ignore_mask(self, message: Image) -> None:
        self._ignore = message

    def _offer(self, pairs: list[Pair]) -> None:
        for pair in pairs:
            if pair.depth is not None:
                self._paired = time.monotonic()
            self._claim(pair)
            if pair.wanted:
                self._claimed.append(pair)
            elif self.streaming:
                if self._newest is not None:
                    self.pairer.dropped[REPLACED] += 1
                self._newest = pair
        self._ready.notify_all()

    def _claim(self, pair: Pair) -> None:
        for wanted in self._wanted:
            if pair.stamp_ns < wanted.after_ns:
                continue
            if pair.depth is None and self.pairer.depth_expected:
                if not wanted.alone_claimed:
                    wanted.alone_claimed = True
                    self._give(pair, wanted)
            elif wanted.claimed < wanted.frames:
                wanted.claimed += 1
                self._give(pair, wanted)

    def _give(self, pair: Pair, wanted: Wanted) -> None:
        """A call with prompts of its own gets the pair for itself, since its result is not that of others."""
        if wanted.prompts is None:
            pair.wanted.append(wanted)
        else:
            self._claimed.append(Pair(pair.color, pair.depth, [wanted]))

    # -- the calls' side ---------------------------------------------------------------------------------------------

    def want(self, wanted: Wanted) -> None:
        """Reserves the first pairs stamped at or after `wanted.after_ns`; also one that waits here already."""
        with self._ready:
            self._wanted.append(wanted)
            self.pairer.grace = min([GRACE, *(w.timeout / 2 for w in self._wanted)])
            for pair in [p for p in self._claimed if not any(w.prompts is not None for w in p.wanted)]:
                self._claim(pair)
            if self._newest is not None:
                self._claim(self._newest)
                if self._newest.wanted:
                    self._claimed.append(self._newest)
                    self._newest = None
            self._ready.notify_all()

    def again(self, wanted: Wanted) -> bool:
        """The last pair once more, for `wanted`; False where there is none."""
        with self._ready:
            last = self._taken
            if last is None:
                return False
            self._wanted.append(wanted)
            wanted.claimed = wanted.frames
            self._claimed.append(Pair(last.color, last.depth, [wanted]))
            self._ready.notify_all()
            return True

    def unwant(self, wanted: Wanted) -> None:
        """The call ended, with or without a result."""
        with self._ready:
            self._wanted.remove(wanted)
            self.pairer.grace = min([GRACE, *(w.timeout / 2 for w in self._wanted)])
            for pair in self._claimed:
                if wanted in pair.wanted:
                    pair.wanted.remove(wanted)

    def end_calls(self, text: str) -> None:
        """Wakes all calls: nothing more will come."""
        with self._ready:
            for wanted in self._wanted:
                wanted.ended = text
                wanted.done.set()

    @property
    def calls(self) -> int:
        """Calls that wait."""
        return len(self._wanted)

    @property
    def pairless(self) -> float:
        """s since the last pair, or since the inputs were opened."""
        return time.monotonic() - max(self._opened, self._paired)

    # -- the worker's side -------------------------------------------------------------------------------------------

    def take(self) -> Shot | None:
        """The next shot, as soon as there is one; None once the feed is closed."""
        with self._ready:
            while not self._closed:
                now = time.monotonic()
                pairs, look_again = self.pairer.poll(now)
                self._offer(pairs)
                info_due = self._info_due(now)
                if info_due is None and (pair := self._next()) is not None:
                    waited = now - pair.color.arrived
                    self._taken = pair
                    return Shot(pair, self._color_info, self._depth_info, self._ignore, waited)
                times = [t for t in (look_again, info_due) if t is not None]
                self._ready.wait(max(0.0, min(times) - now) if times else None)
            return None

    def _next(self) -> Pair | None:
        while self._claimed:
            pair = self._claimed.popleft()
            if pair.wanted or self.streaming:
                return pair
        pair, self._newest = self._newest, None
        return pair

    def _info_due(self, now: float) -> float | None:
        """Until when to hold pairs back because no calibration has come yet; None = go on."""
        if self._color_info is not None or self._depth_info is not None:
            return None
        due = self._opened + GRACE
        return due if now < due else None

    def clear(self) -> None:
        """Drops what waits, e.g. after the clock jumped back."""
        with self._ready:
            self.pairer.clear()
            for pair in self._claimed:
                for wanted in pair.wanted:
                    wanted.lose(pair, "the clock jumped back")
            self._claimed.clear()
            self._newest = self._taken = None
            self._ignore = None

    def close(self) -> None:
        """Ends `take` for good."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()


def _stamped(message: Any) -> Stamped:
    return Stamped(stamp_ns(message.header.stamp), message, time.monotonic())
