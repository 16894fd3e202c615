# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`kserve`: a network on a model server (Triton, KServe, MLServer), and a local runtime for when the server is gone."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from numpy.typing import NDArray

from seg_perception.backends.kserve_client import Address, Contract, ModelServer, ServerError, TlsConfig
from seg_perception.backends.tensors import fitted, single_precision
from seg_perception.options import ConfigError, Selected, option, plugin, section
from seg_perception.plugins import Backend, TensorSpec

LONGEST_PAUSE = 30.0  # s between two probes of a server that stays away

Specs = tuple[TensorSpec, ...]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KserveConfig:
    """Where the model is, how long to wait for it, and what runs it meanwhile. `model` is given by the segmenter."""

    model: str = option("", "the same network as a local file; given by the segmenter, run by the fallback")
    url: str = option("127.0.0.1:8000", "host:port of the server; Triton's gRPC port is 8001")
    protocol: str = option("http", "Open Inference Protocol v2 over HTTP or gRPC", choices=("http", "grpc"))
    name: str = option("", "the model's name on the server; empty = the local file's without its ending")
    version: str = option("", "the model's version on the server; empty = the server's choice")
    data: str = option(
        "auto", "tensors over HTTP: auto = binary if the server says that it can, else JSON (slow)",
        choices=("auto", "binary", "json"),
    )  # fmt: skip
    shared_memory: str = option(
        "none", "system: tensors stay in shared memory, for a server on the same computer", choices=("none", "system")
    )
    timeout: float = option(1.0, "one inference, repeats included; then the fallback runs", unit="s", ge=0.01, le=60)
    start_timeout: float = option(
        10.0, "the first answers: metadata, and the first inference", unit="s", ge=0.1, le=600
    )
    retries: int = option(1, "repeats of a call that failed before the time-out", ge=0, le=10)
    probe_interval: float = option(
        1.0, "between two looks whether the server is back; doubles up to 30 s", unit="s", ge=0.05, le=30
    )
    tls: TlsConfig = section(TlsConfig, "encryption")
    fallback: Selected = plugin(
        "backends", "none", "the local runtime while the server is gone; none = frames are lost"
    )


