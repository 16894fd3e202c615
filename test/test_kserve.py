# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The kserve backend against real Triton and MLServer, started here, and against what only a stand-in can do.

Needs tritonclient, and for the real servers what scripts/test_servers installs.
"""

import gc
import importlib.util
import logging
import signal
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from model_servers import free_port, mlserver, self_signed, triton
from protocol_stand_in import TENSOR, ProtocolStandIn

from seg_perception.backends.kserve import Kserve
from seg_perception.backends.kserve_client import ServerError
from seg_perception.options import ConfigError, parse
from seg_perception.plugins import Backend, PluginError, load_plugin
from seg_perception.scene import Frame
from seg_perception.segmenters.yolo import Yolo

LOCAL = {"plugin": "onnxruntime", "threads": 1}
PROTOCOLS = ["http", "grpc"]


@pytest.fixture
def client():
    if importlib.util.find_spec("tritonclient") is None:
        pytest.skip("tritonclient is not installed here: scripts/test_servers runs this test")


def backend(**options) -> Kserve:
    return Kserve(parse(Kserve.Config, {"start_timeout": 30.0, **options}))


def local(path: Path) -> Backend:
    plugin = load_plugin("backends", "onnxruntime")
    return plugin(parse(plugin.Config, {"model": str(path), "threads": 1}))


def feed(network, seed=0, **sizes) -> dict[str, np.ndarray]:
    """Random tensors for every input; a free size is that of its input in `sizes`, else 2."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for spec in network.inputs:
        shape = sizes.get(spec.name, [max(n, 2) if n < 0 else n for n in spec.shape])
        values = rng.random(shape) * (1 if spec.dtype.kind == "f" else 2)
        tensors[spec.name] = values.astype(spec.dtype)
    return tensors


def assert_equal(outputs, expected) -> None:
    """Bit by bit, by the same names."""
    assert outputs.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(outputs[name], array)
        assert outputs[name].dtype == array.dtype


