# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The pick benchmark's physics, camera and book-keeping: known grasps come out as they must."""

import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from numpy.testing import assert_allclose

from seg_perception.cli import main
from seg_perception.geometry import rotation_with_z, transform, unproject
from seg_perception.grasping.gripper import SuctionCup, load_gripper
from seg_perception.scene import Grasp, GraspKind, Object3D, Plane, Status
from seg_perception.sim.picking import bench
from seg_perception.sim.picking.bench import Settings, run
from seg_perception.sim.picking.bound import find_any, find_any_seal
from seg_perception.sim.picking.meshes import mesh_kinds
from seg_perception.sim.picking.pca import Pca
from seg_perception.sim.picking.results import markdown, summarise, wilson
from seg_perception.sim.picking.scenes import SPLITS, make_scene
from seg_perception.sim.picking.seal import check_seal
from seg_perception.sim.picking.things import KINDS, Piece, Thing, box, chosen_kinds, hull, random_thing
from seg_perception.sim.picking.trial import LIFTED, Outcome, execute
from seg_perception.sim.picking.view import cast, look_at, take_view
from seg_perception.sim.picking.world import World

pytest.importorskip("mujoco", reason="no mujoco: pip install 'seg_perception[sim]'")

ROOT = Path(__file__).resolve().parents[1]
GRIPPER = load_gripper("robotiq_2f_85")
DOWN = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])  # closes along the world's y
ALONG_X = DOWN @ np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
BRICK = Thing("brick", (box((0.06, 0.04, 0.08), (0, 0, 0.04)),))  # stands on z = 0
BALL = Thing("ball", (Piece("sphere", (0.03,), transform(translation=(0, 0, 0.03))),))


def standing(*placed, gripper=GRIPPER):
    """A world with things at rest at x, y."""
    world = World([thing for thing, _, _ in placed], gripper)
    for i, (_, x, y) in enumerate(placed):
        world.place(i, transform(translation=[x, y, 0.0005]))
    world.step(0.3)
    world.rest = world.state()
    return world


def grasp_at(tcp, width=0.07, rotation=DOWN, **more):
    """T_world_grasp, and the grasp as a camera at the world's origin would give it."""
    T = transform(rotation, tcp)
    return T, Grasp(T, width, 1.0, GraspKind.PARALLEL_JAW, **more)


def outcome(world, *arguments, target=0, **options):
    return execute(world, target, *grasp_at(*arguments, **options))


# -- carrying out a grasp ----------------------------------------------------------------------------------------------


def test_a_grasp_amid_the_brick_picks_it_and_holds_it_up():
    world = standing((BRICK, 0.0, 0.0))
    verdict = outcome(world, [0, 0, 0.05])
    assert verdict.outcome is Outcome.PICKED
    assert world.pose(0)[2, 3] == pytest.approx(LIFTED, abs=0.005)
    assert verdict.slip < 0.002


def test_a_grasp_beside_it_misses():
    world = standing((BRICK, 0.0, 0.0))
    assert outcome(world, [0.0, 0.08, 0.05]).outcome is Outcome.MISSED
    assert world.pose(0)[2, 3] < 0.002


def test_what_is_hit_on_the_way_is_named_with_the_part_that_hits():
    world = standing((BRICK, 0.0, 0.0), (BALL, 0.0, 0.07))
    hits = {
        (0.0, 0.02, 0.05): (Outcome.HITS_TARGET, "finger", "brick"),  # a finger comes down on its top
        (0.0, 0.0, 0.02): (Outcome.HITS_TARGET, "palm", "brick"),  # 80 mm of brick, 55 mm of finger
        (0.0, 0.2, 0.005): (Outcome.HITS_TABLE, "finger", "table"),  # the tips are 8 mm below the tool centre point
    }
    for tcp, (what, part, other) in hits.items():
        verdict = outcome(world, tcp, 0.07 if tcp[1] else 0.045)
        assert (verdict.outcome, verdict.part, verdict.other) == (what, part, other)
    assert outcome(world, [0.0, 0.0, 0.05], 0.085).other == "ball"
    assert outcome(world, [0.0, 0.0, 0.05], 0.085).outcome is Outcome.HITS_OTHER


def test_jaws_that_close_on_a_neighbour_miss_the_target():
    world = standing((BRICK, 0.0, 0.0), (BALL, 0.15, 0.0))
    verdict = outcome(world, [0.15, 0.0, 0.03], 0.08)
    assert (verdict.outcome, verdict.other) == (Outcome.MISSED, "ball")


