# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Trackers keep one id per object: by hand-made views, and on simulated sequences with known identities."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from seg_perception.config import load_config
from seg_perception.fusion import fuse
from seg_perception.geometry import transform
from seg_perception.masks import Masks
from seg_perception.pipeline import Pipeline
from seg_perception.scene import Frame, Instances, Intrinsics, Status
from seg_perception.spans import shared_pixels
from seg_perception.tracking.bytetrack import ByteTrack, ByteTrackConfig
from seg_perception.tracking.iou3d import Iou3D, Iou3DConfig
from seg_perception.tracking.overlaps import grown, look_up, nearness
from seg_perception.tracking.scores import score_tracks

CAMERA = Intrinsics(320, 240, 300.0, 300.0, 159.5, 119.5)
MINUTE = 60 * 10**9
TICK = 10**8  # ns


@pytest.fixture(scope="module")
def stories():
    """benchmark/tracking.py."""
    path = Path(__file__).resolve().parents[1] / "benchmark" / "tracking.py"
    spec = importlib.util.spec_from_file_location("tracking_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class World:
    """Lids at 0.9 m over a floor at 1 m, seen from straight above, or from `x` m to the side; a `sheet` of columns at
    0.5 m hides what is under it."""

    def __init__(self, tracker):
        self.tracker = tracker
        self.now = 0

    def see(self, *lids, classes=None, x=0.0, sheet=None, depth=True, known=True, after=TICK, scores=None):
        """Ids of `lids`, squares of 40 px given by the first column u and row v as seen from x = 0."""
        self.now += after
        image = np.full((240, 320), 1.0, np.float32)
        labels = np.zeros((240, 320), np.uint8)
        for i, (u, v) in enumerate(lids):
            u = round(u - x * 300 / 0.9)
            labels[v : v + 40, u : u + 40] = i + 1
            image[v : v + 40, u : u + 40] = 0.9
        if sheet is not None:
            image[:, sheet], labels[:, sheet] = 0.5, 0
        masks = Masks.from_label_image(labels, len(lids))
        rows = np.flatnonzero(masks.areas)
        classes = None if classes is None else np.asarray(classes)[rows]
        instances = Instances.of(masks[rows], scores, classes)
        pose = transform(translation=[x, 0, 0]) if known else None
        color = np.zeros((240, 320, 3), np.uint8)
        frame = Frame(color, image if depth else None, CAMERA, stamp_ns=self.now, T_fixed_camera=pose)
        return self.tracker.update(frame, instances, fuse(frame, instances)).tolist()


LEFT, MIDDLE, RIGHT = (60, 100), (140, 100), (220, 100)


# -- iou3d -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [True, False])
def test_ids_follow_objects_not_rows(depth):
    world = World(Iou3D())
    assert world.see(LEFT, MIDDLE, RIGHT, depth=depth) == [1, 2, 3]
    assert world.see(RIGHT, LEFT, MIDDLE, depth=depth) == [3, 1, 2]
    assert world.see((145, 104), depth=depth) == [2]


def test_a_known_camera_may_be_anywhere_minutes_later():
    world = World(Iou3D())
    assert world.see(MIDDLE, RIGHT) == [1, 2]
    assert world.see(MIDDLE, RIGHT, x=0.24, after=30 * MINUTE) == [1, 2]  # one stands where the other was in the image
    assert world.see(RIGHT, x=0.24, after=MINUTE) == [2]
    blind = World(Iou3D())
    assert blind.see(MIDDLE, RIGHT, known=False) == [1, 2]
    assert blind.see(MIDDLE, RIGHT, x=0.24, known=False) != [1, 2]  # nobody could know


def test_a_gap_of_tf_uses_the_last_pose():
    world = World(Iou3D())
    assert world.see(MIDDLE, RIGHT, x=0.1) == [1, 2]
    assert world.see(MIDDLE, RIGHT, x=0.1, known=False) == [1, 2]


def test_what_is_hidden_waits_and_what_is_gone_does_not():
    world = World(Iou3D())
    assert world.see(LEFT, RIGHT) == [1, 2]
    for _ in range(20):
        assert world.see(LEFT, RIGHT, sheet=slice(0, 160), after=MINUTE) == [2]
    assert world.see(LEFT, RIGHT, sheet=slice(0, 80)) == [1, 2]  # half out
    assert world.see(LEFT, RIGHT) == [1, 2]
    assert world.see(RIGHT) == [2]  # taken away
    assert world.see(LEFT, RIGHT, after=MINUTE) == [3, 2]  # another one in its place


def test_the_other_half_of_a_hidden_object_comes_out_with_its_id():
    world = World(Iou3D(Iou3DConfig(max_distance=0.02)))
    assert world.see(MIDDLE) == [1]
    assert world.see(MIDDLE, sheet=slice(150, 320)) == [1]  # 10 px of it
    assert world.see(MIDDLE, sheet=slice(0, 170)) == [1]  # the other 10 px: the middle is 9 cm away


def test_an_overlooked_object_keeps_its_id():
    world = World(Iou3D())
    world.see(LEFT, RIGHT)
    tracker = world.tracker
    image = np.full((240, 320), 0.9, np.float32)  # still something at its depth, but not segmented
    for _ in range(10):
        world.now += TICK
        frame = Frame(np.zeros((240, 320, 3), np.uint8), image, CAMERA, stamp_ns=world.now)
        assert len(tracker.update(frame, Instances.empty(240, 320), [])) == 0
    assert world.see(RIGHT, LEFT) == [2, 1]


def test_without_depth_a_track_lasts_some_frames():
    world = World(Iou3D(Iou3DConfig(lost_after=3)))
    assert world.see(LEFT, RIGHT, depth=False) == [1, 2]
    for _ in range(2):
        assert world.see(RIGHT, depth=False, after=MINUTE) == [2]
    assert world.see(LEFT, RIGHT, depth=False) == [1, 2]
    for _ in range(3):
        world.see(RIGHT, depth=False)
    assert world.see(LEFT, RIGHT, depth=False) == [3, 2]


def test_a_jump_is_bridged_up_to_max_distance_and_within_the_class():
    world = World(Iou3D(Iou3DConfig(max_distance=0.15)))
    assert world.see(LEFT, classes=[4]) == [1]
    assert world.see((60 + 45, 100), classes=[4]) == [1]  # 13.5 cm at 0.9 m, no overlap
    assert world.see((60, 100), classes=[5]) == [2]  # back, but something else
    assert World(Iou3D(Iou3DConfig(max_distance=0.05))).see(LEFT) == [1]
    short = World(Iou3D(Iou3DConfig(max_distance=0.05)))
    assert short.see(LEFT) == [1]
    assert short.see((60 + 60, 100)) == [2]


def test_another_class_at_the_same_place_is_another_name():
    world = World(Iou3D())
    assert world.see(LEFT, RIGHT, classes=[1, 2]) == [1, 2]
    assert world.see(LEFT, RIGHT, classes=[7, 2]) == [1, 2]


def test_hidden_tracks_are_forgotten_in_the_end():
    world = World(Iou3D(Iou3DConfig(forget_after=100.0)))
    world.see(LEFT, RIGHT)
    world.see(LEFT, RIGHT, sheet=slice(0, 160), after=2 * MINUTE)
    assert world.see(LEFT, after=1)[0] > 2
    many = World(Iou3D(Iou3DConfig(max_tracks=1)))
    many.see(LEFT, RIGHT)
    assert len(many.tracker.tracks) == 1


@pytest.mark.parametrize("plugin", [Iou3D, ByteTrack])
def test_ids_are_never_used_again(plugin):
    world = World(plugin())
    assert world.see(LEFT, RIGHT) == [1, 2]
    world.tracker.reset()
    assert world.see(LEFT, RIGHT) == [3, 4]
    changed = World(world.tracker.with_config(replace(world.tracker.config, forget_after=7.0)))
    changed.now = world.now
    assert changed.see(LEFT, RIGHT, MIDDLE) == [3, 4, 5]  # the same tracks
    assert world.see(LEFT, (20, 20)) == [3, 6]
    assert changed.tracker.config.forget_after == 7.0 != world.tracker.config.forget_after


@pytest.mark.parametrize("plugin", [Iou3D, ByteTrack])
def test_empty_frames(plugin):
    world = World(plugin())
    assert world.see() == []
    assert world.see(LEFT) == [1]
    assert world.see() == []


# -- bytetrack ---------------------------------------------------------------------------------------------------------


def test_boxes_move_on_while_they_are_not_seen():
    world = World(ByteTrack())
    for k in range(12):
        assert world.see((10 + 16 * k, 100)) == [1]  # 160 px/s
    world.see()
    world.see()
    assert world.see((10 + 16 * 14, 100)) == [1]  # 48 px on, more than its width
    assert world.see((10 + 16 * 14, 100), after=2 * 10**9) == [2]  # forgotten


def test_low_scores_keep_a_track_but_start_none():
    world = World(ByteTrack(ByteTrackConfig(high_score=0.5)))
    assert world.see(LEFT, scores=[0.9]) == [1]
    assert world.see((64, 100), scores=[0.2]) == [1]
    assert world.see((66, 100), RIGHT, scores=[0.2, 0.2]) == [1, 2]
    assert world.see(RIGHT, scores=[0.2]) == [3]  # 2 was for that frame
    assert world.see((64, 100), RIGHT, scores=[0.9, 0.9], classes=[1, -1]) == [4, 5]  # another class


# -- simulated sequences -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["moving", "occlusion", "coming and going", "pushed", "calls"])
def test_identities_on_simulated_sequences(stories, name):
    shots = list(stories.sightings(stories.SEQUENCES[name], seed=0))
    score = score_tracks(stories.follow(Iou3D(), shots))
    assert score.objects >= 8
    assert score.idf1 >= 0.95, score
    if name == "calls":  # what the pose is worth: camera coordinates say nothing from another side of the table
        lost = [replace(s, frame=replace(s.frame, T_fixed_camera=None)) for s in shots]
        assert score_tracks(stories.follow(Iou3D(), lost)).idf1 < 0.6
        assert score_tracks(stories.follow(ByteTrack(), shots)).idf1 < 0.3


def test_boxes_alone_do_for_video(stories):
    score = score_tracks(stories.follow(ByteTrack(), list(stories.sightings(stories.SEQUENCES["pushed"], seed=0))))
    assert score.idf1 >= 0.9, score


def test_scores_are_counted():
    frames = [{"a": 1, "b": 2}, {"a": 1, "b": 2}, {"a": 3, "b": 2}, {"b": 1}]
    score = score_tracks(frames)
    assert_allclose(score.idf1, (2 + 3) / 7)
    assert (score.switches, score.fragments, score.shared, score.objects, score.sightings) == (2, 2, 1, 2, 7)
    assert score_tracks([]).idf1 == 1.0


# -- parts -------------------------------------------------------------------------------------------------------------


def test_overlaps_are_those_of_dense_masks():
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(size=(n, 30, 40)) < 0.3 for n in (4, 3))
    ma, mb = Masks.from_dense(a), Masks.from_dense(b)
    shared = shared_pixels(ma.spans, ma.offsets, ma.rois, mb.spans, mb.offsets, mb.rois)
    assert_array_equal(shared, np.einsum("ihw,jhw->ij", a.astype(int), b.astype(int)))
    pixels = np.stack(np.meshgrid(np.arange(40.0), np.arange(30.0)), axis=-1).reshape(-1, 2)
    depth = rng.choice(np.float32([1.0, 0.5, 2.0, np.nan, np.inf, -np.inf, 0.0]), size=(30, 40))
    votes, there, through, hidden = look_up(
        pixels, np.ones(1200), np.array([0, 1200]), depth, (30, 40), ma.spans, ma.offsets, ma.rois, 0.01
    )
    unknown = np.isnan(depth) | (depth == 0)
    assert_array_equal(votes[0], [(m & ((depth == 1) | unknown)).sum() for m in a])
    assert through[0] == (depth > 1).sum()
    assert there[0] == ((depth == 1) | (unknown & a.any(axis=0))).sum()
    assert hidden.sum() == 1200 - there[0] - through[0]
    points = rng.uniform(size=(9, 3))
    places = points[:2] + np.array([0, 0, 2.0])
    near = nearness(points, np.array([0, 5, 5, 9]), np.full((3, 3), 9.0), places, 100.0)
    assert_allclose(near[0, 1], 1 - 0.02 * np.linalg.norm(points[:5] - places[1], axis=1).min())
    assert_allclose(near[1], 1 - 0.01 * np.linalg.norm(places - 9.0, axis=1))  # no surface: the centroid


