# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of the product: `seg-perception bench`. Each yields rows of numbers; docs/performance.md is made of them.

A benchmark is one module with `run(rows, progress, ...)`: it appends to `rows` as it goes, so that what was measured by
the time of a ctrl-C is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Row = dict[str, Any]


class Progress(Protocol):
    """Passes items on and shows how far it is."""

    def __call__(self, items: Iterable[T], total: int, label: str, unit: str = ...) -> Iterator[T]: ...


def silent(items: Iterable[T], total: int, label: str, unit: str = "") -> Iterator[T]:
    """Shows nothing."""
    yield from items
