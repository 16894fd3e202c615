# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Masks and depth to objects: clean points, centroid, oriented box, and a status for every object without.

docs/fusion.md says what each step is for and how well it works.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from seg_perception import points as kernels
from seg_perception.geometry import oriented_box, ray_planes, ray_table
from seg_perception.lifting import Lifted, Rules, lift
from seg_perception.options import option
from seg_perception.process import usable_cores
from seg_perception.scene import Frame, Instances, Intrinsics, Object3D, OrientedBox, Plane, Status

NO_MASK = np.empty((0, 0), np.bool_)
UNKNOWN_UP = np.full(3, np.nan)
MOST_THREADS = 4  # that are taken unasked
STEEPEST = 100.0  # x/z, y/z; what a lens' coefficients send farther off is nonsense
SHARE = 10_000  # px, less is not worth another thread


@dataclass(frozen=True)
class FusionConfig:
    """How points are cleaned, and what is made of them."""

    min_depth: float = option(0.15, "nearest depth used", unit="m", ge=0, live=True)
    max_depth: float = option(2.0, "farthest depth used", unit="m", ge=0, live=True)
    min_points: int = option(30, "fewer points than this after cleaning are no 3D", ge=1, live=True)
    min_valid_ratio: float = option(0.3, "an object with depth on less of its mask is PARTIAL", ge=0, le=1, live=True)
    grazing: float = option(
        80.0, "neighbours on a surface steeper to the line of sight belong to two", unit="deg", ge=0, le=89, live=True
    )
    min_agreeing: int = option(3, "a pixel flies when fewer of its 8 neighbours have its depth", ge=0, le=8, live=True)
    part_gap: float = option(0.05, "farther in depth from the largest cluster is no part", unit="m", ge=0, live=True)
    part_share: float = option(
        0.002, "smaller than this share of the largest cluster is no part", ge=0, le=1, live=True
    )
    smooth: bool = option(True, "noisy depth is averaged over 3x3 pixels where these are one surface", live=True)
    erode: bool = option(True, "leave pixels beside a depth step out of the cloud", live=True)
    support_margin: float = option(
        0.001, "mask pixels this near the support, beside 3 times its noise, are support", unit="m", ge=0, live=True
    )
    noise: float = option(0.0015, "depth noise at 1 m, grows with the square of depth", unit="m", ge=0, live=True)
    outliers: float = option(
        0.0015, "share of points outside each side of the box, where depth has noise", ge=0, le=0.2, live=True
    )
    complete_gap: float = option(
        0.002,
        "the box is extended down to the support when what is seen ends less than this above it; 0 = never, "
        "1 = always, e.g. for a camera that looks straight down and sees no sides",
        unit="m",
        ge=0,
        live=True,
    )

    threads: int = option(
        0, "threads that share the objects of a frame; 0 = half of the cores, at most 4", ge=0, le=16, live=True
    )

    def __post_init__(self) -> None:
        if self.min_depth >= self.max_depth:
            raise ValueError(f"expected min_depth < max_depth, got {self.min_depth} and {self.max_depth}")


def fuse(
    frame: Frame, instances: Instances, config: FusionConfig | None = None, supports: Sequence[Plane] | None = None
) -> list[Object3D]:
    """One object per instance, in the camera frame; those without 3D are empty and say why.

    `supports` (default: the instances' own) are surfaces objects may stand on. Raises ValueError when the masks are
    not of the frame's size.
    """
    masks = instances.masks
    if len(masks) and (masks.height, masks.width) != (frame.height, frame.width):
        raise ValueError(
            f"masks: expected {frame.height}x{frame.width} like the image, got {masks.height}x{masks.width}"
        )
    at_border = _touching_border(instances)
    if frame.no_3d is not None or frame.depth is None or frame.intrinsics is None:
        status, text = frame.no_3d or (Status.NO_DEPTH_IMAGE, "")
        return [Object3D(status, text, touches_border=bool(b)) for b in at_border]
    config = config or FusionConfig()
    surfaces = tuple(instances.supports if supports is None else supports)
    planes = (*surfaces, *instances.supports)
    lifted = _lift(frame, instances, config, planes, len(surfaces))
    return _objects(lifted, planes, at_border, config)


