# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How well trackers keep identities on simulated sequences, and what they cost: the tables in docs/tracking.md.

python benchmark/tracking.py [--seeds 3] [--trackers iou3d,bytetrack] [--sequences moving,calls]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from seg_perception.fusion import fuse
from seg_perception.geometry import ray_table, transform
from seg_perception.masks import Masks
from seg_perception.scene import Frame, Instances, Intrinsics, Object3D
from seg_perception.sim import color_intrinsics, look_at, random_scene, sensor_depth
from seg_perception.sim.motion import orbit
from seg_perception.sim.objects import Body
from seg_perception.sim.raycast import trace_rows
from seg_perception.sim.render import _parts, _rects  # without the picture, a frame takes a tenth of the time
from seg_perception.sim.scene import SimScene
from seg_perception.sim.shapes import Look, box
from seg_perception.smoothing import Smoother, SmoothingConfig
from seg_perception.support import SupportConfig, find_supports
from seg_perception.tracking.bytetrack import ByteTrack
from seg_perception.tracking.iou3d import Iou3D
from seg_perception.tracking.scores import TrackScore, score_tracks

INTRINSICS = color_intrinsics(320, 240)
LEAST = 60  # px; less of an object is not found
MISSES = 0.05  # share of objects that the segmenter overlooks, at random
PERIOD = 1 / 15  # s
FRAMES = 60
SMALL = ("tea", "sponge", "soup_can", "soda_can", "mug", "ball", "lemon")  # twenty fit on the table
TRACKERS: dict[str, Callable[[], Iou3D | ByteTrack]] = {"iou3d": Iou3D, "bytetrack": ByteTrack}


@dataclass(frozen=True)
class Moment:
    """The world at one frame: what is there, where the camera is."""

    bodies: tuple[Body, ...]
    T_world_camera: NDArray[np.float64]
    seconds: float
    others: tuple[Body, ...] = ()  # there, but not segmented


@dataclass(frozen=True)
class Sighting:
    """What a tracker is given, and the true names of the rows."""

    frame: Frame
    instances: Instances
    objects: Sequence[Object3D]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Story:
    """A story: `moments(seed)`, and what the tracker is told."""

    doc: str
    moments: Callable[[int], Iterator[Moment]]
    fixed: bool = True  # the camera's pose is known
    depth: bool = True
    sensor: str = "d435"


# -- stories -----------------------------------------------------------------------------------------------------------


def things(seed: int, count: int = 10) -> tuple[Body, ...]:
    return random_scene(seed, count).objects


def moving(seed: int) -> Iterator[Moment]:
    bodies = things(seed)
    for k in range(FRAMES):
        yield Moment(bodies, orbit(2 * k / FRAMES), k * PERIOD)


def still(seed: int) -> Iterator[Moment]:
    bodies = things(seed)
    for k in range(FRAMES):
        yield Moment(bodies, orbit(0.0), k * PERIOD)


def occlusion(seed: int) -> Iterator[Moment]:
    """A tall box goes through between camera and things, there and back, while the camera moves."""
    bodies = things(seed)
    arm = Body("arm", (box((0.14, 0.06, 0.40), Look((60, 60, 60)), centre=(0, 0, 0.2)),))
    for k in range(FRAMES):
        x = 0.45 * np.cos(2 * np.pi * k / FRAMES)
        yield Moment(bodies, orbit(k / FRAMES), k * PERIOD, (arm.at(x, -0.33, 0.03),))


def coming_and_going(seed: int) -> Iterator[Moment]:
    """Every tenth frame a thing is taken away, and three frames later another is put down in its place."""
    rng = np.random.default_rng(seed)
    there, spare = list(things(seed)), [replace(b, name=f"new_{b.name}") for b in things(seed + 50)]
    free: list[tuple[int, NDArray[np.float64]]] = []
    for k in range(FRAMES):
        if k % 10 == 5:
            gone = there.pop(int(rng.integers(len(there))))
            free.append((k + 4, gone.T_world_body[:3, 3]))
        if free and free[0][0] == k:
            _, (x, y, _) = free.pop(0)
            there.append(spare.pop().at(x, y, yaw=rng.uniform(0, 360)))
        yield Moment(tuple(there), orbit(2 * k / FRAMES), k * PERIOD)


def pushed(seed: int) -> Iterator[Moment]:
    """One thing after the other is pushed 12 cm away at 0.3 m/s."""
    rng = np.random.default_rng(seed)
    there = list(things(seed, 8))
    for k in range(FRAMES):
        if k % 6 == 0:
            row, way = int(rng.integers(len(there))), rng.uniform(0, 2 * np.pi)
        step = transform(translation=[0.02 * np.cos(way), 0.02 * np.sin(way), 0.0])
        there[row] = replace(there[row], T_world_body=step @ there[row].T_world_body)
        yield Moment(tuple(there), orbit(2 * k / FRAMES), k * PERIOD)


