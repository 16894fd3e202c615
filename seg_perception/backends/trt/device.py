# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Memory, stream and graphs of one GPU, through torch: it is there on every robot with a GPU, and knows how."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from seg_perception.options import ConfigError


class CudaDevice:
    """GPU number `index` and a stream of its own on it. Raises ConfigError when this torch has no use of the GPU."""

    def __init__(self, torch: Any, index: int) -> None:
        if not torch.cuda.is_available():
            built = torch.version.cuda
            raise ConfigError(
                f"torch {torch.__version__} cannot use the GPU: "
                + (
                    f"its CUDA {built} needs a newer driver"
                    if built
                    else "it is a build for CPUs; install one with CUDA"
                )
                + " (Jetson: NVIDIA's wheel for your JetPack)"
            )
        self.torch = torch
        self._device = torch.device("cuda", index)
        self._stream = torch.cuda.Stream(self._device)
        with torch.cuda.device(self._device):
            self._reached = torch.cuda.Event(blocking=True)  # waiting takes no core from the rest of the robot

    @property
    def handle(self) -> int:
        """The stream, as TensorRT takes it."""
        return int(self._stream.cuda_stream)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Inside, this thread works on this GPU and queues on this stream."""
        with self.torch.cuda.device(self._device), self.torch.cuda.stream(self._stream):
            yield

    def device_bytes(self, count: int) -> Any:
        """Memory on the GPU, as uint8."""
        return self.torch.empty(max(count, 1), dtype=self.torch.uint8, device=self._device)

    def host_bytes(self, count: int) -> Any:
        """Memory of the host that copies need no detour from, as uint8."""
        return self.torch.empty(max(count, 1), dtype=self.torch.uint8, pin_memory=True)

    def copy(self, target: Any, source: Any) -> None:
        """Queues a copy between the memories of the host and the GPU."""
        target.copy_(source, non_blocking=True)

    def synchronize(self) -> None:
        """Waits for all that is queued on the stream."""
        self._reached.record(self._stream)
        self._reached.synchronize()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Records what `work` queues, without running it; the result queues it all at once. Raises RuntimeError."""
        graph = self.torch.cuda.CUDAGraph()
        # Other threads may use CUDA meanwhile: only this one's calls must not disturb the recording.
        with self.torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            work()
        return graph.replay
