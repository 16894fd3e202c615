# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Makes yolo_masks.npz: what Ultralytics' predictor makes of a YOLO's outputs, and of the real networks on photographs.

Run in an environment of its own, from this folder (Ultralytics is AGPL-3.0; only numbers that it puts out are kept):

    pip install ultralytics==8.4.190 torch==2.13.0 torchvision==0.28.0 onnxruntime==1.31.1
    PYTHONPATH=.. python make_yolo_masks.py MODELS DATA

MODELS has yolo11n-seg.onnx and yolo26n-seg_480x640.onnx, DATA has mosd/ and ycbv/. The outputs are those of `yolo` in
oracle_cases.py. Boxes are px in the image, masks packed bits.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from oracle_cases import COUNTS, SIZES, yolo
from ultralytics import YOLO
from ultralytics.utils import nms, ops

PHOTOS = (("ycbv", 0, None), ("ycbv", 1, (641, 479)), ("mosd", 0, (333, 251)), ("mosd", 9, None))  # width, height


def photo(data: Path, folder: str, index: int, size: tuple[int, int] | None) -> np.ndarray:
    image = cv2.imread(str(sorted((data / folder / "frames").glob("*_rgb.*"))[index]))
    return image if size is None else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def main(models: Path, data: Path) -> None:
    fixture = {}
    for seed, count in enumerate(COUNTS):
        predictions, prototypes = (torch.from_numpy(a) for a in yolo(count, seed))
        rows = nms.non_max_suppression(predictions.clone(), 0.25, 0.95, nc=3, max_det=300)[0]
        size = SIZES[count]
        boxes = ops.scale_boxes((160, 160), rows[:, :4].clone(), size)
        masks = ops.process_mask_native(prototypes[0], rows[:, 6:], boxes, size)
        kept = masks.amax((-2, -1)) > 0
        fixture[f"made_{count}_rows"] = torch.cat([boxes, rows[:, 4:6]], dim=1)[kept].numpy()
        fixture[f"made_{count}_masks"] = np.packbits(masks[kept].numpy().astype(bool))
    for name in ("yolo11n-seg", "yolo26n-seg_480x640"):
        model = YOLO(models / f"{name}.onnx", task="segment")
        imgsz = (640, 640) if name == "yolo11n-seg" else (480, 640)
        for k, chosen in enumerate(PHOTOS):
            image = photo(data, *chosen)
            found = model.predict(
                image, retina_masks=True, conf=0.1 if "26" in name else 0.25, imgsz=imgsz, verbose=False
            )[0]
            masks = (
                found.masks.data.numpy().astype(bool)
                if found.masks is not None
                else np.zeros((0, *image.shape[:2]), bool)
            )
            fixture[f"{name}_{k}_rows"] = found.boxes.data.numpy()
            fixture[f"{name}_{k}_masks"] = np.packbits(masks)
    np.savez_compressed("yolo_masks.npz", **fixture)


main(Path(sys.argv[1]), Path(sys.argv[2]))
