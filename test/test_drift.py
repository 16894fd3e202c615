# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Drift against a reference profile: silent on more of the same, and names what changed."""

import json
from dataclasses import replace

import numpy as np
import pytest

from seg_perception.cli import main
from seg_perception.config import load_config
from seg_perception.drift import FEATURES, LEAST_FRAMES, Drift, DriftConfig, Profile, features_of
from seg_perception.masks import Masks
from seg_perception.options import ConfigError
from seg_perception.scene import Frame, Instances, Intrinsics, Object3D, Scene, Status


def scene(seed, brightness=120.0, valid=0.95, depth=0.8, score=0.9, count=3, status=Status.OK):
    rng = np.random.default_rng(seed)
    level = brightness + rng.normal(0, 4)
    color = np.clip(rng.normal(level, 30, (96, 128, 1)), 0, 255).astype(np.uint8).repeat(3, axis=2)
    image = np.where(rng.uniform(size=(96, 128)) < valid, depth + rng.normal(0, 0.01), np.nan).astype(np.float32)
    frame = Frame(color, image, Intrinsics(128, 96, 100.0, 100.0, 64.0, 48.0))
    dense = np.zeros((count, 96, 128), bool)
    for i in range(count):
        dense[i, 10:30, 10 + 30 * i : 30 + 30 * i] = True
    instances = Instances.of(Masks.from_dense(dense), scores=np.full(count, score))
    return Scene(frame, instances, tuple(Object3D(status, valid_depth_ratio=valid) for _ in range(count)), model="m")


@pytest.fixture(scope="module")
def profile():
    return Profile.learn(scene(seed) for seed in range(60))


def drift_of(profile, **changed):
    drift = Drift(profile, DriftConfig(window=50))
    for seed in range(1000, 1060):
        drift.look(scene(seed, **changed))
    return drift


def test_more_of_the_same_is_no_drift(profile):
    drift = drift_of(profile)
    assert drift.problem == ""
    assert drift.score <= 0.06
    assert set(drift.shares) == set(FEATURES)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"brightness": 40.0}, "brightness"),
        ({"valid": 0.6}, "depth_valid"),
        ({"depth": 1.4}, "depth_median"),
        ({"score": 0.5}, "score"),
        ({"status": Status.NO_VALID_DEPTH}, "without_3d"),
    ],
)
def test_what_changed_is_named(profile, changed, name):
    drift = drift_of(profile, **changed)
    assert drift.score == 1.0
    assert f"{name} " in drift.problem
    assert "100% of frames outside" in drift.problem


def test_a_few_frames_say_nothing_and_a_window_forgets(profile):
    drift = Drift(profile, DriftConfig(window=20))
    for seed in range(LEAST_FRAMES - 1):
        drift.look(scene(seed, brightness=20.0))
    assert drift.problem == ""
    drift.look(scene(99, brightness=20.0))
    assert drift.problem
    for seed in range(20):
        drift.look(scene(seed))
    assert drift.problem == ""


def test_out_of_focus_is_less_detail():
    sharp = scene(0)
    rows = sharp.frame.color.astype(np.float32)
    soft = (rows + np.roll(rows, 1, axis=1) + np.roll(rows, 2, axis=1)) / 3
    blurred = replace(sharp, frame=replace(sharp.frame, color=soft.astype(np.uint8)))
    assert features_of(blurred)["detail"] < 0.5 * features_of(sharp)["detail"]


def test_empty_frames_have_no_scores():
    found = features_of(scene(0, count=0))
    assert found["objects"] == 0
    assert "score" not in found
    bare = replace(scene(0), frame=replace(scene(0).frame, depth=None))
    assert "depth_valid" not in features_of(bare)


def test_a_profile_survives_its_file_and_bad_ones_are_named(profile, tmp_path):
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile.as_dict()))
    assert Profile.read(path) == profile
    with pytest.raises(ValueError, match="at least 20 frames"):
        Profile.learn([scene(0)])
    for text, words in (
        ("{", "is no profile"),
        ("{}", "ranges"),
        ('{"frames": 1, "ranges": {"taste": {}}}', "profile"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            Profile.read(path)
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.json"):
        Profile.read(tmp_path / "nowhere.json")


def test_the_command_learns_from_real_frames(data_dir, tmp_path, capsys):
    out = tmp_path / "profile.json"
    assert main(["profile", str(data_dir / "mosd"), "--frames", "22", "--output", str(out)]) == 0
    learned = Profile.read(out)
    assert learned.frames == 22
    assert 0 < learned.ranges["depth_median"].low < learned.ranges["depth_median"].high < 3
    assert "brightness" in capsys.readouterr().out
    assert load_config({"drift": {"profile": str(out)}}).drift.profile == str(out)
