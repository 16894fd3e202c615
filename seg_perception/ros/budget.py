# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Says when the time for planning does not reach all objects of a frame, once several frames have shown it."""

from __future__ import annotations

from collections import deque

from seg_perception.ros.reports import Reports
from seg_perception.scene import GraspStatus, Scene

LOOK_BACK = 10  # frames
BEGINS, ENDS = 3, 1  # of them with objects left out: from here on it is said, down to here it is over


class BudgetWatch:
    """Looks at each scene of a stream; the problem is called `grasping` in the reports."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._recent: deque[tuple[int, int]] = deque(maxlen=LOOK_BACK)  # objects left out, objects
        self._short = False

    def look(self, scene: Scene, budget: float) -> None:
        """`budget` s were given to plan for `scene`; 0 = any time."""
        left_out = sum(o.grasp_status == GraspStatus.BUDGET for o in scene.objects)
        self._recent.append((left_out, len(scene)))
        frames = sum(n > 0 for n, _ in self._recent)
        self._short = frames >= BEGINS or (self._short and frames > ENDS)
        if not self._short:
            self._reports.solved("grasping")
            return
        worst, objects = max(self._recent)
        self._reports.problem(
            "grasping",
            f"grasping.budget {budget:g} s reaches {objects - worst} of {objects} objects: "
            "raise it, choose fewer planners, or call ~/get_grasps",
        )