def calls(seed: int) -> Iterator[Moment]:
    """Twenty calls, minutes apart, each from somewhere else; in between a thing is nudged, one taken, one brought."""
    rng = np.random.default_rng(seed)
    there, spare = list(things(seed)), [replace(b, name=f"new_{b.name}") for b in things(seed + 50)]
    now = 0.0
    for k in range(20):
        turn, high = rng.uniform(-1.1, 1.1), rng.uniform(0.5, 0.8)
        eye = [0.75 * np.sin(turn), -0.75 * np.cos(turn), high]
        yield Moment(tuple(there), look_at(eye), now)
        now += float(rng.uniform(20, 400))
        row, way = int(rng.integers(len(there))), rng.uniform(0, 2 * np.pi)
        nudge = transform(translation=[0.04 * np.cos(way), 0.04 * np.sin(way), 0.0])
        there[row] = replace(there[row], T_world_body=nudge @ there[row].T_world_body)
        if k % 3 == 2:
            gone = there.pop(int(rng.integers(len(there))))
            x, y, _ = gone.T_world_body[:3, 3]
            waiting = spare.pop()
        if k % 3 == 0 and k:
            there.append(waiting.at(x, y))


SEQUENCES = {
    "moving": Story("the camera swings around the table twice", moving),
    "occlusion": Story("something passes between moving camera and things", occlusion),
    "coming and going": Story("things taken away, others put in their place", coming_and_going),
    "pushed": Story("one thing after the other pushed at 0.3 m/s", pushed),
    "calls": Story("calls minutes apart, each from another side, things nudged, taken, brought", calls),
    "moving, pose unknown": Story("as the first, T_fixed_camera not given", moving, fixed=False),
    "occlusion, pose unknown": Story("as the second, T_fixed_camera not given", occlusion, fixed=False),
    "still, no depth": Story("color only, the camera rests", still, fixed=False, depth=False),
    "moving, no depth": Story("color only, the camera moves", moving, fixed=False, depth=False),
}


# -- what the camera sees ----------------------------------------------------------------------------------------------


