# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Pairing of color and depth by stamp: exact first, else the nearest within `slop`. No ROS in here, no clock either."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

KEEP = 10  # messages of each kind that may wait for their partner
HOLD = 0.05  # s, wall time a color image waits for its depth once none has come for `grace`
OFF_CLOCK = 1.0  # s between an image's stamp and its arrival; more is not ROS time
JUMP = 1_000_000_000  # ns, a stamp this far behind the last one is a restart, not disorder


@dataclass(frozen=True, slots=True, eq=False)
class Stamped:
    """A message with its stamp in ns and the steady time in s at which it arrived."""

    stamp_ns: int
    message: Any
    arrived: float


@dataclass(slots=True, eq=False)
class Pair:
    """A color image and its depth, or None where there is no depth. `wanted` are the calls that it answers."""

    color: Stamped
    depth: Stamped | None
    wanted: list[Any] = field(default_factory=list)

    @property
    def stamp_ns(self) -> int:
        return self.color.stamp_ns


class Pairer:
    """Pairs what arrives; the newest pair wins and what is older is dropped and counted in `dropped`.

    While pairs come, a color image without depth is dropped. When none has come for `grace` s, color goes out alone
    after a short hold, so that masks go on, until stamps match again. `slop` is in s.
    """

    def __init__(self, slop: float, grace: float = 1.0, depth_expected: bool = True) -> None:
        self.slop_ns = round(slop * 1e9)
        self.grace = grace
        self.depth_expected = depth_expected
        self.dropped: Counter[str] = Counter()
        self.pairs = 0
        self.last_delta_ns: int | None = None  # nearest depth minus color, also when too far to pair
        self._colors: deque[Stamped] = deque()
        self._depths: deque[Stamped] = deque()
        self._alone: deque[int] = deque(maxlen=KEEP)  # stamps that went out without depth
        self._matched: float | None = None  # steady time of the last match, or of the first message

    def clear(self) -> None:
        """Forgets what waits; the count of grace begins anew."""
        self._colors.clear()
        self._depths.clear()
        self._alone.clear()
        self._matched = None

    def add_color(self, item: Stamped) -> list[Pair]:
        """Takes a color image in; the pair that it completes, if it does."""
        if not self.depth_expected:
            return [Pair(item, None)]
        self._store(self._colors, item, "color image without depth")
        return self._emit(item.arrived)

    def add_depth(self, item: Stamped) -> list[Pair]:
        """Takes a depth image in; the pair that it completes, if it does."""
        self._store(self._depths, item, "depth image without color")
        if any(abs(item.stamp_ns - stamp) <= self.slop_ns for stamp in self._alone):
            self._matched = item.arrived  # late, but depth is back: wait for it again
            self._alone.clear()
        return self._emit(item.arrived)

    def poll(self, now: float) -> tuple[list[Pair], float | None]:
        """What has waited long enough at steady time `now`, and when to look again (None = when a message comes)."""
        return self._emit(now), self._next_look(now)

    def _store(self, queue: deque[Stamped], item: Stamped, reason: str) -> None:
        if self._matched is None:
            self._matched = item.arrived
        if queue and item.stamp_ns < queue[-1].stamp_ns - JUMP:
            self.dropped["stamps jumped back"] += len(queue)
            queue.clear()
        at = len(queue)
        while at and queue[at - 1].stamp_ns > item.stamp_ns:
            at -= 1
        queue.insert(at, item)
        if len(queue) > KEEP:
            queue.popleft()
            self.dropped[reason] += 1

    def _emit(self, now: float) -> list[Pair]:
        if self._colors and self._depths:
            newest = self._colors[-1].stamp_ns
            self.last_delta_ns = min((d.stamp_ns - newest for d in self._depths), key=abs)
        for k in reversed(range(len(self._colors))):
            color = self._colors[k]
            depth = self._partner(color, waited=now - color.arrived)
            if depth is not None:
                self._forget(k, depth)
                self._matched, self.pairs = now, self.pairs + 1
                return [Pair(color, depth)]
        if self._matched is not None and now - self._matched >= self.grace:
            for k in reversed(range(len(self._colors))):
                color = self._colors[k]
                if now - color.arrived >= self._hold:
                    self._forget(k, None)
                    self._alone.append(color.stamp_ns)
                    return [Pair(color, None)]
        return []

    def _partner(self, color: Stamped, waited: float) -> Stamped | None:
        """The depth image of `color`, once no nearer one can come."""
        if not self._depths:
            return None
        best = min(self._depths, key=lambda d: abs(d.stamp_ns - color.stamp_ns))
        if abs(best.stamp_ns - color.stamp_ns) > self.slop_ns:
            return None
        settled = self._depths[-1].stamp_ns >= color.stamp_ns or waited * 1e9 >= self.slop_ns
        return best if settled else None

    def _forget(self, color_index: int, depth: Stamped | None) -> None:
        """Drops the color image at that index, its depth, and all that is older."""
        for _ in range(color_index):
            self._colors.popleft()
            self.dropped["color image without depth"] += 1
        self._colors.popleft()
        while depth is not None and self._depths and self._depths[0].stamp_ns <= depth.stamp_ns:
            if self._depths.popleft() is not depth:
                self.dropped["depth image without color"] += 1

    @property
    def _hold(self) -> float:
        return max(HOLD, self.slop_ns * 1e-9)

    def _next_look(self, now: float) -> float | None:
        if not self._colors or self._matched is None:
            return None
        times = [max(self._matched + self.grace, self._colors[0].arrived + self._hold)]
        if self._depths:
            times += [color.arrived + self.slop_ns * 1e-9 for color in self._colors]
        return min((t for t in times if t > now), default=None)