def test_a_surface_grows_only_while_it_rests():
    points = np.arange(15.0).reshape(5, 3)  # of track 0 the first three
    starts, hidden = np.array([0, 3, 5]), np.array([True, False, True, True, True])
    seen, none = np.ones((2, 3), np.float32), np.zeros(0, np.int64)
    T = transform(translation=[0, 0, 1.0])

    def after(kept, seen_starts, before, rests):
        found = grown(points, starts, hidden, kept, seen, np.array(seen_starts), T, np.array(before), rests, 128)
        assert not found[2][found[1][len(kept)] :].any()  # all that is seen now, and what it takes over, is new
        return np.split(found[0], found[1][1:-1])

    first, second = after(none, [0, 1, 2], [1, 0], np.array([True, False]))  # rows in another order; track 1 moved
    assert_array_equal(first, [[1, 1, 2]])
    assert_array_equal(second, [points[0], points[2], [1, 1, 2]])
    kept, new, blind = after(np.array([1]), [0, 2, 2], [-1, 0], np.array([True, True]))
    assert_array_equal(kept, points[3:])
    assert_array_equal(new, [[1, 1, 2]] * 2)
    assert_array_equal(blind, points[:3])  # no depth on it now


def test_frames_refuse_what_is_no_pose():
    color = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match=r"T_fixed_camera: expected \(4, 4\) finite"):
        Frame(color, T_fixed_camera=np.eye(3))
    with pytest.raises(ValueError, match="T_fixed_camera: expected a rotation"):
        Frame(color, T_fixed_camera=np.diag([1.0, 1.0, -1.0, 1.0]))
    assert Frame(color, T_fixed_camera=np.eye(4, dtype=np.float32)).T_fixed_camera.dtype == np.float64