def trace(
    scene: SimScene, k: Intrinsics, T_world_camera: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Exact depth (H, W) m, NaN = nothing, and labels (H, W)."""
    parts, segments = _parts(scene)
    shape = (k.height, k.width)
    depth, part, face = np.empty(shape), np.empty(shape, np.int32), np.zeros(shape, np.int32)
    R, eye = (np.ascontiguousarray(T_world_camera[:3, i]) for i in (slice(0, 3), 3))
    rects = _rects(parts, k, T_world_camera)
    trace_rows(parts, segments, rects, ray_table(k), R, eye, 0, k.height, depth, part, face)
    hit = part >= 0
    labels = np.where(hit, parts["label"][part], 0).astype(np.uint16)
    return np.where(hit, depth, np.nan).astype(np.float32), labels


def sightings(sequence: Story, seed: int) -> Iterator[Sighting]:
    """The story as a segmenter with the exact masks, but for misses, and fusion hand it to a tracker."""
    rng = np.random.default_rng((seed, 7))
    furniture = random_scene(seed, 1).furniture
    blank = np.zeros((INTRINSICS.height, INTRINSICS.width, 3), np.uint8)
    for k, moment in enumerate(sequence.moments(seed)):
        scene = SimScene(moment.bodies, (*furniture, *moment.others))
        depth, labels = trace(scene, INTRINSICS, moment.T_world_camera)
        masks = Masks.from_label_image(labels, len(moment.bodies))
        found = (masks.areas >= LEAST) & (rng.uniform(size=len(masks)) >= MISSES)
        rows = rng.permutation(np.flatnonzero(found))  # a segmenter's order says nothing
        instances = Instances.of(masks[rows])
        frame = Frame(
            blank,
            sensor_depth(depth, INTRINSICS, (seed, k), sequence.sensor) if sequence.depth else None,
            INTRINSICS,
            stamp_ns=round(moment.seconds * 1e9),
            T_fixed_camera=moment.T_world_camera if sequence.fixed else None,
        )
        objects = fuse(frame, instances, None, find_supports(frame, SupportConfig(), masks))
        yield Sighting(frame, instances, objects, tuple(moment.bodies[i].name for i in rows))


def follow(tracker: Iou3D | ByteTrack, sequence: Sequence[Sighting]) -> list[dict[str, int]]:
    """The ids by true name, frame by frame."""
    return [dict(zip(s.names, tracker.update(s.frame, s.instances, s.objects).tolist(), strict=True)) for s in sequence]


def cost(tracker: Iou3D | ByteTrack, objects: int = 20, frames: int = 100) -> NDArray[np.float64]:
    """Seconds of each update with that many objects in view, 1280x720, (frames,)."""
    k = color_intrinsics(1280, 720)
    scene = random_scene(0, objects, area=(0.50, 0.36), names=SMALL)
    shots = []
    for i in range(4):
        T = orbit(i / 40)
        depth, labels = trace(scene, k, T)
        instances = Instances.of(Masks.from_label_image(labels, objects))
        frame = Frame(np.zeros((k.height, k.width, 3), np.uint8), depth, k, T_fixed_camera=T)
        shots.append((frame, instances, fuse(frame, instances)))
    seconds = []
    for i in range(frames):
        start = time.perf_counter()
        tracker.update(*shots[(0, 1, 2, 3, 2, 1)[i % 6]])
        seconds.append(time.perf_counter() - start)
    return np.array(seconds)


def steadiness(sequence: Story, seeds: int, config: SmoothingConfig) -> NDArray[np.float64]:
    """How much the values of each object change from frame to frame, median over its frames, (objects, 4): centroid,
    box centre, largest of the sizes in mm, yaw in deg, in the fixed frame."""
    rows = []
    for seed in range(seeds):
        tracker, smoother = Iou3D(), Smoother()
        values: dict[str, list[NDArray[np.float64]]] = {}
        for sight in sightings(sequence, seed):
            ids = tracker.update(sight.frame, sight.instances, sight.objects)
            named = [replace(o, id=int(i)) for o, i in zip(sight.objects, ids, strict=True)]
            T = sight.frame.T_fixed_camera
            for name, obj in zip(sight.names, smoother.smooth(sight.frame, named, config), strict=True):
                if obj.status.has_3d and T is not None:
                    box = T @ obj.box.T_camera_box
                    yaw = np.arctan2(box[1, 0], box[0, 0])
                    centroid = T[:3, :3] @ obj.centroid + T[:3, 3]
                    values.setdefault(name, []).append(np.concatenate([centroid, box[:3, 3], obj.box.size, [yaw]]))
        for history in values.values():
            steps = np.diff(np.array(history), axis=0)
            turns = np.abs((steps[:, 9] + np.pi) % (2 * np.pi) - np.pi)
            lengths = [np.linalg.norm(steps[:, i : i + 3], axis=1) * 1e3 for i in (0, 3)]
            sizes = np.abs(steps[:, 6:9]).max(axis=1) * 1e3
            rows.append([np.median(v) for v in (*lengths, sizes, np.rad2deg(turns))])
    return np.array(rows)


def print_steadiness(seeds: int) -> None:
    """The table in docs/tracking.md, section Smoothing."""
    print("| camera | smoothing | centroid [mm] | box centre [mm] | box size [mm] | yaw [deg] |\n" + "|---" * 6 + "|")
    for name, moments in (("still", still), ("moving", moving)):
        for frames in (1, SmoothingConfig().frames):
            rows = steadiness(Story("", moments), seeds, SmoothingConfig(frames=frames))
            cells = [f"{np.median(c):.2f} ({np.quantile(c, 0.9):.2f})" for c in rows.T]
            label = "none" if frames == 1 else f"{frames} frames"
            print(f"| {name} | {label} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="scenes per sequence")
    parser.add_argument("--trackers", default=",".join(TRACKERS))
    parser.add_argument("--sequences", default="", help="names, default all")
    parser.add_argument("--steadiness", action="store_true", help="only the table of smoothing")
    args = parser.parse_args()
    if args.steadiness:
        print_steadiness(args.seeds)
        return
    names = args.sequences.split(";") if args.sequences else list(SEQUENCES)
    print("| sequence | tracker | objects | sightings | IDF1, mean / worst | id switches | fragments | shared ids |")
    print("|---" * 8 + "|")
    for name in names:
        stories = [list(sightings(SEQUENCES[name], seed)) for seed in range(args.seeds)]
        for tracker in args.trackers.split(","):
            scores: list[TrackScore] = [score_tracks(follow(TRACKERS[tracker](), story)) for story in stories]
            idf1 = [s.idf1 for s in scores]
            sums = [sum(getattr(s, key) for s in scores) for key in ("objects", "sightings")]
            ends = [sum(getattr(s, key) for s in scores) for key in ("switches", "fragments", "shared")]
            cells = (name, tracker, *sums, f"{np.mean(idf1):.3f} / {np.min(idf1):.3f}", *ends)
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    print("\n| tracker | median of 20 objects, 1280x720 [ms] | 95 % [ms] |\n|---|---|---|")
    for tracker in args.trackers.split(","):
        seconds = cost(TRACKERS[tracker]())
        print(f"| {tracker} | {np.median(seconds) * 1e3:.2f} | {np.quantile(seconds, 0.95) * 1e3:.2f} |", flush=True)


if __name__ == "__main__":
    main()
