# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How the time after inference grows with instances and resolution, and the node's with cameras."""

from __future__ import annotations

from dataclasses import replace

from seg_perception.bench import Progress, Row, node, silent, stages
from seg_perception.bench.peers import use_one_thread
from seg_perception.bench.samples import make_sample

INSTANCES = (1, 3, 10, 30, 100, 300)
SIZES = ((640, 480), (1280, 720), (1920, 1080), (3840, 2160))  # VGA to 4K
AT = 20  # instances, while the resolution changes
CAMERAS = (1, 2, 4)
SECONDS = 4.0  # of each row of stages


def run(
    rows: list[Row],
    progress: Progress,
    setup: node.Setup | None,
    instances: tuple[int, ...] = INSTANCES,
    sizes: tuple[tuple[int, int], ...] = SIZES,
    seconds: float = SECONDS,
) -> None:
    """Rows of stages with `varies` = instances or resolution, then rows of nodes with `varies` = cameras.

    `setup` is what each camera's node is run with; None leaves the nodes out. Raises ConfigError without ROS 2.
    """
    use_one_thread()
    jobs = [("instances", n, (1280, 720)) for n in instances] + [("resolution", AT, size) for size in sizes]
    for varies, count, size in progress(jobs, len(jobs), "scaling", "row"):
        rows.append({"varies": varies, **stages.measure(make_sample(count, *size), seconds)})
    if setup is None:
        return
    for count in progress(CAMERAS, len(CAMERAS), "cameras", "row"):
        found: list[Row] = []
        try:
            node.run(found, silent, replace(setup, nodes=count, empty=False))
        finally:
            rows += [{"varies": "cameras", "cameras": count, "camera_of": k, **row} for k, row in enumerate(found)]
