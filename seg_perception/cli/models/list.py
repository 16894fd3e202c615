# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`seg-perception models list`: the model files here, the plugins that could use them, the models known by name."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seg_perception.cli.console import add_json, write_result
from seg_perception.files import shipped
from seg_perception.plugins import PluginError, TensorSpec, available, load_plugin
from seg_perception.segmenters.networks.class_names import parse_names
from seg_perception.zoo.manifest import read_manifest

FORMATS = {
    ".onnx": "ONNX",
    ".engine": "TensorRT engine",
    ".plan": "TensorRT engine",
    ".xml": "OpenVINO",
    ".torchscript": "TorchScript",
    ".pt": "PyTorch",
    ".pt2": "PyTorch export",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", nargs="*", metavar="FOLDER", help="where to look (default: models/ here, and the shipped one)"
    )
    add_json(parser)


def execute(options: argparse.Namespace) -> int:
    folders = [Path(f) for f in options.folders] or _default_folders()
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
    files = sorted(p for folder in folders for p in folder.iterdir() if p.is_file() and p.suffix in FORMATS)
    result = {
        "folders": [str(folder) for folder in folders],
        "models": [describe(path) for path in files],
        "plugins": {
            group: [_installed(group, name) for name in available(group)] for group in ("segmenters", "backends")
        },
        "known": [{"name": name, **asdict(model)} for name, model in read_manifest().items()],
    }
    if options.json:
        write_result(result, options.json)
    if options.json != "-":
        print(_text(result))
    return 0


def describe(path: Path) -> dict[str, Any]:
    """What a model file is: format, size, and for ONNX its tensors and what its metadata says."""
    about: dict[str, Any] = {"path": str(path), "format": FORMATS[path.suffix], "bytes": path.stat().st_size}
    if path.suffix != ".onnx":
        return about
    try:
        plugin = load_plugin("backends", "onnxruntime")
        backend = plugin(plugin.Config(model=str(path), graph_optimization="none", threads=1))
        names = backend.metadata.get("names")
        about["inputs"] = [_tensor(spec) for spec in backend.inputs]
        about["outputs"] = [_tensor(spec) for spec in backend.outputs]
        about["task"] = backend.metadata.get("task", "")
        about["class_names"] = list(parse_names(names)) if names else []
    except ValueError as error:  # PluginError, ConfigError: the list goes on
        about["error"] = str(error)
    return about


def _default_folders() -> list[Path]:
    choices = [Path("models")]
    try:
        choices.append(shipped("models"))
    except FileNotFoundError:
        pass
    return list({path.resolve(): path for path in choices if path.is_dir()}.values())


def _installed(group: str, name: str) -> dict[str, Any]:
    try:
        load_plugin(group, name)
    except PluginError as error:
        return {"name": name, "error": str(error)}
    return {"name": name, "error": None}


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": str(spec.dtype)}


def _text(result: dict[str, Any]) -> str:
    lines = []
    for model in result["models"]:
        lines.append(f"{model['path']}  {model['format']}, {model['bytes'] / 1e6:.1f} MB")
        if "error" in model:
            lines.append(f"    cannot be read: {model['error']}")
        elif "inputs" in model:
            sides = (", ".join(map(_tensor_text, model[side])) for side in ("inputs", "outputs"))
            lines.append(f"    {' -> '.join(sides)}")
            names = model["class_names"]
            if names or model["task"]:
                lines.append(
                    f"    {model['task'] or 'task not named'}, {len(names)} classes: {', '.join(names[:6])}"[:110]
                )
    if not result["models"]:
        lines.append(f"no model files in {', '.join(result['folders']) or 'models/'}")
    for group, plugins in result["plugins"].items():
        shown = (p["name"] + (f" (broken: {p['error']})" if p["error"] else "") for p in plugins)
        lines.append(f"{group}: {', '.join(shown) or 'none'}")
    for known in result["known"]:
        where = known["url"] or "no address is known"
        lines.append(f"known: {known['name']}, {known['about']}, licence {known['licence']}; {where}")
    return "\n".join(lines)


def _tensor_text(tensor: dict[str, Any]) -> str:
    return f"{tensor['name']} {'x'.join('?' if n < 0 else str(n) for n in tensor['shape'])}"
