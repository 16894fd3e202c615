# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""SAM 2's memory: transformers' `Sam2VideoModel` on torch, image by image as they come.

Every object has an inference session of its own, all with the same cache of what the image encoder saw: transformers
runs objects one by one anyway, and so one can be removed. Memories that the network will not look at again are freed.
The reference is `Sam2VideoModel.forward` with all objects in one session and `Sam2VideoProcessor.post_process_masks`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_perception.masks import Masks
from seg_perception.options import ConfigError
from seg_perception.plugins import require
from seg_perception.segmenters.decoding.map_masks import masks_above
from seg_perception.segmenters.networks.letterbox import Letterbox
from seg_perception.segmenters.networks.preprocessing import IMAGENET, InputWriter
from seg_perception.segmenters.sam.prompts import Prompt
from seg_perception.segmenters.video.session import Followed, Seed

BOX = (2, 3)  # labels of a box's corners
NO_IMAGE = Letterbox(1, 1, 1, 1, 0, 0, 1, 1)
SESSIONS = "transformers.models.sam2_video.modeling_sam2_video"


class Sam2Memory:
    """A ShownSession on the checkpoint folder `model` (config.json and model.safetensors), which is not looked for on
    the network. Raises ConfigError when there is none, PluginError without torch or transformers."""

    def __init__(self, model: Path, device: str = "cpu") -> None:
        self._torch = require("torch", "torch")
        transformers = require("transformers", "video")
        if not (model / "config.json").is_file():
            raise ConfigError(
                f"model: expected a folder with config.json and model.safetensors of a SAM 2, got {model}"
            )
        try:
            network = transformers.Sam2VideoModel.from_pretrained(str(model), local_files_only=True)
            self._network = network.eval().to(device)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"model: {model} is no SAM 2 video model: {' '.join(str(error).split())[:300]}"
            ) from error
        self._session_type = importlib.import_module(SESSIONS).Sam2VideoInferenceSession
        self._device = device
        config = self._network.config
        self._size = int(config.image_size if isinstance(config.image_size, int) else config.image_size[0])
        self._reach = max(int(config.num_maskmem), int(config.max_object_pointers_in_encoder))
        self._writer = InputWriter(IMAGENET, (self._size, self._size))
        self.reset()

    def reset(self) -> None:
        self._sessions: dict[int, Any] = {}
        self._cache: Any = None
        self._index = -1
        self._pixels: Any = None
        self._place = NO_IMAGE

    def step(self, color: NDArray[np.uint8]) -> Followed:
        tensor, self._place = self._writer.write(color)
        self._pixels = self._torch.from_numpy(tensor.copy()).to(self._device)
        self._index += 1
        return self._answer(list(self._sessions))

    def add(self, seeds: Mapping[int, Seed]) -> Followed:
        """Raises ValueError before the first image, and for an id that is known."""
        if self._place is NO_IMAGE:
            raise ValueError("a session must see an image before it is shown objects in it")
        for object_id, seed in seeds.items():
            if object_id in self._sessions:
                raise ValueError(f"object {object_id} is known to the session")
            session = self._new_session()
            row = session.obj_id_to_idx(object_id)
            if seed.mask is not None:
                session.add_mask_inputs(row, self._index, self._scaled_mask(seed.mask))
            elif seed.prompt is not None:
                session.add_point_inputs(row, self._index, self._scaled_prompt(seed.prompt))
            session.obj_with_new_inputs = [object_id]
            self._sessions[object_id] = session
        return self._answer(list(seeds))

    def remove(self, ids: Sequence[int]) -> None:
        for object_id in ids:
            self._sessions.pop(object_id, None)

    # ------------------------------------------------------------------------------------------------------------------

    def _answer(self, ids: list[int]) -> Followed:
        place = self._place
        if not ids:
            return Followed(np.empty(0, np.int64), Masks.empty(place.height, place.width), np.empty(0, np.float32))
        maps, presence = [], []
        with self._torch.inference_mode():
            for object_id in ids:
                session = self._sessions[object_id]
                output = self._network(inference_session=session, frame=self._pixels, frame_idx=self._index)
                maps.append(output.pred_masks[0, 0].float().cpu().numpy())
                presence.append(float(output.object_score_logits.reshape(-1)[0]))
                self._forget_old(session)
        stack = np.stack(maps)
        masks, _ = masks_above(stack, (stack.shape[1], stack.shape[2]), place, 0.0, False)
        seen = np.array(presence) > 0
        spans = [masks.spans_of(i) if s else np.empty((0, 3), np.int32) for i, s in enumerate(seen)]
        scores = 1 / (1 + np.exp(-np.clip(np.array(presence), -50, 50)))
        masks = Masks.from_span_lists(place.height, place.width, spans)
        return Followed(np.array(ids, np.int64), masks, scores.astype(np.float32))

    def _new_session(self) -> Any:
        session = self._session_type(
            video=None,
            video_height=self._place.height,
            video_width=self._place.width,
            inference_device=self._device,
            inference_state_device=self._device,
            video_storage_device=self._device,
            dtype=self._torch.float32,
        )
        if self._cache is None:
            self._cache = session.cache
        session.cache = self._cache
        return session

    def _scaled_prompt(self, prompt: Prompt) -> dict[str, Any]:
        """As the processor has it: a box is two points before the others, all in pixels of the network's input."""
        torch, place = self._torch, self._place
        points, labels = prompt.points, np.asarray(prompt.labels)
        if prompt.box is not None:
            points = np.concatenate([prompt.box.reshape(2, 2), points])
            labels = np.concatenate([BOX, labels])
        coords = torch.tensor(points / np.array([place.width, place.height]) * self._size, dtype=torch.float32)
        kinds = torch.tensor(labels.astype(np.int32))
        return {"point_coords": coords[None, None].to(self._device), "point_labels": kinds[None, None].to(self._device)}

    def _scaled_mask(self, mask: NDArray[np.bool_]) -> Any:
        torch = self._torch
        whole = torch.from_numpy(np.ascontiguousarray(mask, np.float32))[None, None].to(self._device)
        size = (self._size, self._size)
        resized = torch.nn.functional.interpolate(
            whole, size=size, mode="bilinear", align_corners=False, antialias=True
        )
        return (resized >= 0.5).float()

    def _forget_old(self, session: Any) -> None:
        """What lies further back than the network looks; it would grow for ever."""
        oldest = self._index - self._reach
        session.processed_frames = {self._index: self._pixels[0]}
        for outputs in session.output_dict_per_obj.values():
            kept = outputs["non_cond_frame_outputs"]
            for index in [i for i in kept if i < oldest]:
                del kept[index]
        for frames in session.frames_tracked_per_obj.values():
            for index in [i for i in frames if i < oldest]:
                del frames[index]
