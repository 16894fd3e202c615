# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which TensorRT is installed, and what to do where none is."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from seg_perception.backends.trt.log import reason
from seg_perception.options import ConfigError
from seg_perception.plugins import PluginError

logger = logging.getLogger(__name__)

_LOADED: set[str] = set()  # plugin libraries: the registry is the process's, and refuses a second time

FLAVOURS = {  # what a user calls it -> its module; the second name is that of a wheel without the meta package
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
OLDEST, NEWEST = (10, 3), (11, 4)  # whose API this code was checked against
INSTALL = {
    "tensorrt": "Desktop: pip install tensorrt-cu13 (it fetches its libraries from NVIDIA's own package index). "
    "Jetson: it comes with JetPack; make the virtual environment with --system-site-packages",
    "tensorrt_rtx": "pip install tensorrt-rtx-cu13 (GeForce and RTX cards from Turing on)",
}


def load_library(flavour: str) -> Any:
    """The module. Raises PluginError: it is absent, its libraries are, or it is older than this code."""
    present = [name for name in FLAVOURS[flavour] if importlib.util.find_spec(name)]
    if not present:
        raise PluginError(f"{_name(flavour)} is not installed. {INSTALL[flavour]}")
    try:
        trt = importlib.import_module(present[0])
    except ImportError as error:
        library = re.search(r"lib[\w-]+\.so[.\d]*", str(error))
        if library:
            raise PluginError(
                f"{_name(flavour)}'s Python bindings are installed, but its library {library[0]} is not: reinstall the "
                f"package of the libraries in the bindings' version. {INSTALL[flavour]}"
            ) from error
        raise PluginError(f"{_name(flavour)} cannot be imported: {error}. {INSTALL[flavour]}") from error
    if flavour == "tensorrt":
        version = tuple(int(n) for n in trt.__version__.split(".")[:2])
        if version < OLDEST:
            raise PluginError(f"TensorRT {trt.__version__} is too old: 10.3 to 11.4 are supported. {INSTALL[flavour]}")
        if version > NEWEST:
            logger.warning("TensorRT %s is newer than 11.4, the last one this was checked with", trt.__version__)
    return trt


def is_rtx(trt: Any) -> bool:
    """Whether it is TensorRT-RTX."""
    return trt.__name__.startswith("tensorrt_rtx")


def title(trt: Any) -> str:
    """Name and version for a line, e.g. TensorRT 10.16.1.11."""
    return f"{_name('tensorrt_rtx' if is_rtx(trt) else 'tensorrt')} {trt.__version__}"


def load_operators(trt: Any, logger: Any, files: Sequence[Path]) -> None:
    """Makes TensorRT's own plugins known, and those of further libraries, for parsing and for loading engines.

    Raises ConfigError: a library that cannot be loaded, or TensorRT-RTX, which has no plugins.
    """
    if is_rtx(trt):
        if files:
            raise ConfigError(f"plugins: {title(trt)} takes no plugin libraries: use library: tensorrt")
        return
    trt.init_libnvinfer_plugins(logger, "")
    registry = trt.get_plugin_registry()
    for file in files:
        if str(file) in _LOADED:
            continue
        mark = logger.mark()
        if registry.load_library(str(file)) is None:
            raise ConfigError(f"plugins: {title(trt)} cannot load {file}: {reason(logger.since(mark))}")
        _LOADED.add(str(file))


def rtx_capability(rtx: Any, capability: tuple[int, int]) -> Any:
    """The member of `rtx.ComputeCapability` for a GPU. Raises ConfigError: TensorRT-RTX does not run on it."""
    known = rtx.ComputeCapability.__members__
    name = "SM{}{}".format(*capability)
    if name not in known:
        listing = ", ".join(f"{sm[2:-1]}.{sm[-1]}" for sm in known if sm.startswith("SM"))
        raise ConfigError(
            f"{title(rtx)} does not run on compute capability {capability[0]}.{capability[1]} (it does on {listing}): "
            "use library: tensorrt"
        )
    return known[name]


def cuda_major(trt: Any) -> int:
    """The CUDA version that the installed wheel was built for; 0 = not known (JetPack's is no wheel)."""
    infix = "rtx_" if is_rtx(trt) else ""
    for major in (13, 12):
        try:
            metadata.distribution(f"tensorrt_{infix}cu{major}_bindings")
        except metadata.PackageNotFoundError:
            continue
        return major
    return 0


def _name(flavour: str) -> str:
    return "TensorRT-RTX" if flavour == "tensorrt_rtx" else "TensorRT"
