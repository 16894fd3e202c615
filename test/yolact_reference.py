# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""YOLACT decoded the plain, dense way, in numpy and OpenCV: what the product must be equal to.

Independent of the product's code. Follows `Detect` and `postprocess` of dbolya/yolact, and `nms` and `after_nms` of
feiyuhuahuo/Yolact_minimal: score 0.05, IoU 0.5, 200 per class, 100 in all, masks cropped before they are enlarged.
"""

import cv2
import numpy as np


def network_input(color, net):
    """(1, 3, *net): stretched, RGB, mean and deviation of ImageNet in 0..255."""
    image = cv2.resize(color, net[::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32)
    image = (image - np.float32([123.68, 116.78, 103.94])) / np.float32([58.40, 57.12, 57.38])
    return image.transpose(2, 0, 1)[None]


def decode(offsets, anchors):
    centers = anchors[:, :2] + offsets[:, :2] * np.float32(0.1) * anchors[:, 2:]
    sizes = anchors[:, 2:] * np.exp(offsets[:, 2:] * np.float32(0.2))
    low = centers - sizes / 2
    return np.concatenate([low, low + sizes], axis=1)


def jaccard(boxes):
    low, high = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return shared / (areas[:, None] + areas[None] - shared)


def fast_nms(boxes, coefficients, scores, iou=0.5, top_k=200, limit=100):
    """boxes, coefficients, class ids, scores; `scores` (classes, N)."""
    found = []
    for k, row in enumerate(scores):
        order = np.argsort(-row, kind="stable")[:top_k]
        overlap = np.triu(jaccard(boxes[order]), 1).max(axis=0, initial=0)
        found += [(row[i], k, i) for i, o in zip(order, overlap, strict=True) if o <= iou]
    found.sort(key=lambda f: -f[0])
    rows = [i for _, _, i in found[:limit]]
    return (
        boxes[rows],
        coefficients[rows],
        np.array([k for _, k, _ in found[:limit]]),
        np.array([s for s, _, _ in found[:limit]]),
    )


def crop(masks, boxes):
    """Zero outside the box, one cell of margin; `masks` (h, w, N), `boxes` in shares."""
    height, width, _ = masks.shape
    columns, rows = np.arange(width)[None, :, None], np.arange(height)[:, None, None]
    x = np.sort(boxes[:, [0, 2]] * np.float32(width), axis=1)
    y = np.sort(boxes[:, [1, 3]] * np.float32(height), axis=1)
    inside = (columns >= np.maximum(x[:, 0] - 1, 0)) & (columns < np.minimum(x[:, 1] + 1, width))
    inside = inside & (rows >= np.maximum(y[:, 0] - 1, 0)) & (rows < np.minimum(y[:, 1] + 1, height))
    return masks * inside


def instances(outputs, size, threshold, iou=0.5, limit=100):
    """boxes (N, 4) px, masks (N, *size), class ids, scores, best first, of scores above `threshold` >= 0.05."""
    scores, offsets, coefficients, prototypes = (outputs[name][0] for name in ("class", "box", "coef", "proto"))
    boxes = decode(offsets, outputs["anchors"])
    scores = scores.T[1:]
    kept = scores.max(axis=0) > 0.05
    if not kept.any():
        return np.zeros((0, 4)), np.zeros((0, *size), bool), np.zeros(0, int), np.zeros(0)
    boxes, coefficients, ids, scores = fast_nms(boxes[kept], coefficients[kept], scores[:, kept], iou, 200, limit)
    kept = scores > threshold
    boxes, coefficients, ids, scores = boxes[kept], coefficients[kept], ids[kept], scores[kept]
    masks = crop(1 / (1 + np.exp(-(prototypes @ coefficients.T))), boxes).transpose(2, 0, 1)
    masks = np.array([cv2.resize(m, size[::-1], interpolation=cv2.INTER_LINEAR) for m in masks.astype(np.float32)])
    x, y = (np.sort(boxes[:, [k, k + 2]], axis=1) * size[1 - k] for k in (0, 1))
    pixels = np.stack([x[:, 0].clip(0), y[:, 0].clip(0), x[:, 1].clip(max=size[1]), y[:, 1].clip(max=size[0])], axis=1)
    return pixels, masks.reshape(-1, *size) > 0.5, ids, scores
