# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The command line: what it leaves behind is right, and every way to fail ends in one line and an exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml
from numpy.testing import assert_allclose

from seg_perception.cli import COMMANDS, main
from seg_perception.config import Config, load_config, to_mapping
from seg_perception.geometry import transform
from seg_perception.masks import Masks
from seg_perception.options import option
from seg_perception.report import message_record, scene_record, summary, to_json, write_json
from seg_perception.scene import (
    Frame,
    Grasp,
    GraspKind,
    GraspStatus,
    Instances,
    Intrinsics,
    Object3D,
    OrientedBox,
    Scene,
    Status,
)

ROOT = Path(__file__).resolve().parents[1]
HERE = "test_cli"


class Near:
    """Segmenter: whatever is nearer than `max_depth`, one instance per connected region."""

    @dataclass(frozen=True)
    class Config:
        max_depth: float = option(0.9, "the background begins here", unit="m", ge=0)
        sleep: float = option(0.0, "pretended work", unit="s")
        fail_at: int = option(-1, "raises at that call")

    class_names = ("near",)

    def __init__(self, config):
        self.config, self.calls = config, 0

    def segment(self, frame):
        self.calls += 1
        if self.calls == self.config.fail_at:
            raise RuntimeError("the segmenter\nbroke")
        time.sleep(self.config.sleep)
        near = np.nan_to_num(frame.depth, nan=9.0) < self.config.max_depth
        count, labels = cv2.connectedComponents(near.astype(np.uint8))
        return Instances.of(Masks.from_label_image(labels, count - 1))


class Interrupted(Near):
    """Like `Near`, but at the second frame ctrl-C comes inside code that wraps the exception, or loses it."""

    @dataclass(frozen=True)
    class Config(Near.Config):
        wraps: bool = option(True, "else it loses it")

    def segment(self, frame):
        found = super().segment(frame)
        if self.calls == 3:  # the first one warms up
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1.0)
            except KeyboardInterrupt as error:
                if self.config.wraps:
                    raise SystemError("a result with an exception set") from error
        return found


NEAR = ["--set", f"segmenter.plugin={HERE}:Near", "--set", "grasping.planners=[]"]


@pytest.fixture
def folder(tmp_path):
    """Three frames: a table at 1 m, a 40x30 px and a 20x20 px block at 0.8 m on it; the truth knows both."""
    frames = tmp_path / "rgbd/frames"
    frames.mkdir(parents=True)
    meta = {"width": 160, "height": 120, "fx": 200, "fy": 200, "cx": 80, "cy": 60, "depth_scale_to_m": 0.001}
    (tmp_path / "rgbd/meta.json").write_text(json.dumps(meta))
    depth = np.full((120, 160), 1000, np.uint16)
    truth = np.zeros((120, 160), np.uint8)
    for label, (y, x, h, w) in enumerate([(30, 40, 30, 40), (70, 100, 20, 20)], start=1):
        depth[y : y + h, x : x + w] = 800
        truth[y : y + h, x : x + w] = label
    for k in range(3):
        cv2.imwrite(str(frames / f"f{k}_rgb.png"), np.full((120, 160, 3), 90, np.uint8))
        cv2.imwrite(str(frames / f"f{k}_depth.png"), depth)
        cv2.imwrite(str(frames / f"f{k}_instances.png"), truth)
    return tmp_path / "rgbd"