def test_friction_decides():
    heavy = replace(BRICK, density=4000.0)  # 0.77 kg; 40 N on both sides
    assert outcome(standing((heavy, 0.0, 0.0)), [0, 0, 0.05]).outcome is Outcome.PICKED
    slick = standing((heavy, 0.0, 0.0), gripper=replace(GRIPPER, friction=0.05))
    assert outcome(slick, [0, 0, 0.05]).outcome is Outcome.SLIPPED_LIFT


def test_a_wedge_is_held_across_its_ends_and_squeezed_out_across_its_slopes():
    sides = [(-0.03, 0.0), (0.03, 0.0), (0.0, 0.05)]  # 59 degrees steep; friction 0.6 holds up to 31
    wedge = Thing("wedge", (hull([(x, y, z) for x, z in sides for y in (-0.02, 0.02)]),))
    world = standing((wedge, 0.0, 0.0))
    assert outcome(world, [0, 0, 0.02]).outcome is Outcome.PICKED
    assert outcome(world, [0, 0, 0.03], 0.085, ALONG_X).outcome is Outcome.SLIPPED_LIFT


def test_a_thing_lifted_along_is_not_a_pick():
    plate = Thing("plate", (box((0.05, 0.03, 0.01), (0, 0, 0.005)),))
    world = standing((BRICK, 0.0, 0.0), (plate, 0.0, 0.2))
    world.place(1, transform(translation=[0.0, 0.0, 0.0810]))  # lies on the brick
    world.step(0.3)
    world.rest = world.state()
    assert world.carries(0) == pytest.approx(1.0, abs=0.05)
    assert world.carries(1) == 0.0
    short = replace(GRIPPER, palm_size=(0.02, 0.1, 0.02), finger_length=0.09)
    tall = World(world.things, short)
    for i in range(2):
        tall.place(i, world.pose(i))
    tall.rest = tall.state()
    verdict = outcome(tall, [0.0, 0.0, 0.02])
    assert (verdict.outcome, verdict.other) == (Outcome.TOOK_TWO, "plate")


def test_the_thing_is_lifted_the_way_the_grasp_says():
    world = standing((BRICK, 0.0, 0.0))
    aslant = np.array([0.6, 0.0, 0.8])
    T_world_camera = transform([[1, 0, 0], [0, 0, 1], [0, -1, 0]], [0.3, -0.5, 0.4])
    T, grasp = grasp_at([0, 0, 0.05])
    seen = replace(
        grasp, T_camera_grasp=np.linalg.inv(T_world_camera) @ T, retreat_direction=T_world_camera[:3, :3].T @ aslant
    )
    assert execute(world, 0, T, seen).outcome is Outcome.PICKED
    assert world.pose(0)[:3, 3] == pytest.approx(LIFTED * aslant, abs=0.006)


def test_every_trial_begins_anew():
    world = standing((BRICK, 0.0, 0.0))
    first = outcome(world, [0.005, 0.003, 0.05])
    outcome(world, [0, 0.02, 0.05])
    assert outcome(world, [0.005, 0.003, 0.05]) == first


# -- suction -----------------------------------------------------------------------------------------------------------

CUP = SuctionCup("cup", cup_radius=0.01, cup_length=0.03, body_radius=0.02)


def sucked(world, tcp, rotation=DOWN, target=0):
    world.reset()
    return check_seal(world, target, transform(rotation, tcp), CUP)


def test_a_cup_seals_on_a_flat_top_and_nowhere_else():
    small = Thing("marble", (Piece("sphere", (0.012,), transform(translation=(0, 0, 0.012))),))
    rod = Thing("rod", (Piece("cylinder", (0.014, 0.05), transform(rotation_with_z([1, 0, 0]), (0, 0, 0.014))),))
    world = standing((BRICK, 0.0, 0.0), (small, 0.2, 0.0), (rod, -0.2, 0.0))
    top = world.pose(0)[2, 3] + 0.08
    assert sucked(world, [0, 0, top]).outcome is Outcome.PICKED
    over = sucked(world, [0.025, 0, top])
    assert (over.outcome, over.other) == (Outcome.NO_SEAL, "beyond the edge")
    assert sucked(world, [0.2, 0, 0.024], target=1).other == "bulge"
    assert sucked(world, [-0.2, 0, 0.028], target=2).other == "uneven rim"
    tilt = np.radians(20.0)
    lean = DOWN @ np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    assert sucked(world, [0, 0, top], lean).other == "tilted"


