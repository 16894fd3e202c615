# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A simulated RGB-D camera: a closed loop of frames with everything known about what is in them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import invert, unproject
from seg_perception.scene import Frame, Intrinsics, OrientedBox
from seg_perception.sim.cache import FrameCache
from seg_perception.sim.motion import MOTIONS, moved_scene, orbit
from seg_perception.sim.noise import NOISE_MODELS, sensor_depth
from seg_perception.sim.render import Rendering, render
from seg_perception.sim.scene import GRAVITY_WORLD, SimScene, demo_scene

COLOR_NOISE = 1.6  # grey levels, standard deviation
FRAME_ID = "camera_color_optical_frame"


@dataclass(frozen=True, slots=True, eq=False)
class ObjectTruth:
    """What is true of one object in one frame. `box` is the true box of the whole object, camera frame, axes along the
    object's own; `pixels` it has in the instances image."""

    label: int
    name: str
    T_camera_object: NDArray[np.float64]
    box: OrientedBox
    pixels: int

    @property
    def visible(self) -> bool:
        return self.pixels > 0


@dataclass(frozen=True, slots=True, eq=False)
class SimFrame:
    """One frame and its truth: `instances` (H, W) uint16 labels, 0 = none; `T_world_camera` (4, 4)."""

    frame: Frame
    instances: NDArray[np.uint16]
    T_world_camera: NDArray[np.float64]
    objects: tuple[ObjectTruth, ...]


def color_intrinsics(width: int, height: int) -> Intrinsics:
    """The calibration of a D435's color camera at that size: 42.5 degrees of vertical view."""
    focal = 615.0 * height / 480.0
    return Intrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


class SimCamera:
    """A loop of `frames` rendered frames: `camera.frame(k)`, k of any size.

    `motion` "still": the camera rests while the light changes, a mug turns, a ball rolls and a can is pushed;
    "moving": the camera swings around the table, the things rest; both end where they began. `noise` names a depth
    sensor of `sim.noise`. The same arguments give the same frames. Frames are rendered when asked for, or ahead of
    time by `start()`, on `threads` cores (0 = all), and kept on disk for the next run unless `cache` is False (a path:
    there). Without noise nothing is kept on disk. Raises ValueError for bad arguments.
    """

    def __init__(
        self,
        width: int = 640,
        height: int = 480,
        motion: str = "still",
        noise: str = "d435",
        frames: int = 60,
        seed: int = 0,
        scene: SimScene | None = None,
        cache: bool | Path = True,
        threads: int = 0,
    ) -> None:
        if motion not in MOTIONS:
            raise ValueError(f"motion: expected one of {', '.join(MOTIONS)}, got {motion!r}")
        if noise not in NOISE_MODELS:
            raise ValueError(f"noise: expected one of {', '.join(NOISE_MODELS)}, got {noise!r}")
        if frames < 1:
            raise ValueError(f"frames: expected at least 1, got {frames}")
        self.intrinsics = color_intrinsics(width, height)
        self.motion, self.noise, self.seed = motion, noise, seed
        self.scene = scene or demo_scene()
        self._threads = threads
        self._count = frames
        self._frames: dict[int, SimFrame] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        key = (self.intrinsics, motion, noise, frames, seed, self.scene.description)
        self._cache = FrameCache.of(key, cache) if cache and noise != "none" else None

    def __len__(self) -> int:
        return self._count

    def frame(self, k: int) -> SimFrame:
        """Frame k of the loop, rendered now if it was not."""
        k %= self._count
        if k in self._frames:
            return self._frames[k]
        with self._lock:  # two callers must not render the same frame
            if k not in self._frames:
                self._frames[k] = self._make(k)
            return self._frames[k]

    @property
    def ready(self) -> int:
        """How many frames from the first one on are there without waiting."""
        k = 0
        while k in self._frames:
            k += 1
        return k

    def start(self) -> None:
        """Renders the whole loop in the background, in order."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._render_all, name="sim_camera", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Returns when the background work is done."""
        if self._thread is not None:
            self._thread.join()

    def stop(self) -> None:
        """Ends the background work after the frame in hand."""
        self._stop.set()
        self.wait()

    def T_world_camera(self, k: int) -> NDArray[np.float64]:
        """Where the camera is in frame k, (4, 4)."""
        return orbit(self._phase(k)) if self.motion == "moving" else orbit(0.0)

    def scene_at(self, k: int) -> SimScene:
        """The scene as it is in frame k."""
        return moved_scene(self.scene, self._phase(k)) if self.motion == "still" else self.scene

    def exact(self, k: int) -> Rendering:
        """Frame k without any noise."""
        return render(self.scene_at(k), self.intrinsics, self.T_world_camera(k), self._threads)

    def _phase(self, k: int) -> float:
        return (k % self._count) / self._count

    def _render_all(self) -> None:
        for k in range(self._count):
            if self._stop.is_set():
                return
            self.frame(k)

    def _make(self, k: int) -> SimFrame:
        images = self._cache.load(k) if self._cache else None
        if images is None:
            images = self._take(k)
            if self._cache:
                self._cache.save(k, images)
        T = self.T_world_camera(k)
        gravity = T[:3, :3].T @ GRAVITY_WORLD
        frame = Frame(images.color, images.depth, self.intrinsics, FRAME_ID, gravity=gravity)
        return SimFrame(frame, images.instances, T, truths(self.scene_at(k), images.instances, T))

    def _take(self, k: int) -> Rendering:
        exact = self.exact(k)
        if self.noise == "none":
            return exact
        rng = np.random.default_rng((self.seed, k))
        grain = rng.standard_normal(exact.color.shape, np.float32) * np.float32(COLOR_NOISE)
        color = np.clip(exact.color + grain + 0.5, 0, 255).astype(np.uint8)
        depth = sensor_depth(exact.depth, self.intrinsics, (self.seed, k, 1), self.noise)
        return Rendering(color, depth, exact.instances)


def truths(
    scene: SimScene, instances: NDArray[np.uint16], T_world_camera: NDArray[np.float64]
) -> tuple[ObjectTruth, ...]:
    """What is true of each object of the scene in that frame, in the order of their labels."""
    counts = np.bincount(instances.ravel(), minlength=len(scene.objects) + 1)
    T_camera_world = invert(T_world_camera)
    return tuple(
        ObjectTruth(
            label,
            body.name,
            T_camera_world @ body.T_world_body,
            OrientedBox(T_camera_world @ body.box.T_camera_box, body.box.size),
            int(counts[label]),
        )
        for label, body in enumerate(scene.objects, start=1)
    )


def visible_truth(
    rendering: Rendering, intrinsics: Intrinsics, label: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (3,) and points (M, 3) m, camera frame, of the seen surface of one object, exactly. Raises ValueError."""
    v, u = np.nonzero(rendering.instances == label)
    if not len(u):
        raise ValueError(f"label: no pixel of {label} in this rendering")
    points = unproject(intrinsics, np.stack([u, v], axis=1), rendering.depth[v, u])
    return points.mean(axis=0), points
