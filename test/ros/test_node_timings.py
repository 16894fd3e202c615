# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the node says about its own pace: ~/timings, and the numbers in /diagnostics."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from rig import OPTICAL, RED, NodeProcess, Rig
from seg_perception.msg import StageTimings
from sensor_msgs.msg import Image

from seg_perception.ros.conversions import stamp_ns
from seg_perception.ros.outputs import STAGES

DELAY = 0.1  # s that the segmenter pretends to need


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig) -> Iterator[NodeProcess]:
    process = NodeProcess(RED, f"segmenter.delay:={DELAY}", "tracker.plugin:=none", namespace=namespace)
    try:
        rig.film(lambda: rig.objects, timeout=60.0, what="the first result")
        yield process
    finally:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log


def values(rig: Rig, part: str) -> dict[str, str]:
    return {v.key: v.value for v in rig.diagnostic(part).values}


def test_each_stage_of_a_frame_is_timed_for_who_listens(node: NodeProcess, rig: Rig) -> None:
    heard: list[StageTimings] = []
    labels: list[Image] = []
    subscriptions = [
        rig.listen(StageTimings, "seg_perception/timings", heard),
        rig.listen(Image, "seg_perception/label_image", labels),
    ]
    rig.objects.clear()
    rig.film(lambda: len(heard) > 5 and labels, what="timings")
    for timings in heard[1:]:
        seconds = dict(zip(timings.stages, timings.seconds, strict=True))
        assert list(seconds) == [stage for stage in STAGES if stage in seconds]  # in the order they happen
        assert {"pair", "decode", "segment", "fuse", "grasp", "messages", "publish"} <= set(seconds)
        assert min(timings.seconds) >= 0
        assert seconds["segment"] >= DELAY
        before = sum(s for stage, s in seconds.items() if stage not in ("messages", "publish"))
        assert before <= timings.latency  # what happened after ~/objects is not in it
        assert timings.header.frame_id == OPTICAL
    assert {stamp_ns(t.header.stamp) for t in heard[1:-1]} <= {stamp_ns(m.header.stamp) for m in rig.objects}

    heard.clear()
    stamp = 5_000_000_000  # of a device's clock

    def film_old() -> bool:
        nonlocal stamp
        stamp += 33_000_000
        rig.shoot(stamp)
        return any(t.header.stamp.sec < 100 for t in heard)

    rig.wait(film_old, what="timings of an old stamp")
    assert all(math.isnan(t.latency) for t in heard if t.header.stamp.sec < 100)
    for subscription in subscriptions:
        rig.node.destroy_subscription(subscription)


def test_diagnostics_have_the_numbers(node: NodeProcess, rig: Rig) -> None:
    rig.film(lambda: float(values(rig, "pipeline").get("segment p50 [ms]", "0")) >= 1e3 * DELAY, what="percentiles")
    pipeline = values(rig, "pipeline")
    for stage in ("pair", "decode", "segment", "fuse", "publish"):
        assert float(pipeline[f"{stage} p50 [ms]"]) <= float(pipeline[f"{stage} p95 [ms]"])
    rig.film(lambda: values(rig, "input depth").get("valid [%]") == "100", what="valid depth")
    color = values(rig, "input color")
    assert (color["encoding"], color["size"], color["frame"]) == ("rgb8", "320x240", OPTICAL)
    assert (color["publishers"], color["qos"]) == ("1", "reliable, volatile")
    assert 0 < float(color["last stamp delta [s]"]) < 10
    assert 0.5 < float(values(rig, "sync")["hit ratio"]) <= 1
    computer = values(rig, "computer")
    with open(f"/proc/{node.process.pid}/status", encoding="ascii") as file:
        resident = next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))
    assert float(computer["memory [MB]"]) == pytest.approx(resident, rel=0.2)
    assert rig.diagnostic("computer").message.endswith("MB resident")


def test_frames_that_came_while_it_was_busy_are_dropped_and_counted(node: NodeProcess, rig: Rig) -> None:
    """The newest wins: what is answered at the end is the last frame."""
    key = "dropped: pair replaced by a newer one"
    before = int(values(rig, "sync").get(key, 0))
    rig.sent.clear()
    rig.objects.clear()
    for _ in range(12):
        rig.shoot()
    rig.wait(lambda: rig.objects and stamp_ns(rig.objects[-1].header.stamp) == rig.sent[-1], what="the last frame")
    assert len(rig.objects) < 12
    rig.wait(lambda: int(values(rig, "sync").get(key, 0)) > before, what="drops counted")


def test_planners_change_live_together_with_the_rest_or_not_at_all(node: NodeProcess, rig: Rig) -> None:
    def planners() -> set[str]:
        return {g.planner for m in rig.objects[-2:] for o in m.objects for g in o.grasps}

    rig.film(lambda: planners() == {"antipodal"}, what="the default planner")
    refused = rig.set_parameters(grasping__planners=["top_down"], max_instances=0)
    assert not refused.successful
    assert "max_instances" in refused.reason
    refused = rig.set_parameters(grasping__planners=["top_dwn"], max_instances=50)
    assert not refused.successful
    assert "top_down" in refused.reason  # did you mean
    assert rig.parameters("grasping.planners", "max_instances") == [["antipodal"], 100]
    assert rig.set_parameters(grasping__planners=["top_down"], grasping__max_per_object=1).successful
    rig.film(lambda: planners() == {"top_down"}, what="the other planner")
    assert all(len(o.grasps) <= 1 for o in rig.objects[-1].objects)
    assert rig.set_parameters(selection__deny=["brick"]).successful
    rig.film(lambda: not rig.objects[-1].objects, what="no brick")
    assert rig.set_parameters(selection__deny=["bolt"], grasping__planners=["antipodal"]).successful
