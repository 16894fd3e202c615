# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One model on one server that speaks the Open Inference Protocol (KServe v2), through tritonclient."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.backends.kserve_memory import SharedTensors, layout_of, static_layout
from seg_perception.options import ConfigError, option
from seg_perception.plugins import TensorSpec, require

BINARY = "binary_tensor_data"  # the name of the protocol's extension
CONFIGURATION = "model_configuration"
DTYPES = {
    "BOOL": np.bool_, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
    **{f"{sign}INT{bits}": getattr(np, f"{sign.lower()}int{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)},
}  # fmt: skip


class ServerError(RuntimeError):
    """A server that is away, late, or answers with an error; one line."""


@dataclass(frozen=True)
class TlsConfig:
    """Encryption, and who the two sides are. Files in PEM format."""

    enabled: bool = option(False, "encrypted: https, or gRPC over TLS")
    ca: str = option("", "certificates that sign the server's; empty = the system's")
    certificate: str = option("", "this client's own certificate, where the server asks for one")
    key: str = option("", "the private key of that certificate")

    def __post_init__(self) -> None:
        for key in ("ca", "certificate", "key"):
            path = getattr(self, key)
            if path and not Path(path).expanduser().is_file():
                raise ValueError(f"{key}: no such file: {path}")
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key: expected both or neither")

    def file(self, key: str) -> str | None:
        """The path of one of the files, without `~`; None where none is named."""
        path = getattr(self, key)
        return str(Path(path).expanduser()) if path else None


@dataclass(frozen=True)
class Address:
    """Where the model is, and how one speaks to it."""

    url: str
    protocol: str
    name: str
    version: str
    tls: TlsConfig
    data: str
    shared_memory: bool

    def __str__(self) -> str:
        return f"{self.name}{':' + self.version if self.version else ''} at {self.protocol}://{self.url}"


@dataclass(frozen=True)
class Contract:
    """What a server says of a model; `extensions` are the server's."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]
    extensions: tuple[str, ...]


class ModelServer:
    """Calls to one model. Each thread that calls has a connection of its own.

    Every method raises ServerError, within about `timeout` seconds, when the server does not do what it was asked.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        http = address.protocol == "http"
        self._library = require("tritonclient.http" if http else "tritonclient.grpc", "kserve")
        own = require("tritonclient.utils", "kserve").InferenceServerException
        # The last four: what tritonclient stumbles over when something else answers at that address.
        self._failures: tuple[type[BaseException], ...] = (
            own,
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        )
        if http:
            self._gevent = require("gevent", "kserve")
            broken = require("geventhttpclient.response", "kserve").HTTPParseError
            self._failures = (*self._failures, broken, self._gevent.Timeout)
        self._clients = threading.local()
        self._inputs: SharedTensors | None = None
        self._outputs: SharedTensors | None = None

    # -- questions -----------------------------------------------------------------------------------------------------

    def contract(self, timeout: float) -> Contract:
        """What the server says of the model, once it is ready. Raises ConfigError for tensors that are no numbers."""
        name, version = self._address.name, self._address.version
        end = time.monotonic() + timeout

        def ask(client: Any, method: str, *arguments: str) -> Any:
            more = {} if self._address.protocol == "http" else {"client_timeout": max(end - time.monotonic(), 1e-3)}
            answer = getattr(client, method)(*arguments, **more)
            return answer if isinstance(answer, dict | bool) else _as_dict(answer)

        def all_of_it(client: Any) -> tuple[Any, Any, Any]:
            if not ask(client, "is_model_ready", name, version):
                raise ServerError(f"{self._address}: the model is not ready or not there")
            server = ask(client, "get_server_metadata")
            config = {}
            if CONFIGURATION in server.get("extensions", ()):
                config = ask(client, "get_model_config", name, version)
            return server, ask(client, "get_model_metadata", name, version), config.get("config", config)

        server, model, config = self._call(all_of_it, timeout)
        return Contract(
            tuple(self._spec(tensor) for tensor in model.get("inputs", ())),
            tuple(self._spec(tensor) for tensor in model.get("outputs", ())),
            {key: value.get("string_value", "") for key, value in config.get("parameters", {}).items()},
            tuple(server.get("extensions", ())),
        )

    def infer(self, feed: Mapping[str, NDArray], contract: Contract, timeout: float) -> dict[str, NDArray]:
        """Every output by name, each of the shape and dtype that `contract` has; tensors go as messages."""
        return self._call(lambda client: self._send(client, feed, contract, timeout, None, None), timeout)

    def infer_shared(self, feed: Mapping[str, NDArray], contract: Contract, timeout: float) -> dict[str, NDArray]:
        """The same with tensors in shared memory, as far as their size is known. One caller at a time."""

        def share(client: Any) -> dict[str, NDArray]:
            if self._inputs is None or self._outputs is None or self._inputs.layout != layout_of(feed):
                for block in (self._inputs, self._outputs):
                    if block is not None:
                        block.unregister(client)
                self.forget_memory()
                self._inputs, self._outputs = (
                    SharedTensors(layout_of(feed)),
                    SharedTensors(static_layout(contract.outputs)),
                )
                self._inputs.register(client)
                self._outputs.register(client)
            for name, array in feed.items():
                self._inputs.array(name)[...] = array
            return self._send(client, feed, contract, timeout, self._inputs, self._outputs)

        return self._call(share, timeout)

    def forget_memory(self) -> None:
        """Gives shared memory back; a server that started anew does not know the old one."""
        for block in (self._inputs, self._outputs):
            if block is not None:
                block.close()
        self._inputs = self._outputs = None

    # ------------------------------------------------------------------------------------------------------------------

    def _send(
        self, client: Any, feed: Mapping[str, NDArray], contract: Contract, timeout: float,
        shared_inputs: SharedTensors | None, shared_outputs: SharedTensors | None,
    ) -> dict[str, NDArray]:  # fmt: skip
        http = self._address.protocol == "http"
        binary = {"binary_data": self._binary(contract)} if http else {}
        inputs, outputs = [], []
        for name, array in feed.items():
            tensor = self._library.InferInput(name, list(array.shape), _datatype(array.dtype))
            if shared_inputs is not None:
                shared_inputs.place(tensor, name)
            else:
                tensor.set_data_from_numpy(array, **binary)
            inputs.append(tensor)
        for spec in contract.outputs:
            output = self._library.InferRequestedOutput(spec.name, **binary)
            if shared_outputs is not None and spec.name in shared_outputs.layout:
                shared_outputs.place(output, spec.name)
            outputs.append(output)
        more = {} if http else {"client_timeout": timeout}
        result = client.infer(self._address.name, inputs, self._address.version, outputs, **more)
        found = {}
        for spec in contract.outputs:
            shared = shared_outputs if shared_outputs is not None and spec.name in shared_outputs.layout else None
            answer = result.get_output(spec.name)
            if answer is None:
                raise ServerError(f"{self._address}: output {spec.name} is missing in the answer")
            shape, datatype = _described(answer)
            if not _fits(spec.shape, shape) or DTYPES.get(datatype) != spec.dtype:
                expected = f"{spec.shape} {spec.dtype}"
                raise ServerError(f"{self._address}: output {spec.name}: expected {expected}, got {shape} {datatype}")
            found[spec.name] = shared.array(spec.name).copy() if shared else result.as_numpy(spec.name)
        return found

    def _binary(self, contract: Contract) -> bool:
        return self._address.data == "binary" or (self._address.data == "auto" and BINARY in contract.extensions)

    def _spec(self, tensor: Mapping[str, Any]) -> TensorSpec:
        dtype = DTYPES.get(str(tensor["datatype"]))
        if dtype is None:
            raise ConfigError(
                f"{self._address}: {tensor['name']} is {tensor['datatype']}, expected a tensor of numbers "
                f"({', '.join(DTYPES)})"
            )
        return TensorSpec(str(tensor["name"]), tuple(int(n) for n in tensor.get("shape", ())), np.dtype(dtype))

    def _call(self, action: Any, timeout: float) -> Any:
        """What `action(client)` returns. A client that failed is not used again."""
        client = getattr(self._clients, "client", None)
        try:
            if client is None:
                client = self._clients.client = self._connect()
            if self._address.protocol == "http":
                with self._gevent.Timeout(timeout):
                    return action(client)
            return action(client)
        except ServerError:
            raise
        except self._failures as error:
            self._clients.client = None
            if client is not None:
                client.close()
            raise ServerError(f"{self._address}: {_reason(error, timeout)}") from error

    def _connect(self) -> Any:
        tls, url = self._address.tls, self._address.url
        if self._address.protocol == "http":
            factory = (lambda: _ssl_context(tls)) if tls.enabled else None
            return self._library.InferenceServerClient(url, ssl=tls.enabled, ssl_context_factory=factory)
        return self._library.InferenceServerClient(
            url,
            ssl=tls.enabled,
            root_certificates=tls.file("ca"),
            certificate_chain=tls.file("certificate"),
            private_key=tls.file("key"),
        )


def _ssl_context(tls: TlsConfig) -> Any:
    context = require("gevent.ssl", "kserve").create_default_context(cafile=tls.file("ca"))
    if tls.certificate:
        context.load_cert_chain(tls.file("certificate"), tls.file("key"))
    return context


def _described(output: Any) -> tuple[tuple[int, ...], str]:
    """Shape and datatype of an answer's output: a mapping over HTTP, a message over gRPC."""
    if isinstance(output, dict):
        return tuple(int(n) for n in output["shape"]), str(output["datatype"])
    return tuple(int(n) for n in output.shape), str(output.datatype)


def _fits(wanted: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(wanted) == len(shape) and all(w in (-1, n) for w, n in zip(wanted, shape, strict=True))


def _as_dict(message: Any) -> Any:
    json_format = require("google.protobuf.json_format", "kserve")
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def _datatype(dtype: np.dtype) -> str:
    return next(name for name, known in DTYPES.items() if np.dtype(known) == dtype)


def _reason(error: BaseException, timeout: float) -> str:
    if type(error).__name__ == "Timeout" or "DEADLINE_EXCEEDED" in str(error):
        return f"no answer within {timeout:.3g} s"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
