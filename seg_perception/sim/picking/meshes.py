# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Things from mesh files. Each connected part of a mesh counts as its convex hull, for the camera as for physics, so
decompose what is hollow or bent into convex parts first (e.g. with CoACD, one part each in the same file)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from seg_perception.geometry import matrix_from_quaternion
from seg_perception.plugins import require
from seg_perception.sim.picking.things import Piece, Thing, hull

SUFFIXES = (".obj", ".stl")
SIDES = (0.015, 0.40)  # m, the longest side of what lies on a table
SCALE = (0.85, 1.15)  # of the file's size, at random


def mesh_kinds(folder: str, names: Sequence[str] = ()) -> dict[str, Callable[[np.random.Generator], Thing]]:
    """Makers of things from the meshes (metres) in a folder, by file name; `names` chooses. Raises ValueError: no such
    mesh, or one that is no table-top thing."""
    files = {path.stem: path for path in sorted(Path(folder).expanduser().iterdir()) if path.suffix in SUFFIXES}
    missing = [name for name in names if name not in files]
    if missing or not files:
        known = ", ".join(files) or f"no {' or '.join(SUFFIXES)} file"
        raise ValueError(f"meshes: no '{', '.join(missing)}' in {folder} (there are {known})")
    return {name: _maker(name, _pieces(str(files[name]))) for name in names or files}


def _maker(name: str, pieces: tuple[Piece, ...]) -> Callable[[np.random.Generator], Thing]:
    def make(rng: np.random.Generator) -> Thing:
        scale = rng.uniform(*SCALE)
        return Thing(name, tuple(hull(piece.corners * scale) for piece in pieces))

    return make


@lru_cache(maxsize=256)
def _pieces(path: str) -> tuple[Piece, ...]:
    mujoco: Any = require("mujoco", "sim")
    asset = f'<mesh name="m" file={quoteattr(str(Path(path).resolve()))} inertia="convex"/>'
    world = '<worldbody><geom type="mesh" mesh="m"/></worldbody>'
    try:
        model = mujoco.MjModel.from_xml_string(f"<mujoco><asset>{asset}</asset>{world}</mujoco>")
    except ValueError as error:
        raise ValueError(f"mesh '{path}': cannot be read: {' '.join(str(error).split())}") from error
    w, x, y, z = model.mesh_quat[0]  # MuJoCo has turned it onto its axes of inertia; z is to be the file's
    corners = model.mesh_vert.astype(np.float64) @ matrix_from_quaternion([x, y, z, w]).T + model.mesh_pos[0]
    faces = np.asarray(model.mesh_face)
    longest = float(np.ptp(corners, axis=0).max())
    if not SIDES[0] <= longest <= SIDES[1]:
        raise ValueError(f"mesh '{path}': expected metres, {SIDES[0]} to {SIDES[1]} long, got {longest:.3g}")
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(len(corners), len(corners)))
    count, part = connected_components(graph, directed=False)
    sizes = np.bincount(part, minlength=count)
    return tuple(hull(corners[part == k]) for k in np.flatnonzero(sizes >= 4))