class Kserve:
    """A model on a server, called over the Open Inference Protocol v2; float16 is float32 at this door.

    A call that fails or is late runs on the fallback instead, and so do all further ones, without waiting, until a
    probe in the background has seen the server answer the same call. Raises ConfigError when the server is not there
    and there is no fallback, or when it has another model than the fallback; ServerError for a call without fallback.
    """

    Config = KserveConfig
    IS_SERVER = True  # the model's file need not be on this computer

    def __init__(self, config: KserveConfig) -> None:
        self._config = config
        name = config.name or Path(config.model).stem
        if not name:
            raise ConfigError("name: expected the model's name on the server, got none")
        self._address = Address(
            config.url, config.protocol, name, config.version, config.tls, config.data, config.shared_memory == "system"
        )
        self._lock = threading.Lock()  # one call at a time; the state below is changed under it
        self._server = ModelServer(self._address)
        self._fallback = _local(config)
        self._contract: Contract | None = None
        self._expected: tuple[Specs, Specs, str] | None = None
        if self._fallback is not None:
            self._expected = self._fallback.inputs, self._fallback.outputs, f"in {Path(config.model).name}"
        self._fresh = True
        self._why = ""
        self._last_feed: dict[str, NDArray] = {}
        try:
            self._contract = self._agreed(self._server.contract(config.start_timeout))
        except ServerError as error:
            if self._fallback is None:
                raise ConfigError(f"{error} (is the server running? a fallback would start without it)") from error
            self._leave(str(error))
        known = self._contract or self._fallback
        assert known is not None
        self.inputs: Specs = known.inputs
        self.outputs: Specs = known.outputs
        self._expected = self._expected or (known.inputs, known.outputs, "before")
        local = self._fallback.metadata if self._fallback is not None else {}
        remote = self._contract.metadata if self._contract is not None else {}
        self.metadata: Mapping[str, str] = {**remote, **local}

    @property
    def running_on(self) -> str:
        """`server`, `fallback`, or `nothing` while the server is gone and there is no fallback."""
        if self._contract is not None:
            return "server"
        return "fallback" if self._fallback is not None else "nothing"

    def __call__(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Every output by name. Raises ValueError when a name, shape or dtype is not the model's."""
        feed = fitted(self._address.name, self.inputs, inputs)
        with self._lock:
            self._last_feed = feed
            if self._contract is not None:
                try:
                    outputs = self._ask(feed, self._contract)
                    return {name: single_precision(array) for name, array in outputs.items()}
                except ServerError as error:
                    self._leave(str(error))
                    if self._fallback is None:
                        raise
            if self._fallback is None:
                raise ServerError(f"{self._why} (still gone)")
            return self._fallback(inputs)

    # ------------------------------------------------------------------------------------------------------------------

    def _ask(self, feed: Mapping[str, NDArray], contract: Contract) -> dict[str, NDArray]:
        """The server's answer within the time-out, repeats included."""
        config = self._config
        timeout = config.start_timeout if self._fresh else config.timeout
        infer = self._server.infer_shared if self._address.shared_memory else self._server.infer
        end = time.monotonic() + timeout
        for attempt in count():
            try:
                outputs = infer(feed, contract, max(end - time.monotonic(), 1e-3))
                break
            except ServerError:
                self._server.forget_memory()  # a server that started anew does not know it
                if attempt == config.retries or time.monotonic() >= end:
                    raise
        self._fresh = False
        return outputs

    def _leave(self, reason: str) -> None:
        """From now on without the server, until a probe finds it again."""
        self._contract = None
        self._why = reason
        logger.warning("%s; %s", reason, "the fallback runs" if self._fallback is not None else "there is no fallback")
        threading.Thread(target=_probe, args=(weakref.ref(self),), name="kserve probe", daemon=True).start()

    def _look(self) -> None:
        """Whether the server answers the last call again; then it is used again."""
        server = ModelServer(self._address)  # connections of its own: the other ones may hang
        contract = self._agreed(server.contract(self._config.start_timeout))
        feed = self._last_feed
        if feed:
            server.infer(feed, contract, self._config.start_timeout)
        with self._lock:
            self._server.forget_memory()
            self._contract = contract
        logger.warning("%s: the server is back", self._address)

    def _agreed(self, contract: Contract) -> Contract:
        """The contract, once it is what was expected; where a server names no tensors, with those expected."""
        if self._expected is None:
            if not contract.inputs or not contract.outputs:
                raise ConfigError(f"{self._address}: the server does not name the model's tensors; a fallback would")
            return contract
        inputs, outputs, where = self._expected
        return replace(
            contract,
            inputs=self._same("input", contract.inputs, inputs, where),
            outputs=self._same("output", contract.outputs, outputs, where),
        )

    def _same(self, kind: str, theirs: Specs, ours: Specs, where: str) -> Specs:
        if not theirs:
            return ours
        by_name = {spec.name: spec for spec in theirs}
        if by_name.keys() != {spec.name for spec in ours}:
            expected = ", ".join(spec.name for spec in ours)
            raise ConfigError(f"{self._address}: {kind}s {', '.join(by_name)} on the server, {expected} {where}")
        for spec in ours:
            other = by_name[spec.name]
            if other.dtype != spec.dtype or not _compatible(other.shape, spec.shape):
                raise ConfigError(
                    f"{self._address}: {kind} {spec.name} is {other.shape} {other.dtype} on the server, "
                    f"{spec.shape} {spec.dtype} {where}"
                )
        return tuple(replace(spec, shape=_sharper(by_name[spec.name].shape, spec.shape)) for spec in ours)


def _probe(backend: weakref.ref[Kserve]) -> None:
    """Looks for the server until it is back or the backend is gone; what it says meanwhile is logged once."""
    pause, said = 0.0, ""
    while (kserve := backend()) is not None:
        if not pause:
            pause = kserve._config.probe_interval
        else:
            try:
                kserve._look()
                return
            except (ServerError, ConfigError) as error:
                logger.debug("probe: %s", error)
                if isinstance(error, ConfigError) and str(error) != said:
                    said = str(error)
                    logger.error("%s; it is not used", said)
            pause = min(2 * pause, LONGEST_PAUSE)
        del kserve
        time.sleep(pause)


def _local(config: KserveConfig) -> Backend | None:
    if config.fallback.plugin == "none":
        return None
    if config.fallback.config.model:
        raise ConfigError("fallback.model: given by the segmenter; set the segmenter's model instead")
    if not Path(config.model).is_file():
        raise ConfigError(f"fallback: it runs the model's file, which is not on this computer: {config.model}")
    backend: Backend = replace(config.fallback, config=replace(config.fallback.config, model=config.model)).create()
    return backend


def _sharper(shape: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    """What both know of a size together."""
    return tuple(max(a, b) for a, b in zip(shape, other, strict=True))


def _compatible(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return len(shape) == len(other) and all(-1 in (a, b) or a == b for a, b in zip(shape, other, strict=True))
