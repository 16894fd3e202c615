# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Makes query_masks.npz: what transformers' image processors make of the outputs of networks with queries.

Run in an environment of its own, from this folder:

    pip install torch==2.13.0 torchvision==0.28.0 transformers==5.23.0
    PYTHONPATH=.. python make_query_masks.py

The outputs are those of `queries` in oracle_cases.py. Masks are packed bits, or a label image (0 = none) where the
processor paints one.
"""

from types import SimpleNamespace

import numpy as np
import torch
from oracle_cases import CLASSES, COUNTS, NET, SIZES, queries
from transformers import (
    DetrImageProcessor,
    EomtImageProcessor,
    Mask2FormerImageProcessor,
    MaskFormerImageProcessor,
    OneFormerImageProcessor,
    RfDetrImageProcessor,
)

PROCESSORS = {
    "mask2former": Mask2FormerImageProcessor(),
    "maskformer": MaskFormerImageProcessor(),
    "oneformer": OneFormerImageProcessor(),
    "eomt": EomtImageProcessor(size={"shortest_edge": NET, "longest_edge": NET}),
    "detr": DetrImageProcessor(),
    "rfdetr": RfDetrImageProcessor(),
}
PROCESSORS["oneformer"].class_info_file = ""  # else it fails
BINARY = ("mask2former", "maskformer", "rfdetr")

fixture = {}
for family, processor in PROCESSORS.items():
    for seed, count in enumerate(COUNTS):
        no_object = family != "rfdetr"
        logits, maps = (torch.from_numpy(a)[None] for a in queries(count, CLASSES + no_object, no_object, seed))
        outputs = SimpleNamespace(
            class_queries_logits=logits, masks_queries_logits=maps, logits=logits, pred_masks=maps, pred_boxes=None
        )
        options = {"return_binary_maps": True} if family in BINARY else {}
        found = processor.post_process_instance_segmentation(
            outputs, threshold=0.5, target_sizes=[SIZES[count]], **options
        )[0]
        segments = found["segments_info"]
        key = f"{family}_{count}"
        fixture[f"{key}_ids"] = np.array([s["label_id"] for s in segments], np.int16)
        fixture[f"{key}_scores"] = np.array([s["score"] for s in segments], np.float32)
        if family in BINARY:
            masks = found["segmentation"].numpy().astype(bool) if segments else np.zeros((0, *SIZES[count]), bool)
            fixture[f"{key}_masks"] = np.packbits(masks)
        else:
            image = found["segmentation"].numpy().astype(np.int16)
            first = segments[0]["id"] if segments else 0  # some count from 0 with -1 for none, some from 1
            fixture[f"{key}_labels"] = np.where(image < first, 0, image - first + 1).astype(np.int16)
np.savez_compressed("query_masks.npz", **fixture)
