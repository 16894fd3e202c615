# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The tensorrt backend's engine store, driver probe, library and shapes: no TensorRT needed, the driver is a C stub."""

import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from seg_perception.backends.progress import BuildCancelledError, watching
from seg_perception.backends.trt.driver import check_fits, probe
from seg_perception.backends.trt.library import load_library
from seg_perception.backends.trt.log import reason
from seg_perception.backends.trt.profiles import Range, parse_shapes
from seg_perception.backends.trt.store import EngineKey, EngineStore
from seg_perception.backends.trt.verification import reference_inputs, verify
from seg_perception.options import ConfigError
from seg_perception.plugins import PluginError, TensorSpec

KEY = EngineKey("yolo11n-seg", {"library": "TensorRT 10.3.0", "gpu": {"name": "Orin"}, "model": "ab" * 32})

# -- the store ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    store = EngineStore(tmp_path / "engines")
    with store.locked(KEY):
        pass
    return store


def visible(store):
    return sorted(path.name for path in store.folder.iterdir() if not path.name.endswith(".lock"))


def test_what_is_kept_comes_back_and_only_for_its_key(store):
    store.save(KEY, b"plan", {"build_seconds": 5})
    kept = store.load(KEY)
    assert kept is not None
    assert (kept.plan, kept.facts["build_seconds"]) == (b"plan", 5)
    for field, value in (("library", "TensorRT 10.16.1"), ("gpu", {"name": "RTX 4090"}), ("model", "cd" * 32)):
        assert store.load(EngineKey(KEY.name, {**KEY.fields, field: value})) is None
    assert EngineKey(KEY.name, dict(reversed(KEY.fields.items()))).digest == KEY.digest  # order does not matter


def test_a_damaged_engine_counts_as_none(store, caplog):
    store.save(KEY, b"plan", {})
    (engine,) = store.folder.glob("*.engine")
    engine.write_bytes(b"plun")
    assert store.load(KEY) is None
    assert f"{engine} is damaged" in caplog.text
    store.save(KEY, b"plan", {})
    engine.with_suffix(".json").write_text("{")
    assert store.load(KEY) is None
    engine.with_suffix(".json").write_text("[]")
    assert store.load(KEY) is None


def test_an_engine_that_anybody_could_have_written_is_not_loaded(store):
    store.save(KEY, b"engine", {})
    store.folder.chmod(0o777)
    with pytest.raises(ConfigError, match=f"{store.folder} may be written by anybody, and an engine is code"):
        store.load(KEY)
    store.folder.chmod(0o700)
    assert store.load(KEY).plan == b"engine"


def test_the_nearest_other_engine_says_what_changed(store):
    assert store.why_not(KEY) == ""
    store.save(KEY, b"plan", {"build_seconds": 312.4})
    for version in range(5):
        store.save(EngineKey(KEY.name, {"library": f"TensorRT {version}", "gpu": {}, "model": ""}), b"plan", {})
    store.save(EngineKey("another", {**KEY.fields, "library": "TensorRT 9"}), b"plan", {})
    new = EngineKey(KEY.name, {**KEY.fields, "library": "TensorRT 10.16.1", "gpu": {"name": "RTX 4090"}})
    assert store.why_not(new) == (
        "TensorRT's version changed from TensorRT 10.3.0 to TensorRT 10.16.1; the GPU or its driver changed from name "
        "Orin to name RTX 4090 (that one took 312 s to build)"
    )


@pytest.mark.parametrize("kind", ["engine", "json"])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(store, kind, monkeypatch):
    """/dev/full answers as a full disk does."""
    store.save(KEY, b"old", {})
    part = store.folder / f".{KEY.stem}.{kind}.part"
    monkeypatch.setattr(store, "_part", lambda path: store.folder / f".{path.name}.part")
    part.symlink_to("/dev/full")
    with pytest.raises(ConfigError) as error:
        store.save(KEY, b"new plan", {})
    text = str(error.value)
    assert "No space left on device" in text
    assert str(store.folder) in text
    assert "backend.cache" in text
    assert "\n" not in text
    assert not [name for name in visible(store) if name.endswith(".part")]
    assert store.load(KEY) is None  # neither the old one under a new name nor half of the new one


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=r"cannot be kept: .*file/engines"),
        EngineStore(tmp_path / "file" / "engines").locked(KEY),
    ):
        pass


def test_one_builds_while_the_other_waits_and_may_give_up(store):
    inside, leave = threading.Event(), threading.Event()

    def first():
        with store.locked(KEY):
            inside.set()
            leave.wait(20)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(20)
    with watching(lambda progress: False), pytest.raises(BuildCancelledError, match="another process is building"):
        store.locked(KEY).__enter__()
    seen = []

    def watch(progress):
        seen.append(progress.text)
        leave.set()

    with watching(watch), store.locked(KEY):
        assert seen == ["another process is building yolo11n-seg: waiting for it"]
    thread.join()


