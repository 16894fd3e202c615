# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the segmenters with a network and a sidecar have in common: the file, its inputs, and which instances count."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from seg_perception.options import ConfigError, Selected, option, parse, plugin, refuse_fixed, to_mapping
from seg_perception.plugins import TensorSpec
from seg_perception.scene import Frame, Instances
from seg_perception.segmenters.networks.class_names import allowed_classes
from seg_perception.segmenters.networks.ignore import ignored_share
from seg_perception.segmenters.networks.letterbox import Letterbox
from seg_perception.segmenters.networks.model_file import find_model, fingerprint, start_backend
from seg_perception.segmenters.networks.outputs import not_a_number
from seg_perception.segmenters.networks.preprocessing import InputWriter, Preprocessing
from seg_perception.segmenters.networks.sidecar import constant_inputs, read_sidecar, sidecar_path

EXPORT_HINT = "docs/models.md tells how to export one"
PIXEL_MASK = "pixel_mask"  # 1 where the image is in the input, 0 where padding is


@dataclass(frozen=True)
class NetworkConfig:
    """Which network, and which of its instances count."""

    model: str = option("", "ONNX file, relative to the working directory or to the shipped models/ folder")
    family: str = option("", "model family; empty = as the sidecar <model>.yaml says, or as recognised")
    score_threshold: float = option(
        -1.0, "instances up to this score are dropped; -1 = as the sidecar or the family has it", ge=-1, le=1, live=True
    )
    max_detections: int = option(100, "instances per image, best scores first", ge=1, le=10000, live=True)
    classes: tuple[str, ...] = option((), "names of the classes that count; empty = all", live=True)
    class_names: tuple[str, ...] = option((), "class names in order of id; empty = as the sidecar has them")
    input_size: tuple[int, ...] = option(
        (), "height, width of the input of a model exported with a free one; empty = as exported", unit="px", ge=1
    )
    max_ignored: float = option(
        0.5, "an instance with more than this share of its mask in the ignore mask is dropped", ge=0, le=1, live=True
    )
    backend: Selected = plugin("backends", "onnxruntime", "the runtime")


@dataclass(frozen=True)
class Family:
    """The defaults of one family: how its outputs are read, how its input is made, the score its reference asks for."""

    contract: Any
    preprocessing: Preprocessing
    score_threshold: float = 0.5


