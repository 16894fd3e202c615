# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics, captures, drift and debug topics of a running node, over real DDS and HTTP."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rig import BRICK, HEIGHT, RED, WIDTH, NodeProcess, Rig, color_picture, depth_picture
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from seg_perception.cli import main
from seg_perception.drift import Profile
from seg_perception.masks import Masks
from seg_perception.recordings import open_frames
from seg_perception.ros.conversions import decode_depth
from seg_perception.scene import Frame, Instances, Intrinsics, Object3D, Scene, Status

WARN, OK = DiagnosticStatus.WARN, DiagnosticStatus.OK
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("captures")


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the rig's own pictures."""
    frame = Frame(
        color_picture(), depth_picture().astype(np.float32) / 1000, Intrinsics(WIDTH, HEIGHT, 300, 300, 160, 120)
    )
    mask = np.zeros((1, HEIGHT, WIDTH), bool)
    x0, y0, x1, y1 = BRICK
    mask[0, y0:y1, x0:x1] = True
    scene = Scene(frame, Instances.of(Masks.from_dense(mask)), (Object3D(Status.OK, valid_depth_ratio=1.0),))
    path = tmp_path_factory.mktemp("drift") / "profile.json"
    path.write_text(json.dumps(Profile.learn([scene] * 30).as_dict()))
    return path


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig, port: int, captures: Path, profile: Path) -> Iterator[NodeProcess]:
    process = NodeProcess(
        RED,
        f"metrics.port:={port}",
        f"capture.folder:={captures}",
        "capture.max_per_minute:=2",
        f"drift.profile:={profile}",
        "drift.window:=40",
        namespace=namespace,
    )
    try:
        rig.film(lambda: rig.objects, timeout=60.0, what="the first result")
        yield process
    finally:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log


