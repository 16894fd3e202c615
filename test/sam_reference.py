# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Promptable networks the plain, dense way, in numpy, OpenCV and ONNX Runtime: what the product must be equal to.

Independent of the product's code. Follows segment-anything 1.0 (`ResizeLongestSide`, `SamOnnxModel`) and transformers
5.23.0 (`SamImageProcessor`, `Sam2ImageProcessor`: `post_process_masks`).
"""

import cv2
import numpy as np
import onnxruntime

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def longest_side(shape, size):
    """(height, width) of an image of `shape` whose longest side becomes `size`."""
    scale = size / max(shape)
    return int(shape[0] * scale + 0.5), int(shape[1] * scale + 0.5)


def network_image(color, size, stretch, normalise):
    """(1, 3, size, size): the image in the top left corner (or all over it); around it what normalises to 0."""
    height, width = (size, size) if stretch else longest_side(color.shape[:2], size)
    image = np.tile(np.float32(MEAN), (size, size, 1))
    image[:height, :width] = cv2.resize(color, (width, height), interpolation=cv2.INTER_LINEAR)
    if normalise:
        image = (image - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)


def network_points(points, shape, size, stretch):
    """Points (..., 2) of an image of `shape` in the network's pixels."""
    height, width = (size, size) if stretch else longest_side(shape, size)
    return (np.asarray(points, np.float64) * [width / shape[1], height / shape[0]]).astype(np.float32)


def full_logits(low, shape, size, stretch):
    """Logits at the image's size of low-resolution ones (h, w)."""
    if stretch:
        return cv2.resize(low, shape[::-1], interpolation=cv2.INTER_LINEAR)
    height, width = longest_side(shape, size)
    padded = cv2.resize(low, (size, size), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(np.ascontiguousarray(padded[:height, :width]), shape[::-1], interpolation=cv2.INTER_LINEAR)


def smooth_maps(seed, count, proposals, size):
    """(count, proposals, size, size) float32: noise with blobs a few pixels wide, the same everywhere."""
    noise = np.random.default_rng(seed).normal(size=(count, proposals, size, size)).astype(np.float32)
    return np.stack([[cv2.GaussianBlur(p, (9, 9), 2.0) for p in maps] for maps in noise])


def meta_answer(decoder, embedding, box, points, labels, shape, size=1024):
    """Logits (K, *shape), as the graph itself enlarges them, and predicted IoUs (K,) of one prompt."""
    coords, kinds = list(points), [float(label) for label in labels]
    if box is None:
        coords, kinds = [*coords, (0, 0)], [*kinds, -1.0]
    else:
        coords, kinds = [*coords, box[:2], box[2:]], [*kinds, 2.0, 3.0]
    scaled = network_points(coords, shape, size, False)
    if box is None:
        scaled[-1] = 0
    low = [4 * n for n in embedding.shape[2:]]
    masks, ious, _ = decoder.run(
        ["masks", "iou_predictions", "low_res_masks"],
        {
            "image_embeddings": embedding,
            "point_coords": scaled[None],
            "point_labels": np.array([kinds], np.float32),
            "mask_input": np.zeros((1, 1, *low), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array(shape, np.float32),
        },
    )
    return masks[0], ious[0]
