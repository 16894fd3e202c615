# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A look at what a network puts out, before it is decoded: NaN passes no threshold and would be an empty scene."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

SAMPLE = 1 << 9  # values looked at per output, some of each row of it: where one is NaN, most are


def not_a_number(outputs: Mapping[str, NDArray]) -> str:
    """Which outputs are NaN and to what share, in one line; empty if none is."""
    found = []
    for name, values in outputs.items():
        if values.dtype.kind == "f":
            sample = values.reshape(-1)[:: max(1, values.size // SAMPLE)]
            count = np.count_nonzero(sample != sample)
            if count:
                found.append(f"{name} is NaN to {100 * count / len(sample):.0f} %")
    if not found:
        return ""
    return f"the network's {', '.join(found)}: a float16 overflow? take float32, or export the model anew"
