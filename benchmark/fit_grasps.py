# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Fits the models in `seg_perception/grasping/success.py` to simulated picks on development seeds, and prints them.

python benchmark/fit_grasps.py --first 0 --count 60
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from seg_perception.grasping import success
from seg_perception.grasping.antipodal import Antipodal, Task
from seg_perception.pipeline import Pipeline, gravity_of
from seg_perception.sim.picking.bench import _Seen
from seg_perception.sim.picking.bound import _free
from seg_perception.sim.picking.scenes import SPLITS, PickScene, make_scene
from seg_perception.sim.picking.trial import Outcome, execute

FREE_SIGNS = (
    "touch", "shallow", "unfilled", "room", "tight", "taper", "own_hidden", "foreign_hidden", "palm_hidden", "near",
    "tilt", "width", "toward", "low", "toward_hidden", "toward_tight",
)  # fmt: skip
HOLD_SIGNS = (
    "touch", "off_3d", "shallow", "unfilled", "taper", "foreign_hidden", "width", "bad_normal", "no_normal",
)  # fmt: skip
COLLISIONS = (Outcome.HITS_TARGET, Outcome.HITS_OTHER, Outcome.HITS_TABLE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", default="clutter,single")
    parser.add_argument("--first", type=int, default=0, help="first development seed")
    parser.add_argument("--count", type=int, default=60, help="scenes of each kind")
    parser.add_argument("--looked", type=int, default=40, help="candidates per target looked at for collisions")
    parser.add_argument("--tried", type=int, default=3, help="candidates per target carried out")
    parser.add_argument("--data", help="file to keep what was found out in, .npz")
    parser.add_argument("--from-data", nargs="*", help="fit to kept files instead")
    options = parser.parse_args()
    if options.from_data:
        kept = [np.load(path) for path in options.from_data]
        looked, tried = (np.concatenate([k[name] for k in kept]) for name in ("looked", "tried"))
    else:
        seeds = range(SPLITS["development"] + options.first, SPLITS["development"] + options.first + options.count)
        looked, tried = collect(options.scenes.split(","), seeds, options.looked, options.tried, options.data)
    friction = Antipodal().gripper.friction
    print("FREE =", fit(success.signs(looked[:, :-1], friction), looked[:, -1], FREE_SIGNS))
    held = tried[tried[:, -1] >= 0]
    print("HOLDS =", fit(success.signs(held[:, :-1], friction), held[:, -1], HOLD_SIGNS))


def collect(kinds, seeds, looked_at, carried_out, keep):  # type: ignore[no-untyped-def]
    """Evidence and whether the way was free (1, 0); evidence and whether it held (1, 0; -1 = collided)."""
    planner, pipeline = Antipodal(), Pipeline.from_config({})
    looked: list[NDArray] = []
    tried: list[NDArray] = []
    for kind in kinds:
        for seed in seeds:
            scene = make_scene(kind, seed, planner.gripper)
            for target, task in tasks(scene, planner, pipeline) if scene else ():
                rng = np.random.default_rng((seed, target))
                found = [task.candidates(approach) for approach in task.approaches()]
                places = [(f, i) for f in found for i in range(len(f.scores))]
                merits = np.array([f.scores[i] for f, i in places])
                order = np.argsort(-(merits + rng.normal(0, 0.25, len(merits))), kind="stable")
                for n, k in enumerate(order[:looked_at]):
                    f, i = places[k]
                    grasp = task.grasp(f, i, task.pose(f.T, f.rows[i]))
                    T = scene.view.T_world_camera @ grasp.T_camera_grasp
                    scene.world.reset()
                    looked.append(np.append(f.known[i], _free(scene.world, T, grasp.width)))
                    if n < carried_out:
                        outcome = execute(scene.world, target, T, grasp).outcome
                        tried.append(np.append(f.known[i], -1 if outcome in COLLISIONS else outcome.success))
                scene.world.reset()
            print(f"{kind} {seed}: {len(looked)} looked at, {len(tried)} carried out", flush=True)
            if keep and looked:
                np.savez(keep, looked=np.array(looked), tried=np.array(tried))
    return np.array(looked), np.array(tried)


def tasks(scene: PickScene, planner: Antipodal, pipeline: Pipeline) -> Iterator[tuple[int, Task]]:
    """Every target of a scene as the planner sees it."""
    seen = _Seen.of(scene, pipeline, "truth")
    for target in scene.targets:
        obj = seen.scene.objects[target]
        up = -gravity_of(seen.scene.frame, obj.support or seen.scene.support)
        task = planner.task(obj, seen.points.without(target), up, obj.support)
        if not task.nothing:
            yield target, task


def fit(signs: dict[str, NDArray], success: NDArray, names: tuple[str, ...], ridge: float = 0.5) -> dict[str, float]:
    """Weights of a logistic model by Newton's method, with a little ridge on standardised signs."""
    X = np.stack([signs[name] for name in names], axis=1)
    mean, spread = X.mean(axis=0), X.std(axis=0) + 1e-9
    Z = np.column_stack([np.ones(len(X)), (X - mean) / spread])
    penalty = np.diag([0.0, *np.full(len(names), ridge)])
    w = np.zeros(Z.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-Z @ w))
        step = np.linalg.solve((Z * (p * (1 - p))[:, None]).T @ Z + penalty, Z.T @ (p - success) + penalty @ w)
        w -= step
        if np.abs(step).max() < 1e-9:
            break
    weights = w[1:] / spread
    print(f"# {len(success)} picks, {success.mean():.1%} good")
    return {
        "always": round(float(w[0] - weights @ mean), 3),
        **dict(zip(names, weights.round(3).tolist(), strict=True)),
    }


if __name__ == "__main__":
    main()
