# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The documents say what is: their code runs, their commands exist, their tables and links are right."""

import ast
import os
import re
import shlex
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from seg_perception.cli import COMMANDS, _parser, importlib, main
from seg_perception.cli.parameters import markdown
from seg_perception.config import load_config
from seg_perception.options import describe

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")


def blocks(text, language):
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text):
    """The lines of the shell blocks, continued lines joined, comments cut off."""
    lines = "\n".join(blocks(text, "sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


API, PLUGIN = blocks(README, "python")


@pytest.fixture
def table_with_a_box():
    """What the README's code is given: a camera straight over a table at 1 m, a box of 16x12x15 cm on it."""
    depth = np.full((240, 320), 1.0, np.float32)
    depth[100:140, 120:180] = 0.85
    color = np.full((240, 320, 3), 120, np.uint8)
    return {"rgb": color, "depth_m": depth, "width": 320, "height": 240, "fx": 300, "fy": 300, "cx": 159.5, "cy": 119.5}


def test_the_readme_s_python_runs(table_with_a_box, capsys):
    exec(compile(API, "README.md", "exec"), table_with_a_box)
    scene = table_with_a_box["scene"]
    assert len(scene.objects) == 1
    assert scene.objects[0].status.has_3d
    width = np.sort(scene.objects[0].box.size)[-1]
    assert width == pytest.approx(60 / 300 * 0.85, abs=0.015)
    assert capsys.readouterr().out.startswith("1 object ")


def test_the_readme_s_plugin_runs_as_the_readme_says(table_with_a_box, tmp_path, monkeypatch, capsys):
    assert len(PLUGIN.strip().splitlines()) <= 25  # with blank lines; twenty of code
    assert sum(bool(line.strip()) for line in PLUGIN.splitlines()) <= 20
    (tmp_path / "closer.py").write_text(PLUGIN)
    frames = tmp_path / "frames"
    frames.mkdir()
    (tmp_path / "meta.json").write_text(
        '{"width": 320, "height": 240, "fx": 300, "fy": 300, "cx": 159.5, "cy": 119.5, "depth_scale_to_m": 0.001}'
    )
    cv2.imwrite(str(frames / "a_rgb.png"), table_with_a_box["rgb"])
    cv2.imwrite(str(frames / "a_depth.png"), (table_with_a_box["depth_m"] * 1000).round().astype(np.uint16))
    (line,) = (words for words in commands(README) if any("closer:Closer" in word for word in words))
    assert line[:2] == ["PYTHONPATH=.:$PYTHONPATH", "seg-perception"]
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    arguments = ["." if word == "FOLDER" else word for word in line[2:]]
    assert main([*arguments, "--set", "segmenter.max_depth=0.9"]) == 0
    assert "1 frame, 1 object " in capsys.readouterr().out
    assert (tmp_path / "output/overlay_a.png").is_file()
    sys.modules.pop("closer")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_in_the_documents_is_python(page):
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        ast.parse(block)


def test_the_list_of_parameters_is_the_one_of_the_code():
    path = ROOT / "docs/parameters.md"
    assert path.read_text(encoding="utf-8") == markdown(), (
        "run: seg-perception parameters --markdown > docs/parameters.md"
    )
    assert "| `fusion.min_depth` | 0.15 | at least 0 m; live | nearest depth used |" in markdown()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_resolve(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            file, _, anchor = target.partition("#")
            linked = (page.parent / file) if file else page
            assert linked.exists(), f"{page.name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
                anchors = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
                assert anchor in anchors, f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_scripts_that_are_named_exist(page):
    for name in set(re.findall(r"\bscripts/(\w[\w-]*)(?![\w./-])", page.read_text(encoding="utf-8"))):
        assert (ROOT / "scripts" / name).is_file(), f"{page.name}: scripts/{name}"
    assert os.access(ROOT / "scripts/demo", os.X_OK)
    assert os.access(ROOT / "scripts/test", os.X_OK)


def test_options_of_the_demo_that_the_readme_names_exist():
    script = (ROOT / "scripts/demo").read_text(encoding="utf-8")
    for line in re.findall(r"`scripts/demo ([^`]*)`", README):
        for name in re.findall(r"--[a-z-]+", line):
            assert f"  {name}" in script, name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_that_are_shown_are_understood(page):
    text = page.read_text(encoding="utf-8")
    inline = [shlex.split(line) for line in re.findall(r"`(seg-perception [a-z][^`]*)`", text)]
    for words in [*commands(text), *inline]:
        if "seg-perception" not in words[:2]:
            continue
        arguments = words[words.index("seg-perception") + 1 :]
        arguments = arguments[: arguments.index(">")] if ">" in arguments else arguments
        assert arguments[0] in COMMANDS, words
        if len(arguments) == 1:
            continue  # only spoken of
        command = importlib.import_module(f"seg_perception.cli.{arguments[0].replace('-', '_')}")
        _parser(arguments[0], command).parse_args(arguments)  # exits on what it does not know


def test_launch_arguments_that_are_shown_exist():
    launch = (ROOT / "launch/perception.launch.py").read_text(encoding="utf-8")
    ours = [words for words in commands(README) if "perception.launch.py" in words]
    assert len(ours) >= 3
    for words in ours:
        for word in words:
            name, assigned, value = word.partition(":=")
            if assigned:
                assert f'("{name}",' in launch or f'"{name}",\n' in launch, word
            if assigned and name in ("camera", "config"):
                assert (ROOT / f"config/{value}.yaml").is_file(), word


def test_topics_and_services_that_are_named_exist():
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "seg_perception/ros").glob("*.py"))
    names = set(re.findall(r"`~/([\w/]+)`", README))
    assert {"objects", "grasps", "segment_once"} <= names
    for name in names:
        assert f'"{name}"' in source or f'~/{name}"' in source, name


def test_parameters_that_the_readme_names_exist():
    known = {o.name for o in describe(load_config("yolo"))}
    table = README[README.index("## What to change next") :]
    table = table[: table.index("All of them")]
    named = [
        name for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`([^`]+)`", cell)
    ]
    assert len(named) >= 8
    for name in named:
        plain = name.partition(":")[0]
        assert plain in known or f"workspace{plain}" in known, name


def test_the_picture_is_a_picture():
    picture = cv2.imread(str(ROOT / "docs/images/demo.png"))
    assert picture.shape[0] >= 240
    assert picture.std() > 20