def wait_until(condition, seconds=60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


# -- Triton ------------------------------------------------------------------------------------------------------------

NETWORKS = {
    "yolo": "yolov8-seg_tiny_raw.onnx",
    "free": "yolo11-seg_tiny_raw_dyn.onnx",
    "points": "sam_tiny_decoder_points.onnx",  # has int64 inputs
    "unet": "unet_smp_tiny.onnx",
}
REAL = "yolo26n-seg_480x640.onnx"


@pytest.fixture(scope="module")
def networks(models_dir):
    return {name: models_dir / "contracts" / file for name, file in NETWORKS.items()}


@pytest.fixture(scope="module")
def server(networks, models_dir, tmp_path_factory):
    models = {**networks, "real": models_dir / REAL}
    server = triton(tmp_path_factory.mktemp("triton"), models, parameters=metadata(models_dir)).start()
    yield server
    server.kill()


def metadata(models_dir) -> dict:
    """What Ultralytics wrote into the real model, as whoever serves it would put it into config.pbtxt."""
    return {key: local(models_dir / REAL).metadata[key] for key in ("task", "stride", "names", "imgsz", "end2end")}


def address(server, protocol) -> dict:
    return {"protocol": protocol, "url": getattr(server, protocol)}


@pytest.mark.parametrize("memory", ["none", "system"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_results_through_triton_are_bit_equal(client, server, networks, models_dir, protocol, memory):
    for name, path in networks.items():
        network = local(path)
        remote = backend(**address(server, protocol), name=name, shared_memory=memory)
        assert isinstance(remote, Backend)
        assert remote.metadata == metadata(models_dir)
        assert {s.name: (s.shape, s.dtype) for s in remote.inputs} == {
            s.name: (s.shape, s.dtype) for s in network.inputs
        }
        for seed in range(3):
            tensors = feed(network, seed)
            if name == "free":
                tensors = feed(network, seed, images=(1, 3, 32 * (seed + 1), 64))
            assert_equal(remote(tensors), network(tensors))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_segmenter_runs_on_triton_as_it_does_here(client, server, models_dir, data_dir, protocol):
    """The model's file is here too: the fallback reads the metadata that the protocol does not carry."""

    def segmenter(runtime):
        values = {"model": str(models_dir / REAL), "score_threshold": 0.1, "backend": runtime}
        return Yolo(parse(Yolo.Config, values))

    frame = photograph(data_dir)
    remote = segmenter({"plugin": "kserve", **address(server, protocol), "name": "real", "fallback": LOCAL})
    assert remote._backend.running_on == "server"
    found, expected = remote.segment(frame), segmenter(LOCAL).segment(frame)
    assert len(found) >= 3
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.class_names == expected.class_names
    np.testing.assert_array_equal(found.masks.spans, expected.masks.spans)
    assert remote._backend.running_on == "server"


def photograph(data_dir) -> Frame:
    path = next((data_dir / "ycbv" / "frames").glob("*_rgb.*"))
    return Frame(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB))


def test_a_model_that_is_on_the_server_alone(client, server, models_dir, data_dir, tmp_path, monkeypatch):
    """Its names come with the server's metadata; where a server has none, from the sidecar beside no model."""
    monkeypatch.chdir(tmp_path)
    runtime = {"plugin": "kserve", **address(server, "grpc"), "start_timeout": 30.0}
    frame = photograph(data_dir)
    expected = Yolo(parse(Yolo.Config, {"model": str(models_dir / REAL), "backend": LOCAL})).segment(frame)
    for named in ({"model": "real"}, {"model": "real.onnx"}, {"backend": {**runtime, "name": "real"}}):
        segmenter = Yolo(parse(Yolo.Config, {"backend": runtime, **named}))
        assert segmenter.model == "real@server"
        found = segmenter.segment(frame)
        assert found.class_names == expected.class_names
        np.testing.assert_array_equal(found.masks.spans, expected.masks.spans)
    (tmp_path / "sidecars").mkdir()
    (tmp_path / "sidecars" / "unet.yaml").write_text(
        f"family: semantic\nnames: [background, washer, bolt, nut]\nsha256: {'a' * 64}\ndecoding: {{background: 0}}\n"
    )
    for model in ("sidecars/unet.yaml", "sidecars/unet"):
        semantic = load_plugin("segmenters", "semantic")
        segmenter = semantic(parse(semantic.Config, {"model": model, "backend": runtime}))
        assert segmenter.class_names[1] == "washer"
        assert segmenter.model == "unet@server"
    with pytest.raises(ConfigError, match="no such file"):
        Yolo(parse(Yolo.Config, {"model": "real", "backend": LOCAL}))
    with pytest.raises(ConfigError, match="fallback: it runs the model's file, which is not on this computer"):
        Yolo(parse(Yolo.Config, {"model": "real", "backend": {**runtime, "fallback": LOCAL}}))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_threads_may_take_turns(client, server, networks, protocol):
    remote, network = backend(**address(server, protocol), name="yolo"), local(networks["yolo"])
    results = {}

    def work(seed):
        results[seed] = remote(feed(network, seed))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(6):
        assert_equal(results[seed], network(feed(network, seed)))


def test_shared_memory_is_given_back(client, server, networks):
    def blocks():
        return [path.name for path in Path("/dev/shm").glob("seg_perception_*")]

    before = blocks()
    remote = backend(**address(server, "grpc"), name="yolo", shared_memory="system")
    remote(feed(remote))
    assert len(blocks()) == len(before) + 2
    del remote
    gc.collect()
    assert blocks() == before


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("options", "reason"),
    [({"name": "nothing"}, "nothing"), ({"name": "yolo", "version": "7"}, "yolo:7")],
)
def test_a_model_that_is_not_there(client, server, protocol, options, reason):
    with pytest.raises(
        ConfigError, match=f"{reason} at {protocol}://.*(not ready or not there|not found|unknown model)"
    ):
        backend(**address(server, protocol), **options)


def test_another_model_than_the_local_one_is_refused(client, server, networks):
    with pytest.raises(
        ConfigError, match=r"images is \(1, 3, 160, 160\) float32 on the server|inputs images on the server"
    ):
        backend(**address(server, "http"), name="yolo", model=str(networks["points"]), fallback=LOCAL)


def test_inputs_that_do_not_fit(client, server):
    remote = backend(**address(server, "http"), name="yolo")
    with pytest.raises(ValueError, match=r"yolo: input images: expected \(1, 3, 160, 160\), got \(1, 3, 8, 8\)"):
        remote({"images": np.zeros((1, 3, 8, 8), np.float32)})
    assert remote.running_on == "server"  # not the server's fault


# -- a server that goes and comes --------------------------------------------------------------------------------------


@pytest.fixture
def mortal(models_dir, tmp_path):
    server = triton(tmp_path, {"yolo": models_dir / "contracts" / NETWORKS["yolo"]}).start()
    yield server
    server.kill()


def count_calls(remote):
    """How often the server is asked to infer for a frame."""
    calls, server = [], remote._server
    for method in ("infer", "infer_shared"):
        real = getattr(server, method)
        setattr(server, method, lambda *a, real=real: (calls.append(1), real(*a))[1])
    return calls


@pytest.mark.parametrize(("protocol", "memory"), [("http", "none"), ("grpc", "none"), ("grpc", "system")])
def test_killed_under_load_the_fallback_runs_and_the_server_comes_back(client, mortal, networks, protocol, memory):
    network = local(networks["yolo"])
    remote = backend(
        **address(mortal, protocol), name="yolo", model=str(networks["yolo"]), fallback=LOCAL, shared_memory=memory,
        probe_interval=0.1,
    )  # fmt: skip
    tensors, expected = feed(network), network(feed(network))
    stop, done, wrong = threading.Event(), [], []

    def load():
        while not stop.is_set():
            outputs = remote(tensors)
            done.append(remote.running_on)
            if not all(np.array_equal(outputs[name], expected[name]) for name in expected):
                wrong.append(len(done))

    thread = threading.Thread(target=load)
    thread.start()
    wait_until(lambda: done.count("server") >= 20)
    mortal.kill()
    wait_until(lambda: done[-5:] == ["fallback"] * 5)
    mortal.start()
    wait_until(lambda: done[-5:] == ["server"] * 5)
    stop.set()
    thread.join()
    assert wrong == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_hangs_costs_one_time_out(client, mortal, networks, protocol, caplog):
    network = local(networks["yolo"])
    remote = backend(
        **address(mortal, protocol), name="yolo", model=str(networks["yolo"]), fallback=LOCAL, timeout=0.5,
        start_timeout=2.0, probe_interval=0.1,
    )  # fmt: skip
    tensors, expected = feed(network), network(feed(network))
    assert_equal(remote(tensors), expected)
    calls = count_calls(remote)
    mortal.signal(signal.SIGSTOP)
    for _ in range(20):
        assert_equal(remote(tensors), expected)
    assert remote.running_on == "fallback"
    assert len(calls) == 1  # the other frames did not wait for it
    assert "no answer within 0.5 s; the fallback runs" in caplog.text
    time.sleep(1)  # probes hang as well
    assert remote.running_on == "fallback"
    mortal.signal(signal.SIGCONT)
    wait_until(lambda: remote.running_on == "server" or mortal.has_died())
    if remote.running_on != "server":  # Triton's Python backend may crash when it was stopped in a call
        mortal.start()
        wait_until(lambda: remote.running_on == "server")
    assert_equal(remote(tensors), expected)
    assert len(calls) == 2


def test_without_fallback_frames_are_lost_until_it_is_back(client, mortal, networks):
    remote = backend(**address(mortal, "http"), name="yolo", probe_interval=0.1)
    tensors = feed(remote)
    expected = remote(tensors)
    mortal.kill()
    with pytest.raises(ServerError, match="yolo at http://"):
        remote(tensors)
    assert remote.running_on == "nothing"
    with pytest.raises(ServerError, match="still gone"):
        remote(tensors)
    mortal.start()
    wait_until(lambda: remote.running_on == "server")
    assert_equal(remote(tensors), expected)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_starts_on_the_fallback_and_a_late_server_is_used(client, mortal, networks, protocol):
    mortal.kill()
    options = {**address(mortal, protocol), "name": "yolo", "start_timeout": 2.0, "probe_interval": 0.1}
    with pytest.raises(ConfigError, match=r"is the server running\? a fallback would start without it"):
        backend(**options)
    remote = backend(**options, model=str(networks["yolo"]), fallback=LOCAL)
    assert remote.running_on == "fallback"
    tensors = feed(remote)
    expected = remote(tensors)
    mortal.start()
    wait_until(lambda: remote.running_on == "server")
    assert_equal(remote(tensors), expected)


def test_grpc_over_tls(client, models_dir, tmp_path, monkeypatch):
    """Each side shows a certificate."""
    key, certificate = self_signed(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    network = models_dir / "contracts" / NETWORKS["yolo"]
    secure = ("--grpc-use-ssl-mutual=true", f"--grpc-server-cert={certificate}", f"--grpc-server-key={key}")
    server = triton(tmp_path, {"yolo": network}, *secure, f"--grpc-root-cert={certificate}").start()
    known = {"enabled": True, "ca": "~/certificate.pem"}
    ours = {"certificate": "~/certificate.pem", "key": "~/key.pem"}
    try:
        remote = backend(**address(server, "grpc"), name="yolo", tls={**known, **ours})
        assert_equal(remote(feed(remote)), local(network)(feed(remote)))
        # The client shows none; the server's is signed by nobody known; not encrypted.
        for tls in (known, {"enabled": True, **ours}, {}):
            with pytest.raises(ConfigError, match="yolo at grpc://"):
                backend(**address(server, "grpc"), name="yolo", tls=tls, start_timeout=3.0)
    finally:
        server.kill()


# -- MLServer ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other_server(networks, tmp_path_factory):
    server = mlserver(tmp_path_factory.mktemp("mlserver"), {"yolo": networks["yolo"]}).start()
    yield server
    server.kill()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_results_through_mlserver_are_bit_equal(client, other_server, networks, protocol):
    """Over HTTP it takes JSON only, and says so by not naming the extension."""
    network = local(networks["yolo"])
    remote = backend(**address(other_server, protocol), name="yolo", timeout=20.0)
    assert remote.outputs == network.outputs
    assert_equal(remote(feed(network)), network(feed(network)))


def test_mlserver_refuses_binary_tensors(client, other_server):
    remote = backend(**address(other_server, "http"), name="yolo", data="binary", timeout=20.0)
    with pytest.raises(ServerError, match="yolo at http://"):
        remote(feed(remote))


def test_a_server_that_names_no_tensors_takes_those_of_the_local_file(client, networks, tmp_path):
    server = mlserver(tmp_path, {"yolo": networks["yolo"]}, tensors=False).start()
    try:
        with pytest.raises(ConfigError, match="does not name the model's tensors; a fallback would"):
            backend(**address(server, "grpc"), name="yolo")
        remote = backend(
            **address(server, "grpc"), name="yolo", model=str(networks["yolo"]), fallback=LOCAL, timeout=20.0
        )
        assert_equal(remote(feed(remote)), local(networks["yolo"])(feed(remote)))
        assert remote.running_on == "server"
    finally:
        server.kill()


# -- what only a stand-in does -----------------------------------------------------------------------------------------


@pytest.fixture
def stand_in(client):
    server = ProtocolStandIn()
    yield server
    server.close()


X = {"x": np.float32([[1, 2, 3, 4]])}


def test_the_stand_in_is_a_server(stand_in):
    remote = backend(url=stand_in.url, name="net")
    np.testing.assert_array_equal(remote(X)["y"], [[2, 4, 6, 8]])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([{**TENSOR, "shape": [1, 2], "data": [1, 2]}], r"output y: expected \(1, 4\) float32, got \(1, 2\) FP32"),
        ([{**TENSOR, "datatype": "INT32", "data": [1, 2, 3, 4]}], "output y: expected .* got .* INT32"),
        ([{**TENSOR, "name": "z", "data": [1, 2, 3, 4]}], "output y is missing"),
        ([], "output y is missing"),
        ([{**TENSOR, "data": [1, 2]}], "net at http"),
        ("nonsense", "net at http"),
    ],
)
def test_answers_that_are_not_the_model_s(stand_in, answer, reason):
    remote = backend(url=stand_in.url, name="net")
    stand_in.answer = lambda x: answer
    with pytest.raises(ServerError, match=reason):
        remote(X)
    assert remote.running_on == "nothing"