def _lift(frame: Frame, instances: Instances, config: FusionConfig, planes: Sequence[Plane], candidates: int) -> Lifted:
    """What the kernels find. The first `candidates` of `planes` may carry any object, the others are the instances'."""
    assert frame.depth is not None
    assert frame.intrinsics is not None
    masks, gravity = instances.masks, frame.gravity
    out = Lifted.of(masks.areas, gravity is not None)
    known = instances.support_ids.astype(np.int64)
    shared = (
        frame.depth,
        frame.color,
        ray_planes(frame.intrinsics),
        not frame.intrinsics.is_distorted,
        _hidden(frame.intrinsics, frame.ignore),
        masks.spans,
        masks.offsets,
        masks.rois,
        np.array([plane.coefficients for plane in planes]).reshape(-1, 4),
        candidates,
        np.where(known >= 0, known + candidates, -1),
        UNKNOWN_UP if gravity is None else -gravity,
        _rules(config, min(frame.intrinsics.fx, frame.intrinsics.fy)),
    )
    shares = _shares(out.start, min(_threads(config.threads), 1 + len(out.points) // SHARE))
    others = [_workers().submit(lift, *shared, first, last, out) for first, last in shares[1:]]
    lift(*shared, *shares[0], out)
    for other in others:
        other.result()
    return out


def _hidden(intrinsics: Intrinsics, ignore: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """`ignore`, or (0, 0) for none; and pixels that the lens' coefficients send nowhere."""
    nowhere = _without_ray(intrinsics)
    if not nowhere.size:
        return NO_MASK if ignore is None else ignore
    return nowhere if ignore is None else nowhere | ignore


@lru_cache(maxsize=4)
def _without_ray(intrinsics: Intrinsics) -> NDArray[np.bool_]:
    """(H, W) pixels whose ray is not finite; (0, 0) if none is."""
    nowhere = ~(np.abs(ray_table(intrinsics)) < STEEPEST).all(axis=2)
    return nowhere if nowhere.any() else NO_MASK


def _shares(start: NDArray[np.int64], parts: int) -> list[tuple[int, int]]:
    """Ranges of masks that hold about as many pixels each, given the pixels before each mask."""
    if parts == 1 or len(start) < 2:
        return [(0, len(start))]
    cuts = np.searchsorted(start, start[-1] * np.arange(1, parts) / parts).tolist()
    return list(zip([0, *cuts], [*cuts, len(start)], strict=True))


def _threads(asked: int) -> int:
    return asked or max(1, min(MOST_THREADS, usable_cores() // 2))


@cache
def _workers() -> ThreadPoolExecutor:
    """Threads begin as they are needed."""
    return ThreadPoolExecutor(16, thread_name_prefix="fusion")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork
    os.register_at_fork(after_in_child=_workers.cache_clear)


def _rules(c: FusionConfig, focal: float) -> Rules:
    return Rules(
        near=c.min_depth,
        far=c.max_depth,
        steps=np.array([np.tan(np.radians(c.grazing)) / focal, 4 * c.noise], np.float32),
        min_agreeing=c.min_agreeing,
        min_points=c.min_points,
        part_gap=c.part_gap,
        part_share=c.part_share,
        smooth=c.smooth,
        erode=c.erode,
        support_margin=c.support_margin,
        noise=c.noise,
        outliers=c.outliers,
    )


def _objects(found: Lifted, planes: Sequence[Plane], at_border: NDArray[np.bool_], c: FusionConfig) -> list[Object3D]:
    """One object per row."""
    covariances = _covariances(found, c.noise)
    boxes = _Boxes(found, planes, c.complete_gap)
    starts, stops = found.start.tolist(), (found.start + found.size).tolist()
    objects = []
    rows = zip(
        found.counts.tolist(),
        found.kept.tolist(),
        found.support.tolist(),
        found.occluded.tolist(),
        at_border.tolist(),
        strict=True,
    )
    for i, (counts, kept, support, occluded, cut) in enumerate(rows):
        status, text = _status(counts, kept, cut, c)
        valid = _usable(counts) / max(1, counts[kernels.TOTAL])
        if not status.has_3d:
            objects.append(Object3D(status, text, touches_border=cut, occluded_ratio=occluded, valid_depth_ratio=valid))
            continue
        objects.append(
            Object3D(
                status,
                text,
                points=found.points[starts[i] : stops[i]],
                colors=found.colors[starts[i] : stops[i]],
                centroid=found.centroid[i],
                covariance=covariances[i],
                box=boxes.boxes[i],
                box_completed=boxes.completed[i],
                support=planes[support] if support >= 0 else None,
                height_above_support=boxes.tops[i],
                valid_depth_ratio=valid,
                touches_border=cut,
                occluded_ratio=occluded,
            )
        )
    return objects


class _Boxes:
    """The boxes of all rows, whether they were extended down, and the heights of their tops above the support.

    A box is extended to the level `foot` when it ends less than the configured gap above the height `limit`.
    """

    def __init__(self, found: Lifted, planes: Sequence[Plane], complete_gap: float) -> None:
        c, s = np.cos(found.angle)[:, None], np.sin(found.angle)[:, None]
        x, y, z = found.frame[:, :, 0], found.frame[:, :, 1], found.frame[:, :, 2]
        T = np.zeros((len(x), 4, 4))
        T[:, 3, 3] = 1.0
        R = T[:, :3, :3]
        R[:, :, 0], R[:, :, 1], R[:, :, 2] = c * x + s * y, c * y - s * x, z
        size = found.high - found.low
        centre = np.einsum("nij,nj->ni", R, (found.low + found.high) / 2)
        d = np.array([plane.d for plane in planes] + [np.nan])[found.support]
        middle = np.einsum("ni,ni->n", z, centre) + d
        bottom, top = middle - size[:, 2] / 2, middle + size[:, 2] / 2
        with np.errstate(invalid="ignore"):
            completed = (complete_gap > 0) & (top > found.foot) & (bottom <= found.limit + complete_gap)
        rise = np.where(completed, (found.foot + top) / 2 - middle, 0.0)
        T[:, :3, 3] = centre + rise[:, None] * z
        size[:, 2] = np.where(completed, top - found.foot, size[:, 2])
        self.boxes = [OrientedBox(T[i], size[i]) for i in range(len(T))]
        self.completed, self.tops = completed.tolist(), top.tolist()
        for i in np.flatnonzero(found.samples):
            points = found.sample[i, :, : found.samples[i]].T
            self.boxes[i] = oriented_box(points, None, float(found.outliers[i]))


def _covariances(found: Lifted, noise: float) -> NDArray[np.float64]:
    """(N, 3, 3) m^2 of the centroids: the depth noise along the ray and the points' spread, over the number of pixels
    that tell something new: a stereo camera's noise is alike over about 5x5 of them."""
    independent = np.maximum(1.0, found.size / 25.0)
    depth = np.maximum(found.centroid[:, 2], 1e-6)
    ray = found.centroid / depth[:, None]
    along = ray[:, :, None] * ray[:, None, :] * (noise * depth**2)[:, None, None] ** 2
    return (found.spread + along) / independent[:, None, None]


def _usable(counts: Sequence[int]) -> int:
    return counts[kernels.TOTAL] - counts[kernels.NAN] - counts[kernels.NEAR] - counts[kernels.FAR]


def _status(counts: Sequence[int], kept: int, cut: bool, config: FusionConfig) -> tuple[Status, str]:
    """Why there is 3D or not, in numbers."""
    missing, near, far, ignored, total = counts
    usable = total - missing - near - far
    if not total:
        why = f"all {ignored} pixels of the mask are in the ignore mask" if ignored else "the mask has no pixel"
        return Status.EMPTY_MASK, why
    if kept < config.min_points:
        if usable < config.min_points and max(near, far) >= max(missing, 1):
            if near >= far:
                return Status.TOO_NEAR, f"{near} of {total} mask pixels are nearer than {config.min_depth:g} m"
            return Status.TOO_FAR, f"{far} of {total} mask pixels are beyond {config.max_depth:g} m"
        if not usable:
            return Status.NO_VALID_DEPTH, f"none of {total} mask pixels has depth"
        return (
            Status.TOO_FEW_POINTS,
            f"{kept} points left of {usable} pixels with depth ({total} in the mask), {config.min_points} needed",
        )
    reasons = []
    if usable < config.min_valid_ratio * total:
        reasons.append(f"only {usable / total:.0%} of the mask has depth")
    if cut:
        reasons.append("cut by the image's border")
    if max(near, far) > 0.05 * total:
        side = f"nearer than {config.min_depth:g} m" if near > far else f"beyond {config.max_depth:g} m"
        reasons.append(f"{max(near, far) / total:.0%} of it is {side}")
    return (Status.PARTIAL, ", ".join(reasons)) if reasons else (Status.OK, "")


def _touching_border(instances: Instances) -> NDArray[np.bool_]:
    masks = instances.masks
    x, y, w, h = masks.rois.T
    return (w > 0) & ((x == 0) | (y == 0) | (x + w == masks.width) | (y + h == masks.height))
