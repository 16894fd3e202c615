# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Names of a network's classes: as the model's metadata writes them, and looked up by name."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seg_perception.options import ConfigError


def parse_names(text: str) -> tuple[str, ...]:
    """Class names in order of id from metadata like `{0: 'person', 1: 'bicycle'}` or `['person', 'bicycle']`.

    Raises ConfigError when the text is neither or an id is missing.
    """
    shown = text if len(text) <= 60 else text[:57] + "..."
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ConfigError(f"the model's class names are not readable: {shown}") from None
    if isinstance(names, dict):
        try:
            names = [names[i] for i in range(len(names))]
        except KeyError as error:
            raise ConfigError(f"the model's class names have no id {error}: {shown}") from None
    if not isinstance(names, list | tuple) or not names:
        raise ConfigError(f"the model's class names are not a list: {shown}")
    return tuple(str(name) for name in names)


def allowed_classes(allow_list: Sequence[str], names: Sequence[str]) -> NDArray[np.bool_]:
    """(len(names),) True for the classes of `allow_list`, for all if it is empty. Raises ConfigError: unknown name."""
    allow_list = [name for name in allow_list if name]  # [''] is how an empty list is written for ROS
    for name in allow_list:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            few = ", ".join(names[:8]) + (f" ... {len(names)} in all" if len(names) > 8 else "")
            hint = f"did you mean '{close[0]}'?" if close else f"known: {few}"
            raise ConfigError(f"classes: the model has no class '{name}'; {hint}")
    return np.array([not allow_list or name in allow_list for name in names], np.bool_)
