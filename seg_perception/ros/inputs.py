# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The input topics: subscriptions whose QoS follows what the publishers offer, and what is known about each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription, SubscriptionEventCallbacks
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from seg_perception.config import Config
from seg_perception.ros.conversions import stamp_ns
from seg_perception.ros.feed import Feed
from seg_perception.ros.sync import OFF_CLOCK

DEPTH = 2  # messages kept by the middleware; never more, old images are worth nothing
RATE_WINDOW = 30  # messages
QUIET, SLOW = 1.0, 6.0  # s without a message that are too long: for any camera, and for the slowest
UNKNOWN = 3.0  # the same before the rate is known
OFF_IN_A_ROW = 3  # images, each with a stamp of its own, that show it
SAME_IN_A_ROW = 15  # images with one stamp between them; a few are an image sent again
SETTLING = 1.75  # s after messages could come in which nothing is called missing
SHOWN = 5  # topics named where ours is missing
OVERRIDABLE = {
    kind.name.lower(): kind for kind in (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)
}


class Input:
    """One topic. Facts about the newest message stay readable after it was closed."""

    def __init__(
        self, node: Node, name: str, topic: str, kind: type, reliability: str, callback: Callable[[Any], None]
    ) -> None:
        self.name = name
        self.topic = node.resolve_topic_name(topic)
        self.count = 0
        self.stamp_ns: int | None = None
        self.arrived: float | None = None  # steady s
        self.encoding = self.size = self.frame_id = ""
        self.incompatible = ""  # the QoS policy that keeps a publisher away
        self.incompatible_events = 0
        self.latched = kind is CameraInfo
        self._node = node
        self._topic = topic
        self.kind = kind
        self._reliability = reliability
        self._callback = callback
        self._subscription: Subscription | None = None
        self._qos = (ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE)
        self._arrivals: deque[float] = deque(maxlen=RATE_WINDOW)
        self._stamps: deque[int] = deque(maxlen=RATE_WINDOW)
        self._followed = -1  # publishers when their offers were last asked for
        self._published: float | None = None  # steady s, since when somebody publishes it
        self._behind = 0.0  # s, the stamp of the newest message behind the node's clock when it came
        self._off_clock = 0  # messages in a row

    # -- subscribing ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Subscribes, with the QoS that fits the publishers known by now."""
        if self._subscription is None:
            self._arrivals.clear()
            self._stamps.clear()
            self._subscribe(self._fitting_qos())

    def close(self) -> None:
        """Unsubscribes."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def follow(self) -> None:
        """Subscribes anew if the publishers now offer something else: asked when they are others, or silent."""
        count = self.publishers
        if not count:
            self._published = None
        elif self._published is None:
            self._published = time.monotonic()
        if self._subscription is None or (count == self._followed and not self.is_quiet):
            return
        self._followed = count
        wanted = self._fitting_qos()
        if wanted != self._qos:
            self.close()
            self._subscribe(wanted)

    def _subscribe(self, qos: tuple[ReliabilityPolicy, DurabilityPolicy]) -> None:
        self._qos = qos
        self._followed = -1
        self.incompatible = ""
        self._subscription = self._node.create_subscription(
            self.kind,
            self._topic,
            self._on_message,
            QoSProfile(depth=DEPTH, reliability=qos[0], durability=qos[1]),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible),
            qos_overriding_options=QoSOverridingOptions(self._overridden()),
        )

    def _fitting_qos(self) -> tuple[ReliabilityPolicy, DurabilityPolicy]:
        """Reliable only if every publisher is (a best-effort reader loses a whole image with one lost fragment, a
        reliable one gets nothing from a best-effort writer); latched only if every publisher of a calibration is."""
        offers = [info.qos_profile for info in self._node.get_publishers_info_by_topic(self.topic)]
        reliable = self._reliability == "reliable" or (
            self._reliability == "auto"
            and bool(offers)
            and all(offer.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
        )
        latched = (
            self.latched
            and bool(offers)
            and all(offer.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers)
        )
        return (
            ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )

    def _overridden(self) -> list[QoSPolicyKind]:
        """Policies that the user overrides by `qos_overrides.<topic>.subscription.<policy>`."""
        prefix = f"qos_overrides.{self.topic}.subscription."
        given = self._node._parameter_overrides
        return [kind for name, kind in OVERRIDABLE.items() if prefix + name in given]

    # -- what comes in -------------------------------------------------------------------------------------------------

    def _on_message(self, message: Any) -> None:
        now = time.monotonic()
        self.count += 1
        self.arrived = now
        self._arrivals.append(now)
        self._take_stamp(stamp_ns(message.header.stamp))
        self.frame_id = message.header.frame_id
        if isinstance(message, Image):
            self.encoding, self.size = message.encoding, f"{message.width}x{message.height}"
        elif isinstance(message, CompressedImage):
            self.encoding = message.format
        else:
            self.size = f"{message.width}x{message.height}"
        self._callback(message)

    def _take_stamp(self, stamp: int) -> None:
        now = self._node.get_clock().now().nanoseconds
        self._behind = (now - stamp) * 1e-9
        if now == 0 or abs(self._behind) <= OFF_CLOCK:  # 0: simulated time has not begun
            self._off_clock = 0
        elif stamp != self.stamp_ns:  # an image sent again says nothing
            self._off_clock += 1
        self.stamp_ns = stamp
        self._stamps.append(stamp)

    def _on_incompatible(self, event: Any) -> None:
        self.incompatible_events = event.total_count
        kind = event.last_policy_kind
        name = getattr(kind, "name", "")
        self.incompatible = name or next((k.name for k in QoSPolicyKind if k.value == int(kind)), str(kind))

    # -- what is known -------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._subscription is not None

    @property
    def publishers(self) -> int:
        return self._node.count_publishers(self.topic)

    @property
    def qos_text(self) -> str:
        qos = self._subscription.qos_profile if self._subscription is not None else None
        reliability, durability = (qos.reliability, qos.durability) if qos is not None else self._qos
        return f"{_words(reliability)}, {_words(durability)}"

    @property
    def stamp_delta(self) -> float:
        """s between the last two stamps; NaN = fewer than two."""
        return (self._stamps[-1] - self._stamps[-2]) * 1e-9 if len(self._stamps) > 1 else float("nan")

    def is_missing(self, heard: float) -> bool:
        """Whether nothing comes that should, `heard` s after messages could come: nobody publishes it, or its publisher
        has been known for as long and is silent."""
        if not self.is_quiet:
            return False
        if self.silence is None and self.publishers:
            known = 0.0 if self._published is None else time.monotonic() - self._published
            return min(heard, known) >= SETTLING
        return heard >= SETTLING

    @property
    def conflict(self) -> str:
        """What a publisher offers that does not fit what we ask for; empty if all fit."""
        if self._subscription is None or not (self.incompatible or self.is_quiet):
            return ""
        asked = self._subscription.qos_profile
        for info in self._node.get_publishers_info_by_topic(self.topic):
            offer = info.qos_profile
            for policy, weak in (
                ("reliability", ReliabilityPolicy.BEST_EFFORT),
                ("durability", DurabilityPolicy.VOLATILE),
            ):
                offered, wanted = getattr(offer, policy), getattr(asked, policy)
                if offered == weak and wanted not in (weak, type(weak).SYSTEM_DEFAULT):
                    return f"{policy.upper()}: '{info.node_name}' offers {_words(offered)}, we ask for {_words(wanted)}"
        return self.incompatible

    @property
    def rate(self) -> float:
        """Hz, over the last messages; 0 = fewer than two, or none for two seconds."""
        if len(self._arrivals) < 2 or time.monotonic() - self._arrivals[-1] > 2.0:
            return 0.0
        return (len(self._arrivals) - 1) / max(1e-9, self._arrivals[-1] - self._arrivals[0])

    @property
    def silence(self) -> float | None:
        """s since the last message, None = never one."""
        return None if self.arrived is None else time.monotonic() - self.arrived

    @property
    def is_quiet(self) -> bool:
        """Whether it is missing: nothing for a second, or for three periods of a slow camera."""
        if self.silence is None:
            return True
        intervals = len(self._arrivals) - 1
        if intervals < 1:
            return self.silence > UNKNOWN
        # By the stamps too: what waited while kernels compiled arrives all at once.
        span = max(self._arrivals[-1] - self._arrivals[0], (self._stamps[-1] - self._stamps[0]) * 1e-9)
        return self.silence > max(QUIET, min(3 * span / intervals, SLOW))

    @property
    def clock_problem(self) -> str:
        """That the stamps are of another clock, or of none, once several images in a row have shown it; else empty."""
        last = list(self._stamps)[-SAME_IN_A_ROW:]
        if len(last) == SAME_IN_A_ROW and len(set(last)) == 1:
            return f"stamps stand still: image after image on '{self.topic}' has {last[0] / 1e9:.9f}"
        if self._off_clock < OFF_IN_A_ROW:
            return ""
        side = "behind" if self._behind > 0 else "ahead of"
        return (
            f"camera stamps are not ROS time: '{self.topic}' is {abs(self._behind):.1f} s {side} the node's clock "
            "when it arrives"
        )

    def missing_text(self) -> str:
        """Why nothing comes, in one line with topic, publishers, QoS and the last stamp; without a publisher, the
        topics of that type that have one."""
        count = self.publishers
        who = "no publisher" if count == 0 else f"{count} publisher{'s' if count > 1 else ''}"
        last = "no message so far" if self.stamp_ns is None else f"last stamp {self.stamp_ns / 1e9:.9f}"
        cause = f", incompatible QoS: {self.conflict}" if count and self.conflict else ""
        cause += self._other_kind()
        others = "" if count else f"; {self._others()}"
        return f"nothing on '{self.topic}': {who}, we ask for {self.qos_text}{cause}, {last}{others}"

    def _other_kind(self) -> str:
        """That it is published as another type of message."""
        ours = f"sensor_msgs/msg/{self.kind.__name__}"
        kinds = {info.topic_type for info in self._node.get_publishers_info_by_topic(self.topic)} - {ours}
        return f", published as {', '.join(sorted(kinds))} and not as {ours}" if kinds else ""

    def _others(self) -> str:
        name, own = self.kind.__name__, self._node.get_fully_qualified_name() + "/"
        kind = f"sensor_msgs/msg/{name}"
        found = sorted(t for t, kinds in self._node.get_topic_names_and_types() if kind in kinds)
        found = [t for t in found if not t.startswith(own) and self._node.count_publishers(t)]
        if not found:
            return f"no {name} topics here"
        return f"{name} topics here: {', '.join(found[:SHOWN])}{', ...' if len(found) > SHOWN else ''}"


class Inputs:
    """All input topics of a configuration, opened and closed together."""

    def __init__(self, node: Node, config: Config, feed: Feed) -> None:
        topics, color, depth = config.topics, config.color.transport, config.depth.transport
        image = {"raw": Image, "compressed": CompressedImage, "compressedDepth": CompressedImage}

        def make(name: str, topic: str, kind: type, callback: Callable[[Any], None]) -> Input:
            return Input(node, name, topic, kind, config.input_reliability, callback)

        self._feed = feed
        self.color = make("color", _transported(node, topics.color, color), image[color], feed.on_color)
        self.color_info = make("color_info", topics.color_info, CameraInfo, feed.on_color_info)
        self.depth = self.depth_info = self.ignore_mask = None
        if topics.depth:
            self.depth = make("depth", _transported(node, topics.depth, depth), image[depth], feed.on_depth)
        if topics.depth and topics.depth_info:
            self.depth_info = make("depth_info", topics.depth_info, CameraInfo, feed.on_depth_info)
        if topics.ignore_mask:
            self.ignore_mask = make("ignore_mask", topics.ignore_mask, Image, feed.on_ignore_mask)
        self.opened: float | None = None  # steady s

    def __iter__(self) -> Any:
        some = (self.color, self.color_info, self.depth, self.depth_info, self.ignore_mask)
        return (i for i in some if i is not None)

    def open(self) -> None:
        if self.opened is None:
            self._feed.open()
            for one in self:
                one.open()
            self.opened = time.monotonic()

    def close(self) -> None:
        for one in self:
            one.close()
        self.opened = None

    def depth_text(self, feed: Feed) -> str:
        """Why color has no depth, in one line."""
        if self.depth is None:
            return "topics.depth is empty"
        if self.depth.is_quiet:
            return self.depth.missing_text()
        delta = feed.pairer.last_delta_ns
        apart = f"last delta {delta * 1e-9:+.6f} s, " if delta is not None else ""
        slop = feed.pairer.slop_ns * 1e-9
        return f"stamps of '{self.color.topic}' and '{self.depth.topic}' do not pair: {apart}sync.slop is {slop:g} s"

    def follow(self) -> None:
        """Adapts to publishers that came or went."""
        for one in self:
            one.follow()


def _words(policy: Any) -> str:
    return policy.name.lower().replace("_", " ")


def _transported(node: Node, topic: str, transport: str) -> str:
    """The topic of a transport; a remapping of the base topic counts for it."""
    return topic if transport == "raw" else f"{node.resolve_topic_name(topic)}/{transport}"
