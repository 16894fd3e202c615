# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A runtime, a model or a planner that fails while it runs: that frame is lost and counted, and the node goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from fault_rows import NOTHING, Injected
from rig import RED, NodeProcess, Rig
from swapping import photographed

WARN, ERROR = DiagnosticStatus.WARN, DiagnosticStatus.ERROR
PLANNER = "plugins_for_faults:FaultyPlanner"
RATE = 10.0  # Hz; a real network runs


@pytest.fixture(scope="module")
def word(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file whose word is the fault."""
    return tmp_path_factory.mktemp("faults") / "word"


@pytest.fixture(scope="module")
def photo(data_dir: Path) -> Callable:
    return photographed(next((data_dir / "ycbv" / "frames").glob("*_rgb.*")))


@pytest.fixture(scope="module")
def node(namespace: str, rig: Rig, word: Path, photo: Callable, models_dir: Path) -> Iterator[NodeProcess]:
    """A real network, seen through a runtime that can fail."""
    config = word.with_name("config.yaml")
    segmenter = {
        "plugin": "yolo",
        "model": str(models_dir / "yolo11n-seg.onnx"),
        "score_threshold": 0.1,
        "backend": {"plugin": "plugins_for_faults:FaultyRuntime", "faults": str(word)},
    }
    grasping = {"planners": [PLANNER], PLANNER: {"faults": str(word)}}
    config.write_text(yaml.safe_dump({"segmenter": segmenter, "grasping": grasping, "fusion": {"min_points": 5}}))
    process = NodeProcess(f"config:={config}", namespace=namespace)
    try:
        rig.film(lambda: len(rig.objects) >= 2, rate=RATE, timeout=60.0, what="results", color=photo)
        yield process
    finally:
        assert process.stop() == 0, process.log
        assert "Traceback" not in process.log


@pytest.mark.parametrize(
    ("fault", "level", "words", "published"),
    [
        pytest.param(
            "raise", ERROR, ("frames in a row lost", "segmentation raised RuntimeError: out of memory on device 0"),
            NOTHING, marks=pytest.mark.fault("plugins", "the model raises"), id="raise",
        ),
        pytest.param(
            "nan", WARN, ("the network's output", "is NaN to 100 %", "float16 overflow?"),
            "results without objects", marks=pytest.mark.fault("plugins", "the runtime puts out NaN"), id="nan",
        ),
        pytest.param(
            "shape", ERROR, ("frames in a row lost", "segmentation raised ValueError: coefficients: expected ("),
            NOTHING, marks=pytest.mark.fault("plugins", "the runtime puts out other shapes than it said"), id="shape",
        ),
        pytest.param(
            "planner", ERROR, ("frames in a row lost", "completion raised ZeroDivisionError: the gripper has no width"),
            NOTHING, marks=pytest.mark.fault("plugins", "a grasp planner raises"), id="planner",
        ),
    ],
)  # fmt: skip
def test_it_fails(
    node: NodeProcess, injected: Injected, rig: Rig, word: Path, photo: Callable, fault: str, level: bytes,
    words: tuple[str, ...], published: str,
) -> None:  # fmt: skip
    camera: dict[str, Any] = {"color": photo, "rate": RATE}
    word.write_text(fault)
    injected.says("pipeline", level, *words, **camera)
    injected.publishes(published, **camera)
    word.unlink()
    injected.recovers(lambda: rig.shoot(color=photo))
    assert node.process.poll() is None


@pytest.fixture
def slow(namespace: str) -> Iterator[Rig]:
    """Another node, whose segmenter hangs when it is told to."""
    rig = Rig(f"{namespace}/slow")
    process = NodeProcess(RED, namespace=rig.node.get_namespace())
    try:
        rig.film(lambda: rig.objects, timeout=40.0, what="the first result")
        yield rig
    finally:
        assert process.stop() == 0, process.log
        rig.close()


@pytest.mark.fault("plugins", "the model hangs for 7 s")
def test_it_hangs(slow: Rig, injected_in: Callable[[Rig], Injected]) -> None:
    injected = injected_in(slow)
    assert slow.set_parameters(segmenter__delay=7.0).successful
    words = ("segmentation of a frame has not returned for", "a plugin hangs")
    injected.says("pipeline", WARN, *words)
    assert slow.set_parameters(segmenter__delay=0.0).successful
    injected.publishes(NOTHING)
    slow.film(lambda: slow.objects, what="the end of it")
    injected.recovers()
