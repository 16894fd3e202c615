# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Runs test/test_fuzz.py with as many cases as you like, other ones each time: python benchmark/fuzz.py [--cases 10000]

A failing case is printed whole, kept in .hypothesis, and tried first the next time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    cases = parser.parse_args().cases
    print(f"{cases} cases, a line for each of the targets as it is done", flush=True)
    environment = {**os.environ, "SEG_PERCEPTION_FUZZ_CASES": str(cases)}
    command = [sys.executable, "-m", "pytest", "-v", "--no-header", "test/test_fuzz.py"]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
