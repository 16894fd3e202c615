# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Fits the model in `seg_perception/grasping/suction.py` to seals checked on development seeds, and prints it.

python benchmark/fit_cups.py --first 420 --count 40
"""

from __future__ import annotations

import argparse

import numpy as np
from fit_grasps import COLLISIONS, fit

from seg_perception.geometry import rotation_with_z, transform
from seg_perception.grasping import cups
from seg_perception.grasping.gripper import load_jaws
from seg_perception.grasping.planning import Asked
from seg_perception.grasping.suction import Suction, signs
from seg_perception.grasping.weight import columns
from seg_perception.pipeline import Pipeline, gravity_of
from seg_perception.sim.picking.bench import _Seen
from seg_perception.sim.picking.scenes import SPLITS, make_scene
from seg_perception.sim.picking.seal import check_seal
from seg_perception.sim.picking.trial import Outcome

CUPS = ("suction_6", "suction_10", "suction_16", "suction_20")
SEAL_SIGNS = ("uncovered", "rough", "uneven", "bulge", "narrow")
CARRY_SIGNS = ("load",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="first development seed")
    parser.add_argument("--count", type=int, default=40, help="scenes of each kind")
    parser.add_argument("--places", type=int, default=10, help="places per target and cup")
    options = parser.parse_args()
    pipeline, jaws = Pipeline.from_config({}), load_jaws("robotiq_2f_85")
    values: dict[str, list[float]] = {name: [] for name in (*SEAL_SIGNS, *CARRY_SIGNS)}
    outcomes: list[Outcome] = []
    for kind in ("single", "clutter"):
        for seed in range(options.first, options.first + options.count):
            scene = make_scene(kind, SPLITS["development"] + seed, jaws)
            if scene is None:
                continue
            seen = _Seen.of(scene, pipeline, "truth")
            for target in scene.targets:
                obj = seen.scene.objects[target]
                if not obj.status.has_3d:
                    continue
                up = -gravity_of(seen.scene.frame, obj.support or seen.scene.support)
                scene.world.reset()
                weight = columns(np.asarray(obj.points, np.float64), up)
                for name in CUPS:
                    planner = Suction(Suction.Config(gripper=name))
                    (cup,) = planner.cups
                    asked = Asked.of(obj, seen.points.without(target), 0.0, cups.FEWEST)
                    some = np.random.default_rng((seed, target)).integers(0, len(asked.points), options.places)
                    rows = cups.surfaces(asked.points, asked.points[some], cup.cup_radius)
                    for row in rows[rows[:, cups.COVERED] >= 0.6]:
                        approach = planner.approach(row, -up, cup)
                        if approach is None:
                            continue
                        T = transform(rotation_with_z(approach), row[cups.X : cups.NX])
                        T_world_grasp = scene.view.T_world_camera @ T
                        outcome = check_seal(scene.world, target, T_world_grasp, cup).outcome
                        if outcome not in COLLISIONS:
                            outcomes.append(outcome)
                            for sign, value in signs(row[None], cup, weight, up).items():
                                values[sign].append(float(value[0]))
            print(f"{kind} {seed}: {len(outcomes)} places", flush=True)
    signals = {name: np.array(numbers) for name, numbers in values.items()}
    sealed = np.array([outcome != Outcome.NO_SEAL for outcome in outcomes])
    carried = np.array([outcome.success for outcome in outcomes])
    print("SEALS =", fit(signals, sealed.astype(float), SEAL_SIGNS))
    signals = {name: numbers[sealed] for name, numbers in signals.items()}
    print("CARRIES =", fit(signals, carried[sealed].astype(float), CARRY_SIGNS))


if __name__ == "__main__":
    main()
