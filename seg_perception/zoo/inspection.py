# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Everything about a model file that can be known without running it on an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seg_perception.backends.tensorrt import unsupported
from seg_perception.files import file_digest
from seg_perception.options import ConfigError
from seg_perception.plugins import PluginError, TensorSpec
from seg_perception.segmenters.networks.sidecar import read_sidecar, sidecar_path
from seg_perception.zoo.manifest import read_manifest
from seg_perception.zoo.onnx_file import read_onnx
from seg_perception.zoo.runtimes import Runtime, runtimes_for
from seg_perception.zoo.subject import UnrecognisedError, described, recognise


def inspect(path: Path, plugin: str = "", decoder: Path | None = None, support: bool = True) -> dict[str, Any]:
    """What the file is, which segmenter reads it, and with `support` which runtimes do.

    Raises ConfigError for a file that is missing or not whole.
    """
    about: dict[str, Any] = {"path": str(path), "bytes": path.stat().st_size if path.is_file() else 0}
    if path.suffix.lower() == ".onnx":
        file = read_onnx(path)
        about |= {"format": "ONNX", "opsets": file.opsets, "producer": file.producer, "precision": file.precision}
        about |= {"quantised": file.quantised, "external_weights": file.external}
        about |= {"parameters": sum(file.weights.values()), "operators": dict(sorted(file.operators.items()))}
    else:
        runtimes_for(path)
        about["format"] = path.suffix.lstrip(".")
        if not path.is_file():
            raise ConfigError(f"no such model file: {path}")
    about["sha256"] = digest = file_digest(path)
    known = [name for name, model in read_manifest().items() if model.sha256 == digest]
    about["known_as"] = known[0] if known else None
    about["sidecar"] = str(sidecar_path(path)) if sidecar_path(path).is_file() else None
    inputs, outputs, metadata = described(path)
    sidecar = read_sidecar(path, metadata)
    licence = sidecar.licence or (read_manifest()[known[0]].licence if known else "")
    about |= {"licence": licence, "source": sidecar.source}
    about["inputs"], about["outputs"] = ([_tensor(spec) for spec in specs] for specs in (inputs, outputs))
    about["metadata"] = {key: str(value)[:2000] for key, value in metadata.items()}
    about |= _recognised(path, plugin, decoder)
    if support:
        about["runtimes"] = [{"runtime": r.name, "refusal": _refusal(path, r)} for r in _supporting(path)]
    return about


def _recognised(path: Path, plugin: str, decoder: Path | None) -> dict[str, Any]:
    try:
        subject = recognise(path, plugin, decoder)
    except UnrecognisedError as error:
        return {"segmenter": None, "family": None, "class_names": [], "refusals": error.against}
    except (ConfigError, PluginError) as error:
        return {"segmenter": None, "family": None, "class_names": [], "refusals": {plugin or "all": str(error)}}
    segmenter = subject.describe()
    network = getattr(segmenter, "network", None)
    family = getattr(segmenter, "family", "") or getattr(network, "dialect", "") or subject.plugin
    return {"segmenter": subject.plugin, "family": family, "class_names": list(segmenter.class_names), "refusals": {}}


def _supporting(path: Path) -> list[Runtime]:
    found = runtimes_for(path)
    if any(runtime.plugin == "tensorrt" for runtime in found):
        found.append(Runtime("tensorrt", {"library": "tensorrt_rtx"}))
    return found


def _refusal(path: Path, runtime: Runtime) -> str:
    """Why the runtime does not take the file, with the node where it says so; empty = it does."""
    try:
        if runtime.plugin == "tensorrt":  # asked without building an engine
            nodes = unsupported(runtime.options.get("library", "tensorrt"), path)
            return "; ".join(f"{node}: {node.why}" for node in nodes)
        runtime.load(path)
    except (ConfigError, PluginError) as error:
        return " ".join(str(error).split())
    return ""


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": str(spec.dtype)}


def summary(about: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"{about['path']}  {about['format']}, {about['bytes'] / 1e6:.1f} MB, sha256 {about['sha256'][:16]}..."]
    if "opsets" in about:
        opsets = ", ".join(f"{domain} {version}" for domain, version in about["opsets"].items())
        lines.append(f"  opset {opsets}; {about['precision']}, {about['parameters'] / 1e6:.1f} M numbers; "
                     f"{sum(about['operators'].values())} nodes; by {about['producer'] or 'nobody named'}")  # fmt: skip
    for side in ("inputs", "outputs"):
        for tensor in about[side]:
            shape = "x".join("?" if n < 0 else str(n) for n in tensor["shape"])
            lines.append(f"  {side[:-1]:<7} {tensor['name']} {shape} {tensor['dtype']}")
    if about["segmenter"]:
        names = about["class_names"]
        lines.append(f"  segmenter {about['segmenter']}, family {about['family']}, {len(names)} classes: "
                     f"{', '.join(names[:6])}{' ...' if len(names) > 6 else ''}")  # fmt: skip
    else:
        lines.append("  no segmenter recognises it:")
        lines += [f"    {name}: {' '.join(reason.split())}" for name, reason in about["refusals"].items()]
    lines.append(f"  sidecar {about['sidecar'] or 'none'}; licence {about['licence'] or 'not known'}"
                 f"{'; known as ' + about['known_as'] if about['known_as'] else ''}")  # fmt: skip
    lines += [f"  {row['runtime']}: {row['refusal'] or 'runs it'}" for row in about.get("runtimes", [])]
    return "\n".join(lines)