class NetworkSegmenter(ABC):
    """A network with a sidecar. A subclass recognises, checks and decodes one kind of outputs.

    Raises ConfigError: no or no such model, one that is not certainly of a known family, names that do not fit.
    """

    KIND: ClassVar[str]  # what a network must be, for error lines
    BATCH_OF_PROMPTS: ClassVar[bool] = False  # the image is repeated, once for each text prompt
    FAMILIES: ClassVar[Mapping[str, Family]]
    class_names: tuple[str, ...]

    def __init__(self, config: Any) -> None:
        path = find_model(config.model, EXPORT_HINT, config.backend)
        self.model = fingerprint(path)
        self._path = path
        self._backend = start_backend(config.backend, path)
        self._sidecar = sidecar = read_sidecar(path, self._backend.metadata)
        self._image = self._image_input()
        self._constants = self._constant_inputs()
        self.family = config.family or sidecar.family or self._recognise()
        if self.family not in self.FAMILIES:
            raise ConfigError(f"family: expected one of {', '.join(self.FAMILIES)}, got '{self.family}'")
        family, where = self.FAMILIES[self.family], f"{sidecar_path(path).name}: "
        decoding = {**to_mapping(family.contract), **sidecar.decoding}
        if sidecar.thresholds.mask >= 0:
            decoding["mask_threshold"] = sidecar.thresholds.mask
        contract = parse(type(family.contract), decoding, f"{where}decoding")
        preprocessing = {**to_mapping(family.preprocessing), **sidecar.preprocessing}
        self._preprocessing: Preprocessing = parse(Preprocessing, preprocessing, f"{where}preprocessing")
        self._size = self._input_size(config.input_size)
        self._default_score = sidecar.thresholds.score if sidecar.thresholds.score >= 0 else family.score_threshold
        self._names = config.class_names or sidecar.class_names
        self._contract, classes = self._bind(contract)
        if self._names and classes and len(self._names) != classes:
            raise ConfigError(f"class_names: the model has {classes} classes, got {len(self._names)} names")
        self.class_names = self._names or tuple(f"class_{i}" for i in range(classes))
        self._apply(config)

    # -- what a subclass adds ------------------------------------------------------------------------------------------

    @abstractmethod
    def _recognise(self) -> str:
        """The family that names and shapes leave no doubt about; else raises `self._refusal`."""

    @abstractmethod
    def _bind(self, contract: Any) -> tuple[Any, int]:
        """The contract as the outputs fit it and the number of classes (0 = not known); else raises `self._refusal`."""

    @abstractmethod
    def _decode(self, outputs: Mapping[str, NDArray], place: Letterbox, frame: Frame) -> Instances:
        """Instances above `self._score_threshold`, best first, of all classes, in the image's pixels."""

    # -- a segmenter ---------------------------------------------------------------------------------------------------

    def with_config(self, config: Any) -> NetworkSegmenter:
        """The same network with other thresholds. Raises ConfigError when the network itself would change."""
        refuse_fixed(self._config, config)
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._apply(config)
        return other

    def warm_up(self) -> None:
        """Runs the network once and compiles the decoder."""
        size = (480, 640)
        depth = np.ones(size, np.float32)
        self.segment(Frame(np.zeros((*size, 3), np.uint8), depth, ignore=np.zeros(size, np.bool_)))

    def segment(self, frame: Frame) -> Instances:
        tensor, place = self._writer.write(frame.color)
        feed = {self._image.name: np.broadcast_to(tensor[0], self._image_shape), **self._constants}
        if self._has_pixel_mask:
            mask = np.zeros((1, *self._size), np.int64)
            mask[:, place.top : place.top + place.scaled_height, place.left : place.left + place.scaled_width] = 1
            feed[PIXEL_MASK] = mask
        outputs = self._outputs(feed)
        self.problem = not_a_number(outputs)
        found = self._decode(outputs, place, frame)
        counts = self._allowed[found.class_ids] & (found.masks.areas > 0)
        counts &= ignored_share(found.masks, frame.ignore) <= self._config.max_ignored
        return found[np.flatnonzero(counts)[: self._config.max_detections]]

    # ------------------------------------------------------------------------------------------------------------------

    def _outputs(self, feed: Mapping[str, NDArray]) -> dict[str, NDArray]:
        outputs: dict[str, NDArray] = self._backend(feed)
        return outputs

    def _apply(self, config: Any) -> None:
        self._config = config
        self._score_threshold = config.score_threshold if config.score_threshold >= 0 else self._default_score
        self._allowed = allowed_classes(config.classes, self.class_names)
        self._writer = InputWriter(self._preprocessing, self._size)

    def _image_input(self) -> TensorSpec:
        found = [
            spec
            for spec in self._backend.inputs
            if len(spec.shape) in (3, 4) and spec.shape[-3] == 3 and spec.dtype in (np.float32, np.float16)
        ]
        if len(found) != 1:
            raise self._refusal("it has no color image input (1, 3, height, width) or (3, height, width)")
        if len(found[0].shape) == 4 and found[0].shape[0] not in (-1, 1) and not self.BATCH_OF_PROMPTS:
            raise self._refusal("its batch is not 1: export with batch 1")
        return found[0]

    def _constant_inputs(self) -> dict[str, NDArray]:
        given = constant_inputs(self._sidecar, self._path.parent)
        others = {spec.name: spec for spec in self._backend.inputs if spec.name != self._image.name}
        self._has_pixel_mask = PIXEL_MASK in others and PIXEL_MASK not in given
        for name in given:
            if name not in others:
                raise ConfigError(f"{sidecar_path(self._path).name}: inputs.{name}: the model has no such input")
        missing = [name for name in others if name not in given and name != PIXEL_MASK]
        if missing:
            lines = [f"  {name}: tokens.npy   # {others[name].shape} {others[name].dtype}" for name in missing]
            raise self._refusal("it has further inputs whose values are not known", "inputs:", *lines)
        for name, array in given.items():
            if not others[name].fits(array.shape):
                raise ConfigError(
                    f"{sidecar_path(self._path).name}: inputs.{name}: expected {others[name].shape}, got {array.shape}"
                )
        return {name: array.astype(others[name].dtype) for name, array in given.items()}

    def _input_size(self, asked: tuple[int, ...]) -> tuple[int, int]:
        fixed = self._image.shape[-2:]
        if asked and len(asked) != 2:
            raise ConfigError(f"input_size: expected height, width, got {list(asked)}")
        if not asked and min(fixed) < 1:
            raise self._refusal("its input size is free: set input_size to the height, width it was traced with")
        size = asked or fixed
        if any(known not in (-1, wanted) for known, wanted in zip(fixed, size, strict=True)):
            raise ConfigError(
                f"input_size: the model's input is fixed at {fixed[0]}x{fixed[1]}, got {size[0]}x{size[1]}"
            )
        batch = self._image.shape[0]
        if batch < 1:
            prompts = [len(array) for array in self._constants.values()] if self.BATCH_OF_PROMPTS else []
            batch = max([1, *prompts])
        self._image_shape = (batch, 3, *size)[4 - len(self._image.shape) :]
        return size[0], size[1]

    def _refusal(self, reason: str, *lines: str) -> ConfigError:
        """An error that shows the network as it is, and the `lines` of a sidecar that would settle the matter."""
        seen = [("input", spec) for spec in self._backend.inputs] + [("output", spec) for spec in self._backend.outputs]
        rows = [f"  {kind:<7} {spec.name:<22} {spec.shape} {spec.dtype}" for kind, spec in seen[:16]]
        text = [f"{self._path.name} is not certainly {self.KIND}: {reason}; seen", *rows]
        if lines:
            text += [f"say it in {sidecar_path(self._path).name} beside the model:", *(f"  {line}" for line in lines)]
        return ConfigError("\n".join(text))


def names_of(class_names: Sequence[str], class_ids: NDArray[np.int32]) -> tuple[str, ...]:
    """The name of each row. Raises ValueError for an id that the network should not have put out."""
    if class_ids.min(initial=0) < 0 or class_ids.max(initial=0) >= len(class_names):
        raise ValueError(
            f"labels: expected class ids 0..{len(class_names) - 1}, got {class_ids.min()}..{class_ids.max()}"
        )
    return tuple(class_names[i] for i in class_ids)