def test_a_server_that_dies_in_the_middle_of_an_answer_is_asked_again(stand_in):
    remote = backend(url=stand_in.url, name="net", retries=2, probe_interval=0.05)
    stand_in.break_off = True
    with pytest.raises(ServerError, match="net at http"):
        remote(X)
    assert stand_in.calls == 3
    stand_in.break_off = False
    wait_until(lambda: remote.running_on == "server")
    np.testing.assert_array_equal(remote(X)["y"], [[2, 4, 6, 8]])


def test_a_server_that_comes_back_with_another_model_is_not_used(stand_in, caplog):
    remote = backend(url=stand_in.url, name="net", retries=0, probe_interval=0.05)
    stand_in.break_off = True
    with pytest.raises(ServerError):
        remote(X)
    stand_in.break_off = False
    stand_in.outputs = [{**TENSOR, "shape": [1, 8]}]
    caplog.set_level(logging.ERROR)
    wait_until(lambda: "output y is (1, 8) float32 on the server, (1, 4) float32 before; it is not used" in caplog.text)
    assert remote.running_on == "nothing"
    stand_in.outputs = [TENSOR]
    wait_until(lambda: remote.running_on == "server")


def test_tensors_of_text_are_refused(stand_in):
    stand_in.inputs = [{"name": "x", "datatype": "BYTES", "shape": [1]}]
    with pytest.raises(ConfigError, match="x is BYTES, expected a tensor of numbers"):
        backend(url=stand_in.url, name="net")


