# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How far a runtime is with preparing a model, told to whoever watches: the node's ~/model_status, a bar, a test.

with watching(lambda progress: bar.update(progress.fraction)):
    pipeline = Pipeline.from_config(config)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


class BuildCancelledError(RuntimeError):
    """The watcher wanted no more of it. Nothing was left behind."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What is going on, the share that is done (0..1) and the seconds left; NaN = not known."""

    text: str
    fraction: float = math.nan
    eta: float = math.nan


Watcher = Callable[[Progress], object]  # False = cancel; None goes on
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Inside, `watcher` is called in this thread, several times a second, while a runtime prepares a model."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


@contextmanager
def progress_bar() -> Iterator[None]:
    """Inside, a bar on stderr shows it, where that is a terminal."""
    from tqdm import tqdm  # here: a node has no use for it

    layout = "{desc} {percentage:3.0f}% |{bar}| {postfix}"
    with tqdm(total=1.0, disable=None, leave=False, dynamic_ncols=True, bar_format=layout) as bar:

        def show(progress: Progress) -> None:
            bar.set_description_str(progress.text, refresh=False)
            bar.n = 0.0 if math.isnan(progress.fraction) else progress.fraction
            bar.set_postfix_str("" if math.isnan(progress.eta) else f"{progress.eta:.0f} s left", refresh=False)
            bar.refresh()

        with watching(show):
            yield


def tell(progress: Progress) -> None:
    """For runtimes. Raises BuildCancelledError when the watcher returned False, and whatever it raises itself."""
    watcher = _watcher.get()
    if watcher is not None and watcher(progress) is False:
        raise BuildCancelledError(f"cancelled: {progress.text}")
