# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What docs/security.md says of the code: no shell, no eval, nothing unpickled unless that is asked for."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "seg_perception").rglob("*.py"))
CALLS = {"eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "marshal.loads", "__import__"}


def dotted(node: ast.expr) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return ".".join([node.id, *parts]) if isinstance(node, ast.Name) else ".".join(parts)


def dangers(source: str) -> list[str]:
    """Calls that run text, a shell, or what a file says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, options = dotted(node.func), {k.arg: getattr(k.value, "value", "?") for k in node.keywords}
        if name in CALLS or options.get("shell"):
            found.append(name)
        if name in ("np.load", "numpy.load") and options.get("allow_pickle", False) is not False:
            found.append(name)
        if name == "torch.load" and options.get("weights_only") is False:
            found.append(name)
        if name == "yaml.load" and not (len(node.args) == 2 and dotted(node.args[1]) == "_Loader"):
            found.append(name)
    return found


def test_no_call_runs_what_a_file_or_a_message_says():
    found = {str(path.relative_to(ROOT)): dangers(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert len(found) > 150
    assert {path: calls for path, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "subprocess.run('ls', shell=True)",
        "np.load(f, allow_pickle=True)",
        "torch.load(f, weights_only=False)",
        "yaml.load(text, yaml.Loader)",
    ],
)
def test_the_search_finds_them(source):
    assert dangers(source)


def test_the_loader_of_configurations_is_a_safe_one():
    import yaml

    from seg_perception import config

    assert issubclass(config._Loader, yaml.SafeLoader)


def test_a_model_file_is_the_one_that_its_sidecar_speaks_of(models_dir, tmp_path):
    """Of every segmenter, also of one that reads no sidecar otherwise, and before any runtime sees the file."""
    from seg_perception.options import ConfigError, parse
    from seg_perception.segmenters.yolo import Yolo

    model = tmp_path / "net.onnx"
    model.write_bytes((models_dir / "contracts" / "yolov8-seg_tiny_raw.onnx").read_bytes())
    (tmp_path / "net.yaml").write_text(f"sha256: {'ab' * 32}\n")
    with pytest.raises(ConfigError, match=r"net.yaml: written for the model abababababab\.\.\., but net.onnx is"):
        Yolo(parse(Yolo.Config, {"model": str(model)}))
