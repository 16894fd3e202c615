# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The latched `~/model_status`."""

from __future__ import annotations

import math
from pathlib import Path

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from seg_perception.backends.progress import Progress
from seg_perception.config import Config
from seg_perception.msg import ModelStatus
from seg_perception.pipeline import Pipeline
from seg_perception.ros.engine import class_names, model_name

NAN = math.nan


class ModelStatusTopic:
    """Says what becomes of the model, to those that come late too."""

    def __init__(self, node: Node) -> None:
        self._clock = node.get_clock()
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._publisher = Node.create_publisher(node, ModelStatus, "~/model_status", latched)
        self.message = ModelStatus()
        self.say(ModelStatus.UNLOADED)

    def say(
        self,
        state: int,
        pipeline: Pipeline | None = None,
        text: str = "",
        progress: Progress | None = None,
        config: Config | None = None,
    ) -> None:
        """Publishes a state of the model of `pipeline`, or of the one that `config` asks for while there is none."""
        chosen = pipeline.config.segmenter if pipeline is not None else config.segmenter if config is not None else None
        message = ModelStatus(state=state, model=model_name(pipeline), message=text)
        if pipeline is None and chosen is not None:
            message.model = ":".join(filter(None, [chosen.plugin, Path(getattr(chosen.config, "model", "")).stem]))
        message.stamp = self._clock.now().to_msg()
        message.progress, message.eta = (progress.fraction, progress.eta) if progress is not None else (NAN, NAN)
        message.class_names = list(class_names(pipeline))
        backend = getattr(chosen.config, "backend", None) if chosen is not None else None
        message.backend = getattr(backend, "plugin", "")
        self.message = message
        self._publisher.publish(message)
