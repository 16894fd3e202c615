# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`tabletop`: finds what stands on support surfaces from depth alone, without a network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seg_perception.geometry import ray_table
from seg_perception.masks import Masks
from seg_perception.options import option, section
from seg_perception.scene import Frame, Instances
from seg_perception.segmenters.geometric.foreground import find_foreground
from seg_perception.segmenters.geometric.local_planes import fit_local_planes
from seg_perception.segmenters.geometric.merging import find_contacts, merge_convex
from seg_perception.segmenters.geometric.patches import split_patches
from seg_perception.segmenters.geometric.segments import (
    Segments,
    absorb_small,
    drop_low,
    join_behind,
    join_hollow,
    join_tiny,
)
from seg_perception.segmenters.geometric.statistics import measure
from seg_perception.support import SupportConfig, search_supports
from seg_perception.surfaces.inverse_depth import fill_holes, inverse_depth


@dataclass(frozen=True)
class TabletopConfig:
    """What counts as an object."""

    support: SupportConfig = section(SupportConfig, "surfaces that objects stand on")
    min_height: float = option(0.006, "lowest object", unit="m", ge=0.001, live=True)
    margin: float = option(0.05, "how far objects reach over a support's edge", unit="m", ge=0, le=0.5, live=True)


class Tabletop:
    """Segments what stands on support surfaces. Needs depth and intrinsics; finds nothing without."""

    Config = TabletopConfig
    class_names = ("object",)

    def __init__(self, config: TabletopConfig | None = None) -> None:
        self.config = config or TabletopConfig()

    def segment(self, frame: Frame) -> Instances:
        nothing = Instances.empty(frame.height, frame.width)
        if frame.depth is None or frame.intrinsics is None:
            return nothing
        config = self.config
        rays = ray_table(frame.intrinsics)
        focal = (frame.intrinsics.fx + frame.intrinsics.fy) / 2
        w = fill_holes(inverse_depth(frame.depth, config.support.min_depth, config.support.max_depth))
        if frame.ignore is not None:
            w[frame.ignore] = 0
        supports = search_supports(w, rays, config.support, frame.gravity)
        if not supports.carrying:
            return nothing
        noise = supports.noise
        found = find_foreground(
            w, rays, supports.carrying, 3 * noise, 6 * noise, config.min_height, config.support.max_height, config.margin
        )
        planes, normals = fit_local_planes(w, rays, found.mask, 8 * noise, focal)
        labels, count = split_patches(w, planes, normals, found.mask, 6 * noise, np.radians(34), focal)
        contacts = find_contacts(labels, count, w, rays, planes, normals, 6 * noise, focal)
        segment = merge_convex(contacts, np.radians(12), 0.35)
        known = measure(
            labels, count, w, rays, normals, found.height, found.ceiling, config.support.max_height, focal
        )
        segments = Segments(segment, known, contacts)
        segments = segments._renumbered(segment)
        segments = join_tiny(segments, 40)
        segments = absorb_small(segments)
        segments = join_hollow(segments)
        segments = absorb_small(segments)
        segments = drop_low(segments, 0.016)
        segments = join_behind(segments, labels, w, noise)
        segments = segments.without(segments.statistics.pixels < 150)
        self.debug = dict(w=w, found=found, planes=planes, normals=normals, labels=labels, segments=segments, supports=supports)
        return Instances.of(Masks.from_label_image(segments.of_patch[labels]))