def test_a_cup_is_stopped_by_neighbours_and_weight():
    tower = Thing("tower", (box((0.02, 0.02, 0.2), (0, 0, 0.1)),))
    low = Thing("low", (box((0.08, 0.05, 0.03), (0, 0, 0.015)),))
    world = standing((low, 0.0, 0.0), (tower, 0.0, 0.036))
    blocked = sucked(world, [0, 0.015, world.pose(0)[2, 3] + 0.03])
    assert (blocked.outcome, blocked.part, blocked.other) == (Outcome.HITS_OTHER, "body", "tower")
    slab = Thing("slab", (box((0.2, 0.05, 0.03), (0, 0, 0.015)),), density=2000.0)  # 0.6 kg
    world = standing((slab, 0.0, 0.0))
    top = world.pose(0)[2, 3] + 0.03
    assert sucked(world, [0.0, 0, top]).outcome is Outcome.PICKED
    assert sucked(world, [0.08, 0, top]).outcome is Outcome.TOO_HEAVY


# -- the camera --------------------------------------------------------------------------------------------------------


def test_the_camera_sees_what_stands_there():
    world = standing((BRICK, 0.02, -0.01), (BALL, -0.1, 0.05))
    T = look_at([0.3, -0.4, 0.5], [0, 0, 0.02])
    view = take_view(world, T, 0, "none")
    v, u = np.nonzero(view.labels == 2)
    points = unproject(view.frame.intrinsics, np.stack([u, v], axis=1), view.frame.depth[v, u]) @ T[:3, :3].T + T[:3, 3]
    centre = world.pose(1)[:3, 3] + [0, 0, 0.03]
    assert len(u) > 1000
    np.testing.assert_allclose(np.linalg.norm(points - centre, axis=1), 0.03, atol=1e-5)
    v, u = np.nonzero(view.labels == 0)
    points = unproject(view.frame.intrinsics, np.stack([u, v], axis=1), view.frame.depth[v, u]) @ T[:3, :3].T + T[:3, 3]
    np.testing.assert_allclose(points[:, 2], 0.0, atol=1e-5)
    assert view.frame.gravity @ T[:3, :3].T == pytest.approx([0, 0, -1])


def test_hulls_are_where_their_corners_are():
    cube = np.array([(x, y, z) for x in (0, 0.06) for y in (0, 0.04) for z in (0, 0.08)])  # off centre on purpose
    T = look_at([0.3, -0.4, 0.5], [0, 0, 0.02])
    depths = []
    for piece in (hull(cube), box((0.06, 0.04, 0.08), (0.03, 0.02, 0.04))):
        world = World([Thing("block", (piece,))], GRIPPER)
        world.place(0, transform(translation=[0.01, 0.02, 0.0]))
        world.mujoco.mj_forward(world.model, world.data)
        depths.append(cast(world, take_view_intrinsics(), T)[0])
    np.testing.assert_allclose(*depths, atol=1e-6)


def take_view_intrinsics():
    from seg_perception.sim.camera import color_intrinsics

    return color_intrinsics(160, 120)


def test_a_hidden_share_is_measured():
    wall = Thing("wall", (box((0.2, 0.01, 0.2), (0, 0, 0.1)),))
    world = standing((BRICK, 0.0, 0.0), (wall, 0.1, -0.1))
    view = take_view(world, look_at([0.0, -0.6, 0.3], [0, 0, 0.02]), 0)
    assert view.visible[1] == 1.0
    assert 0.4 < view.visible[0] < 0.6  # the wall begins at x = 0, before the brick's right half


# -- scenes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_thing_comes_to_rest_on_the_table(kind):
    world = World([random_thing(np.random.default_rng(5), chosen_kinds([kind]))], GRIPPER)
    world.drop(np.random.default_rng(7), 0.02)
    before = world.com(0)
    world.step(0.5)
    assert np.linalg.norm(world.com(0) - before) < 0.003
    assert 0.005 < world.com(0)[2] < 0.12
    assert 0.005 < world.mass(0) < 1.5


