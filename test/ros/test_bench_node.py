# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception bench node` over real DDS: pairs are counted on both sides, and an empty node runs beside ours."""

import json
import os
import subprocess

import numpy as np
import pytest
from rclpy.serialization import deserialize_message
from seg_perception.msg import SegmentedObjectArray
from sensor_msgs.msg import Image, PointCloud2

from seg_perception.bench import node, silent
from seg_perception.bench.samples import make_sample
from seg_perception.bench.stages import replaying
from seg_perception.cli import main
from seg_perception.options import ConfigError
from seg_perception.ros.bench.serialise import serialise

FIELDS = ["pairs_sent", "pairs_received", "results", "latency_ms", "empty_node_ms"]


def children() -> set[str]:
    listed = subprocess.run(
        ["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=True
    )
    return {line for line in listed.stdout.splitlines() if "seg_perception.ros" in line}


def test_the_node_is_timed_beside_an_empty_one(tmp_path):
    out = tmp_path / "node.json"
    arguments = ["--seconds", "4", "--rate", "5", "--size", "320x240", "--json", str(out)]
    assert main(["bench", "node", *arguments]) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert all(field in row for field in FIELDS)
    assert row["pairs_sent"] + row["camera"]["skipped"] == 20
    assert row["camera_kept_up"] == (row["camera"]["skipped"] == 0)
    assert 0 < row["results"] <= row["pairs_received"] <= row["pairs_sent"]
    assert row["objects_per_result"] > 3  # the demo's table
    lost = row["pairs_received"] - row["results"]
    assert lost <= sum(row["dropped"].values())  # what got no result was counted
    for kind in ("latency_ms", "empty_node_ms", "inference_ms"):
        assert 0 < row[kind]["p50"] <= row[kind]["p95"] <= row[kind]["p99"]
    assert row["latency_ms"]["p50"] > row["inference_ms"]["p50"]
    assert row["oldest_ms"] >= row["latency_ms"]["p99"]
    assert row["node_rss_mb"] > 50
    assert row["node_cpu_s"] > 0
    assert not children()


def test_a_recording_takes_the_network_s_place(tmp_path):
    out = tmp_path / "node.json"
    arguments = ["--network-ms", "30", "--seconds", "3", "--rate", "4", "--size", "640x360", "--json", str(out)]
    assert main(["bench", "node", *arguments]) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert row["objects_per_result"] == node.OBJECTS
    assert row["results"] > 0
    assert row["inference_ms"]["p50"] >= 30


def test_a_node_that_does_not_start_is_told_and_nothing_is_left_running(tmp_path):
    setup = node.Setup(
        seconds=1, width=320, height=240, config={"segmenter": {"plugin": "yolo", "model": "nowhere.onnx"}}
    )
    with pytest.raises(ConfigError, match="the node ended early"):
        node.run([], silent, setup)
    assert not children()


def test_serialized_messages_carry_the_scene(tmp_path):
    sample = make_sample(6)
    sample.save(tmp_path / "outputs.npz")
    pipeline = replaying(tmp_path / "outputs.npz")
    scene = pipeline.complete(sample.frame, pipeline.segment(sample.frame), grasps=False)
    wire = serialise(scene)
    objects = deserialize_message(wire["objects"], SegmentedObjectArray).objects
    labels = deserialize_message(wire["label_image"], Image)
    cloud = deserialize_message(wire["points"], PointCloud2)
    assert len(objects) == 6
    assert set(np.unique(np.frombuffer(labels.data, np.uint16))) == set(range(7))
    assert cloud.width == sum(min(len(o.points), 5000) for o in scene.objects) > 10_000
