# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""config/sros2_policy.xml against a running node: all that it does is allowed, and no more. The security itself needs a
middleware with DDS security, which is not here."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import RED, NodeProcess, Rig

POLICY = Path(__file__).resolve().parents[2] / "config" / "sros2_policy.xml"
OPTIONAL = {  # with vision_msgs, moveit_msgs, tf2, simulated time, or another transport
    "~/detections", "~/detections_2d", "~/label_info", "~/collision_objects", "tf", "tf_static", "clock",
    "parameter_events", "color/image_raw/compressed", "depth/image_rect/compressedDepth",
}  # fmt: skip


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig) -> Iterator[NodeProcess]:
    process = NodeProcess(RED, namespace=namespace)
    try:
        rig.film(lambda: rig.objects, timeout=60.0, what="the first result")
        yield process
    finally:
        assert process.stop() == 0, process.log


def allowed(enclave: str, kind: str, verb: str) -> set[str]:
    root = ElementTree.parse(POLICY).getroot()
    assert root.attrib == {"version": "0.2.0"}
    (profile,) = root.findall(f"./enclaves/enclave[@path='{enclave}']/profiles/profile")
    lists = profile.findall(f"./{kind}s[@{verb}='ALLOW']")
    return {e.text for part in lists for e in part.findall(kind)}


def named(found: list, namespace: str) -> set[str]:
    """As a policy writes them: relative to the namespace, ~ for the node."""
    inside = [name for name, _ in found]
    out = set()
    for name in inside:
        short = name.removeprefix(f"{namespace}/").lstrip("/")
        out.add(f"~/{short.removeprefix('seg_perception/')}" if short.startswith("seg_perception/") else short)
    return out


@pytest.mark.parametrize(
    ("kind", "verb", "ask"),
    [
        ("topic", "publish", "get_publisher_names_and_types_by_node"),
        ("topic", "subscribe", "get_subscriber_names_and_types_by_node"),
        ("service", "reply", "get_service_names_and_types_by_node"),
    ],
)
def test_the_policy_is_what_the_node_does(
    node: NodeProcess, rig: Rig, namespace: str, kind: str, verb: str, ask: str
) -> None:
    listed = allowed("/perception/seg_perception", kind, verb)
    there = rig.wait(lambda: named(getattr(rig.node, ask)("seg_perception", namespace), namespace), what=ask)
    assert there - listed == set(), "the node does what the policy does not allow"
    assert listed - there - OPTIONAL == set(), "the policy allows what the node does not have"


def test_a_controller_may_look_and_ask_and_no_more(node: NodeProcess, rig: Rig, namespace: str) -> None:
    asks = allowed("/perception/pick_controller", "service", "request")
    assert asks == {"seg_perception/get_grasps", "seg_perception/segment_once"}
    there = {f"{name}" for name, _ in rig.node.get_service_names_and_types_by_node("seg_perception", namespace)}
    assert {f"{namespace}/{name}" for name in asks} <= there
