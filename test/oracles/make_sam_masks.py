# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Makes sam_masks.npz: what transformers' SAM processors do with prompts and with mask logits.

Run in an environment of its own, from this folder:

    pip install torch==2.13.0 torchvision==0.28.0 transformers==5.23.0 opencv-python-headless onnxruntime
    PYTHONPATH=.. python make_sam_masks.py

The logits are `smooth_maps` of sam_reference.py with the seeds below, the network's input is 256 px, its maps 64 px.
"""

import numpy as np
import torch
from sam_reference import longest_side, smooth_maps
from transformers import Sam2ImageProcessor, Sam2Processor, SamImageProcessor, SamProcessor

SIZES = [(179, 241), (256, 256), (300, 200), (97, 131)]  # height, width
NET, LOW, PROMPTS, PROPOSALS = 256, 64, 1, 3

fixture = {"sizes": np.array(SIZES)}
size = {"height": NET, "width": NET}
sam = SamProcessor(SamImageProcessor(size={"longest_edge": NET}, pad_size=size))
sam2 = Sam2Processor(Sam2ImageProcessor(size=size), target_size=NET)
for k, shape in enumerate(SIZES):
    maps = torch.from_numpy(smooth_maps(k, PROMPTS, PROPOSALS, LOW))[None]
    masks = sam.image_processor.post_process_masks(maps, [shape], [longest_side(shape, NET)], pad_size=size)[0]
    fixture[f"hf_{k}"] = np.packbits(masks.numpy())
    fixture[f"sam2_{k}"] = np.packbits(sam2.image_processor.post_process_masks(maps, [shape])[0].numpy())
    corners = np.array([[0.1 * shape[1], 0.2 * shape[0]], [0.7 * shape[1], 0.9 * shape[0]]])
    fixture[f"hf_points_{k}"] = sam._normalize_coordinates(NET, corners, shape)
    fixture[f"sam2_points_{k}"] = sam2._normalize_coordinates(
        NET, torch.from_numpy(corners), torch.tensor(shape)
    ).numpy()
np.savez_compressed("sam_masks.npz", **fixture)