def test_what_a_killed_process_left_is_cleared(store):
    part = store.folder / f".{KEY.stem}.engine.4711.part"
    part.write_bytes(b"half")
    with store.locked(KEY):
        assert not part.exists()


def test_a_folder_written_by_a_child_that_is_killed_stays_whole(store, tmp_path):
    """Killed while it writes: the reader sees no engine, or a whole one."""
    code = (
        "import sys, pathlib\n"
        "from seg_perception.backends.trt.store import EngineKey, EngineStore\n"
        f"store = EngineStore(pathlib.Path({str(store.folder)!r}))\n"
        f"key = EngineKey({KEY.name!r}, {dict(KEY.fields)!r})\n"
        "print('go', flush=True)\n"
        "while True: store.save(key, bytes(5_000_000), {})\n"
    )
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        threading.Event().wait(0.1)
        child.kill()
        child.wait()
        child.stdout.close()
        kept = store.load(KEY)
        assert kept is None or kept.plan == bytes(5_000_000)


# -- the driver --------------------------------------------------------------------------------------------------------

DRIVER = """
#include <string.h>
#include <stddef.h>
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGetCount(int* count) { *count = COUNT; return 0; }
int cuDeviceGet(int* device, int index) { *device = 40 + index; return 0; }
int cuDriverGetVersion(int* version) { *version = 12040; return 0; }
int cuDeviceGetName(char* name, int length, int device) { strncpy(name, "NVIDIA Stub", length); return device < 40; }
int cuDeviceTotalMem_v2(size_t* bytes, int device) { *bytes = 8ull << 30; return 0; }
int cuDeviceGetAttribute(int* value, int what, int device) {
  *value = what == 75 ? 8 : what == 76 ? 7 : what == 16 ? 14 : -1; return 0; }
int cuGetErrorName(int code, const char** name) { *name = "CUDA_ERROR_STUB"; return 0; }
"""


@pytest.fixture
def driver(tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler for the stub of the driver")

    def driver(init=0, count=2):
        source, library = tmp_path / "cuda.c", tmp_path / f"libcuda-{init}-{count}.so"
        source.write_text(DRIVER)
        defines = [f"-DINIT={init}", f"-DCOUNT={count}"]
        subprocess.run([compiler, "-shared", "-fPIC", *defines, "-o", library, source], check=True)
        return str(library)

    return driver


def test_the_probe_describes_the_gpu(driver):
    gpu = probe(1, driver())
    assert (gpu.name, gpu.capability, gpu.processors, gpu.memory, gpu.cuda) == (
        "NVIDIA Stub",
        (8, 7),
        14,
        8 << 30,
        (12, 4),
    )
    assert str(gpu) == "NVIDIA Stub (compute capability 8.7)"
    assert gpu.fields() == {"name": "NVIDIA Stub", "capability": "8.7", "processors": 14, "memory_gib": 8, "cuda": 12}


def test_a_driver_that_is_too_old_is_said_with_both_versions(driver):
    gpu = probe(0, driver())
    check_fits(gpu, 12, "TensorRT 10.3")
    check_fits(gpu, 0, "TensorRT 10.3")
    with pytest.raises(ConfigError, match=r"the driver runs CUDA 12.4, but this TensorRT 11.4 needs CUDA 13: update"):
        check_fits(gpu, 13, "TensorRT 11.4")


@pytest.mark.parametrize(
    ("init", "count", "index", "line"),
    [
        (100, 0, 0, "the NVIDIA driver sees no GPU: in Docker use --gpus all"),
        (0, 0, 0, "sees no GPU"),
        (803, 1, 0, r"does not work here \(cuInit says 803: CUDA_ERROR_STUB\)"),
        (0, 2, 2, "device: expected 0 to 1, got 2"),
    ],
)
def test_no_usable_gpu_is_one_line(driver, init, count, index, line):
    with pytest.raises(ConfigError, match=line):
        probe(index, driver(init, count))


def test_no_driver_is_one_line_with_the_alternatives():
    with pytest.raises(ConfigError, match=r"no NVIDIA driver .* use the backend onnxruntime or openvino"):
        probe(0, "libcuda-that-is-not-there.so.1")


# -- the library -------------------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes a package `tensorrt` of this source the only one."""

    def package(source):
        (tmp_path / "tensorrt").mkdir()
        (tmp_path / "tensorrt" / "__init__.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "tensorrt", raising=False)

    yield package
    sys.modules.pop("tensorrt", None)


def test_without_tensorrt_the_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for flavour, line in (
        ("tensorrt", r"pip install tensorrt-cu13 .*Jetson: it comes"),
        ("tensorrt_rtx", "tensorrt-rtx-cu13"),
    ):
        with pytest.raises(PluginError, match=f"is not installed. .*{line}"):
            load_library(flavour)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (
            "raise ImportError('libnvonnxparser.so.11: cannot open shared object file: No such file or directory')",
            "bindings are installed, but its library libnvonnxparser.so.11 is not: reinstall",
        ),
        ("raise ImportError('numpy is too new')", "TensorRT cannot be imported: numpy is too new"),
        ("__version__ = '8.6.1'", "TensorRT 8.6.1 is too old: 10.3 to 11.4 are supported"),
    ],
)
def test_a_library_that_cannot_be_used_is_one_line(package, source, line):
    package(source)
    with pytest.raises(PluginError, match=line):
        load_library("tensorrt")


