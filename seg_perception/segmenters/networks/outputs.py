# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A look at what a network puts out, before it is decoded: NaN passes no threshold and would be an empty scene."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

SAMPLE = 1 << 16  # values looked at per output; where one is NaN, most are


def not_a_number(outputs: Mapping[str, NDArray]) -> str:
    """Which outputs are NaN and to what share, in one line; empty if none is."""
    found = []
    for name, values in outputs.items():
        if values.dtype.kind == "f":
            flat = values.reshape(-1)
            share = float(np.isnan(flat[:: max(1, len(flat) // SAMPLE)]).mean()) if len(flat) else 0.0
            if share > 0:
                found.append(f"{name} is NaN to {100 * share:.0f} %")
    if not found:
        return ""
    return f"the network's {', '.join(found)}: a float16 overflow? take float32, or export the model anew"
