# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From a network's outputs and depth to labels, points and moments: ours, the floor, and what others would use."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seg_perception.bench import Progress, Row, floors, peers
from seg_perception.bench.peers import Outcome
from seg_perception.bench.samples import Sample, make_sample
from seg_perception.bench.timing import interleaved
from seg_perception.geometry import ray_table
from seg_perception.memory import freed_memory_kept

COUNTS = (1, 20, 100, 300)
SECONDS = 15.0  # of each row
DIFFERENT = 1e-3  # share of label pixels that two methods may see differently: they round otherwise
APART = 1e-3  # m, centroids: of a small mask, a pixel more or less counts


def run(rows: list[Row], progress: Progress, counts: tuple[int, ...] = COUNTS, seconds: float = SECONDS) -> None:
    """One row per number of instances; one thread. Raises ValueError when two methods disagree about the result."""
    peers.use_one_thread()
    for count in progress(counts, len(counts), "kernels", "row"):
        rows.append(measure(make_sample(count), seconds))


@freed_memory_kept()  # as the node does; all methods gain from it
def measure(sample: Sample, seconds: float) -> Row:
    """All methods on one sample, taking turns."""
    methods = {"ours": peers.ours(sample), "numpy": peers.expert_numpy(sample), "opencv": peers.opencv(sample)}
    if peers.installed("torch"):
        methods["torch"] = peers.torch_regions(sample)
    truth = methods["ours"]()
    for name, method in methods.items():
        check(name, method(), truth)
    pixels = sum(len(points) for points in truth.points)
    others = {"floor": _floor(sample, truth), "read": _read(sample, truth.labels), "fused": peers.whole_fusion(sample)}
    if peers.installed("torch", "ultralytics"):
        others["ultralytics"] = peers.ultralytics_masks(sample)
    ms = interleaved({**methods, **others}, seconds)
    row: Row = {"instances": len(sample.boxes), "threads": 1, "pixels": pixels}
    for name in ("ours", "floor", "numpy", "opencv", "torch"):
        row[f"{name}_ms"] = round(ms[name], 4) if name in ms else None
    row["with_cleaning_ms"] = round(ms["fused"], 4)
    row["memory_read_ms"] = round(ms["read"], 4)
    row["ultralytics_masks_ms"] = round(ms["ultralytics"], 4) if "ultralytics" in ms else None
    return row


def check(name: str, found: Outcome, truth: Outcome) -> None:
    """Raises ValueError when a method has not done the same work."""
    different = np.count_nonzero(found.labels != truth.labels) / max(np.count_nonzero(truth.labels), 1)
    apart = float(np.abs(found.means - truth.means).max())
    if different > DIFFERENT or apart > APART:
        raise ValueError(f"{name}: {different:.2%} of the label pixels differ from ours, centroids by {apart:.6f} m")


def _floor(sample: Sample, truth: Outcome):  # type: ignore[no-untyped-def]
    """As many pixels as all points, in one piece."""
    count = sum(len(points) for points in truth.points)
    depth = sample.depth.reshape(-1)[:count].copy()
    rays = ray_table(sample.intrinsics).reshape(-1, 2)[:count].copy()
    out = np.empty((count, 3), np.float32)
    return lambda: floors.deproject(depth, rays, out)


def _read(sample: Sample, labels: NDArray[np.uint16]):  # type: ignore[no-untyped-def]
    """Depth and label image once."""
    words = [np.ascontiguousarray(a).reshape(-1).view(np.uint64) for a in (sample.depth, labels)]
    return lambda: [floors.read(w) for w in words]
