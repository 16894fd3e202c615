# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table in docs/reliability.md has exactly the faults that the tests inject, and what it says of them is good."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from fault_rows import VARIABLE, Row, rows_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fault_table", ROOT / "benchmark" / "fault_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def defined(script: ModuleType) -> list[Row]:
    return [row for path in script.modules() if path.stem != __name__ for row in rows_of(import_(path))]


def import_(path: Path) -> ModuleType:
    return importlib.import_module(path.stem)


def test_the_page_has_the_rows_that_the_tests_define(script: ModuleType, defined: list[Row]) -> None:
    text = script.PAGE.read_text(encoding="utf-8").split(script.BEGIN)[1].split(script.END)[0]
    tables = re.split(r"^### (.*)$", text, flags=re.MULTILINE)[1:]
    shown = set()
    for heading, table in zip(tables[::2], tables[1::2], strict=True):
        lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
        for line in lines:
            name, *_, outcome = (cell.strip() for cell in line.strip("|").split(" | "))
            shown.add((heading, name))
            assert outcome.strip() == "passed", line
    wanted = {
        (script.HEADINGS[row.group], row.fault + (f" (STAND-IN: {row.stand_in})" if row.stand_in else ""))
        for row in defined
    }
    assert len(wanted) == len(defined) > 40  # no two of one name
    assert shown == wanted


def test_what_is_not_as_it_should_be_is_found(script: ModuleType) -> None:
    good = {"group": "camera", "fault": "stops", "recovery": 0.1, "outcome": "passed"}
    assert script.VARIABLE == VARIABLE
    assert script.faults([good]) == []
    assert "took 2.5 s" in script.faults([{**good, "recovery": 2.5}])[0]
    assert "FAILED" in script.faults([{**good, "outcome": "FAILED"}])[0]
    assert "no such group" in script.faults([{**good, "group": "weather"}])[0]
