# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception doctor`: what this machine has, what is missing, and the line that fixes it.

Nothing heavy is imported at the top: it must run where the rest cannot be imported.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

from seg_perception.cli.checks import FAIL, OK, WARN, Check
from seg_perception.cli.console import add_config, add_json

COLORS = {OK: "\033[32m", WARN: "\033[33m", FAIL: "\033[31m"}
ENTER = "source scripts/env, or your ROS 2 and workspace (source /opt/ros/$ROS_DISTRO/setup.bash, install/setup.bash)"
SHM_NEEDED = 256 << 20  # bytes: a 64 MB segment each for camera, node and two consumers
RUNTIMES = {"onnxruntime": "onnx", "openvino": "openvino", "tensorrt": "tensorrt", "torch": "torch"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_json(parser)
    parser.add_argument(
        "--camera", type=float, default=3.0, metavar="SECONDS", help="listen to the camera topics; 0 = do not"
    )
    parser.add_argument(
        "--remap",
        action="append",
        default=[],
        metavar="A:=B",
        help="a topic's other name, as with ros2 run; repeatable",
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 on WARN too")


def execute(options: argparse.Namespace) -> int:
    checks = [finding for check in CHECKS for finding in _guarded(check)]
    checks += _guarded(lambda: check_config(options.config or ["tabletop"], options.set), "config")
    checks += _guarded(lambda: check_model(options), "model")
    if options.camera > 0:
        checks += _guarded(lambda: check_camera(options), "camera")
    bad = (FAIL, WARN) if options.strict else (FAIL,)
    healthy = all(check.status not in bad for check in checks)
    if options.json:
        text = json.dumps({"ok": healthy, "checks": [asdict(check) for check in checks]}, indent=1)
        if options.json == "-":
            print(text)
        else:
            Path(options.json).write_text(text + "\n", encoding="utf-8")
    if options.json != "-":
        for check in checks:
            print(_line(check))
    return 0 if healthy else 1


def check_python() -> Iterator[Check]:
    version = platform.python_version()
    known = (3, 10) <= sys.version_info[:2] <= (3, 13)
    yield Check(
        "python", OK if known else WARN, f"{version}, {sys.executable}", "" if known else "use Python 3.10 to 3.13"
    )
    yield Check("platform", OK, f"{platform.platform()}, {os.cpu_count()} cores")


def check_package() -> Iterator[Check]:
    import seg_perception

    try:
        version = importlib.metadata.version("seg_perception")
    except importlib.metadata.PackageNotFoundError:
        yield Check("seg_perception", FAIL, "not installed: its plugins cannot be found", f"pip install . , or {ENTER}")
        return
    yield Check("seg_perception", OK, f"{version}, {Path(seg_perception.__file__).parent}")


def check_libraries() -> Iterator[Check]:
    for module, package in (
        ("numpy", "numpy"),
        ("numba", "numba"),
        ("cv2", "opencv-python-headless"),
        ("scipy", "scipy"),
    ):
        yield _library(module, FAIL, f"pip install {package}")
    yield _library("tqdm", WARN, "pip install tqdm")


def check_kernels() -> Iterator[Check]:
    from seg_perception.masks import Masks

    area = int(Masks.from_dense([[[1, 1], [0, 1]]]).areas[0])
    works = area == 3
    yield Check("compiled kernels", OK if works else FAIL, "they run" if works else f"wrong result: {area} pixels of 3")


def check_plugins() -> Iterator[Check]:
    from seg_perception.plugins import GROUPS, PluginError, available, load_plugin

    for group in GROUPS:
        broken = []
        for name in available(group):
            try:
                load_plugin(group, name)
            except PluginError as error:
                broken.append(str(error))
        detail = "; ".join(broken) or ", ".join(available(group)) or "none found"
        fine = not broken and available(group)
        yield Check(group, OK if fine else FAIL, detail, "" if fine else "pip install . , or build the workspace again")


def check_ros() -> Iterator[Check]:
    if importlib.util.find_spec("rclpy") is None:
        yield Check("ROS 2", WARN, "rclpy is not importable: no node here; files can be worked on without it", ENTER)
        return
    rclpy = importlib.import_module("rclpy")
    rmw = rclpy.get_rmw_implementation_identifier()
    distro = os.environ.get("ROS_DISTRO", "ROS_DISTRO not set")
    yield Check("ROS 2", OK, f"{distro}, {rmw}, domain {os.environ.get('ROS_DOMAIN_ID', '0')}")
    yield _message_package()
    yield from _shared_memory(rmw)
    for module, use in (
        ("tf2_ros", "no target_frame without it"),
        ("launch_ros", "no launch files without it"),
        ("cv_bridge", "needed only for rare image encodings"),
        ("vision_msgs", "no ~/detections without it"),
        ("moveit_msgs", "no ~/collision_objects without it"),
    ):
        found = importlib.util.find_spec(module) is not None
        fix = "" if found else f"apt-get install ros-$ROS_DISTRO-{module.replace('_', '-')}"
        yield Check(module, OK if found else WARN, "found" if found else f"not found: {use}", fix)


def _message_package() -> Check:
    try:
        importlib.import_module("seg_perception.msg")
    except ImportError as error:
        return Check("messages", FAIL, f"seg_perception.msg cannot be imported: {error}", f"colcon build, then {ENTER}")
    return Check("messages", OK, "seg_perception.msg is built")


def _shared_memory(rmw: str) -> Iterator[Check]:
    if "fastrtps" in rmw:
        names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
        profiles = {name: os.environ[name] for name in names if name in os.environ}
        missing = [path for path in profiles.values() if not Path(path).is_file()]
        fix = (
            "export FASTRTPS_DEFAULT_PROFILES_FILE=.../share/seg_perception/config/fastdds_shm.xml (camera driver too)"
        )
        if missing:
            yield Check("Fast DDS profile", FAIL, f"no such file: {missing[0]}", fix)
        elif not profiles:
            yield Check("Fast DDS profile", WARN, "none set: large images go in fragments through UDP", fix)
        else:
            yield Check("Fast DDS profile", OK, next(iter(profiles.values())))
    if Path("/dev/shm").is_dir():
        free = shutil.disk_usage("/dev/shm").free
        fits = free >= SHM_NEEDED
        fix = "" if fits else "docker run --shm-size=1g (or --ipc=host), and delete stale /dev/shm/fast* files"
        yield Check("/dev/shm", OK if fits else WARN, f"{free >> 20} MB free", fix)


def check_runtimes() -> Iterator[Check]:
    found = []
    for module, extra in RUNTIMES.items():
        if importlib.util.find_spec(module) is None:
            yield Check(module, OK, f"not installed (pip install 'seg_perception[{extra}]' if you want it)")
            continue
        try:
            loaded = importlib.import_module(module)
        except (ImportError, OSError) as error:
            yield Check(
                module, WARN, f"installed, but cannot be imported: {error}", f"pip install --force-reinstall {module}"
            )
            continue
        found.append(module)
        yield Check(module, OK, f"{getattr(loaded, '__version__', 'version unknown')}{_devices(module, loaded)}")
    if not found:
        fix = "pip install 'seg_perception[onnx]'"
        yield Check("runtimes", WARN, "none: only the tabletop segmenter works, it needs no network", fix)


def _devices(module: str, loaded: ModuleType) -> str:
    if module == "onnxruntime":
        return f", providers {', '.join(p.removesuffix('ExecutionProvider') for p in loaded.get_available_providers())}"
    if module == "openvino":
        from seg_perception.backends.openvino import the_core

        return f", devices {', '.join(the_core().available_devices)}"
    if module == "torch":
        return f", CUDA {loaded.version.cuda or 'none'}, {loaded.cuda.device_count()} devices"
    return ""


def check_gpu() -> Iterator[Check]:
    if shutil.which("nvidia-smi") is None:
        jetson = Path("/etc/nv_tegra_release")
        yield Check(
            "GPU",
            OK,
            jetson.read_text().splitlines()[0] if jetson.is_file() else "no NVIDIA GPU: the CPU runtimes serve",
        )
        return
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    if answer.returncode:
        reason = " ".join((answer.stdout + answer.stderr).split())
        yield Check(
            "GPU", WARN, f"nvidia-smi fails: {reason}", "reinstall the driver, or run the container with --gpus all"
        )
        return
    for gpu in answer.stdout.strip().splitlines():
        name, driver, memory = (part.strip() for part in gpu.split(","))
        yield Check("GPU", OK, f"{name}, {memory}, driver {driver}")


def check_config(sources: list[str], overrides: list[str]) -> Iterator[Check]:
    from seg_perception.config import load_config
    from seg_perception.pipeline import Pipeline

    name = f"config {' '.join(sources)}"
    try:
        config = load_config(*sources, overrides=overrides)
        Pipeline.from_config(config)
    except (ValueError, OSError) as error:
        yield Check(name, FAIL, " ".join(str(error).split()), "mend it; seg-perception parameters lists all keys")
        return
    planners = ", ".join(planner.plugin for planner in config.grasping.planners) or "none"
    yield Check(name, OK, f"segmenter {config.segmenter.plugin}, tracker {config.tracker.plugin}, planners {planners}")


def check_model(options: argparse.Namespace) -> Iterator[Check]:
    from seg_perception.config import ConfigError, load_config

    try:
        section = load_config(*(options.config or ["tabletop"]), overrides=options.set).segmenter
    except ConfigError:
        return  # said by check_config
    for key in ("model", "encoder", "decoder"):
        path = Path(str(getattr(section.config, key, "") or ""))
        if path.suffix and path.is_file():
            yield from _model(key, path, section.plugin, section.config.backend.plugin)


def _model(key: str, path: Path, plugin: str, backend: str) -> Iterator[Check]:
    from seg_perception.zoo.inspection import inspect

    about = inspect(path, plugin if key == "model" else "", support=key == "model")
    inputs = ", ".join(f"{t['name']} {'x'.join('?' if n < 0 else str(n) for n in t['shape'])}" for t in about["inputs"])
    names = about["class_names"]
    known = f", classes ({len(names)}): {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}" if names else ""
    detail = f"{path.name}, {about['format']}, {about['bytes'] / 1e6:.1f} MB, inputs {inputs}{known}"
    if key != "model":
        yield Check(key, OK, detail)
        return
    if about["segmenter"] is None:
        reasons = "; ".join(" ".join(reason.split()) for reason in about["refusals"].values())
        fix = "write a sidecar: seg-perception models annotate --help"
        yield Check(key, FAIL, f"{detail}; not recognised by '{plugin}': {reasons}", fix)
        return
    yield Check(key, OK, f"{detail}, family {about['family']}")
    for row in about.get("runtimes", []):
        wanted = row["runtime"].partition(" ")[0] == backend
        status = WARN if wanted and row["refusal"] else OK
        yield Check(f"model on {row['runtime']}", status, row["refusal"] or "runs it")


def check_camera(options: argparse.Namespace) -> Iterator[Check]:
    if importlib.util.find_spec("rclpy") is None:
        return  # said by check_ros
    from seg_perception.config import ConfigError, load_config
    from seg_perception.ros.camera_check import check_cameras

    try:
        config = load_config(*(options.config or ["tabletop"]), overrides=options.set)
    except ConfigError:
        return  # said by check_config
    yield from check_cameras(config, options.camera, options.remap)


CHECKS: tuple[Callable[[], Iterator[Check]], ...] = (
    check_python,
    check_package,
    check_libraries,
    check_kernels,
    check_plugins,
    check_ros,
    check_runtimes,
    check_gpu,
)


def _guarded(check: Callable[[], Iterator[Check]], name: str = "") -> list[Check]:
    """The findings of `check`; one that breaks is itself a finding."""
    findings = []
    try:
        for finding in check():
            findings.append(finding)
    except Exception as error:  # noqa: BLE001  a broken machine breaks in any way; the next checks must still run
        name = name or check.__name__.removeprefix("check_")
        findings.append(
            Check(name, FAIL, f"{type(error).__name__}: {' '.join(str(error).split())}", "mend the lines above first")
        )
    return findings


def _library(module: str, otherwise: str, fix: str) -> Check:
    try:
        loaded = importlib.import_module(module)
    except (ImportError, OSError) as error:
        return Check(module, otherwise, f"cannot be imported: {error}", fix)
    return Check(module, OK, str(getattr(loaded, "__version__", "version unknown")))


def _line(check: Check) -> str:
    color = sys.stdout.isatty()
    status = f"{COLORS[check.status]}{check.status:<4}\033[0m" if color else f"{check.status:<4}"
    line = f"{status} {check.name}: {check.detail}"
    return f"{line}\n     fix: {check.fix}" if check.fix else line
