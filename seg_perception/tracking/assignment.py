# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Who is who: the one-to-one assignment of tracks to instances that agrees best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

FORBIDDEN = -1e6  # below any sum of affinities


def assign(affinity: NDArray[np.float64], allowed: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pairs with the largest sum of `affinity` (M, N), only pairs that are `allowed` (M, N)."""
    rows, columns = linear_sum_assignment(np.where(allowed, affinity, FORBIDDEN), maximize=True)
    kept = allowed[rows, columns]
    return rows[kept], columns[kept]
