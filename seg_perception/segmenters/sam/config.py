# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Options of the promptable segmenter."""

from __future__ import annotations

from dataclasses import dataclass

from seg_perception.options import ConfigError, Selected, option, plugin, section
from seg_perception.segmenters.sam.dialects import DIALECTS


@dataclass(frozen=True)
class GridConfig:
    """Points all over the image, for all that can be told apart. Takes seconds: for requests, not for streams."""

    per_side: int = option(16, "points along each side", ge=1, le=64, live=True)
    min_iou: float = option(0.88, "proposals with a lower predicted IoU are dropped", ge=0, le=1, live=True)
    min_stability: float = option(
        0.95, "proposals whose area changes more between two cuts of the logits are dropped", ge=0, le=1, live=True
    )
    stability_offset: float = option(1.0, "how far these two cuts are from the mask's own", ge=0, live=True)
    nms: float = option(0.7, "of two boxes that overlap more, the better stays", ge=0, le=1, live=True)


@dataclass(frozen=True)
class PromptableConfig:
    """Which network, what prompts it, and what is made of its answers."""

    encoder: str = option("", "ONNX file of the image encoder, relative to the working directory or to models/")
    decoder: str = option("", "ONNX file of the mask decoder")
    dialect: str = option("auto", "contract of the decoder; auto = by its names", choices=("auto", *DIALECTS))
    prompts: str = option(
        "detector", "who prompts: the detector, the points or boxes below, a grid, or nobody until live prompts come",
        choices=("detector", "points", "grid", "live"), live=True,
    )  # fmt: skip
    detector: Selected = plugin("segmenters", "tabletop", "the segmenter whose instances are the prompts")
    use_box: bool = option(True, "an instance's box is in its prompt, where the decoder takes boxes", live=True)
    inner_points: int = option(
        0, "points inside an instance's mask in its prompt; at least 1 without box", ge=0, le=8, live=True
    )
    points: tuple[float, ...] = option((), "x, y of each point of one object", unit="px", live=True)
    point_labels: tuple[int, ...] = option((), "1 = on it, 0 = not on it; empty = all on it", ge=0, le=1, live=True)
    box: tuple[float, ...] = option((), "x_min, y_min, x_max, y_max of one object", unit="px", live=True)
    grid: GridConfig = section(GridConfig, "the grid")
    proposal: str = option(
        "auto", "of several masks: auto = by the kind of prompt, single = the network's first, best = predicted IoU",
        choices=("auto", "single", "best"), live=True,
    )  # fmt: skip
    score: str = option(
        "detector", "an object's score: the detector's, the predicted mask IoU, or their product",
        choices=("detector", "mask", "product"), live=True,
    )  # fmt: skip
    min_mask_iou: float = option(0.0, "masks with a lower predicted IoU are dropped", ge=0, le=1, live=True)
    min_agreement: float = option(
        0.7, "least IoU of a mask with the detector's own mask, where that has one", ge=0, le=1, live=True
    )
    disagreement: str = option(
        "keep", "below that: keep the detector's mask, or drop the object", choices=("keep", "drop"), live=True
    )
    mask_level: float = option(0.0, "logit above which a pixel is in a mask", live=True)
    click_finds: str = option(
        "object", "what a live prompt of points only asks for: object = what the detector has there, in its box; "
        "mask = what the network alone takes it for",
        choices=("object", "mask"), live=True,
    )  # fmt: skip
    max_prompts: int = option(50, "prompts per image, best scores first", ge=1, le=1000, live=True)
    max_ignored: float = option(
        0.5, "an instance with more than this share of its mask in the ignore mask is dropped", ge=0, le=1, live=True
    )
    backend: Selected = plugin("backends", "onnxruntime", "the runtime of the encoder")
    decoder_backend: Selected = plugin("backends", "onnxruntime", "the runtime of the decoder")

    def __post_init__(self) -> None:
        if len(self.points) % 2:
            raise ValueError(f"points: expected pairs x, y, got {len(self.points)} numbers")
        if self.point_labels and len(self.point_labels) * 2 != len(self.points):
            raise ValueError(f"point_labels: expected {len(self.points) // 2}, got {len(self.point_labels)}")
        if len(self.box) not in (0, 4):
            raise ValueError(f"box: expected x_min, y_min, x_max, y_max, got {len(self.box)} numbers")
        if self.prompts == "points" and not (self.points or self.box):
            raise ValueError("prompts: points, but neither points nor box are given")


def check_decoder_backend(backend: Selected) -> None:
    """Raises ConfigError for a runtime that would end the process: nothing could say so afterwards."""
    if backend.plugin == "openvino" and backend.config.precision == "bf16":
        raise ConfigError(
            "decoder_backend.precision: OpenVINO (seen with 2026.4.1) ends the process when it compiles the decoder of "
            "a SAM or MobileSAM in bf16: leave the decoder at f32; the encoder may have backend: {precision: bf16}"
        )
