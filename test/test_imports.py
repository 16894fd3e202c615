# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The core imports no heavy runtime: only the one plugin that needs it does, and only when it is selected."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ["cv_bridge", "mujoco", "onnxruntime", "open3d", "openvino", "rclpy", "tensorrt", "torch", "tritonclient"]

# In a process of its own: what other tests have imported must not count.
IMPORT_THEM_ALL = """
import importlib, json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in heavy:
            raise ImportError(f"{name} is blocked by this test")

heavy, modules = json.loads(sys.argv[1]), json.loads(sys.argv[2])
sys.meta_path.insert(0, Blocked())
failures = {}
for module in modules:
    try:
        importlib.import_module(module)
    except ImportError as error:
        failures[module] = str(error)
print(json.dumps(failures))
"""


def core_modules() -> list[str]:
    """Every module but those of `seg_perception.ros`."""
    paths = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "seg_perception").rglob("*.py")]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    return sorted(name for name in names if name.split(".")[1:2] != ["ros"])


def import_failures(modules: list[str]) -> dict[str, str]:
    """What could not be imported with every heavy runtime blocked -> why."""
    command = [sys.executable, "-c", IMPORT_THEM_ALL, json.dumps(HEAVY), json.dumps(modules)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_core_imports_without_any_heavy_runtime() -> None:
    modules = core_modules()
    assert {"seg_perception", "seg_perception.pipeline", "seg_perception.cli"} <= set(modules)
    assert import_failures(modules) == {}


def test_the_block_works() -> None:
    assert list(import_failures(["seg_perception.ros.viewer"])) == ["seg_perception.ros.viewer"]
