#!/usr/bin/env python3
# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Lays out mesh files for the pick benchmark: the 1000 random things of PyBullet's data (zlib licence), in metres.

They are random unions of a few convex solids, made for grasping experiments. The package is fetched with pip and not
installed; the first 500 things are for development, the others for held-out seeds.

benchmark/pick/meshes.py meshes && seg-perception pick-bench --scenes single --meshes meshes/development
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "pybullet==3.2.7"
FOLDER, COUNT = "pybullet_data/random_urdfs", 1000
SIDES = (0.015, 0.40)  # m, what pick-bench takes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where development and held_out are to be")
    parser.add_argument("--wheel", type=Path, help="the package, if it is at hand")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        wheel = options.wheel or fetched(Path(scratch))
        with zipfile.ZipFile(wheel) as package:
            for k in range(COUNT):
                split = "development" if k < COUNT // 2 else "held_out"
                write(package, f"{k:03d}", options.folder / split)


def fetched(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", folder, PACKAGE], check=True)
    return next(folder.glob("*.whl"))


def write(package: zipfile.ZipFile, name: str, folder: Path) -> None:
    """The mesh `name` scaled as its description says, vertices and faces only."""
    text = package.read(f"{FOLDER}/{name}/{name}.urdf").decode()
    scale = [float(v) for v in re.search(r'scale="([^"]+)"', text)[1].split()]
    vertices, faces = [], []
    for line in package.read(f"{FOLDER}/{name}/{name}.obj").decode().splitlines():
        words = line.split()
        if words[:1] == ["v"]:
            vertices.append([float(v) * s for v, s in zip(words[1:4], scale, strict=True)])
        elif words[:1] == ["f"]:
            faces.append([word.split("/")[0] for word in words[1:]])
    longest = max(max(axis) - min(axis) for axis in zip(*vertices, strict=True))
    if not SIDES[0] <= longest <= SIDES[1]:
        print(f"{name}: left out, {longest:.3f} m long")
        return
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices] + [f"f {' '.join(face)}" for face in faces]
    (folder / f"{name}.obj").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
