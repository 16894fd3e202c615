# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The torch backend: one network in every kind of file gives the results of ONNX Runtime; foreign code does not run."""

import json
import logging
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from seg_perception.backends.onnxruntime import OnnxRuntime
from seg_perception.options import ConfigError, parse
from seg_perception.plugins import Backend, PluginError

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'seg_perception[torch]'")

from seg_perception.backends.torch import Torch, _moved  # noqa: E402

SHAPE = (1, 3, 32, 48)
IMAGE = "image 1x3x32x48"
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


class Net(torch.nn.Module):
    """Two convolutions; the map, and the mean over it before the last one."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.last = torch.nn.Conv2d(4, 2, 1)

    def forward(self, image):
        features = torch.relu(self.first(image))
        return self.last(features), features.mean((2, 3), keepdim=True)


class Named(Net):
    """The same with names, and something that is not there."""

    def forward(self, image):
        masks, mean = super().forward(image)
        return {"masks": masks, "loss": None, "extra": [mean, {"twice": mean * 2}]}


def half_net() -> torch.nn.Module:
    return Net().half()


def not_a_net() -> dict:
    return {}


class Counting(Net):
    """As many rows as there are bright pixels: sizes that depend on the image."""

    def forward(self, image):
        return self.last(torch.relu(self.first(image))), torch.nonzero(image[0, 0] > 0.9)


def start(**options) -> Torch:
    return Torch(parse(Torch.Config, {"threads": 1, **options}))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


# --- the same network as an ONNX file, written by hand: torch writes none without more packages ---


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnx_file(net: Net, path: Path) -> Path:
    def node(op: str, inputs: list[str], output: str, pads: int = 0) -> bytes:
        attribute = field(1, b"pads") + field(8, varint(pads) * 4) + field(20, 7)
        names = b"".join(field(1, name.encode()) for name in inputs) + field(2, output.encode())
        return field(1, names + field(4, op.encode()) + (field(5, attribute) if pads else b""))

    def value(name: str, shape: tuple[int, ...]) -> bytes:
        sizes = b"".join(field(1, field(1, n)) for n in shape)
        return field(1, name.encode()) + field(2, field(1, field(1, 1) + field(2, sizes)))

    weights = b"".join(
        field(
            5,
            b"".join(field(1, n) for n in p.shape)
            + field(2, 1)
            + field(8, name.encode())
            + field(9, p.numpy().tobytes()),
        )
        for name, p in net.state_dict().items()
    )
    graph = node("Conv", ["image", "first.weight", "first.bias"], "a", pads=1) + node("Relu", ["a"], "b")
    graph += node("Conv", ["b", "last.weight", "last.bias"], "output0") + node("GlobalAveragePool", ["b"], "output1")
    graph += field(2, b"g") + weights + field(11, value("image", SHAPE))
    graph += field(12, value("output0", (1, 2, 32, 48))) + field(12, value("output1", (1, 4, 1, 1)))
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(2, 17)))
    return path


KINDS = ["trace", "script", "frozen", "export", "weights", "pickle"]


def saved(net: Net, kind: str, folder: Path) -> dict:
    """The options that load the network from a file of that kind."""
    path, image = folder / f"{kind}.pt", torch.rand(SHAPE)
    if kind in ("trace", "script", "frozen"):
        module = torch.jit.script(net) if kind == "script" else torch.jit.trace(net, image)
        module = torch.jit.freeze(module) if kind == "frozen" else module
        module.save(str(path))
    elif kind == "export":
        path = path.with_suffix(".pt2")
        torch.export.save(torch.export.export(net, (image,)), path)
        return {"model": str(path)}
    elif kind == "weights":
        torch.save(net.state_dict(), path)
        return {"model": str(path), "module": f"{__name__}:Net", "inputs": [IMAGE]}
    else:
        torch.save(net, path)
        return {"model": str(path), "trust_pickle": True, "inputs": [IMAGE]}
    return {"model": str(path), "inputs": [IMAGE]}


@pytest.fixture(scope="module")
def expected(net, tmp_path_factory):
    """An image, and what ONNX Runtime makes of it."""
    path = onnx_file(net, tmp_path_factory.mktemp("onnx") / "net.onnx")
    image = np.random.default_rng(1).random(SHAPE, dtype=np.float32)
    return image, OnnxRuntime(OnnxRuntime.Config(model=str(path), threads=1))({"image": image})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_results_of_onnxruntime(net, expected, tmp_path, kind):
    image, outputs = expected
    options = saved(net, kind, tmp_path)
    for more in ({}, {"channels_last": True}):
        backend = start(**options, **more)
        assert isinstance(backend, Backend)
        assert [(s.name, s.shape, s.dtype) for s in backend.inputs] == [("image", SHAPE, np.float32)]
        assert {s.name: (s.shape, s.dtype) for s in backend.outputs} == {
            name: (array.shape, array.dtype) for name, array in outputs.items()
        }
        found = backend({"image": image})
        assert list(found) == ["output0", "output1"]
        for name, array in outputs.items():
            np.testing.assert_allclose(found[name], array, atol=1e-6)
            assert found[name].flags.c_contiguous


def test_results_are_not_written_to_by_later_calls_nor_are_inputs(net, tmp_path):
    backend = start(**saved(net, "trace", tmp_path))
    image = np.random.default_rng(1).random(SHAPE, dtype=np.float32)
    image.flags.writeable = False
    first = backend({"image": image})
    kept = {name: array.copy() for name, array in first.items()}
    backend({"image": image * 2})
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
    identity = torch.jit.trace(torch.nn.Identity(), torch.rand(1, 2))
    identity.save(str(tmp_path / "identity.pt"))
    x = np.ones((1, 2), np.float32)
    y = start(model=str(tmp_path / "identity.pt"), inputs=["x 1x2"])({"x": x})["output0"]
    x[:] = 7  # as a segmenter does with its one input tensor
    np.testing.assert_array_equal(y, 1)


def test_outputs_are_named_by_their_keys_or_by_the_user(net, tmp_path):
    torch.save({"state_dict": net.state_dict(), "epoch": 3}, tmp_path / "checkpoint.pt")
    options = {"model": str(tmp_path / "checkpoint.pt"), "module": f"{__name__}:Named", "inputs": [IMAGE]}
    options["checkpoint_key"] = "state_dict"
    assert [s.name for s in start(**options).outputs] == ["masks", "extra.0", "extra.1.twice"]
    renamed = start(**options, output_names=["a", "b", "c"])
    out = renamed({"image": np.ones(SHAPE, np.float32)})
    np.testing.assert_allclose(out["c"], 2 * out["b"])
    with pytest.raises(ConfigError, match=r"has 3 outputs \(masks, extra\.0, extra\.1\.twice\), got a, b"):
        start(**options, output_names=["a", "b"])
    with pytest.raises(ConfigError, match=r"no 'ema' in .*\(it holds: state_dict, epoch\)"):
        start(**{**options, "checkpoint_key": "ema"})


def test_sizes_that_depend_on_the_image_are_free(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "w.pt")
    backend = start(model=str(tmp_path / "w.pt"), module=f"{__name__}:Counting", inputs=[IMAGE])
    assert [s.shape for s in backend.outputs] == [(1, 2, 32, 48), (-1, 2)]
    image = np.zeros(SHAPE, np.float32)
    image[0, 0, 3, 5] = image[0, 0, 9, 1] = 1
    np.testing.assert_array_equal(backend({"image": image})["output1"], [[3, 5], [9, 1]])


def test_a_program_with_free_sizes_takes_them_all(net, tmp_path):
    dims = {"image": {2: torch.export.Dim("h", min=4, max=512), 3: torch.export.Dim("w", min=4, max=512)}}
    torch.export.save(torch.export.export(net, (torch.rand(SHAPE),), dynamic_shapes=dims), tmp_path / "free.pt2")
    backend = start(model=str(tmp_path / "free.pt2"))
    assert [s.shape for s in backend.inputs + backend.outputs] == [(1, 3, -1, -1), (1, 2, -1, -1), (1, 4, 1, 1)]
    for size in ((32, 48), (17, 99)):
        image = np.random.default_rng(1).random((1, 3, *size), dtype=np.float32)
        with torch.no_grad():
            np.testing.assert_allclose(backend({"image": image})["output0"], net(torch.from_numpy(image))[0], atol=1e-6)


def test_metadata_of_ultralytics_kind_is_read_and_gives_the_input_s_size(net, tmp_path):
    metadata = {"task": "segment", "names": {"0": "cup", "1": "bowl"}, "imgsz": [32, 48], "args": {"nms": False}}
    path = tmp_path / "net.torchscript"
    extra = {"config.txt": json.dumps(metadata), "note.txt": "not JSON"}
    torch.jit.save(torch.jit.trace(net, torch.rand(SHAPE)), str(path), _extra_files=extra)
    backend = start(model=str(path))
    assert [(s.name, s.shape) for s in backend.inputs] == [("images", SHAPE)]
    assert backend.metadata["names"] == "{0: 'cup', 1: 'bowl'}"
    assert backend.metadata["args"] == "{'nms': False}"
    assert backend.metadata["note.txt"] == "not JSON"
    program = tmp_path / "net.pt2"
    torch.export.save(
        torch.export.export(net, (torch.rand(SHAPE),)), program, extra_files={"config.txt": extra["config.txt"]}
    )
    assert start(model=str(program)).metadata["names"] == backend.metadata["names"]


# --- precision, device, threads ---


def test_precision_is_lower_only_when_asked_for(net, expected, tmp_path):
    image, outputs = expected
    scale = np.abs(outputs["output0"]).max()
    for kind in ("trace", "export", "weights"):
        options = saved(net, kind, tmp_path)
        out = start(**options, autocast="bfloat16")({"image": image})["output0"]
        assert out.dtype == np.float32
        assert 1e-4 * scale < np.abs(out - outputs["output0"]).max() < 0.03 * scale
    start(**options, tf32=True)
    assert torch.backends.cudnn.allow_tf32
    start(**options)
    assert not torch.backends.cudnn.allow_tf32  # what PyTorch allows by default


def test_a_network_of_half_precision_is_single_precision_at_the_door(net, expected, tmp_path):
    image, outputs = expected
    torch.save(net.state_dict(), tmp_path / "w.pt")
    backend = start(model=str(tmp_path / "w.pt"), module=f"{__name__}:half_net", inputs=[IMAGE])
    out = backend({"image": image})["output0"]
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, outputs["output0"], atol=5e-3)
    assert not np.array_equal(out, outputs["output0"])
    torch.export.save(torch.export.export(half_net().eval(), (torch.rand(SHAPE).half(),)), tmp_path / "half.pt2")
    program = start(model=str(tmp_path / "half.pt2"))
    assert program.inputs[0].dtype == np.float16
    assert program({"image": image})["output0"].dtype == np.float32


def test_a_program_moves_to_its_device_whole(net):
    """On the one other device that every machine has: it knows shapes only."""
    program = torch.export.export(net, (torch.rand(SHAPE),))
    network = _moved(program, torch.device("meta")).module()
    assert {p.device.type for p in network.parameters()} == {"meta"}
    assert [out.device.type for out in network(torch.rand(SHAPE, device="meta"))] == ["meta", "meta"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_gives_the_results_of_the_cpu(net, expected, tmp_path, kind):
    image, outputs = expected
    found = start(**saved(net, kind, tmp_path), device="cuda")({"image": image})
    for name, array in outputs.items():
        np.testing.assert_allclose(found[name], array, atol=1e-5)


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_an_absent_device_is_one_line(net, tmp_path, device):
    with pytest.raises(ConfigError) as error:
        start(**saved(net, "trace", tmp_path), device=device)
    assert str(error.value).startswith(f"device: '{device}' is not here (torch {torch.__version__})")
    assert "\n" not in str(error.value)


def test_threads_are_those_asked_for(net, tmp_path):
    start(**saved(net, "trace", tmp_path), threads=2)
    assert torch.get_num_threads() == 2
    start(**saved(net, "trace", tmp_path), threads=1)
    assert torch.get_num_threads() == 1


def test_compile_reaches_torch_and_is_refused_for_torchscript(net, expected, tmp_path, monkeypatch):
    image, outputs = expected
    monkeypatch.setattr(torch, "compile", lambda module, real=torch.compile: real(module, backend="eager"))  # no C++
    for kind in ("export", "weights"):
        backend = start(**saved(net, kind, tmp_path), compile=True)
        assert "OptimizedModule" in type(backend._network).__name__
        np.testing.assert_allclose(backend({"image": image})["output0"], outputs["output0"], atol=1e-6)
    with pytest.raises(ConfigError, match="TorchScript is compiled already"):
        start(**saved(net, "trace", tmp_path), compile=True)


# --- foreign code ---


class Trap:
    """Unpickled, it creates a file."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def trapped(kind: str, net: Net, path: Path, trap: Trap) -> None:
    if kind == "weights":
        torch.save({"state_dict": net.state_dict(), "trap": trap}, path)
        return
    torch.export.save(torch.export.export(net, (torch.rand(SHAPE),)), path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (samples,) = (name for name in members if name.endswith("sample_inputs/model.pt"))
    torch.save(((trap,), {}), path.with_name("trap.pt"), _use_new_zipfile_serialization=kind == "samples")
    content = path.with_name("trap.pt").read_bytes()
    if kind == "samples":
        members[samples] = content
    elif kind == "constants":
        config = next(name for name in members if name.endswith("model_constants_config.json"))
        payload = {"path_name": "tensor_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        members[config] = json.dumps({"config": {"c": payload}}).encode()
        members[config.replace("model_constants_config.json", "tensor_0")] = content
    elif kind == "object":
        config = next(name for name in members if name.endswith("model_constants_config.json"))
        payload = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        members[config] = json.dumps({"config": {"c": payload}}).encode()
        members[config.replace("model_constants_config.json", "opaque_obj_0")] = content
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        if kind == "twice":
            archive.writestr(samples, content)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["weights", "samples", "constants", "object", "twice"])
def test_no_code_in_a_file_runs_unless_it_is_trusted(net, tmp_path, kind, monkeypatch):
    path, proof = tmp_path / ("m.pt" if kind == "weights" else "m.pt2"), tmp_path / "it ran"
    trapped(kind, net, path, Trap(proof))
    options = {"model": str(path)}
    if kind == "weights":
        options |= {"module": f"{__name__}:Net", "checkpoint_key": "state_dict", "inputs": [IMAGE]}
    with pytest.raises(ConfigError, match="set trust_pickle: true") as error:
        start(**options)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert not proof.exists()
    if kind in ("weights", "samples"):  # the trap is one
        monkeypatch.setattr(logging.root.manager, "disable", logging.WARNING)  # torch.export cannot format its own
        start(**options, trust_pickle=True)
        assert proof.exists()


def test_a_pickled_module_is_named_and_runs_once_trusted(net, tmp_path):
    options = saved(net, "pickle", tmp_path)
    with pytest.raises(ConfigError, match=r"Net was not an allowed global.*set trust_pickle: true"):
        start(**{**options, "trust_pickle": False})


# --- what can be wrong ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.95])
def test_a_truncated_file_is_one_line(net, tmp_path, kind, keep):
    options = saved(net, kind, tmp_path)
    path = Path(options["model"])
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(ConfigError, match="not a readable PyTorch file") as error:
        start(**options)
    assert "\n" not in str(error.value)


def test_a_damaged_archive_is_one_line(net, tmp_path):
    for kind in ("trace", "export", "weights"):
        options = saved(net, kind, tmp_path)
        path = Path(options["model"])
        data = bytearray(path.read_bytes())
        for at in range(60, len(data) - 2000, 97):  # here and there, not in the table of contents
            data[at] ^= 0xFF
        path.write_bytes(data)
        with pytest.raises(ConfigError) as error:
            start(**options)
        assert "\n" not in str(error.value)
        assert path.name in str(error.value)


def test_other_archives_missing_files_and_missing_options_are_one_line(net, tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a/b.txt", "text")
    with pytest.raises(ConfigError, match="a zip archive that PyTorch did not write"):
        start(model=str(tmp_path / "other.zip"))
    with pytest.raises(ConfigError, match="no such model file"):
        start(model=str(tmp_path / "none.pt"))
    trace, weights = saved(net, "trace", tmp_path), saved(net, "weights", tmp_path)
    with pytest.raises(ConfigError, match=r"inputs: trace\.pt does not say what it takes"):
        start(model=trace["model"])
    with pytest.raises(ConfigError, match="holds weights only: set module"):
        start(model=weights["model"], inputs=[IMAGE])
    with pytest.raises(ConfigError, match=r"module: trace\.pt is a TorchScript and needs none"):
        start(**trace, module=f"{__name__}:Net")
    with pytest.raises(ConfigError, match="which says them itself"):
        start(**saved(net, "export", tmp_path), inputs=[IMAGE])


@pytest.mark.parametrize("text", ["image", "image 1x3xHxW", "image 1x0x3", "image 1x3 floaty", "a b c d"])
def test_an_input_that_is_not_understood_is_refused(net, tmp_path, text):
    with pytest.raises(ConfigError, match=r"expected NAME SIZES \[DTYPE\]"):
        start(**{**saved(net, "trace", tmp_path), "inputs": [text]})


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("nowhere_at_all:Net", "cannot be built: No module named"),
        (f"{__name__}:None_such", "cannot be built"),
        ("Net", "expected module:Class, got 'Net'"),
        (f"{__name__}:not_a_net", "makes a dict, expected a torch.nn.Module"),
        ("torch.nn:Identity", r"not the weights of torch.nn:Identity: .*Unexpected key"),
    ],
)
def test_a_module_that_is_not_the_network_is_refused(net, tmp_path, module, line):
    with pytest.raises(ConfigError, match=line) as error:
        start(**{**saved(net, "weights", tmp_path), "module": module})
    assert "\n" not in str(error.value)


def test_a_network_that_does_not_run_is_found_out_at_the_start(net, tmp_path):
    with pytest.raises(ConfigError, match=r"does not run on image \(1, 4, 32, 48\) float32") as error:
        start(**{**saved(net, "trace", tmp_path), "inputs": ["image 1x4x32x48"]})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("inputs", "line"),
    [
        ({}, "expected inputs image, got none"),
        ({"image": np.zeros((1, 3, 8, 8), np.float32)}, r"expected \(1, 3, 32, 48\), got \(1, 3, 8, 8\)"),
        ({"image": np.zeros(SHAPE)}, "expected float32, got float64"),
    ],
)
def test_a_wrong_input_is_refused_with_what_was_expected(net, tmp_path, inputs, line):
    with pytest.raises(ValueError, match=line):
        start(**saved(net, "trace", tmp_path))(inputs)


def test_without_torch_the_line_says_how_to_get_it(net, tmp_path, monkeypatch):
    options = saved(net, "trace", tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(PluginError, match=r"seg_perception\[torch\]"):
        start(**options)
