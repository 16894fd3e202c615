# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception bench`: what is timed is the same work, what grows is found, and the page says what was reached."""

import json
import mmap
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from seg_perception.bench import kernels, peers, silent, soak, stages
from seg_perception.bench.goals import GOALS
from seg_perception.bench.page import page
from seg_perception.bench.samples import make_sample
from seg_perception.cli import main
from seg_perception.geometry import unproject
from seg_perception.process import usage

ROOT = Path(__file__).resolve().parents[1]
KERNEL_FIELDS = ["instances", "threads", "ours_ms", "floor_ms", "numpy_ms", "opencv_ms", "torch_ms"]
STAGE_FIELDS = ["instances", "decode_ms", "fuse_ms", "messages_ms", "total_ms"]
SOAK_FIELDS = ["frames", "rss_growth_percent", "threads_growth", "fds_growth"]


# -- the work that is timed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(1, (1280, 720)), (20, (1280, 720)), (300, (1280, 720)), (20, (640, 480))])
def test_a_sample_has_as_many_things_as_asked_for_and_the_product_finds_each(count, size, tmp_path):
    sample = make_sample(count, *size)
    sample.save(tmp_path / "outputs.npz")
    found = stages.replaying(tmp_path / "outputs.npz").segment(sample.frame)
    assert len(found) == count  # the network puts each out three times
    half_axes = (found.boxes[:, 2:] - found.boxes[:, :2]) / 2 / 1.08
    assert_allclose(found.masks.areas, np.pi * half_axes.prod(axis=1), rtol=0.12)  # ellipses with wavy edges
    height, width = found.masks.height, found.masks.width
    assert (width, height) == size


def test_all_methods_make_the_same_labels_points_and_moments_as_float64_does():
    sample = make_sample(20)
    outcome = peers.ours(sample)()
    v, u = np.nonzero((outcome.labels == 3) & (sample.depth > 0))
    truth = unproject(sample.intrinsics, np.stack([u, v], axis=1), sample.depth[v, u])
    for method in (peers.ours, peers.expert_numpy, peers.opencv):
        made = method(sample)()
        assert np.count_nonzero(made.labels != outcome.labels) < 1e-3 * np.count_nonzero(outcome.labels)
        assert abs(len(made.points[2]) - len(truth)) < 1e-3 * len(truth)
        assert_allclose(made.means[2], truth.mean(axis=0), atol=1e-3)
        assert_allclose(made.covariances[2], np.cov(truth.T), atol=3e-5)
        points = np.asarray(made.points[2])
        assert points.shape[1] == 3
        assert_allclose(points.mean(axis=0), truth.mean(axis=0), atol=1e-3)


def test_a_method_that_does_other_work_is_not_timed():
    sample = make_sample(3)
    truth = peers.ours(sample)()
    lazy = peers.Outcome(np.roll(truth.labels, 2, axis=1), truth.points, truth.means, truth.covariances)
    with pytest.raises(ValueError, match=r"lazy: .*% of the label pixels differ"):
        kernels.check("lazy", lazy, truth)
    moved = peers.Outcome(truth.labels, truth.points, truth.means + 0.002, truth.covariances)
    with pytest.raises(ValueError, match=r"moved: .*centroids by 0.002"):
        kernels.check("moved", moved, truth)


def test_kernels_and_stages_write_the_rows_that_were_agreed_on(tmp_path, capsys):
    assert main(["bench", "kernels", "--instances", "1,5", "--seconds", "1", "--json", str(tmp_path / "k.json")]) == 0
    result = json.loads((tmp_path / "k.json").read_text())
    assert [row["instances"] for row in result["rows"]] == [1, 5]
    assert all(field in row for row in result["rows"] for field in KERNEL_FIELDS)
    assert all(0 < row["floor_ms"] < row["ours_ms"] for row in result["rows"])
    assert (result["rows"][0]["torch_ms"] is not None) == peers.installed("torch")
    assert result["complete"]
    assert result["machine"]["cores"] >= 1
    assert result["machine"]["versions"]["numpy"] == np.__version__
    assert "| instances | threads |" in capsys.readouterr().out

    assert main(["bench", "stages", "--instances", "5", "--seconds", "1", "--json", str(tmp_path / "s.json")]) == 0
    (row,) = json.loads((tmp_path / "s.json").read_text())["rows"]
    assert all(field in row for field in STAGE_FIELDS)
    assert row["instances"] == 5
    if row["messages_ms"] is None:
        assert row["messages_reason"].startswith("no ROS 2 here")
        assert row["total_ms"] is None
    else:
        assert_allclose(row["total_ms"], row["decode_ms"] + row["fuse_ms"] + row["messages_ms"], atol=2e-3)


