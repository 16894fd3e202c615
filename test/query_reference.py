# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Networks with queries decoded the plain, dense way, in numpy and OpenCV: what the product must be equal to.

Independent of the product's code. Each function follows `post_process_instance_segmentation` of an image processor of
transformers 5.23 and returns (masks (N, H, W) bool, class ids, scores), best first.
"""

import cv2
import numpy as np


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(logits):
    return (0.5 + 0.5 * np.tanh(logits.astype(np.float64) / 2)).astype(np.float32)


def enlarge(maps, size):
    """(N, *size), bilinear, pixel centres."""
    return np.array([cv2.resize(m, size[::-1], interpolation=cv2.INTER_LINEAR) for m in maps]).reshape(-1, *size)


def nearest(masks, size):
    """(N, *size): pixel p takes cell floor(p * cells / pixels)."""
    rows, columns = (
        np.minimum(
            (np.arange(n, dtype=np.float32) * np.float32(np.float32(cells) / np.float32(n))).astype(int), cells - 1
        )
        for n, cells in zip(size, masks.shape[1:], strict=True)
    )
    return masks[:, rows][:, :, columns]


def share_of(maps):
    """Mean probability of each map's pixels above 0."""
    inside = maps > 0
    return (sigmoid(maps) * inside).sum(axis=(1, 2)) / (inside.sum(axis=(1, 2)) + 1e-6)


def pairs(probabilities):
    """Query, class and probability of the best Q of all query-class pairs."""
    order = np.argsort(-probabilities.reshape(-1), kind="stable")[: len(probabilities)]
    return order // probabilities.shape[1], order % probabilities.shape[1], probabilities.reshape(-1)[order]


def ordered(masks, ids, scores, threshold):
    rows = [i for i in np.argsort(-scores, kind="stable") if scores[i] > threshold and masks[i].any()]
    return masks[rows], ids[rows], scores[rows]


def mask2former(logits, maps, size, net, threshold, grid=(384, 384)):
    queries, ids, scores = pairs(softmax(logits)[:, :-1])
    maps = enlarge(maps, grid)[queries]
    return ordered(nearest(maps > 0, size), ids, scores * share_of(maps), threshold)


def maskformer(logits, maps, size, net, threshold):
    return mask2former(logits, maps, size, net, threshold, maps.shape[1:])


def edges(size, shortest, longest):
    """(height, width) of `get_size_with_aspect_ratio`: the image scaled to a shortest edge, unless the longest is then
    over its limit; a raw size in floats, from which the long side is cut off, not rounded."""
    height, width = size
    edge, raw = shortest, float(shortest)
    if float(max(size)) / float(min(size)) * shortest > longest:
        raw = longest * float(min(size)) / float(max(size))
        edge = int(np.rint(raw))
    if min(size) == edge:
        return height, width
    return (int(raw * height / width), edge) if width < height else (edge, int(raw * width / height))


def eomt(logits, maps, size, net, threshold):
    """The image lies top left in the network's input; masks stay whole where the original paints over them."""
    rows, columns = edges(size, *net)
    maps = enlarge(np.ascontiguousarray(enlarge(maps, net)[:, :rows, :columns]), size)
    probabilities = softmax(logits)[:, :-1]
    ids = probabilities.argmax(axis=1)
    return ordered(maps > 0, ids, probabilities.max(axis=1) * share_of(maps), threshold)


def one_owner(values, ids, scores):
    """`compute_segments`: mask threshold 0.5, overlap 0.8."""
    if len(ids) == 0:
        return values.astype(bool), ids, scores
    weighted = values * scores[:, None, None]
    owner = weighted.argmax(axis=0)
    won = np.array([(owner == i).sum() for i in range(len(ids))])
    own = (weighted >= 0.5).sum(axis=(1, 2))
    kept = (won > 0) & (own > 0) & (won > 0.8 * own)
    masks = np.array([(owner == i) & kept[i] for i in range(len(ids))])
    return ordered(masks, ids, scores, -1)


def oneformer(logits, maps, size, net, threshold):
    queries, ids, scores = pairs(softmax(logits)[:, :-1])
    kept = scores > threshold
    return one_owner(enlarge(maps[queries[kept]], size), ids[kept], scores[kept])


def detr(logits, maps, size, net, threshold):
    """The map covers the image: no padding."""
    probabilities = softmax(logits)
    ids, scores = probabilities.argmax(axis=1), probabilities.max(axis=1)
    kept = (ids != logits.shape[1] - 1) & (scores > threshold)
    return one_owner(enlarge(sigmoid(maps[kept]), size), ids[kept], scores[kept])


def rfdetr(logits, maps, size, net, threshold):
    queries, ids, scores = pairs(sigmoid(logits))
    return ordered(enlarge(maps[queries], size) > 0, ids, scores, threshold)
