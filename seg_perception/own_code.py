# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Classes of your own code, named `module:Class`."""

from __future__ import annotations

import importlib
from typing import Any

from seg_perception.options import ConfigError


def own_class(key: str, name: str) -> Any:
    """The class or function called `module:Class`. Raises ConfigError naming the option `key`."""
    module, colon, attribute = name.partition(":")
    if not (colon and module and attribute):
        raise ConfigError(f"{key}: expected module:Class, got '{name}'")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ConfigError(f"{key}: '{name}' cannot be loaded (is its folder on PYTHONPATH?): {error}") from error