def test_meshes_are_things_of_their_parts_hulls(tmp_path):
    cube = [(x, y, z) for x in (0, 0.04) for y in (0, 0.05) for z in (0, 0.06)]
    quads = [(1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (3, 4, 8, 7), (1, 3, 7, 5), (2, 6, 8, 4)]
    corners = cube + [(x + 0.06, y, z) for x, y, z in cube]  # two blocks, 20 mm apart
    lines = [f"v {x} {y} {z}" for x, y, z in corners]
    lines += [f"f {' '.join(str(i + 8 * k) for i in quad)}" for k in range(2) for quad in quads]
    (tmp_path / "blocks.obj").write_text("\n".join(lines))
    thing = mesh_kinds(str(tmp_path))["blocks"](np.random.default_rng(0))
    assert [len(p.corners) for p in thing.pieces] == [8, 8]
    sizes = np.array([np.ptp(p.corners, axis=0) for p in thing.pieces])
    np.testing.assert_allclose(sizes / sizes[0, 2], [[4 / 6, 5 / 6, 1]] * 2, rtol=1e-6)
    assert plain(run(replace(FEW, trials=1, meshes=str(tmp_path))))[0]["thing"] == "blocks"
    with pytest.raises(ValueError, match=r"no 'mug' in .* \(there are blocks\)"):
        mesh_kinds(str(tmp_path), ["mug"])
    (tmp_path / "huge.obj").write_text((tmp_path / "blocks.obj").read_text().replace("0.0", "1.0"))
    with pytest.raises(ValueError, match=r"huge.obj': expected metres"):
        mesh_kinds(str(tmp_path), ["huge"])


def test_a_seed_is_a_scene_and_held_out_seeds_are_others():
    one, same = (make_scene("clutter", 3, GRIPPER) for _ in range(2))
    assert np.array_equal(one.view.labels, same.view.labels)
    assert np.array_equal(one.view.frame.depth, same.view.frame.depth, equal_nan=True)
    other = make_scene("clutter", SPLITS["held_out"] + 3, GRIPPER)
    assert not np.array_equal(one.view.labels, other.view.labels)
    assert 6 <= len(one.world.things) <= 10
    assert all(one.view.visible[t] >= 0.5 for t in one.targets)


def test_what_can_be_picked_at_all_is_found():
    assert find_any(standing((BRICK, 0.0, 0.0)), 0, 0)[1].outcome is Outcome.PICKED
    wide = Thing("wide", (box((0.12, 0.12, 0.1), (0, 0, 0.05)),))  # 85 mm of stroke
    assert find_any(standing((wide, 0.0, 0.0)), 0, 0)[1].outcome is Outcome.NO_GRASP
    assert find_any_seal(standing((wide, 0.0, 0.0)), 0, [CUP], 0)[1].outcome is Outcome.PICKED
    pebble = Thing("pebble", (Piece("sphere", (0.012,), transform(translation=(0, 0, 0.012))),))
    assert find_any_seal(standing((pebble, 0.0, 0.0)), 0, [CUP], 0)[1].outcome is Outcome.NO_GRASP


# -- the benchmark -----------------------------------------------------------------------------------------------------

FEW = Settings(scenes=("single",), trials=3)


def plain(trials):
    """Records without the times."""
    return [{k: v for k, v in t.record.items() if k != "milliseconds"} for found in trials for t in found]


def test_the_same_settings_give_the_same_trials_in_other_processes_too():
    once = plain(run(FEW))
    assert [r["target"] for r in once] == [0, 0, 0]
    assert plain(run(FEW, jobs=2)) == once


def test_easy_things_are_picked_and_a_gripper_too_narrow_for_them_finds_no_grasp():
    rows = summarise(plain_with_times(run(replace(FEW, trials=6, things=("can", "plate")))))
    assert rows[0]["targets"] == 6
    assert rows[0]["picked"] >= 5
    narrow = {"name": "tweezers", "stroke": 0.012, "finger_width": 0.01, "finger_thickness": 0.01}
    narrow |= {"finger_length": 0.05, "tip_beyond_tcp": 0.005, "palm_size": [0.04, 0.06, 0.05]}
    config = yaml.safe_dump({"grasping": {"antipodal": {"gripper": narrow}}})
    rows = summarise(plain_with_times(run(replace(FEW, config=config, things=("can",)))))
    assert rows[0]["outcomes"] == {"no grasp": 3}


def plain_with_times(trials):
    return [t.record for found in trials for t in found]


def test_the_segmenter_s_own_masks_are_matched_to_the_truth():
    settings = replace(FEW, masks="segmenter", things=("can", "box"))
    assert sum(r["picked"] for r in plain(run(settings))) >= 2
    none = replace(
        settings, config=yaml.safe_dump({"segmenter": {"plugin": "tabletop", "min_area": 9.0, "thin_area": 9.0}})
    )
    assert {r["outcome"] for r in plain(run(none))} == {"no mask"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"scenes": ("heap",)}, "scenes: expected one of single, clutter, got 'heap'"),
        ({"split": "test"}, "split: expected one of development, held_out, got 'test'"),
        ({"things": ("mugs",)}, "got 'mugs'"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Settings(**wrong)


def test_intervals_and_calibration():
    assert wilson(81, 100) == pytest.approx((0.7222, 0.8749), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    rng = np.random.default_rng(0)
    base = {"scene": "single", "planner": "p", "thing": "can", "milliseconds": 1.0, "rank": 0, "seed": 0}

    def record(score, picked):
        return {**base, "score": score, "picked": picked, "outcome": "picked" if picked else "missed"}

    honest = [record(s, bool(rng.uniform() < s)) for s in rng.uniform(0, 1, 4000)]
    assert summarise(honest)[0]["calibration_error"] < 0.03
    boasting = [record(0.95, k % 2 == 0) for k in range(100)]
    row = summarise(boasting)[0]
    assert row["calibration_error"] == pytest.approx(0.45)
    assert row["rate"] == 0.5
    assert "| single | p | 100 | 50.0 % | 40.4 to 59.6 % |" in markdown([row])


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_writes_numbers_tables_and_pictures(tmp_path, capsys):
    words = ["pick-bench", "--scenes", "single", "--trials", "2", "--things", "can", "--output", str(tmp_path)]
    own = tmp_path / "mine.yaml"
    own.write_text(
        "stroke: 0.008\nfinger_width: 0.01\nfinger_thickness: 0.01\nfinger_length: 0.05\ntip_beyond_tcp: 0.005\n"
        "palm_size: [0.04, 0.06, 0.05]\n"
    )
    assert main([*words, "--gripper", str(own)]) == 0
    result = json.loads((tmp_path / "pick.json").read_text())
    assert result["rows"][0]["outcomes"] == {"no grasp": 2}
    assert len(result["trials"]) == 2
    assert capsys.readouterr().out == (tmp_path / "pick.md").read_text()
    picture = cv2.imread(str(tmp_path / "failures_single_antipodal.png"))
    assert picture.shape[1] == 2 * 240
    assert picture[:240].std() > 10  # it shows something


def test_ctrl_c_keeps_what_is_there(tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        yield bench.run_scene(FEW, "single", 0)
        raise KeyboardInterrupt

    monkeypatch.setattr("seg_perception.cli.pick_bench.run", interrupted)
    assert main(["pick-bench", "--output", str(tmp_path)]) == 130
    assert len(json.loads((tmp_path / "pick.json").read_text())["trials"]) == 1


def test_the_page_shows_the_published_results():
    page = (ROOT / "docs" / "picking.md").read_text(encoding="utf-8")
    published = json.loads((ROOT / "benchmark" / "pick" / "results.json").read_text(encoding="utf-8"))
    assert published
    for batch in published.values():
        assert markdown(batch["rows"]) in page


def test_the_baseline_closes_across_the_longer_axis_amid_the_points():
    """A bar of 12 x 3 x 4 cm turned by 30 degrees, seen from above with a table 0.6 m below the camera."""
    rng = np.random.default_rng(0)
    turn = np.radians(30)
    bar = rng.uniform([-0.06, -0.015, 0.56], [0.06, 0.015, 0.60], (2000, 3))
    R = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    obj = Object3D(Status.OK, points=(bar @ R.T).astype(np.float32))
    table = Plane(np.array([0.0, 0.0, -1.0]), 0.6)
    (grasp,) = Pca().plan(obj, np.empty((0, 3)), np.array([0.0, 0.0, 1.0]), table)
    assert abs(grasp.T_camera_grasp[:3, 1] @ [-np.sin(turn), np.cos(turn), 0]) > 0.99
    assert_allclose(grasp.T_camera_grasp[:3, 2], [0, 0, 1], atol=1e-9)
    assert_allclose(grasp.T_camera_grasp[:2, 3], [0, 0], atol=0.003)
    assert_allclose(grasp.object_width, 0.03, atol=0.002)
    assert grasp.T_camera_grasp[2, 3] < 0.6
    wide = Object3D(Status.OK, points=(bar * [1, 8, 1]).astype(np.float32))
    assert "wide > 85 mm" in Pca().plan(wide, np.empty((0, 3)), np.array([0.0, 0.0, 1.0]), table).reason
