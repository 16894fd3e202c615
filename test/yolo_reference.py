# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""YOLO segmentation the plain, dense way, from raw outputs, in numpy and OpenCV: what the product must be equal to.

Independent of the product's code. Follows Ultralytics 8.4.190: LetterBox, non_max_suppression, scale_boxes,
process_mask_native.
"""

import cv2
import numpy as np


def scaled_size(shape, net):
    """(height, width) of an image of `shape` scaled into `net`."""
    gain = min(net[0] / shape[0], net[1] / shape[1])
    return max(round(shape[0] * gain), 1), max(round(shape[1] * gain), 1)


def network_input(color, net):
    """(1, 3, *net) float32 in 0..1 with gray 114 around the image."""
    height, width = scaled_size(color.shape[:2], net)
    half_y, half_x = (net[0] - height) / 2, (net[1] - width) / 2
    borders = round(half_y - 0.1), round(half_y + 0.1), round(half_x - 0.1), round(half_x + 0.1)
    image = cv2.resize(color, (width, height), interpolation=cv2.INTER_LINEAR)
    image = cv2.copyMakeBorder(image, *borders, cv2.BORDER_CONSTANT, value=(114, 114, 114))
    return image.transpose(2, 0, 1)[None].astype(np.float32) / 255


def suppress(boxes, scores, ids, threshold):
    """Greedy NMS per class; rows that stay, best first."""
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        for j in kept:
            if ids[i] != ids[j]:
                continue
            low, high = np.maximum(boxes[i, :2], boxes[j, :2]), np.minimum(boxes[i, 2:], boxes[j, 2:])
            shared = np.prod(np.clip(high - low, 0, None))
            areas = [np.prod(boxes[k, 2:] - boxes[k, :2]) for k in (i, j)]
            if shared / (areas[0] + areas[1] - shared) > threshold:
                break
        else:
            kept.append(int(i))
    return np.array(kept, np.int64)


def detections(predictions, classes, final, score_threshold, iou_threshold, limit=300):
    """boxes (N, 4) network px, scores, class ids, coefficients from a (1, ...) predictions tensor."""
    if final:
        rows = np.array([row for row in predictions[0] if row[4] > score_threshold][:limit], np.float32)
        rows = rows.reshape(-1, predictions.shape[2])
        return rows[:, :4], rows[:, 4], rows[:, 5].astype(int), rows[:, 6:]
    rows = predictions[0].T
    if predictions.shape[1] > predictions.shape[2]:  # YOLOv5: anchors first, scores times objectness
        rows = predictions[0]
        rows = np.concatenate([rows[:, :4], rows[:, 4:5] * rows[:, 5 : 5 + classes], rows[:, 5 + classes :]], axis=1)
    rows = rows[rows[:, 4 : 4 + classes].max(axis=1) > score_threshold]
    x, y, w, h = rows[:, :4].T
    boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)
    scores, ids = rows[:, 4 : 4 + classes].max(axis=1), rows[:, 4 : 4 + classes].argmax(axis=1)
    kept = suppress(boxes, scores, ids, iou_threshold)[:limit]
    return boxes[kept], scores[kept], ids[kept], rows[kept, 4 + classes :]


def image_boxes(boxes, shape, net):
    """Boxes in pixels of the image of `shape`, cut at its edge."""
    height, width = scaled_size(shape, net)
    left, top = round((net[1] - width) / 2 - 0.1), round((net[0] - height) / 2 - 0.1)
    out = boxes - np.float32([left, top, left, top])
    out = out / np.float32([width / shape[1], height / shape[0]] * 2)
    return np.clip(out, 0, np.float32([shape[1], shape[0]] * 2))


def dense_masks(prototypes, coefficients, boxes, shape, net):
    """(N, *shape) bool from `prototypes` (K, h, w): enlarged, padding off, enlarged to the image, > 0, in the box."""
    count, map_height, map_width = prototypes.shape
    assert (map_height * 4, map_width * 4) == tuple(net)
    height, width = scaled_size(shape, net)
    pads = net[0] - height, net[1] - width
    factor = next(f for f in (1, 2, 4) if all(pad * f % 8 == 0 for pad in pads) or f == 4)
    cell = 4 // factor
    top, left = round(pads[0] / 2 - 0.1) // cell, round(pads[1] / 2 - 0.1) // cell
    out = np.zeros((len(boxes), *shape), bool)
    columns, rows = np.arange(shape[1]), np.arange(shape[0])[:, None]
    for mask, weights, (x0, y0, x1, y1) in zip(out, coefficients, boxes, strict=True):
        logits = (weights @ prototypes.reshape(count, -1)).reshape(map_height, map_width)
        logits = cv2.resize(logits, (map_width * factor, map_height * factor), interpolation=cv2.INTER_LINEAR)
        logits = np.ascontiguousarray(logits[top : top + height // cell, left : left + width // cell])
        logits = cv2.resize(logits, shape[::-1], interpolation=cv2.INTER_LINEAR)
        mask[:] = (logits > 0) & (columns >= x0) & (columns < x1) & (rows >= y0) & (rows < y1)
    return out
