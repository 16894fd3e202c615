# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of the node, served over HTTP while it is configured. Needs the extra `metrics`.

Counts come from what the node knows anyway, read when somebody scrapes; only the histograms see every result.
`config/grafana_dashboard.json` shows them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from seg_perception.config import MetricsConfig
from seg_perception.options import ConfigError
from seg_perception.ros.feed import REPLACED
from seg_perception.ros.results import Result
from seg_perception.scene import GraspStatus, Status

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
COUNTS = (0, 1, 2, 3, 5, 8, 12, 20, 50, 100)
METRES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0)


class Metrics:
    """From configure to cleanup. `observe` every result."""

    def __init__(self, node: Any, config: MetricsConfig) -> None:
        """Raises ConfigError where prometheus-client is not installed, or the port cannot be had."""
        try:
            import prometheus_client as prometheus
            from prometheus_client import core
        except ImportError as error:
            raise ConfigError(f"metrics.port: needs pip install prometheus-client ({error})") from error
        registry = prometheus.CollectorRegistry()

        def histogram(name: str, doc: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()) -> Any:
            return prometheus.Histogram(f"seg_perception_{name}", doc, labels, buckets=buckets, registry=registry)

        def counter(name: str, doc: str, label: str) -> Any:
            return prometheus.Counter(f"seg_perception_{name}", doc, (label,), registry=registry)

        self._stages = histogram("stage_seconds", "Time each stage of a frame took.", SECONDS, ("stage",))
        self._latency = histogram("latency_seconds", "Color stamp to published objects.", SECONDS)
        self._objects = histogram("objects_per_frame", "Objects of each result.", COUNTS)
        self._scores = histogram("object_score", "Scores of the objects.", SHARES)
        self._valid = histogram("object_valid_depth_ratio", "Share of each mask's pixels with depth.", SHARES)
        self._distance = histogram("object_distance_metres", "Distance of the objects with 3D.", METRES)
        self._grasp_scores = histogram("grasp_score", "Score of each object's best grasp.", SHARES)
        self._statuses = counter("objects_total", "Objects by what became of their 3D.", "status")
        self._grasps = counter("grasps_total", "Objects by what became of their grasps.", "status")
        registry.register(_Known(node, core))
        for collector in (prometheus.ProcessCollector, prometheus.PlatformCollector):
            collector(registry=registry)
        try:
            self._server, self._thread = prometheus.start_http_server(config.port, config.address, registry)
        except OSError as error:
            where = f"{config.address}:{config.port}"
            raise ConfigError(f"metrics.port: cannot serve on {where}: {error.strerror or error}") from error
        self.port = int(self._server.server_port)

    def observe(self, result: Result, laps: Mapping[str, float], latency: float) -> None:
        """Counts a result in; `latency` s, NaN = unknown."""
        scene = result.scene
        for stage, seconds in laps.items():
            self._stages.labels(stage).observe(seconds)
        if np.isfinite(latency) and latency >= 0:
            self._latency.observe(latency)
        self._objects.observe(len(scene))
        for obj, score in zip(scene.objects, scene.instances.scores.tolist(), strict=True):
            self._scores.observe(score)
            self._statuses.labels(Status(obj.status).name).inc()
            if obj.status.has_3d:
                self._valid.observe(obj.valid_depth_ratio)
                self._distance.observe(float(np.linalg.norm(obj.centroid)))
            self._grasps.labels(GraspStatus(obj.grasp_status).name).inc()
            if obj.grasps and np.isfinite(obj.grasps[0].score):
                self._grasp_scores.observe(obj.grasps[0].score)

    def close(self) -> None:
        """Frees the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)


class _Known:
    """What the node knows at the time of a scrape."""

    def __init__(self, node: Any, core: Any) -> None:
        self._node, self._core = node, core

    def collect(self) -> Iterator[Any]:
        node, core = self._node, self._core
        reports, status = node.reports, node.model_status.message

        def family(kind: str, name: str, doc: str, values: Mapping[str, float], label: str = "") -> Any:
            made = getattr(core, f"{kind}MetricFamily")(f"seg_perception_{name}", doc, labels=[label] if label else [])
            for key, value in values.items():
                made.add_metric([key] if label else [], value)
            return made

        yield family("Counter", "results", "Results published.", {"": reports.published})
        inputs, perception = node.inputs, node.perception
        drops = {REPLACED: 0, **reports.drops}  # a rate can only be told of what was there before
        if perception is not None:
            drops.update(perception.feed.pairer.dropped)
        yield family("Counter", "dropped", "Frames and messages dropped, by reason.", drops, "reason")
        named = list(inputs) if inputs is not None else []
        yield family("Counter", "input_messages", "Messages received.", {i.name: i.count for i in named}, "input")
        yield family("Gauge", "input_rate_hertz", "Rate of each input.", {i.name: i.rate for i in named}, "input")
        yield family("Gauge", "active", "1 while the node is active.", {"": float(perception is not None)})
        yield family("Gauge", "model_state", "ModelStatus.state.", {"": float(status.state)})
        info = core.InfoMetricFamily("seg_perception_model", "The model in use.")
        info.add_metric([], {"model": status.model, "backend": status.backend})
        yield info
        watch = node.watch
        drift = watch.drift if watch is not None else None
        shares = dict(drift.shares) if drift is not None else {}
        yield family("Gauge", "drift_share", "Share of the last frames outside the reference.", shares, "feature")
        capture = watch.capture if watch is not None else None
        done = {"written": capture.written, "skipped": capture.skipped} if capture is not None else {}
        yield family("Counter", "captures", "Frames kept, or worth it and not kept.", done, "outcome")
