# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Memory that was freed is used again, without the system clearing pages for it."""

import platform
import subprocess
import sys

import pytest

FRAMES = """
import resource, sys
import numpy as np
from seg_perception.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def frame():
    [np.ones(6_000_000, np.uint8) for _ in range(4)]  # a cloud and its message on its way
for _ in range(3):
    frame()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    frame()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    return int(subprocess.run([sys.executable, "-c", FRAMES, how], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_arrays_of_a_frame_take_no_new_pages_once_memory_is_kept():
    assert page_faults("keep") < 100  # of some 20 * 6000 pages
    assert page_faults("give back") > 1000  # else the promise above says nothing