def start(*arguments, **environment):
    """The command line in a process of its own."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "test"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts/seg-perception"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )


# -- run ---------------------------------------------------------------------------------------------------------------


def test_run_leaves_pictures_and_objects(folder, tmp_path, capsys):
    assert main(["run", str(folder), *NEAR, "--output", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out/objects.json").read_text())
    assert [f["name"] for f in report["frames"]] == ["f0", "f1", "f2"]
    assert report["frames"][1]["stamp_ns"] == 33_333_333
    first, second = report["frames"][0]["objects"]
    assert first["status"] == "OK"
    assert first["box_2d"] == [40, 30, 80, 60]
    # The block's middle is pixel (59.5, 44.5), at 0.8 m.
    assert_allclose(first["centroid"], [(59.5 - 80) / 200 * 0.8, (44.5 - 60) / 200 * 0.8, 0.8], atol=2e-3)
    assert sorted(first["box"]) == ["center", "quaternion", "size"]
    assert second["box_2d"] == [100, 70, 120, 90]
    picture = cv2.imread(str(tmp_path / "out/overlay_f2.png"))
    assert picture.shape == (120, 160, 3)
    assert (picture[45, 50] != 90).any()  # on the first block
    assert (picture[5, 5] == 90).all()
    assert "3 frames, 6 objects (2.0 a frame)" in capsys.readouterr().out


def test_run_can_print_json_and_stop_early(folder, tmp_path, capsys):
    assert main(["run", str(folder), *NEAR, "--frames", "2", "--json", "--output", str(tmp_path / "out")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert len(printed["frames"]) == 2
    assert printed == json.loads((tmp_path / "out/objects.json").read_text())


def test_run_keeps_what_it_has_when_a_plugin_breaks(folder, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = ["run", str(folder), *NEAR, "--set", "segmenter.fail_at=4", "--output", str(output)]  # 1 warms up
    assert main(arguments) == 1
    assert len(json.loads((output / "objects.json").read_text())["frames"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error == "seg-perception run: unexpected RuntimeError: the segmenter broke (--debug shows where)"
    with pytest.raises(RuntimeError):
        main([*arguments, "--debug"])


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_it_has(folder, tmp_path, signal_number):
    output = tmp_path / "out"
    process = start("run", folder, *NEAR, "--set", "segmenter.sleep=0.5", "--output", output)
    deadline = time.monotonic() + 60
    while not (output / "overlay_f0.png").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal_number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    frames = json.loads((output / "objects.json").read_text())["frames"]
    assert 1 <= len(frames) < 3
    assert error.strip().splitlines()[-1] == "seg-perception: interrupted"
    assert "Traceback" not in error
    assert sorted(p.suffix for p in output.iterdir() if p.suffix not in (".png", ".json")) == []  # no half-written file


def test_an_interrupt_while_starting_is_one_line(folder):
    process = start("run", folder, *NEAR)
    time.sleep(0.3)  # somewhere in the imports
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode in (130, -signal.SIGINT)  # the latter: before Python ran a line of ours
    assert error.strip().count("\n") == 0


@pytest.mark.parametrize("wraps", ["true", "false"])
def test_an_interrupt_inside_compiled_code_is_not_lost(folder, tmp_path, capsys, wraps):
    plugin = ["--set", f"segmenter.plugin={HERE}:Interrupted", "--set", f"segmenter.wraps={wraps}", *NEAR[2:]]
    assert main(["run", str(folder), *plugin, "--output", str(tmp_path)]) == 130
    frames = json.loads((tmp_path / "objects.json").read_text())["frames"]
    assert len(frames) == (1 if wraps == "true" else 2)  # of three
    assert capsys.readouterr().err.endswith("seg-perception: interrupted\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # as it was before


def test_real_frames_end_to_end(data_dir, tmp_path):
    assert main(["run", str(data_dir / "mosd"), "--frames", "3", "--output", str(tmp_path)]) == 0
    frames = json.loads((tmp_path / "objects.json").read_text())["frames"]
    assert [len(f["objects"]) for f in frames] == [2, 2, 2]  # as labelled
    assert all(o["status"] == "OK" for f in frames for o in f["objects"])
    sizes = [o["box"]["size"] for f in frames for o in f["objects"]]
    assert (np.max(sizes, axis=1) < 0.4).all()  # m: food boxes


# -- evaluate ----------------------------------------------------------------------------------------------------------


def test_evaluate_scores_against_the_truth(folder, tmp_path, capsys):
    out = tmp_path / "score.json"
    assert main(["evaluate", str(folder), *NEAR, "--json", str(out)]) == 0
    score = json.loads(out.read_text())
    assert (score["frames"], score["objects"], score["predictions"]) == (3, 6, 6)
    assert score["weighted_overlap"] == score["mean_iou"] == score["f_50"] == score["recall_75"] == 1.0
    assert score["segment_ms"]["p95"] >= score["segment_ms"]["median"] > 0
    assert score["total_ms"]["median"] > score["segment_ms"]["median"]
    assert [f["name"] for f in score["per_frame"]] == ["f0", "f1", "f2"]
    assert "weighted overlap  1.000" in capsys.readouterr().out


def test_evaluate_sees_a_worse_segmenter(folder, capsys):
    for label in folder.glob("frames/*_instances.png"):
        truth = cv2.imread(str(label), cv2.IMREAD_UNCHANGED)
        truth[30:60, 80:100] = 1  # the first object is half as wide again as what will be found: IoU 2/3
        cv2.imwrite(str(label), truth)
    assert main(["evaluate", str(folder), *NEAR, "--json"]) == 0
    score = json.loads(capsys.readouterr().out)  # nothing else on stdout
    assert score["mean_iou"] == pytest.approx((2 / 3 + 1) / 2)
    assert score["weighted_overlap"] == pytest.approx((1800 * 2 / 3 + 400) / 2200)
    assert (score["f_50"], score["f_75"]) == (1.0, 0.5)


def test_dropout_is_seeded_and_costs(folder, capsys):
    scores = []
    for seed in ("1", "1", "2"):
        assert main(["evaluate", str(folder), *NEAR, "--dropout", "0.2", "--seed", seed, "--json", "-"]) == 0
        scores.append(json.loads(capsys.readouterr().out)["weighted_overlap"])
    assert scores[0] == scores[1] != scores[2]
    assert scores[0] < 0.85  # a fifth of the pixels is gone, and this segmenter fills nothing in


def test_pixels_without_depth_count_only_where_meta_says_so(folder, capsys):
    for path in folder.glob("frames/*_depth.png"):
        depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        depth[30:60, 40:60] = 0  # the left half of the first object
        cv2.imwrite(str(path), depth)
    meta = json.loads((folder / "meta.json").read_text())
    for ignored, expected in ((False, (1200 * 0.5 + 400) / 1600), (True, 1.0)):
        (folder / "meta.json").write_text(json.dumps({**meta, "ignore_invalid_depth": ignored}))
        assert main(["evaluate", str(folder), *NEAR, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["weighted_overlap"] == pytest.approx(expected)


def test_evaluate_keeps_what_it_has(folder, tmp_path):
    out = tmp_path / "score.json"
    assert main(["evaluate", str(folder), *NEAR, "--set", "segmenter.fail_at=4", "--json", str(out)]) == 1
    assert json.loads(out.read_text())["frames"] == 2  # of three: it says so


def test_evaluate_needs_truth(folder, capsys):
    (folder / "frames/f1_instances.png").unlink()
    assert main(["evaluate", str(folder), *NEAR]) == 1
    assert "every frame needs frames/NAME_instances.png" in capsys.readouterr().err


# -- wrong usage and failures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "required: COMMAND"),
        (["runn"], "invalid choice: 'runn'"),
        (["run"], "required: FOLDER"),
        (["run", "X", "--frames", "0"], "expected at least 1, got 0"),
        (["run", "X", "--frames", "many"], "invalid positive value: 'many'"),
        (["run", "X", "--set", "fusion"], "expected KEY=VALUE, e.g. fusion.min_depth=0.2, got 'fusion'"),
        (["run", "X", "--colour"], "unrecognized arguments: --colour"),
        (["evaluate", "X", "--dropout", "1.5"], "expected a share of 0 to 1, got 1.5"),
        (["parameters", "--yaml", "--ros"], "not allowed with"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments, line, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert line in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "/nowhere"], "/nowhere: no such folder; a folder of RGB-D frames has meta.json"),
        (["run", "FOLDER", "--config", "tabeltop"], "'tabeltop': no such file, and no shipped one (known: "),
        (["run", "FOLDER", "--set", "fusion.min_dept=1"], "unknown key 'fusion.min_dept'; did you mean 'min_depth'?"),
        (["run", "FOLDER", "--set", "fusion.min_depth=-1"], "fusion.min_depth: expected at least 0 m, got -1"),
        (["run", "FOLDER", "--set", "segmenter.plugin=yollo"], "no plugin 'yollo' in segmenters (known: "),
        (["run", "FOLDER", "--config", "yolo", "--set", "segmenter.model=/no/m.onnx"], "no such file: /no/m.onnx"),
        (["run", "FOLDER", *NEAR, "--output", "/proc/out"], "/proc/out"),
        (["evaluate", "FOLDER", *NEAR, "--json", "/proc/out.json"], "/proc/"),
        (["models", "list", "/nowhere"], "/nowhere: no such folder"),
        (["parameters", "--set", "max_instances=0"], "max_instances: expected 1 to 1000, got 0"),
    ],
)
def test_a_failure_is_exit_code_1_and_one_line(arguments, line, folder, capsys):
    assert main([str(folder) if a == "FOLDER" else a for a in arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert line in error
    assert error.count("\n") == 0
    assert error.startswith(f"seg-perception {arguments[0]}: ")


def test_every_command_has_help(capsys):
    for arguments in ([], *([name] for name in COMMANDS)):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--help"])
        assert ended.value.code == 0
        assert "usage: seg-perception" in capsys.readouterr().out


def test_output_into_a_closed_pipe_is_quiet():
    line = f"{sys.executable} {ROOT}/scripts/seg-perception parameters | head -n 1"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(line, shell=True, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.startswith("segmenter.plugin: ")
    assert done.stderr == ""


# -- models, parameters, doctor ----------------------------------------------------------------------------------------


def test_models_lists_files_and_what_they_take(models_dir, tmp_path, capsys):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    (tmp_path / "built.engine").write_bytes(b"12345")
    (tmp_path / "notes.txt").write_text("no model either")
    assert main(["models", "list", str(models_dir), str(tmp_path), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    by_name = {Path(m["path"]).name: m for m in listed["models"]}
    yolo = by_name["yolo11n-seg.onnx"]
    assert yolo["inputs"] == [{"name": "images", "shape": [1, 3, 640, 640], "dtype": "float32"}]
    assert (yolo["task"], len(yolo["class_names"]), yolo["class_names"][0]) == ("segment", 80, "person")
    assert "broken.onnx" in by_name["broken.onnx"]["error"]
    assert (by_name["built.engine"]["format"], by_name["built.engine"]["bytes"]) == ("TensorRT engine", 5)
    assert "notes.txt" not in by_name
    assert {"name": "tabletop", "error": None} in listed["plugins"]["segmenters"]
    assert main(["models", "list", str(models_dir)]) == 0
    assert "images 1x3x640x640 -> output0 1x300x38, output1 1x32x160x160" in capsys.readouterr().out


def test_models_without_any(tmp_path, capsys):
    assert main(["models", "list", str(tmp_path)]) == 0
    assert f"no model files in {tmp_path}" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["--yaml", "--ros"])
def test_parameters_can_be_read_back(form, tmp_path, capsys):
    changes = ["--set", "fusion.min_depth=0.25", "--set", "workspace.max=[1, 2, 3]"]
    assert main(["parameters", form, *changes]) == 0
    path = tmp_path / "back.yaml"
    path.write_text(capsys.readouterr().out)
    config = load_config(path)
    assert config == load_config({"fusion": {"min_depth": 0.25}, "workspace": {"max": [1, 2, 3]}})
    assert ("ros__parameters" in path.read_text()) == (form == "--ros")


def test_parameters_as_text_and_json(capsys):
    assert main(["parameters"]) == 0
    assert "fusion.min_depth: 0.15  # nearest depth used (at least 0 m; live)" in capsys.readouterr().out
    assert main(["parameters", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["sync.slop"]["unit"] == "s"
    assert yaml.safe_load(to_json(to_mapping(Config())))["run"] == rows["run"]["value"] == "stream"


def test_doctor_reports_on_this_machine(capsys):
    code = main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    status = {check["name"]: check["status"] for check in report["checks"]}
    assert status["numpy"] == status["numba"] == status["compiled kernels"] == status["segmenters"] == "OK"
    assert status["config tabletop"] == "OK"
    assert "onnxruntime" in status
    assert code == (0 if report["ok"] else 1) == ("FAIL" in status.values())
    for check in report["checks"]:
        assert sorted(check) == ["detail", "fix", "name", "status"]
        assert check["fix"] or check["status"] == "OK", check


def test_doctor_fails_on_a_config_that_cannot_run(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("segmenter: {plugin: yolo, model: missing.onnx}")
    assert main(["doctor", "--config", str(path)]) == 1
    printed = capsys.readouterr().out
    assert "FAIL config" in printed
    assert "missing.onnx" in printed


def test_doctor_knows_the_model(models_dir, tmp_path, capsys):
    model = models_dir / "yolo11n-seg.onnx"
    arguments = ["doctor", "--camera", "0", "--json", "--config", "yolo", "--set"]
    assert main([*arguments, f"segmenter.model={model}"]) == 0
    checks = {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"]}
    assert "images 1x3x640x640, classes (80): person" in checks["model"]["detail"]
    assert checks["model on onnxruntime"]["detail"] == "runs it"
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model.read_bytes()[:1000])
    assert main([*arguments, f"segmenter.model={broken}"]) == 1
    checks = {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["model"]["status"] == "FAIL"
    assert str(broken) in checks["model"]["detail"]


def test_doctor_runs_where_the_rest_cannot_be_imported(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('numba needs another NumPy')")
    process = start("doctor", PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")]))
    output, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "FAIL numba: cannot be imported: numba needs another NumPy\n     fix: pip install numba" in output
    assert "GPU" in output  # and goes on
    assert "Traceback" not in output + error


# -- records -----------------------------------------------------------------------------------------------------------


def example_scene():
    grasp = Grasp(
        transform(translation=[0.1, 0.2, 0.7]), 0.06, float("nan"), GraspKind.PARALLEL_JAW, "top_down", "gripper"
    )
    whole = Object3D(
        Status.OK,
        centroid=np.array([0.1, 0.2, 0.75]),
        box=OrientedBox(transform(translation=[0.1, 0.2, 0.8]), np.array([0.1, 0.05, 0.2])),
        valid_depth_ratio=0.9,
        id=5,
        grasps=(grasp,),
        grasp_status=GraspStatus.FOUND,
    )
    lost = Object3D(Status.NO_VALID_DEPTH, "no depth under the mask", id=6, grasp_status=GraspStatus.NO_3D)
    instances = Instances.from_masks(np.ones((2, 4, 6)), [2, -1], [0.5, 0.25], ["mug", "object"])
    frame = Frame(np.zeros((4, 6, 3), np.uint8), intrinsics=Intrinsics(6, 4, 5, 5, 3, 2), stamp_ns=1_500_000_001)
    return Scene(frame, instances, (whole, lost), timings={"segment": 0.01}, model="m@1")


def as_message(scene):
    """`scene` with the fields of SegmentedObjectArray, as far as a record needs them."""
    xyz = lambda v: SimpleNamespace(x=v[0], y=v[1], z=v[2])  # noqa: E731
    pose = lambda T: SimpleNamespace(position=xyz(T[:3, 3]), orientation=SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0))  # noqa: E731
    objects = [
        SimpleNamespace(
            id=o.id, class_id=int(scene.instances.class_ids[i]), class_name=scene.instances.class_names[i],
            score=float(scene.instances.scores[i]), status=int(o.status), status_text=o.status_text,
            box=scene.instances.boxes[i], centroid=xyz(o.centroid), box_pose=pose(o.box.T_camera_box),
            box_size=xyz(o.box.size), height_above_support=float("nan"), valid_depth_ratio=o.valid_depth_ratio,
            point_count=0, grasp_status=int(o.grasp_status), grasp_text=o.grasp_text,
            grasps=[
                SimpleNamespace(kind=int(g.kind), pose=pose(g.T_camera_grasp), width=g.width, score=g.score,
                                planner=g.planner, gripper=g.gripper) for g in o.grasps
            ],
        ) for i, o in enumerate(scene.objects)
    ]  # fmt: skip
    stamp = SimpleNamespace(sec=1, nanosec=500_000_001)
    header = SimpleNamespace(stamp=stamp, frame_id=scene.frame.frame_id)
    return SimpleNamespace(header=header, model="m@1", timings=[0.0, 0.01, 0.0, 0.0], objects=objects)


def test_a_scene_and_its_message_give_the_same_record():
    scene = example_scene()
    ours, theirs = scene_record(scene, "f", 0.02), message_record(as_message(scene), "f", 0.02)
    for record in (ours, theirs):
        record.pop("timings")
    assert ours == theirs
    assert ours["stamp_ns"] == 1_500_000_001
    whole, lost = ours["objects"]
    assert whole["grasp"]["position"] == [0.1, 0.2, 0.7]
    assert whole["box"] == {"center": [0.1, 0.2, 0.8], "quaternion": [0, 0, 0, 1], "size": [0.1, 0.05, 0.2]}
    assert (lost["status"], lost["centroid"], lost["box"], lost["grasp"]) == ("NO_VALID_DEPTH", None, None, None)


def test_what_is_unknown_is_null_and_numbers_stay_on_one_line(tmp_path):
    record = scene_record(example_scene(), "f", float("inf"))
    text = to_json({"frames": [record]})
    back = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert back["frames"][0]["latency"] is None
    assert back["frames"][0]["objects"][0]["grasp"]["score"] is None
    assert '"centroid": [0.1, 0.2, 0.75]' in text
    tricky = {"text": "a [\n 1 ] b", "empty": [], "deep": [[1, 2], []], "nan": [np.float32("nan"), np.int64(3)]}
    assert json.loads(to_json(tricky)) == {**tricky, "nan": [None, 3]}
    write_json(tmp_path / "new/place.json", tricky)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["place.json"]


def test_the_summary_counts():
    record = scene_record(example_scene(), "f", 0.02)
    text = summary([record, record])
    assert text.startswith("2 frames, 4 objects (2.0 a frame), 2 with a grasp; 20 ms a frame (median)")
    assert "without 3D: 2 NO_VALID_DEPTH" in text
    assert summary([]) == "no frames"