def test_https(client, tmp_path, monkeypatch):
    key, certificate = self_signed(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    server = ProtocolStandIn(certificate, key)
    try:
        remote = backend(url=server.url, name="net", tls={"enabled": True, "ca": "~/certificate.pem"})
        np.testing.assert_array_equal(remote(X)["y"], [[2, 4, 6, 8]])
        for tls in ({"enabled": True}, {}):
            with pytest.raises(ConfigError, match="net at http://"):
                backend(url=server.url, name="net", tls=tls, start_timeout=3.0)
    finally:
        server.close()


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"tls": {"ca": "/no/such.pem"}}, "tls.*ca: no such file: /no/such.pem"),
        ({"tls": {"certificate": __file__}}, "expected both or neither"),
        ({"protocol": "rest"}, "http, grpc"),
        ({"timeout": 0.0}, "0.01 to 60 s"),
    ],
)
def test_options_that_do_not_fit(options, reason):
    with pytest.raises(ConfigError, match=reason):
        parse(Kserve.Config, options)


def test_a_name_is_needed_and_the_fallback_has_no_model_of_its_own(client):
    with pytest.raises(ConfigError, match="name: expected the model's name on the server"):
        backend()
    with pytest.raises(ConfigError, match=r"fallback\.model: given by the segmenter"):
        backend(url=f"127.0.0.1:{free_port()}", name="x", fallback={**LOCAL, "model": "y.onnx"})


def test_without_tritonclient_the_line_that_installs_it():
    if importlib.util.find_spec("tritonclient") is not None:
        pytest.skip("tritonclient is installed here")
    with pytest.raises(PluginError, match=r"pip install 'seg_perception\[kserve\]'"):
        backend(name="x")


def test_no_fallback_is_no_runtime():
    plugin = load_plugin("backends", "none")
    with pytest.raises(ConfigError, match="runs nothing"):
        plugin(parse(plugin.Config, {}))
    assert load_plugin("backends", "kserve") is Kserve
