# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`tabletop`: finds what stands on support surfaces from depth alone, without a network.

Everything is measured in inverse depth, in units of the image's own noise (see docs/tabletop.md): supports ->
foreground -> local planes -> smooth patches -> convex merging -> rules for lids, handles, hollow and half hidden ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seg_perception.geometry import ray_table
from seg_perception.masks import Masks
from seg_perception.options import option, section
from seg_perception.scene import Frame, Instances
from seg_perception.segmenters.geometric.foreground import Foreground, find_foreground
from seg_perception.segmenters.geometric.holes import fill_bowls, fill_object_holes
from seg_perception.segmenters.geometric.local_planes import fit_local_planes
from seg_perception.segmenters.geometric.merging import find_contacts, merge_convex
from seg_perception.segmenters.geometric.objects import choose_objects, stand_on
from seg_perception.segmenters.geometric.patches import split_patches
from seg_perception.segmenters.geometric.segments import Segments, join_behind, join_hollow, join_thin
from seg_perception.segmenters.geometric.statistics import measure
from seg_perception.support import SupportConfig, Supports, search_supports
from seg_perception.surfaces.inverse_depth import fill_holes, inverse_depth


@dataclass(frozen=True)
class TabletopConfig:
    """What counts as an object, and where one object ends."""

    support: SupportConfig = section(SupportConfig, "surfaces that objects stand on")
    min_height: float = option(0.016, "lowest object", unit="m", ge=0.001, live=True)
    min_area: float = option(3e-4, "smallest object, as the camera sees it", unit="m^2", ge=0, live=True)
    thin_height: float = option(0.006, "lowest thin object, e.g. a book", unit="m", ge=0.001, live=True)
    thin_area: float = option(15e-4, "smallest thin object", unit="m^2", ge=0, live=True)
    margin: float = option(0.03, "how far objects reach over a support's edge", unit="m", ge=0, le=0.5, live=True)
    bend: float = option(34.0, "surfaces are cut where they bend by more", unit="deg", ge=5, le=120, live=True)
    concave: float = option(
        12.0, "pieces meeting at a deeper inner edge are two objects", unit="deg", ge=0, le=90, live=True
    )
    joined_share: float = option(
        0.35, "pieces are one object only if this share of their border is without a depth step", ge=0, le=1, live=True
    )
    step: float = option(6.0, "depth steps, in times the noise of inverse depth", ge=1, le=50, live=True)


class Tabletop:
    """Segments what stands on support surfaces. Needs depth and intrinsics; finds nothing without."""

    Config = TabletopConfig
    class_names = ("object",)

    def __init__(self, config: TabletopConfig | None = None) -> None:
        self.config = config or TabletopConfig()

    def with_config(self, config: TabletopConfig) -> Tabletop:
        return Tabletop(config)

    def segment(self, frame: Frame) -> Instances:
        """Class-agnostic instances, with the supports they stand on."""
        if frame.depth is None or frame.intrinsics is None:
            return Instances.empty(frame.height, frame.width)
        c = self.config
        rays = ray_table(frame.intrinsics)
        w = fill_holes(inverse_depth(frame.depth, c.support.min_depth, c.support.max_depth))
        if frame.ignore is not None:
            w[frame.ignore] = 0
        supports = search_supports(w, rays, c.support, frame.gravity)
        if not supports.carrying:
            return Instances.empty(frame.height, frame.width)
        noise = supports.noise
        found = find_foreground(
            w, rays, supports.carrying, 3 * noise, 6 * noise, c.thin_height, c.support.max_height, c.margin
        )
        focal = (frame.intrinsics.fx + frame.intrinsics.fy) / 2
        labels, segments = self._segments(w, rays, found, noise, focal)
        return _instances(labels, segments, w, rays, found, supports, c)

    def _segments(
        self, w: NDArray[np.float32], rays: NDArray[np.float32], found: Foreground, noise: float, focal: float
    ) -> tuple[NDArray[np.int32], Segments]:
        c, step = self.config, self.config.step * noise
        planes, normals = fit_local_planes(w, rays, found.mask, 8 * noise, focal)
        labels, count = split_patches(w, planes, normals, found.mask, step, np.radians(c.bend), focal)
        contacts = find_contacts(labels, count, w, rays, planes, step, focal)
        patches = measure(labels, count, w, rays, planes, normals, found, step, c.support.max_height, focal)
        merged = merge_convex(contacts, np.radians(c.concave), c.joined_share)
        segments = Segments.of(merged, patches, contacts)
        segments = join_hollow(segments)
        segments = join_thin(segments, focal)
        return labels, join_behind(segments, labels, w, noise)


def _instances(
    labels: NDArray[np.int32],
    segments: Segments,
    w: NDArray[np.float32],
    rays: NDArray[np.float32],
    found: Foreground,
    supports: Supports,
    c: TabletopConfig,
) -> Instances:
    """The segments that are objects: first those that rise, then thin ones that are not inside of these."""
    chosen = choose_objects(labels, segments, w, rays, supports.noise, c)
    tall = segments.without(~chosen.tall)
    image = fill_bowls(tall.of_patch[labels], labels, tall)
    image = fill_object_holes(image, tall.count, w, found.mask)
    image, scores = chosen.with_thin(image, labels, segments)
    ids, planes = stand_on(image, len(scores), w, rays, found, supports)
    return Instances.of(Masks.from_label_image(image, len(scores)), scores, supports=planes, support_ids=ids)
