# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One adapter for each form of output, as one would write them around EVA, BoundaryFormer, SegCLIP and Peekaboo.

The networks inside are tiny STAND-INS on PyTorch that go by color: neither the authors' code nor weights are here.
"""

from pathlib import Path

import numpy as np
import torch

SIDE = 64


class Redness(torch.nn.Module):
    """A convolution with the weights of the checkpoint: how red each pixel is."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Conv2d(3, 1, 1)

    def forward(self, image):
        return self.net(image)


def write_checkpoint(path: Path) -> Path:
    net = Redness()
    with torch.no_grad():
        net.net.weight[:] = torch.tensor([1.0, -0.5, -0.5]).reshape(1, 3, 1, 1)
        net.net.bias.fill_(-0.5)
    torch.save(net.state_dict(), path)
    return path


def load(model: Path, device: str) -> Redness:
    net = Redness()
    net.load_state_dict(torch.load(model, map_location=device, weights_only=True))
    return net.eval().to(device)


def extent(mask):
    """x_min, y_min, x_max, y_max of what is set."""
    y, x = np.nonzero(mask)
    return np.float32([x.min(), y.min(), x.max() + 1, y.max() + 1])


class BoxesAndMasks:
    """Form 1, boxes and masks in them (EVA's Cascade Mask R-CNN, TensorMask): family detectron2."""

    inputs = (f"image 1x3x{SIDE}x{SIDE}",)
    outputs = ("boxes -1x4", "labels -1 int64", "masks -1x1x28x28", "scores -1")

    def __init__(self, model, device):
        self.net, self.device = load(model, device), device

    @torch.inference_mode()
    def __call__(self, inputs):
        image = torch.from_numpy(inputs["image"].copy()).to(self.device)
        redness = self.net(image.flip(1) / 255)  # detectron2's images are BGR, 0 to 255
        red = (redness > 0)[0, 0].cpu().numpy()
        if not red.any():
            nothing = np.empty((0, 1, 28, 28))
            return {"boxes": np.empty((0, 4)), "labels": [], "masks": nothing, "scores": []}
        x0, y0, x1, y1 = extent(red).astype(int)
        crop = torch.nn.functional.interpolate(redness[:, :, y0:y1, x0:x1], (28, 28), mode="bilinear")
        return {
            "boxes": extent(red)[None],
            "labels": torch.tensor([1], device=self.device),
            "masks": (crop > 0).float(),
            "scores": torch.tensor([0.9]),
        }


class Polygons:
    """Form 2, outlines (BoundaryFormer): family polygon."""

    inputs = (f"image 1x3x{SIDE}x{SIDE}",)
    outputs = ("polygons -1x4x2", "labels -1 int64", "scores -1")

    def __init__(self, model, device):
        self.net = load(model, device)

    @torch.inference_mode()
    def __call__(self, inputs):
        red = (self.net(torch.from_numpy(inputs["image"].copy()).flip(1) / 255) > 0)[0, 0].numpy()
        x0, y0, x1, y1 = extent(red)
        return {"polygons": np.float32([[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]]), "labels": [0], "scores": [0.8]}


class TextMaps:
    """Form 3, a map for each text (SegCLIP): family groupvit; Peekaboo's maps the same way, family clipseg."""

    inputs = ("input_ids -1x77 int64", f"pixel_values 1x3x{SIDE}x{SIDE}", "attention_mask -1x77 int64")
    outputs = (f"segmentation_logits 1x-1x{SIDE}x{SIDE}",)
    COLORS = {10: 0, 11: 1, 12: 2}  # noqa: RUF012 - token of red, green, blue -> channel

    def __init__(self, model, device):
        self.net = load(model, device)

    @torch.inference_mode()
    def __call__(self, inputs):
        image = torch.from_numpy(inputs["pixel_values"].copy())
        maps = []
        for ids in inputs["input_ids"]:
            channel = next((self.COLORS[t] for t in ids if t in self.COLORS), None)
            rolled = None if channel is None else torch.roll(image, -channel, 1)  # that color in the place of red
            maps.append(torch.zeros(SIDE, SIDE) if rolled is None else self.net(rolled)[0, 0])
        return {"segmentation_logits": torch.stack(maps)[None]}


class RednessClips:
    """Form 4, objects in a few images at once (MTTR): the segmenter video, network: adapter_examples:RednessClips."""

    window = 2

    def __init__(self, model, device):
        self.net = load(model, device)

    @torch.inference_mode()
    def __call__(self, clip, texts):
        logits = self.net(torch.from_numpy(clip.copy()).permute(0, 3, 1, 2).float() / 255)[None, :, 0]
        return {"masks": logits.numpy(), "scores": np.float32([0.9]), "texts": np.array([0])}
