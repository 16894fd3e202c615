# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Mends the CMake files of the ROS 2 wheels in this environment: they name the Python that the wheels were built with.

Idempotent. A reinstall of the wheels undoes it, so scripts/setup runs it before each build.
"""

import re
import sys
import sysconfig
from pathlib import Path

import numpy

BUILDER = r"/opt/python/cp3\d+-cp3\d+"
REPLACEMENTS = {
    BUILDER + r"/lib/python3\.\d+/site-packages/numpy/(?:_core|core)/include": numpy.get_include(),
    BUILDER + r"/include/python3\.\d+": sysconfig.get_path("include"),
}

for path in Path(sys.prefix, "share").glob("*/cmake/*.cmake"):
    text = mended = path.read_text()
    for pattern, folder in REPLACEMENTS.items():
        mended = re.sub(pattern, lambda _, folder=folder: folder, mended)
    if mended != text:
        path.write_text(mended)
