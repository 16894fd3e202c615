# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A STAND-IN for a runtime that builds engines: it waits, tells progress, then it is ONNX Runtime. No GPU, no TensorRT.

It shows what the node does meanwhile. What TensorRT's builder itself does is in test/test_tensorrt_builder.py.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from seg_perception.backends.onnxruntime import OnnxRuntime, OnnxRuntimeConfig
from seg_perception.backends.progress import BuildCancelledError, Progress, tell
from seg_perception.options import ConfigError, option

STEPS = 40


@dataclass(frozen=True)
class SlowEngineConfig:
    """How long it takes, and what becomes of it."""

    model: str = option("", "ONNX file; given by the segmenter")
    seconds: float = option(3.0, "of the build", unit="s", ge=0)
    cache: str = option("", "folder of the engines")
    fault: str = option("", "the build ends with this error")
    on_engine_missing: str = option("build", "as the backend tensorrt has it", choices=("build", "fallback", "fail"))


class SlowEngine(OnnxRuntime):
    """The "engine" is a file with the model's SHA-256; one with another content is stale."""

    Config = SlowEngineConfig  # type: ignore[assignment]

    def __init__(self, config: SlowEngineConfig) -> None:
        engine = Path(config.cache) / f"{Path(config.model).stem}.engine"
        digest = hashlib.sha256(Path(config.model).read_bytes()).hexdigest()
        if not engine.is_file() or engine.read_text(encoding="utf-8") != digest:
            if config.on_engine_missing == "fail":
                raise ConfigError(f"there is no engine of {engine.stem}; on_engine_missing is fail")
            self._build(config, "since the model file changed" if engine.is_file() else "")
            engine.write_text(digest, encoding="utf-8")
        super().__init__(OnnxRuntimeConfig(model=config.model, threads=1))

    @staticmethod
    def _build(config: SlowEngineConfig, why: str) -> None:
        try:
            for step in range(STEPS):
                left = config.seconds * (1 - step / STEPS)
                tell(Progress(f"building the engine of {Path(config.model).stem} {why}".strip(), step / STEPS, left))
                time.sleep(config.seconds / STEPS)
        except BuildCancelledError:
            (Path(config.cache) / "cancelled").touch()
            raise
        if config.fault:
            raise ConfigError(config.fault)
