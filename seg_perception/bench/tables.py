# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Results as Markdown: one table, what is the same in all rows above it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from seg_perception.bench import Row

WIDEST = 12  # columns

Result = Mapping[str, Any]


def markdown(result: Result) -> str:
    """A whole result: machine, and a table for each run of rows with the same fields."""
    head = f"{result['benchmark']} on {about_machine(result['machine'])}"
    state = "" if result["complete"] else "\n\n**Interrupted: not all was measured.**"
    alike = (list(group) for _, group in groupby(result["rows"], key=list))
    return "\n\n".join([f"{head}{state}", *map(table, alike)])


def table(rows: Sequence[Row], columns: Sequence[str] = ()) -> str:
    """Rows as a table of `columns` (default: all, in the order they come up); many columns stand one under another."""
    keys = list(columns) or list(dict.fromkeys(key for row in rows for key in row))
    if len(rows) == 1 or len(keys) > WIDEST:
        upright = [(title(key), *(cell(row.get(key)) for row in rows)) for key in keys]
        return _lines([("", *(f"{k + 1}" for k in range(len(rows)))), *upright])
    return _lines([tuple(map(title, keys)), *(tuple(cell(row.get(key)) for key in keys) for row in rows)])


def title(key: str) -> str:
    """A field's name for people."""
    words = key.replace("_", " ")
    for unit in ("ms", "mm", "mb", "hz", "px", "s"):
        if words.endswith(f" {unit}"):
            return f"{words.removesuffix(f' {unit}')} [{ {'mb': 'MB', 'hz': 'Hz'}.get(unit, unit) }]"
    return words


def cell(value: Any) -> str:
    """A value for people; what is not known is a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {cell(inner)}" for key, inner in value.items()) or "–"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(cell, value)) if len(value) <= 8 else f"{len(value)} values"
    return str(value).replace("|", "\\|")


def about_machine(machine: Mapping[str, Any]) -> str:
    """One line."""
    parts = [f"{machine['processor']}, {machine['cores']} cores", machine["gpu"], machine["system"]]
    return ", ".join(filter(None, [*parts, f"load {machine['load']:.1f}"]))


def _lines(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])
