# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A look at what a network puts out, before it is decoded: NaN passes no threshold and would be an empty scene."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numba import njit
from numpy.typing import NDArray

WHOLE = 1 << 20  # values, an output of up to so many is read as a whole
SAMPLE = 1 << 9  # values looked at in a larger one, some of each row: where one is NaN, most are


def not_a_number(outputs: Mapping[str, NDArray]) -> str:
    """Which outputs are NaN and to what share, in one line; empty if none is.

    Reading them in order also brings them near the processor, for the decoder, which reads here and there.
    """
    found = []
    for name, values in outputs.items():
        if values.dtype.kind == "f" and values.size:
            looked_at = values.reshape(-1)
            if values.dtype == np.float32 and values.size <= WHOLE:
                count = _count(looked_at)
            else:
                looked_at = looked_at[:: values.size // SAMPLE | 1]
                count = np.count_nonzero(np.isnan(looked_at))
            if count:
                found.append(f"{name} is NaN to {100 * count / len(looked_at):.0f} %")
    if not found:
        return ""
    return f"the network's {', '.join(found)}: a float16 overflow? take float32, or export the model anew"


@njit(cache=True, nogil=True)
def _count(values):  # type: ignore[no-untyped-def]
    count = 0
    for i in range(len(values)):
        count += values[i] != values[i]
    return count