def test_ctrl_c_keeps_what_was_measured(tmp_path, monkeypatch):
    measured = kernels.measure

    def interrupted(sample, seconds):
        if len(sample.boxes) > 1:
            raise KeyboardInterrupt
        return measured(sample, seconds)

    monkeypatch.setattr(kernels, "measure", interrupted)
    arguments = ["bench", "kernels", "--instances", "1,2", "--seconds", "1", "--json", str(tmp_path / "k.json")]
    assert main(arguments) == 130
    result = json.loads((tmp_path / "k.json").read_text())
    assert not result["complete"]
    assert [row["instances"] for row in result["rows"]] == [1]


# -- the soak --------------------------------------------------------------------------------------------------------


def test_two_thousand_frames_leave_nothing_behind(tmp_path):
    out = tmp_path / "soak.json"
    command = [sys.executable, "-m", "seg_perception.cli", "bench", "soak", "--frames", "2000", "--json", str(out)]
    command[1:3] = ["-c", "import sys; from seg_perception.cli import main; sys.exit(main())"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    (row,) = json.loads(out.read_text())["rows"]
    assert all(field in row for field in SOAK_FIELDS)
    assert row["frames"] == 2000
    assert row["objects_per_frame"] > 3  # five things stand there
    # The time per frame is for a quiet machine, and no test's business.
    assert [fault for fault in soak.faults(row) if "latency" not in fault] == []
    assert done.returncode == (1 if soak.faults(row) else 0), done.stderr


KEPT: list = []


def _leak_memory() -> None:
    pages = mmap.mmap(-1, 1 << 20)  # from the system: this process may have plenty lying free
    pages.write(bytes(1 << 20))
    KEPT.append(pages)


def _leak_a_thread() -> None:
    if len(KEPT) < 60:
        KEPT.append(threading.Event())
        threading.Thread(target=KEPT[-1].wait, daemon=True).start()


def _leak_a_file() -> None:
    KEPT.append(open(os.devnull))  # noqa: SIM115 - that is the point


@pytest.mark.parametrize(
    ("leak", "field"),
    [(_leak_memory, "rss_growth_percent"), (_leak_a_thread, "threads_growth"), (_leak_a_file, "fds_growth")],
)
def test_a_leak_is_found_and_named(leak, field, monkeypatch, tmp_path, capsys):
    whole = soak.Pipeline.complete

    def leaking(self, *args, **options):
        leak()
        return whole(self, *args, **options)

    monkeypatch.setattr(soak.Pipeline, "complete", leaking)
    try:
        assert main(["bench", "soak", "--frames", "120", "--no-messages", "--json", str(tmp_path / "s.json")]) == 1
        (row,) = json.loads((tmp_path / "s.json").read_text())["rows"]
        assert row[field] > soak.LIMITS[field]
        assert field in capsys.readouterr().err
    finally:
        for kept in KEPT:
            getattr(kept, "close", getattr(kept, "set", lambda: None))()
        KEPT.clear()


def test_slower_and_slower_frames_are_found():
    watch = soak._Watch(100)
    for k in range(100):
        watch.note(0.01, 0.01 * (1 + k / 100))
        watch.usages.append(usage())
    row = watch.grown()
    assert 40 < row["latency_growth_percent"] < 70  # from 1.25 to 1.8 hundredths of a second, about
    assert any("latency_growth_percent" in fault for fault in soak.faults(row))


def test_usage_counts_this_process(tmp_path):
    before = usage()
    with (tmp_path / "file").open("w"), mmap.mmap(-1, 64 << 20) as held:  # not from what the process has kept
        np.frombuffer(held, np.uint8)[:] = 1
        during = usage()
    assert during.files == before.files + 1
    assert during.memory - before.memory == pytest.approx(64, abs=8)
    assert during.threads == threading.active_count() or during.threads > 0


# -- the page --------------------------------------------------------------------------------------------------------


def result_of(benchmark: str, rows: list[dict]) -> dict:
    machine = {"processor": "Some CPU", "cores": 2, "gpu": "", "system": "Linux", "load": 0.1}
    machine |= {"versions": {"numpy": "2"}, "code": {"commit": "abc", "changed_files": 0}, "threads": {}}
    return {
        "benchmark": benchmark, "complete": True, "date": "2026-01-01", "machine": machine, "settings": {}, "rows": rows
    }  # fmt: skip


def test_the_page_sets_goals_beside_numbers(tmp_path, capsys):
    row = {"instances": 20, "threads": 1, "ours_ms": 0.9, "floor_ms": 0.1, "numpy_ms": 3.0, "torch_ms": None}
    file = tmp_path / "kernels.json"
    file.write_text(json.dumps(result_of("kernels", [row])))
    assert main(["bench", "report", str(file)]) == 0
    text = capsys.readouterr().out
    assert text.strip() == page([file]).strip()
    lines = {line.split(" | ")[1]: line for line in text.splitlines() if line.startswith("| kernels | ")}
    assert lines["decode, labels, points, moments, 20 instances"].endswith("| ≤ 1 ms | 0.9 | reached |")
    assert lines["times faster than expert NumPy, 20"].endswith("| ≥ 3 | 3.33 | reached |")
    assert lines["times the dense deprojection of the same pixels, 20"].endswith("| ≤ 5 | 9 | **not reached** |")
    assert lines["times faster than PyTorch per region, 20"].endswith("| – | not measured |")
    assert lines["the same, 100 instances"].endswith("not measured |")
    assert "Some CPU, 2 cores" in text
    assert "busy" not in text


def test_the_page_says_when_the_machine_was_busy(tmp_path):
    result = result_of("soak", [{"frames": 2000}])
    result["machine"]["load"] = 3.0
    (tmp_path / "soak.json").write_text(json.dumps(result))
    assert "busy with other work (load when it began: soak 3.0)" in page([tmp_path / "soak.json"])


def test_a_foreign_file_is_no_result(tmp_path, capsys):
    (tmp_path / "x.json").write_text("{}")
    assert main(["bench", "report", str(tmp_path / "x.json")]) == 1
    assert "not a benchmark's result: no benchmark, complete" in capsys.readouterr().err


def test_node_goals_look_at_what_the_node_adds():
    row = {
        "pairs_sent": 900, "pairs_received": 899, "rate_hz": 30.0, "result_rate_hz": 24.8, "oldest_periods": 1.5,
        "inference_ms": {"p50": 40.0}, "over_inference_ms": {"p95": 12.5}, "empty_node_ms": {"p95": 7.0},
        "node_rss_mb": 400.0,
    }  # fmt: skip
    rows = {"node": [row]}
    said = {goal.text: (goal.found(rows)[0], goal.reached(rows)) for goal in GOALS if goal.benchmark == "node"}
    assert said["pairs that arrive"] == (pytest.approx(99.89, abs=0.01), False)
    assert said["results, of the rate that camera and backend allow"] == (pytest.approx(99.2), True)  # 25 Hz
    assert said["latency over inference, more than an empty node's, p95"] == (pytest.approx(5.5), False)
    assert said["oldest published frame, in periods of the results"] == (1.5, True)


def test_silent_progress_passes_everything_on():
    assert list(silent(range(3), 3, "x")) == [0, 1, 2]
