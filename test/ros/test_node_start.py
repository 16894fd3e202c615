# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What cannot start says so in one line and ends with an exit code that is not 0; what was told to stop ends with 0."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from rig import RED, NodeProcess, Rig

BAD = {
    "an unknown plugin": (["segmenter.plugin:=tabeltop"], "did you mean 'tabletop'"),
    "a misspelled option": (["fusion.min_dept:=1.0"], "did you mean 'min_depth'"),
    "a misspelled section": (["fuison.min_depth:=1.0"], "did you mean 'fusion'"),
    "a value out of range": (["sync.slop:=7.0"], "sync.slop"),
    "a wrong type": (["fusion.min_depth:=near"], "fusion.min_depth"),
    "a missing config": (["config:=nowhere.yaml"], "nowhere"),
    "a missing model": ([RED, "segmenter.model:=/nowhere/model.txt"], "/nowhere/model.txt"),
}


@pytest.fixture(scope="module")
def attempts(namespace: str) -> dict[str, tuple[int, str]]:
    """Exit code and output of each bad start; all at once, since starting Python is what takes long."""
    waiting = dict(BAD)
    out = {}
    while waiting:
        batch = [waiting.popitem() for _ in range(min(4, len(waiting)))]
        running = {name: NodeProcess(*parameters, namespace=namespace) for name, (parameters, _) in batch}
        for name, process in running.items():
            out[name] = (process.wait(60.0), process.log)
    return out


@pytest.mark.parametrize("name", BAD)
def test_a_bad_start_is_one_line_and_an_exit_code(attempts: dict[str, tuple[int, str]], name: str) -> None:
    code, log = attempts[name]
    assert code != 0
    assert BAD[name][1] in log
    assert "Traceback" not in log
    assert len([line for line in log.splitlines() if "ERROR" in line or "error:" in line]) == 1, log


def test_malformed_files(namespace: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("segmenter: {plugin: [\n")
    config = NodeProcess(f"config:={bad}", namespace=namespace)
    parameters = NodeProcess(namespace=namespace, extra=["--ros-args", "--params-file", str(bad)])
    debug = NodeProcess(f"config:={bad}", namespace=namespace, extra=["--debug"])
    assert config.wait() != 0
    assert "not valid YAML" in config.log
    assert "Traceback" not in config.log
    assert parameters.wait() != 0
    assert "bad.yaml" in parameters.log
    assert "Traceback" not in parameters.log
    unknown = NodeProcess(namespace=namespace, extra=["--debgu"])
    assert unknown.wait() == 2
    assert "--debgu" in unknown.log
    assert debug.wait() != 0
    assert "Traceback" in debug.log


def test_config_files_then_parameters(namespace: str, tmp_path: Path) -> None:
    """Defaults < config files in order < parameters; a number may be written without its point."""
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("segmenter: {plugin: 'segmenters_for_tests:RedThings', threshold: 10}\nmax_instances: 7\n")
    second.write_text("max_instances: 8\nsync: {slop: 0.01}\ndepth: {registered: true}\n")
    rig = Rig(namespace)
    process = NodeProcess(f"config:={first},{second}", "max_instances:=9", "fusion.min_depth:=0", namespace=namespace)
    try:
        rig.film(lambda: rig.objects, timeout=40.0, what="a result")
        values = rig.parameters(
            "max_instances", "sync.slop", "segmenter.threshold", "fusion.min_depth", "depth.registered"
        )
        assert values == [9, 0.01, 10, 0.0, "true"]
    finally:
        rig.close()
        code = process.stop()
    assert code == 0, process.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly_at_any_time(namespace: str, number: int) -> None:
    for delay in (0.7, 1.5, 4.0):
        process = NodeProcess(RED, namespace=namespace)
        time.sleep(delay)
        segments = shared_memory_of(str(process.process.pid))
        code = process.stop(number)
        assert code in (0, 130), process.log
        assert "Traceback" not in process.log
        assert not left_of(segments)
    assert segments  # the last one ran


def test_a_plugin_that_hangs_does_not_hold_up_the_end(namespace: str) -> None:
    rig = Rig(namespace)
    process = NodeProcess(RED, "segmenter.delay:=10.0", namespace=namespace)
    try:
        rig.film(lambda: rig.diagnostic("model").message.startswith("READY"), timeout=60.0, what="ready")
        time.sleep(0.5)  # now it is in a frame
        segments = shared_memory_of(str(process.process.pid))
        assert process.stop() == 0, process.log
        assert "does not return" in process.log
    finally:
        rig.close()
    assert not left_of(segments)


def left_of(segments: set[str]) -> set[str]:
    """Those that are still there and that no process uses any more."""
    used = set().union(*(shared_memory_of(pid) for pid in filter(str.isdigit, os.listdir("/proc"))))
    return {path for path in segments - used if os.path.exists(path)}


def shared_memory_of(pid: str) -> set[str]:
    """Fast DDS's files in shared memory that a process has mapped."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it ended meanwhile
        return set()
    return {line.split()[-1] for line in maps.splitlines() if "/dev/shm/fast" in line and "port" not in line}
