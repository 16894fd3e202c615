# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The package as installed: one version, plugins that are found, scripts that run, messages that explain themselves."""

import ast
import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INTERFACES = sorted([*ROOT.glob("msg/*.msg"), *ROOT.glob("srv/*.srv")])
SHELL_SCRIPTS = [ROOT / "scripts" / name for name in ("demo", "env", "setup", "test")] + [ROOT / ".ci" / "run"]
HEADER = ["# SPDX-FileCopyrightText: The seg_perception authors", "# SPDX-License-Identifier: Apache-2.0"]

PACKAGE = ElementTree.parse(ROOT / "package.xml").getroot()


def run(*command: object, **options: object) -> subprocess.CompletedProcess:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)


def tracked_files() -> list[Path]:
    listed = run("git", "ls-files", "-z", cwd=ROOT)
    if listed.returncode != 0:
        pytest.skip(f"git does not list the files: {listed.stderr.strip()}")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


# --- one version, one list of entry points ---


def test_versions_are_equal() -> None:
    version = PACKAGE.findtext("version")
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert run(sys.executable, "setup.py", "--version", cwd=ROOT).stdout.split()[-1] == version
    assert importlib.metadata.version("seg_perception") == version
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()


def declared_entry_points() -> list[tuple[str, str, str]]:
    parser = configparser.ConfigParser(delimiters=["="])
    parser.read(ROOT / "entry_points.txt")
    return [(group, name, value) for group in parser.sections() for name, value in parser.items(group)]


def test_installed_entry_points_are_the_declared_ones() -> None:
    installed = importlib.metadata.distribution("seg_perception").entry_points
    assert {(p.group, p.name, p.value) for p in installed} == set(declared_entry_points())


@pytest.mark.parametrize(("group", "name", "value"), declared_entry_points())
def test_entry_point_loads(group: str, name: str, value: str) -> None:
    assert callable(importlib.metadata.EntryPoint(name, value, group).load())


def test_console_script_is_on_the_path() -> None:
    assert shutil.which("seg-perception"), "not entered: source scripts/env"
    done = run("seg-perception", "--help")
    assert done.returncode == 0, done.stderr
    assert "usage: seg-perception" in done.stdout


# --- dependencies ---

DEBIAN_NAMES = {"cv2": "python3-opencv", "yaml": "python3-yaml"}
FROM_EXTRAS = {
    "mcap", "mcap_ros2", "mujoco", "onnx", "onnxruntime", "open3d", "openvino", "prometheus_client", "pynvml",
    "tensorrt", "tokenizers", "torch", "transformers", "tritonclient", "ultralytics",
}  # fmt: skip


def imported_packages(folder: str) -> set[str]:
    """Top-level packages that the code in a folder imports, but for our own and Python's."""
    names = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"seg_perception"}


@pytest.mark.parametrize("folder", ["seg_perception", "launch"])
def test_package_xml_names_what_is_imported(folder: str) -> None:
    declared = {element.text for element in PACKAGE if element.tag in ("depend", "exec_depend")}
    third_party = {"numba", "numpy", "scipy", "tqdm"}
    for name in imported_packages(folder) - FROM_EXTRAS:
        assert DEBIAN_NAMES.get(name, f"python3-{name}" if name in third_party else name) in declared


# --- messages ---


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.name)
def test_every_field_is_explained(path: Path) -> None:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip() not in ("", "---"):
            assert line.partition("#")[2].strip(), f"{path.name}:{number} has no comment: {line}"


def test_messages_and_code_share_the_import_name() -> None:
    generated = pytest.importorskip("seg_perception.msg", reason="the messages are not built: source scripts/env")
    for path in INTERFACES:
        module = generated if path.suffix == ".msg" else importlib.import_module("seg_perception.srv")
        assert hasattr(module, path.stem)


# --- scripts ---


@pytest.mark.parametrize("path", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_shell_script_parses(path: Path) -> None:
    assert run("bash", "-n", path).stderr == ""
    assert path.name == "env" or os.access(path, os.X_OK)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """The scripts alone, in a folder where nothing is set up nor could be."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "scripts" / "setup").unlink()
    return tmp_path


def test_demo_explains_itself_without_a_set_up(bare: Path) -> None:
    done = run(bare / "scripts" / "demo", "--help")
    assert done.returncode == 0
    for option in ("--source", "--config", "--set", "--frames", "--output", "--no-view"):
        assert option in done.stdout


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--frames"], ["stray"]])
def test_demo_refuses_before_the_set_up(bare: Path, arguments: list[str]) -> None:
    done = run(bare / "scripts" / "demo", *arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr
    assert done.stderr.count("\n") == 1


def test_env_says_when_nothing_is_set_up(bare: Path) -> None:
    done = run("bash", "-c", "source scripts/env", cwd=bare)
    assert done.returncode == 1
    assert done.stderr == "scripts/env: not set up yet: run scripts/demo or scripts/test first\n"


def test_setup_refuses_a_python_that_is_not_supported(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup", tmp_path / "scripts")
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\necho 3.9\n")
    old.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ROS", "AMENT"))} | {"PYTHON": str(old)}
    if Path("/opt/ros").is_dir():
        pytest.skip("ROS 2 from apt decides the Python here")
    done = run(tmp_path / "scripts" / "setup", env=environment)
    assert done.returncode == 1
    assert "is Python 3.9; 3.10 to 3.13 are supported" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_ci_runs_the_tests() -> None:
    assert "scripts/test" in (ROOT / ".ci" / "run").read_text()


def test_fast_dds_profile_gives_room_for_images() -> None:
    pytest.importorskip("rclpy", reason="ROS 2 is not there")
    if os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp") != "rmw_fastrtps_cpp":
        pytest.skip("another middleware than Fast DDS is chosen")
    profile = ROOT / "config" / "fastdds_shm.xml"
    variables = {"FASTRTPS_DEFAULT_PROFILES_FILE": str(profile), "FASTDDS_DEFAULT_PROFILES_FILE": str(profile)}
    code = "import rclpy; rclpy.init(); node = rclpy.create_node('x'); print(open('/proc/self/maps').read())"
    done = run(sys.executable, "-c", code, env={**os.environ, **variables})
    assert done.returncode == 0, done.stderr
    mapped = re.findall(r"^(\w+)-(\w+) .*/dev/shm/fast(?:rtps|dds)_", done.stdout, re.MULTILINE)
    assert max(int(end, 16) - int(start, 16) for start, end in mapped) >= 64 * 2**20


# --- what is in the repository ---


def test_every_source_file_has_its_licence() -> None:
    for path in tracked_files():
        text = path.read_text(errors="ignore") if path.suffix not in (".png", ".jpg") else ""
        if path.suffix == ".py" or text.startswith("#!"):
            lines = [line for line in text.splitlines()[:3] if not line.startswith("#!")]
            assert lines[:2] == HEADER, f"{path.relative_to(ROOT)} lacks the two SPDX lines"


def test_files_speak_of_the_project_alone() -> None:
    hosts = r"pypi\.org|files\.pythonhosted|deb\.debian\.org|registry\.npmjs"
    here = "|".join(rf"{re.escape(str(folder))}\b" for folder in (ROOT, Path.home()))
    foreign = re.compile(f"{hosts}|(?<![\\w.~-])(?:{here})")
    found = []
    for path in tracked_files():
        text = path.read_bytes().decode(errors="ignore")
        found += [f"{path.relative_to(ROOT)}: {hit.group()}" for hit in foreign.finditer(text)]
    assert found == []