def test_the_installed_library_is_the_module(package, caplog):
    package("__version__ = '11.9.0.1'")
    assert load_library("tensorrt").__version__ == "11.9.0.1"
    assert "newer than 11.4" in caplog.text


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (
            "Error Code 6: API Usage Error (Unable to load library: libnvinfer_builder_resource_sm86.so.10.16.2 )",
            "trimmed",
        ),
        ("Error Code 2: OutOfMemory (Requested size was 8589934592 bytes.)", "not enough GPU memory"),
        ("Assertion !layerImpls.empty() failed. node_of_o_0 has no runners that implement it", "without NMS"),
        ("TensorRT-RTX does not support this compute capability", "install tensorrt-cu13"),
    ],
)
def test_the_log_is_put_into_words_that_help(line, hint):
    text = reason(["a warning", line])
    assert hint in text
    assert line[:60] in text
    assert reason([]) == "TensorRT: it gave no reason"


# -- shapes and comparison ---------------------------------------------------------------------------------------------


def test_shapes_are_read():
    ranges = parse_shapes(["images=1x3x480x640", "points=1x1x2..1x4x2..1x64x2"])
    assert ranges["images"] == Range(*[(1, 3, 480, 640)] * 3)
    assert ranges["points"].holds((1, 64, 2))
    assert not ranges["points"].holds((1, 65, 2))
    assert not ranges["points"].holds((1, 64))
    assert str(ranges["points"]) == "1x1x2..1x4x2..1x64x2"


@pytest.mark.parametrize(
    "text", ["images", "=1x3", "images=1x3..1x4", "images=1xax3", "images=4..2..8", "i=1x1..2x2..3", "i="]
)
def test_shapes_that_are_none_are_refused(text):
    with pytest.raises(ConfigError, match="shapes: "):
        parse_shapes([text])


SPECS = (TensorSpec("image", (1, 3, -1, -1), np.dtype(np.float32)), TensorSpec("ids", (1, 4), np.dtype(np.int64)))
RANGES = {"image": Range((1, 3, 32, 32), (1, 3, 48, 64), (1, 3, 96, 96))}


def test_the_pattern_to_compare_on_is_an_image_and_always_the_same():
    inputs = reference_inputs(SPECS, RANGES)
    assert (inputs["image"].shape, inputs["image"].dtype) == ((1, 3, 48, 64), np.float32)
    assert inputs["image"].min() == 0
    assert inputs["image"].max() == 1
    assert inputs["image"].std() > 0.1
    np.testing.assert_array_equal(inputs["ids"], np.ones((1, 4), np.int64))
    np.testing.assert_array_equal(inputs["image"], reference_inputs(SPECS, RANGES)["image"])


@pytest.mark.parametrize(
    ("change", "agrees"),
    [
        (lambda y: y, True),
        (lambda y: y * 1.001, True),
        (lambda y: y[:, :, ::-1], True),  # another order, as from a top-k with ties
        (lambda y: y * 1.1, False),
        (lambda y: y + 0.15, False),  # as TensorRT 11.1 did it to D-FINE
        (lambda y: np.zeros_like(y), False),
        (lambda y: np.where(y == y.max(), np.nan, y), False),
        (lambda y: y[:, :1], False),
    ],
)
def test_an_engine_that_computes_something_else_is_found(tmp_path, change, agrees):
    from test_onnxruntime import identity_model

    model = identity_model(tmp_path / "identity.onnx")
    inputs = {"x": np.linspace(0, 1, 100, dtype=np.float32).reshape(1, 2, 50)}
    run = lambda feed: {"y": change(feed["x"])}  # noqa: E731
    if agrees:
        (agreement,) = verify(run, model, inputs, 0.02)
        assert agreement.difference < 0.02
    else:
        with pytest.raises(ConfigError, match="disagrees with ONNX Runtime: y is off by"):
            verify(run, model, inputs, 0.02)


def test_the_description_of_an_engine_is_readable_json(store):
    store.save(KEY, b"plan", {"verified": {"y": 0.001}})
    (path,) = store.folder.glob("*.json")
    facts = json.loads(path.read_text())
    assert facts["key"]["library"] == "TensorRT 10.3.0"
    assert facts["verified"] == {"y": 0.001}
    assert facts["written"].endswith("Z")
