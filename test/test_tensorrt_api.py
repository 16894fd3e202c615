# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Every attribute that the TensorRT backend uses exists in the real bindings of 10.3 (JetPack 6), 10.16 and 11.4.

NVIDIA's Python bindings are small wheels; the libraries behind them (gigabytes) are replaced by stubs compiled here,
which is enough to import the module and to look at its classes, not to call them.
"""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tensorrt_packages import fetched

ROOT = Path(__file__).resolve().parents[1] / "seg_perception" / "backends"
SOURCES = [ROOT / "tensorrt.py", *sorted((ROOT / "trt").glob("*.py"))]

# In these sources a name always holds an object of one class.
CLASSES = {
    "trt": "",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "error": "ParserError",
    "layer": "ILayer",
    "tensor": "ITensor",
    "build_config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "timing_cache": "ITimingCache",
    "runtime": "Runtime",
    "registry": "IPluginRegistry",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
}
RTX_ONLY = {
    "rtx": "",
    "rtx_build_config": "IBuilderConfig",
    "rtx_engine": "ICudaEngine",
    "rtx_config": "IRuntimeConfig",
}
OWNERS = {  # names that mean something else in other files
    "error": ("network.py",),
    "tensor": ("network.py", "building.py"),
    "runtime": ("tensorrt.py",),
}
VERSIONS = (
    "tensorrt-cu12-bindings==10.3.0",
    "tensorrt-cu13-bindings==10.16.1.11",
    "tensorrt-cu13-bindings==11.4.0.106",
)

SYMBOLS = (
    "createInferBuilder_INTERNAL createInferRuntime_INTERNAL createInferRefitter_INTERNAL getPluginRegistry "
    "getBuilderPluginRegistry initLibNvInferPlugins createNvOnnxParser_INTERNAL createNvOnnxParserRefitter_INTERNAL "
    "getNvOnnxParserVersion"
)
STUB = "".join(f"void* {name}(void) {{ return 0; }}\n" for name in SYMBOLS.split())

LOOK = """
import json, sys
import tensorrt_bindings as trt
wanted = json.loads(sys.argv[1])
missing = []
for path in wanted:
    at = trt
    for name in path.split("."):
        if not hasattr(at, name):
            missing.append(path)
            break
        at = getattr(at, name)
try:
    trt.Builder(trt.Logger())
    refused = ""
except TypeError as error:
    refused = str(error)
print(json.dumps({"version": trt.__version__, "missing": missing, "refused": refused}))
"""


def used_attributes(classes: dict[str, str]) -> dict[str, set[str]]:
    """Dotted path in the module -> files that use it."""
    found: dict[str, set[str]] = {}
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            path = []
            while isinstance(node, ast.Attribute):
                path.insert(0, node.attr)
                node = node.value
                if path[0].lstrip("_") in classes and isinstance(node, ast.Name) and node.id == "self":
                    node = ast.Name(path.pop(0).lstrip("_"))
            if not path or not isinstance(node, ast.Name) or node.id not in classes:
                continue
            if source.name not in OWNERS.get(node.id, (source.name,)):
                continue
            owner = classes[node.id]
            whole = path if not owner and path[0] != path[-1] else path[:1]
            if path[0].startswith("__"):
                continue
            found.setdefault(".".join([*([owner] if owner else []), *whole]), set()).add(source.name)
    return found


USED = used_attributes(CLASSES)


def test_the_search_finds_what_the_backend_uses():
    assert {
        "BuilderFlag.TF32",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "Builder.build_serialized_network",
        "IExecutionContext.execute_async_v3",
        "ICudaEngine.get_tensor_profile_shape",
        "Runtime.deserialize_cuda_engine",
        "ParserError.node_operator",
        "IOutputAllocator.__init__",
        "IPluginRegistry.load_library",
        "ITimingCache.combine",
        "IBuilderConfig.DLA_core",
        "Builder.num_DLA_cores",
        "Runtime.DLA_core",
    } <= USED.keys()
    assert len(USED) > 45


@pytest.fixture(scope="module")
def compiler():
    found = shutil.which("cc") or shutil.which("gcc")
    if not found:
        pytest.skip("no C compiler for the stubs of TensorRT's libraries")
    return found


@pytest.mark.parametrize("requirement", VERSIONS)
def test_every_attribute_exists_in_the_real_bindings(requirement, compiler, tmp_path):
    package = tmp_path / "tensorrt_bindings"
    shutil.copytree(fetched(requirement) / "tensorrt_bindings", package)
    version = requirement.partition("==")[2]
    (tmp_path / "stub.c").write_text(STUB)
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        name = f"lib{library}.so.{version.partition('.')[0]}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", package / name, tmp_path / "stub.c"]
        subprocess.run(command, check=True)
    wanted = sorted(USED)
    done = subprocess.run(
        [sys.executable, "-c", LOOK, json.dumps(wanted)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["version"] == version
    assert answer["missing"] == []
    assert "nullptr" in answer["refused"]  # what the backend turns into a ConfigError


def test_an_attribute_that_some_version_lacks_would_be_found(compiler, tmp_path):
    """The check itself: BuilderFlag.FP16 is gone in 11.4."""
    package = tmp_path / "tensorrt_bindings"
    shutil.copytree(fetched(VERSIONS[-1]) / "tensorrt_bindings", package)
    (tmp_path / "stub.c").write_text(STUB)
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        command = [compiler, "-shared", "-fPIC", "-o", package / f"lib{library}.so.11", tmp_path / "stub.c"]
        subprocess.run(command, check=True)
    done = subprocess.run(
        [sys.executable, "-c", LOOK, '["BuilderFlag.FP16"]'], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["missing"] == ["BuilderFlag.FP16"]


def test_what_only_tensorrt_rtx_has_is_there():
    from tensorrt_packages import real_rtx

    rtx = real_rtx()
    wanted = used_attributes({**CLASSES, **RTX_ONLY})
    for path in wanted:
        at = rtx
        for name in path.split("."):
            assert hasattr(at, name), path
            at = getattr(at, name)
    assert "IRuntimeConfig.cuda_graph_strategy" in wanted
