# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Masks and depth to objects: clean points, centroid, oriented box, and a status for every object without.

docs/fusion.md says what each step is for and how well it works.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception import clusters, outlines
from seg_perception import points as kernels
from seg_perception.geometry import oriented_box, ray_table, transform
from seg_perception.options import option
from seg_perception.scene import Frame, Instances, Object3D, OrientedBox, Plane, Status
from seg_perception.support import support_under

SUPPORT_REACH = 0.012  # m; what differs more from the support is something else
CORE = 6  # of 8 neighbours agree inside a surface; a rim two pixels wide has none such
TOUCHING, FOOT = 3, 0.006  # pixels on the support under the mask, and how far above them the rest may begin, m
FLAT = 0.15  # share of pixels well above the support that makes an object of them
NOISY = 0.0003  # m; depth this smooth has no outliers
SAMPLE, BOX_SAMPLE = 512, 6000  # points that decide on the support and that the box is fitted to
NO_PLANE = np.full(4, np.nan)
NO_MASK = np.empty((0, 0), np.bool_)


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
    focal = min(frame.intrinsics.fx, frame.intrinsics.fy)
    steps = np.array([np.tan(np.radians(config.grazing)) / focal, 4 * config.noise], np.float32)
    fusion = _Fusion(frame, frame.depth, ray_table(frame.intrinsics), config, steps)
    surfaces = tuple(instances.supports if supports is None else supports)
    known = [instances.supports[i] if i >= 0 else None for i in instances.support_ids]
    return [
        fusion.lift(masks.spans_of(i), roi, bool(at_border[i]), known[i], surfaces)
        for i, roi in enumerate(masks.rois.astype(np.int64))
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _Fusion:
    """What all objects of a frame share."""

    frame: Frame
    depth: NDArray[np.float32]
    rays: NDArray[np.float32]
    config: FusionConfig
    steps: NDArray[np.float32]

    def lift(
        self,
        spans: NDArray[np.int32],
        roi: NDArray[np.int64],
        at_border: bool,
        known: Plane | None,
        surfaces: Sequence[Plane],
    ) -> Object3D:
        """One mask's object."""
        c, depth = self.config, self.depth
        ignore = NO_MASK if self.frame.ignore is None else self.frame.ignore
        z, kind, counts = kernels.depth_under_mask(depth, spans, roi, ignore, c.min_depth, c.max_depth)
        agreeing = kernels.agreement(z, self.steps)
        places = outlines.rim(kind, agreeing)
        keep = (agreeing >= c.min_agreeing) & (kind == kernels.USABLE)
        support = known or _support_of(z, keep, self.rays, roi, surfaces)
        foot, limit, noise, plane, touching = 0.0, 0.0, NOISY, NO_PLANE, False
        if support is not None:
            plane = support.coefficients
            foot, noise = self._foot(z, kind, places, roi, plane)
            limit = foot + 3 * noise + c.support_margin
            above, well_above = kernels.above_support(z, keep, self.rays, roi, plane, limit)
            total, left = int(np.count_nonzero(keep)), int(np.count_nonzero(above))
            touching = total - left >= TOUCHING
            if np.count_nonzero(well_above) > FLAT * total:  # else it is so flat that it is left whole
                keep = above
        keep = self._object(z, kind, agreeing, keep, roi, plane, limit)
        count = int(np.count_nonzero(keep))
        status, text = _status(counts, count, at_border, c)
        seen: dict[str, Any] = {
            "touches_border": at_border,
            "occluded_ratio": float(outlines.occluded_ratio(places, kind, depth, roi, self.steps)),
            "valid_depth_ratio": _usable(counts) / max(1, int(counts[kernels.TOTAL])),
        }
        if not status.has_3d:
            return Object3D(status, text, **seen)
        points = kernels.points_of(keep, z, self.rays, roi, count, -(-count // BOX_SAMPLE))
        outliers = c.outliers * min(1.0, noise / NOISY)
        box, completed, top = self._box(points, support, foot, limit + (FOOT if touching else 0.0), outliers)
        centroid, spread = kernels.moments(keep, kind, z, self.rays, roi)
        solid = outlines.away_from_steps(places, keep, kind, depth, roi, self.steps) if c.erode else keep
        if np.count_nonzero(solid) < max(0.35 * count, c.min_points):  # thin: nothing is away from its edges
            solid = keep
        count = int(np.count_nonzero(solid))
        points = kernels.points_of(solid, z, self.rays, roi, count, 1)
        return Object3D(
            status,
            text,
            points=points,
            colors=kernels.colors_of(solid, self.frame.color, roi, len(points)),
            centroid=centroid,
            covariance=_covariance(spread, len(points), centroid, c.noise),
            box=box,
            box_completed=completed,
            support=support,
            height_above_support=top,
            **seen,
        )

    def _object(
        self, z: NDArray, kind: NDArray, agreeing: NDArray, keep: NDArray, roi: NDArray, plane: NDArray, limit: float
    ) -> NDArray[np.bool_]:
        """The pixels of `keep` that are the object: its largest solid piece, that piece's rim, and other parts."""
        c = self.config
        core = keep & (agreeing >= CORE)
        if 3 * np.count_nonzero(core) < np.count_nonzero(keep):  # thin, or full of holes
            core = keep
        labels, n = clusters.clusters(z, core, self.steps)
        if not n:
            return core
        body = clusters.grown(z, clusters.largest(labels, n), keep, self.steps)
        rest = keep & ~body
        least = max(c.part_share * np.count_nonzero(body), 1.0)
        if np.count_nonzero(rest) < least:
            return body
        labels, n = clusters.clusters(z, rest, self.steps)
        return clusters.with_parts(
            body, z, kind, labels, n, self.depth, self.rays, roi, plane, limit, self.steps, c.part_gap, least
        )

    def _foot(self, z: NDArray, kind: NDArray, places: NDArray, roi: NDArray, plane: NDArray) -> tuple[float, float]:
        """Height m of the support over its plane, for depth cameras bend planes, and its noise m, as seen around it."""
        level, noise = outlines.support_beside(places, kind, self.depth, self.rays, roi, plane, SUPPORT_REACH)
        if np.isfinite(level):
            return float(level), float(noise)
        usable = z[kind == kernels.USABLE]
        return 0.0, self.config.noise * float(np.median(usable)) ** 2 if len(usable) else 0.0

    def _box(
        self, points: NDArray, support: Plane | None, foot: float, limit: float, outliers: float
    ) -> tuple[OrientedBox, bool, float]:
        """The box, whether it was extended down, and the height of its top above the support.

        It is extended to the level `foot` when it ends less than the configured gap above the height `limit`.
        """
        c, gravity = self.config, self.frame.gravity
        up = support.normal if support is not None else -gravity if gravity is not None else None
        box = oriented_box(points, up, outliers)
        if support is None:
            return box, False, float("nan")
        middle, half = float(support.heights(box.T_camera_box[:3, 3])), box.size[2] / 2
        bottom, top = middle - half, middle + half
        if not c.complete_gap or top <= foot or bottom > limit + c.complete_gap:
            return box, False, top
        centre = box.T_camera_box[:3, 3] + ((foot + top) / 2 - middle) * support.normal
        T = transform(box.T_camera_box[:3, :3], centre)
        return OrientedBox(T, np.array([box.size[0], box.size[1], top - foot])), True, top


def _support_of(z: NDArray, keep: NDArray, rays: NDArray, roi: NDArray, surfaces: Sequence[Plane]) -> Plane | None:
    """The surface that carries what is seen, of those known."""
    if not surfaces:
        return None
    count = int(np.count_nonzero(keep))
    points = kernels.points_of(keep, z, rays, roi, count, max(1, count // SAMPLE))
    index = support_under(points, surfaces)
    return surfaces[index] if index >= 0 else None


def _usable(counts: NDArray[np.int64]) -> int:
    return int(counts[kernels.TOTAL] - counts[kernels.NAN] - counts[kernels.NEAR] - counts[kernels.FAR])


def _status(counts: NDArray[np.int64], kept: int, cut: bool, config: FusionConfig) -> tuple[Status, str]:
    """Why there is 3D or not, in numbers."""
    missing, near, far, ignored, total = (int(n) for n in counts)
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


def _covariance(
    spread: NDArray[np.float64], count: int, centroid: NDArray[np.float64], noise: float
) -> NDArray[np.float64]:
    """(3, 3) m^2 of the centroid: the depth noise along the ray and the points' `spread`, over the number of pixels
    that tell something new: a stereo camera's noise is alike over about 5x5 of them."""
    independent = max(1.0, count / 25.0)
    ray = centroid / centroid[2]
    sigma = noise * centroid[2] ** 2
    return (spread + np.outer(ray, ray) * sigma**2) / independent


def _touching_border(instances: Instances) -> NDArray[np.bool_]:
    masks = instances.masks
    x, y, w, h = masks.rois.T
    return (w > 0) & ((x == 0) | (y == 0) | (x + w == masks.width) | (y + h == masks.height))
