# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Real model servers, started and stopped by tests: Triton and MLServer, as scripts/test_servers installs them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SERVERS = ROOT / ".ros" / "servers"
HERE = Path(__file__).parent / "servers"


def installed(name: str) -> Path:
    """The environment of a server; skips the test where it is not installed."""
    folder = SERVERS / name
    if not (folder / "complete").is_file():
        pytest.skip(f"{name} is not installed: scripts/test_servers does it")
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server process that can be killed, stopped and started again on the same ports."""

    def __init__(self, command: list[str], http: int, grpc: int, log: Path, environment: dict[str, str], cwd: Path):
        self.command, self.log, self.environment, self.cwd = command, log, environment, cwd
        self.http, self.grpc = f"127.0.0.1:{http}", f"127.0.0.1:{grpc}"
        self.process: subprocess.Popen | None = None

    def start(self, seconds: float = 90.0) -> Server:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=self.environment, cwd=self.cwd, start_new_session=True
            )
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://{self.http}/v2/health/ready", timeout=2) as answer:
                    if answer.status == 200:
                        return self
            except OSError:
                pass
            time.sleep(0.05)
        self.kill()
        pytest.fail(f"{self.command[0]} does not start: {self.log.read_text(errors='replace')[-2000:]}")

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def has_died(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def kill(self) -> None:
        if not self.has_died():
            self.signal(signal.SIGKILL)
            self.process.wait()


def triton(folder: Path, models: dict[str, Path], *options: str, parameters: dict[str, str] | None = None) -> Server:
    """Triton with ONNX files by name; `parameters` go into every model's configuration."""
    home = installed("triton")
    packages = next(home.glob("lib/python*/site-packages"))
    version = packages.parent.name.removeprefix("python")
    for name, path in models.items():
        (folder / "models" / name / "1").mkdir(parents=True)
        shutil.copy(HERE / "triton_model.py", folder / "models" / name / "1" / "model.py")
        shutil.copy(path, folder / "models" / name / "1" / "net.onnx")  # not model.onnx: another backend's name
        lines = [f'parameters {{ key: "{k}" value {{ string_value: "{v}" }} }}' for k, v in (parameters or {}).items()]
        (folder / "models" / name / "config.pbtxt").write_text("\n".join(['backend: "python"', *lines]))
    bundled = packages / "pytriton" / "tritonserver"
    backend = folder / "backends" / "python"
    shutil.copytree(bundled / "backends" / "python", backend)
    shutil.copy(bundled / "python_backend_stubs" / version / "triton_python_backend_stub", backend)
    http, grpc = free_port(), free_port()
    command = [
        str(bundled / "bin" / "tritonserver"),
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}",
        "--http-address=127.0.0.1", f"--http-port={http}", "--grpc-address=127.0.0.1", f"--grpc-port={grpc}",
        "--allow-metrics=false", *options,
    ]  # fmt: skip
    libraries = f"{packages / 'nvidia_pytriton.libs'}:{base_libraries(home)}"
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries, "PYTHONPATH": str(packages)}
    environment["PATH"] = f"{home / 'bin'}:{environment['PATH']}"
    return Server(command, http, grpc, folder / "log.txt", environment, folder)


def mlserver(folder: Path, models: dict[str, Path], tensors: bool = True) -> Server:
    """MLServer with ONNX files by name; without `tensors` its metadata names neither inputs nor outputs."""
    home = installed("mlserver")
    for name, path in models.items():
        (folder / name).mkdir(parents=True)
        shutil.copy(HERE / "mlserver_model.py", folder / name / "mlserver_model.py")
        settings: dict[str, object] = {
            "name": name, "implementation": "mlserver_model.OnnxModel", "parameters": {"uri": str(path)},
        }  # fmt: skip
        if tensors:
            settings.update(contract(path))
        (folder / name / "model-settings.json").write_text(json.dumps(settings))
    http, grpc = free_port(), free_port()
    settings = {
        "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_endpoint": None, "parallel_workers": 0,
        "grpc_max_message_length": 1 << 28,
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "LD_LIBRARY_PATH")}
    command = [str(home / "bin" / "mlserver"), "start", str(folder)]
    return Server(command, http, grpc, folder / "log.txt", environment, folder)


def contract(path: Path) -> dict[str, list]:
    import onnxruntime

    network = onnxruntime.InferenceSession(str(path))
    return {
        kind: [
            {"name": n.name, "datatype": "FP32", "shape": [d if isinstance(d, int) else -1 for d in n.shape]}
            for n in nodes
        ]
        for kind, nodes in (("inputs", network.get_inputs()), ("outputs", network.get_outputs()))
    }


def base_libraries(home: Path) -> str:
    """Where libpython of the environment's Python is."""
    command = [str(home / "bin" / "python"), "-c", "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate for localhost, from openssl; skips the test without it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", certificate,
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, certificate
