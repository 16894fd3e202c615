# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The doctor's findings. Imports nothing: it must be there where the rest cannot be imported."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, FAIL = "OK", "WARN", "FAIL"


@dataclass(frozen=True)
class Check:
    """One finding; `fix` is the line that mends it."""

    name: str
    status: str
    detail: str
    fix: str = ""
