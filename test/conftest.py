# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Where the real frames and weights are; a test that needs them skips with the reason where they are absent."""

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a script's background job: what is started here inherits it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _shared(variable: str, default: str) -> Path:
    path = Path(os.environ.get(variable, ROOT / ".." / "shared" / default)).resolve()
    if not path.is_dir():
        pytest.skip(f"no real data: neither ${variable} nor ../shared/{default} is there")
    return path


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with mosd/ and ycbv/."""
    return _shared("SEG_PERCEPTION_TEST_DATA", "data")


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Folder with real network weights."""
    return _shared("SEG_PERCEPTION_TEST_MODELS", "models")
