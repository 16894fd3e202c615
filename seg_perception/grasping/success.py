# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How likely a candidate picks the object: two logistic models of the evidence, fitted to simulated picks.

The first says whether the approach touches nothing, the second whether what is closed upon is held and lifted.
Fitted by `python benchmark/fit_grasps.py` on development seeds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seg_perception.grasping import evidence as e


def signs(known: NDArray[np.float64], friction: float) -> dict[str, NDArray[np.float64]]:
    """What the models weigh, each about 0..1, of evidence `known` (K, 16) for pads of that `friction`."""
    t = known.T
    normal_seen = np.isfinite(t[e.NORMAL])
    normal = np.where(normal_seen, t[e.NORMAL], 1.0)
    hidden = t[e.OWN_HIDDEN]
    tight = np.exp(-t[e.GAP] / e.TIGHT)
    return {
        "touch": t[e.TOUCH],
        "off_3d": np.minimum(t[e.OFF_3D], 0.1) / 0.03,
        "shallow": np.exp(-t[e.DEPTH] / 0.01),
        "unfilled": np.exp(-t[e.FILL] / 0.005),
        "room": t[e.GAP] / 0.018,
        "tight": tight,
        "taper": np.clip(t[e.TAPER] * 0.6 / friction - 0.4, 0.0, 1.0),
        "own_hidden": hidden,
        "foreign_hidden": t[e.FOREIGN_HIDDEN],
        "palm_hidden": t[e.PALM_HIDDEN],
        "near": np.exp(-t[e.CLEARANCE] / e.NEARLY),
        "tilt": t[e.TILT],
        "width": t[e.JAWS] / 0.085,
        "bad_normal": np.maximum(0.0, 0.95 - normal) / 0.5,
        "no_normal": 1.0 - normal_seen,
        "toward": t[e.TOWARD],
        "low": np.exp(-t[e.OVER] / 0.01),
        "toward_hidden": t[e.TOWARD] * hidden,
        "toward_tight": t[e.TOWARD] * tight,
    }


FREE: dict[str, float] = {
    "always": 3.756,
    "touch": 0.435,
    "shallow": 0.52,
    "unfilled": -0.984,
    "room": 1.03,
    "tight": -2.867,
    "taper": -0.512,
    "own_hidden": -13.34,
    "foreign_hidden": -8.77,
    "palm_hidden": -20.146,
    "near": -3.788,
    "tilt": -1.311,
    "width": 1.108,
    "toward": -1.316,
    "low": 0.219,
    "toward_hidden": 8.92,
    "toward_tight": 2.952,
}
HOLDS: dict[str, float] = {
    "always": 1.977,
    "touch": 3.667,
    "off_3d": -0.631,
    "shallow": -5.299,
    "unfilled": -3.931,
    "taper": -8.328,
    "foreign_hidden": -2.907,
    "width": 2.324,
    "bad_normal": -0.344,
    "no_normal": -1.215,
}


def probability(known: NDArray[np.float64], friction: float) -> NDArray[np.float64]:
    """(K,) that the pick succeeds."""
    all_signs = signs(known, friction)
    free, holds = (logistic(all_signs, model) for model in (FREE, HOLDS))
    return free * holds


def logistic(values: dict[str, NDArray[np.float64]], model: dict[str, float]) -> NDArray[np.float64]:
    """Probabilities (K,) of a `model`, a weight for each of `values` and one for always."""
    total = sum((weight * values[name] for name, weight in model.items() if name != "always"), model["always"])
    return np.asarray(1.0 / (1.0 + np.exp(-total)))
