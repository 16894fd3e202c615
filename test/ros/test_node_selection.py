# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The selection as live parameters of the node: names, classes that never count, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile
from rig import RED, NodeProcess, Rig
from seg_perception.msg import ModelStatus


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig) -> Iterator[NodeProcess]:
    process = NodeProcess(RED, "selection.remap:=['brick=red block']", namespace=namespace)
    try:
        rig.film(lambda: rig.objects, timeout=60.0, what="the first result")
        yield process
    finally:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log


def test_names_and_classes_change_while_it_runs_and_unknown_ones_are_refused(node: NodeProcess, rig: Rig) -> None:
    assert {o.class_name for o in rig.objects[-1].objects} == {"red block"}
    refused = rig.set_parameters(selection__deny=["brik"])
    assert not refused.successful
    assert "selection.deny: no class 'brik'; did you mean 'brick'? known: brick, bolt" in refused.reason
    refused = rig.set_parameters(selection__score_thresholds=["brick=many"])
    assert not refused.successful
    assert "CLASS=SCORE" in refused.reason

    said: list[ModelStatus] = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    rig.node.create_subscription(ModelStatus, "seg_perception/model_status", said.append, latched)
    rig.wait(lambda: said and "red block" in said[-1].class_names, what="the first name")
    assert rig.set_parameters(selection__remap=["brick=bolt"]).successful
    rig.wait(lambda: "red block" not in said[-1].class_names, what="the other name")
    rig.film(lambda: {o.class_name for o in rig.objects[-1].objects} == {"bolt"}, what="the other name")
    assert {o.class_id for o in rig.objects[-1].objects} == {1}
    assert rig.set_parameters(selection__deny=["brick"]).successful
    rig.film(lambda: not rig.objects[-1].objects, what="no brick")
    assert rig.set_parameters(selection__deny=[""], selection__min_area=1).successful
    rig.film(lambda: rig.objects[-1].objects, what="bricks again")