def scrape(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_metrics_count_what_was_published(node: NodeProcess, rig: Rig, port: int) -> None:
    rig.objects.clear()
    before = scrape(port)
    rig.film(lambda: len(rig.objects) >= 5, what="five results")
    rig.wait(lambda: scrape(port)["seg_perception_results_total"] >= before["seg_perception_results_total"] + 5)
    after = scrape(port)
    count = after["seg_perception_results_total"] - before["seg_perception_results_total"]
    for name in ('stage_seconds_count{stage="fuse"}', "objects_per_frame_count", "latency_seconds_count"):
        assert after[f"seg_perception_{name}"] - before[f"seg_perception_{name}"] == pytest.approx(count, abs=1)
    assert after['seg_perception_objects_total{status="OK"}'] > before['seg_perception_objects_total{status="OK"}']
    assert after["seg_perception_active"] == 1
    assert after['seg_perception_input_messages_total{input="color"}'] >= count
    assert (
        0
        < after["seg_perception_object_distance_metres_sum"] / after["seg_perception_object_distance_metres_count"]
        < 1
    )
    assert any(name.startswith("seg_perception_model_info{") and "segmenters_for_tests" in name for name in after)
    assert after["process_resident_memory_bytes"] > 1e7


def test_every_query_of_the_dashboard_names_a_metric_that_exists(node: NodeProcess, rig: Rig, port: int) -> None:
    rig.film(lambda: any("drift_share" in name for name in scrape(port)), what="enough frames to tell drift")
    there = {name.partition("{")[0] for name in scrape(port)}
    dashboard = json.loads((ROOT / "config" / "grafana_dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    used = {name for query in queries for name in re.findall(r"\b(?:seg_perception|process)_\w+", query)}
    assert len(used) > 12
    assert used <= there, used - there


def test_a_real_prometheus_scrapes_it(node: NodeProcess, rig: Rig, port: int, tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus here: apt-get install prometheus")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        own = int(probe.getsockname()[1])
    (tmp_path / "prometheus.yml").write_text(
        "scrape_configs: [{job_name: seg_perception, scrape_interval: 1s, "
        f"static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n"
    )
    arguments = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    server = subprocess.Popen(
        ["prometheus", *arguments, f"--web.listen-address=127.0.0.1:{own}"], stderr=subprocess.DEVNULL
    )
    try:
        dashboard = json.loads((ROOT / "config" / "grafana_dashboard.json").read_text())
        queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]

        def ask(query: str) -> list:
            text = urllib.parse.urlencode({"query": query.replace("$instance", ".*")})
            with urllib.request.urlopen(f"http://127.0.0.1:{own}/api/v1/query?{text}", timeout=5) as answer:
                return json.load(answer)["data"]["result"]

        def scraped() -> bool:
            try:
                return bool(ask("seg_perception_results_total"))
            except OSError:
                return False

        rig.film(scraped, timeout=30.0, what="a scrape")
        rig.film(lambda: ask("rate(seg_perception_results_total[1m])"), timeout=20.0, what="two scrapes")
        for query in queries:  # each is valid PromQL; those of counters that rest may be empty
            ask(query)
        assert float(ask("seg_perception_active")[0]["value"][1]) == 1
    finally:
        server.terminate()
        server.wait(10)


def test_a_capture_that_was_asked_for_is_read_back_whole(
    node: NodeProcess, rig: Rig, captures: Path, tmp_path: Path
) -> None:
    rig.film_good()
    reply = rig.call(Trigger, "capture", film=True)
    assert reply.success, reply.message
    path = Path(reply.message)
    assert path.parent == captures
    assert path.name.endswith("_asked.mcap")
    assert not list(captures.glob("*.part"))
    recording = open_frames(captures if len(list(captures.glob("*.mcap"))) == 1 else path)
    frame = recording[0].frame
    assert frame.stamp_ns in rig.sent
    np.testing.assert_array_equal(frame.color, color_picture())
    np.testing.assert_allclose(frame.depth, depth_picture() / 1000, atol=1e-6)
    assert frame.intrinsics.fx == 300.0
    with path.open("rb") as stream:
        reader = make_reader(stream, decoder_factories=[DecoderFactory()])
        by_topic = {c.topic: m for _, c, _, m in reader.iter_decoded_messages()}
        about = [m.metadata for m in reader.iter_metadata()]
    objects = next(m for topic, m in by_topic.items() if topic.endswith("/seg_perception/objects"))
    assert len(objects.objects) == 1
    assert objects.objects[0].class_name == "brick"
    assert objects.points.width == objects.objects[0].point_count > 1000
    assert about[0]["reason"] == "asked"
    output = tmp_path / "output"
    assert main(["run", str(path), "--output", str(output), "--set", "grasping.planners=[]"]) == 0
    assert len(list(output.glob("overlay_*.png"))) == 1


def test_odd_frames_are_kept_within_the_rate(node: NodeProcess, rig: Rig, captures: Path) -> None:
    def hole(message: Image) -> None:
        depth = np.frombuffer(message.data, np.uint16).reshape(HEIGHT, WIDTH).copy()
        x0, y0, x1, y1 = BRICK
        depth[y0:y1, x0:x1] = 0
        message.data = depth.tobytes()

    rig.film(lambda: len(list(captures.glob("*_odd.mcap"))) == 2, depth=hole, what="two odd captures")
    end = time.monotonic() + 1.0
    rig.film(lambda: time.monotonic() > end, depth=hole)
    assert len(list(captures.glob("*_odd.mcap"))) == 2  # max_per_minute


def test_drift_is_named_and_goes_away(node: NodeProcess, rig: Rig, port: int) -> None:
    rig.wait_for_diagnostic("drift", OK, "as in the reference")

    def dusk(message: Image) -> None:
        pixels = np.frombuffer(message.data, np.uint8).reshape(HEIGHT, WIDTH, 3).copy()
        pixels[..., 1] //= 12
        message.data = pixels.tobytes()

    rig.wait_for_diagnostic("drift", WARN, "brightness", "of frames outside", color=dusk)
    assert scrape(port)['seg_perception_drift_share{feature="brightness"}'] > 0.3
    rig.wait_for_diagnostic("drift", OK)


def test_debug_pictures_show_what_was_used(node: NodeProcess, rig: Rig) -> None:
    depths: list[Image] = []
    used: list[Image] = []
    subscriptions = [
        rig.listen(Image, "seg_perception/debug/depth", depths),
        rig.listen(Image, "seg_perception/debug/points_used", used),
    ]
    rig.film(lambda: depths and used, what="debug pictures")
    np.testing.assert_allclose(decode_depth(depths[-1]), depth_picture() / 1000, atol=1e-6)
    picture = np.frombuffer(used[-1].data, np.uint8).reshape(HEIGHT, WIDTH)
    x0, y0, x1, y1 = BRICK
    assert set(np.unique(picture)) <= {0, 128, 255}
    assert (picture[y0 + 4 : y1 - 4, x0 + 4 : x1 - 4] == 255).all()
    outside = picture.copy()
    outside[y0:y1, x0:x1] = 0
    assert not outside.any()
    for subscription in subscriptions:
        rig.node.destroy_subscription(subscription)


def test_without_a_folder_a_capture_says_so(rig: Rig, namespace: str, node: NodeProcess) -> None:
    bare = NodeProcess(RED, namespace=f"{namespace}/bare")
    try:
        client = rig.node.create_client(Trigger, f"{namespace}/bare/seg_perception/capture")
        assert client.wait_for_service(20.0)
        future = client.call_async(Trigger.Request())
        rig.wait(future.done, 10.0)
        assert not future.result().success
        assert "capture.folder is not set" in future.result().message
    finally:
        bare.stop()


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("capture.folder:=/proc/nowhere", "capture.folder: cannot write '/proc/nowhere'"),
        ("drift.profile:=/nowhere.json", "drift.profile: cannot read '/nowhere.json'"),
    ],
)
def test_what_cannot_be_stops_configure_with_a_line(rig: Rig, namespace: str, parameter: str, words: str) -> None:
    process = NodeProcess(RED, parameter, namespace=f"{namespace}/bad")
    try:
        rig.wait(lambda: words in process.log, 20.0, what=words)
    finally:
        process.stop()