@pytest.mark.parametrize("name", ["iou3d:Iou3D", "bytetrack:ByteTrack"])
def test_the_pipeline_takes_them_by_name(name):
    depth = np.full((240, 320), 1.0, np.float32)
    depth[100:140, 120:180] = 0.85
    pipeline = Pipeline.from_config({"tracker": {"plugin": f"seg_perception.tracking.{name}", "forget_after": 5.0}})
    frame = Frame(np.full((240, 320, 3), 120, np.uint8), depth, CAMERA)
    ids = [[o.id for o in pipeline.process(replace(frame, stamp_ns=k * TICK))] for k in range(3)]
    assert ids == [[1], [1], [1]]
    pipeline.reset()
    assert [o.id for o in pipeline.process(frame)] == [2]


# -- hidden objects in the scene ---------------------------------------------------------------------------------------


class Lids:
    """A segmenter that finds what is painted: `labels` (H, W)."""

    class_names = ()

    def segment(self, frame):
        return Instances.of(Masks.from_label_image(self.labels, int(self.labels.max())))


def test_what_is_not_found_coasts_without_3d():
    config = {"tracker": {"plugin": "iou3d"}, "coast": 0.25, "grasping": {"planners": []}}
    lids = Lids()
    pipeline = Pipeline(lids, Iou3D(), [], load_config(config))

    def see(stamp, *columns):
        depth, lids.labels = np.full((240, 320), 1.0, np.float32), np.zeros((240, 320), np.uint8)
        for i, u in enumerate(columns):
            depth[100:140, u : u + 40], lids.labels[100:140, u : u + 40] = 0.9, i + 1
        depth[:, 200:] = 0.5 if stamp else depth[:, 200:]  # an arm comes in
        lids.labels[:, 200:] = 0 if stamp else lids.labels[:, 200:]
        return pipeline.process(Frame(np.zeros((240, 320, 3), np.uint8), depth, CAMERA, stamp_ns=stamp))

    assert [(o.id, o.time_since_seen) for o in see(0, 60, 220)] == [(1, 0.0), (2, 0.0)]
    scene = see(2 * TICK, 60)
    assert [o.id for o in scene] == [1, 2]
    hidden = scene.objects[1]
    assert (hidden.status, hidden.time_since_seen) == (Status.EMPTY_MASK, pytest.approx(0.2))
    assert "0.20 s ago" in hidden.status_text
    assert (scene.instances.scores[1], scene.instances.masks.areas[1], len(hidden.points)) == (0, 0, 0)
    assert [o.id for o in see(3 * TICK, 60)] == [1]  # 0.3 s


@pytest.mark.parametrize("tracker", [Iou3D, ByteTrack])
def test_coasting_is_of_the_newest_frame_only(tracker):
    world = World(tracker())
    world.see(LEFT, RIGHT, classes=[0, 4])
    assert world.tracker.coasting(world.now, 10) == []
    world.see(LEFT, classes=[0])
    waiting = world.tracker.coasting(world.now, 10)
    assert [(c.id, c.class_id, c.class_name) for c in waiting] == [(2, 4, "class_4")]
    assert waiting[0].time_since_seen == pytest.approx(0.1)
    assert world.tracker.coasting(world.now, 0.05) == []
