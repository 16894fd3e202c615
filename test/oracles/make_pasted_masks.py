# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Makes pasted_masks.npz: what torchvision's `paste_masks_in_image` and detectron2's `_do_paste_mask` make of masks.

Run in an environment of its own, from this folder:

    pip install torch==2.13.0 torchvision==0.28.0
    PYTHONPATH=.. python make_pasted_masks.py

The masks and boxes are those of `boxes` in oracle_cases.py. detectron2's function is one call of torch's `grid_sample`,
which is made here, since detectron2 has no package for this version of torch.
"""

import numpy as np
import torch
from oracle_cases import COUNTS, SIZES, boxes
from torch.nn.functional import grid_sample
from torchvision.models.detection.roi_heads import paste_masks_in_image

fixture = {}
for seed, count in enumerate(COUNTS):
    height, width = SIZES[count]
    corners, masks = (torch.from_numpy(a) for a in boxes(count, SIZES[count], seed))
    pasted = paste_masks_in_image(masks[:, None], corners, (height, width))[:, 0] > 0.5
    fixture[f"torchvision_{count}"] = np.packbits(pasted.numpy())
    x0, y0, x1, y1 = corners[:, None].unbind(dim=2)
    x = (torch.arange(width)[None] + 0.5 - x0) / (x1 - x0) * 2 - 1
    y = (torch.arange(height)[None] + 0.5 - y0) / (y1 - y0) * 2 - 1
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=3)
    sampled = grid_sample(masks[:, None], grid, align_corners=False)[:, 0] >= 0.5
    fixture[f"detectron2_{count}"] = np.packbits(sampled.numpy())
np.savez_compressed("pasted_masks.npz", **fixture)
