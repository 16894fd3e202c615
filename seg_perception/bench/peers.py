# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The same work done otherwise: from boxes, coefficients, prototypes and depth to a label image, points and moments.

Each is written as well as its library allows: one region of interest at a time, nothing of the image's size but the
label image, interpolation and rays prepared once. `ours` are the product's kernels that do just that and no more;
`whole_fusion` is all that the product does with a mask.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_perception.bench.samples import MAP_STRIDE, Sample
from seg_perception.fusion import FusionConfig, fuse
from seg_perception.geometry import ray_table
from seg_perception.options import ConfigError
from seg_perception.scene import Instances
from seg_perception.segmenters.decoding.prototypes import decode_masks
from seg_perception.span_points import points_under
from seg_perception.support import SupportConfig, find_supports


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """`labels` (H, W) uint16, `points` one (M, 3) float32 m per instance, `means` (N, 3) m, `covariances` (N, 3, 3)."""

    labels: NDArray[np.uint16]
    points: list[Any]
    means: NDArray[np.float64]
    covariances: NDArray[np.float64]


Peer = Callable[[], Outcome]


def ours(sample: Sample) -> Peer:
    """The product's kernels: spans straight from the prototypes, then depth along them."""

    def run() -> Outcome:
        masks = decode_masks(sample.prototypes, sample.coefficients, sample.boxes, sample.letterbox)
        labels = masks.label_image()
        found = points_under(masks, sample.depth, sample.intrinsics)
        clouds = [found.of(i) for i in range(len(masks))]
        return Outcome(labels, clouds, found.means, found.covariances)

    return run


def whole_fusion(sample: Sample) -> Callable[[], Any]:
    """What the product really does with each mask: points cleaned, an oriented box, a status; and the label image.

    The supports are known: finding them is a stage of its own.
    """
    decoded = decode_masks(sample.prototypes, sample.coefficients, sample.boxes, sample.letterbox)
    supports = find_supports(sample.frame, SupportConfig(), decoded)

    def run() -> Any:
        masks = decode_masks(sample.prototypes, sample.coefficients, sample.boxes, sample.letterbox)
        return masks.label_image(), fuse(sample.frame, Instances.of(masks), FusionConfig(threads=1), supports)

    return run


@dataclass(frozen=True)
class _Region:
    """One box: whole pixels `x0:x1, y0:y1` of the image and the cells of the prototypes that they are made of."""

    x0: int
    y0: int
    x1: int
    y1: int
    columns: slice
    rows: slice


def _regions(sample: Sample) -> list[_Region]:
    place = sample.letterbox
    h, w = sample.prototypes.shape[1:]
    found = []
    for box in sample.boxes:
        x0, y0, x1, y1 = (int(np.ceil(v)) for v in box)
        columns = _cells(x0, x1, place.scaled_width / place.width, place.left, w)
        rows = _cells(y0, y1, place.scaled_height / place.height, place.top, h)
        found.append(_Region(x0, y0, x1, y1, columns, rows))
    return found


def _cells(start: int, stop: int, scale: float, padding: int, count: int) -> slice:
    first = int(((start + 0.5) * scale + padding) / MAP_STRIDE - 0.5)
    last = int(((stop - 0.5) * scale + padding) / MAP_STRIDE - 0.5)
    return slice(max(first, 0), min(last + 2, count))


def expert_numpy(sample: Sample) -> Peer:
    """NumPy alone: enlarging a region is a product with two small matrices, which BLAS does at its best."""
    depth, x_rays, y_rays = sample.depth, *_separable_rays(sample)
    place, regions, n = sample.letterbox, _regions(sample), len(sample.boxes)
    K, h, w = sample.prototypes.shape
    across = _interpolation(place.width, place.scaled_width / place.width, place.left, w).T.copy()
    down = _interpolation(place.height, place.scaled_height / place.height, place.top, h)

    def run() -> Outcome:
        labels = np.zeros((place.height, place.width), np.uint16)
        points, means, covariances = [], np.empty((n, 3)), np.empty((n, 3, 3))
        for i, r in enumerate(regions):
            maps = sample.prototypes[:, r.rows, r.columns]
            coarse = (sample.coefficients[i] @ maps.reshape(K, -1)).reshape(maps.shape[1:])
            mask = down[r.y0 : r.y1, r.rows] @ coarse @ across[r.columns, r.x0 : r.x1] > 0
            region = labels[r.y0 : r.y1, r.x0 : r.x1]
            np.maximum(region, mask * np.uint16(i + 1), out=region)
            z = depth[r.y0 : r.y1, r.x0 : r.x1]
            chosen = np.flatnonzero(mask & (z > 0))
            planes = (x_rays[r.x0 : r.x1] * z, y_rays[r.y0 : r.y1, None] * z, np.ascontiguousarray(z))
            rows = np.stack([np.take(plane.reshape(-1), chosen) for plane in planes])  # faster than rows of three
            points.append(rows.T.copy())
            means[i] = rows.mean(axis=1)
            rows -= means[i][:, None].astype(np.float32)
            covariances[i] = rows @ rows.T / max(len(chosen), 1)
        return Outcome(labels, points, means, covariances)

    return run


def opencv(sample: Sample) -> Peer:
    """OpenCV wherever it has a function; NumPy picks the points."""
    depth, rays = sample.depth, ray_table(sample.intrinsics)
    x_rays, y_rays = (np.ascontiguousarray(rays[..., k]) for k in (0, 1))
    place, regions, n = sample.letterbox, _regions(sample), len(sample.boxes)
    K = len(sample.prototypes)
    scale = np.array([place.scaled_width / place.width, place.scaled_height / place.height]) / MAP_STRIDE
    padding = np.array([place.left, place.top]) / MAP_STRIDE

    def run() -> Outcome:
        labels = np.zeros((place.height, place.width), np.uint16)
        points, means, covariances = [], np.empty((n, 3)), np.empty((n, 3, 3))
        for i, r in enumerate(regions):
            maps = sample.prototypes[:, r.rows, r.columns]
            coarse = (sample.coefficients[i] @ maps.reshape(K, -1)).reshape(maps.shape[1:])
            corner = (np.array([r.x0, r.y0]) + 0.5) * scale + padding - 0.5 - [r.columns.start, r.rows.start]
            matrix = np.array([[scale[0], 0, corner[0]], [0, scale[1], corner[1]]])
            size = (r.x1 - r.x0, r.y1 - r.y0)
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            logits = cv2.warpAffine(coarse, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
            inside = cv2.compare(logits, 0.0, cv2.CMP_GT)
            region = (slice(r.y0, r.y1), slice(r.x0, r.x1))
            cv2.copyTo(np.full(inside.shape, i + 1, np.uint16), inside, labels[region])
            z = depth[region]
            valid = cv2.bitwise_and(inside, cv2.compare(z, 0.0, cv2.CMP_GT))
            dense = cv2.merge([cv2.multiply(x_rays[region], z), cv2.multiply(y_rays[region], z), z])
            cloud = np.take(dense.reshape(-1, 3), np.flatnonzero(valid), axis=0)
            points.append(cloud)
            mean = cv2.reduce(cloud, 0, cv2.REDUCE_AVG)
            covariances[i] = cv2.mulTransposed(cloud, True, delta=mean, scale=1 / max(len(cloud), 1))
            means[i] = mean[0]
        return Outcome(labels, points, means, covariances)

    return run


def torch_regions(sample: Sample) -> Peer:
    """PyTorch on the CPU, region by region."""
    torch = importlib.import_module("torch")
    interpolate = importlib.import_module("torch.nn.functional").interpolate
    depth = torch.from_numpy(sample.depth)
    x_rays, y_rays = (torch.from_numpy(a) for a in _separable_rays(sample))
    prototypes, coefficients = torch.from_numpy(sample.prototypes), torch.from_numpy(sample.coefficients)
    place, regions, n = sample.letterbox, _regions(sample), len(sample.boxes)
    factor = MAP_STRIDE * place.width // place.scaled_width
    if factor * place.scaled_width != MAP_STRIDE * place.width or place.top % MAP_STRIDE or place.left % MAP_STRIDE:
        raise ConfigError("torch: this image is not a whole multiple of the prototypes")
    top, left = place.top // MAP_STRIDE, place.left // MAP_STRIDE

    def run() -> Outcome:
        labels = torch.zeros((place.height, place.width), dtype=torch.int32)
        points, means, covariances = [], np.empty((n, 3)), np.empty((n, 3, 3))
        for i, r in enumerate(regions):
            coarse = torch.einsum("k,khw->hw", coefficients[i], prototypes[:, r.rows, r.columns])
            fine = interpolate(coarse[None, None], scale_factor=factor, mode="bilinear", align_corners=False)[0, 0]
            y, x = r.y0 - (r.rows.start - top) * factor, r.x0 - (r.columns.start - left) * factor
            mask = fine[y : y + r.y1 - r.y0, x : x + r.x1 - r.x0] > 0
            labels[r.y0 : r.y1, r.x0 : r.x1].masked_fill_(mask, i + 1)
            z = depth[r.y0 : r.y1, r.x0 : r.x1]
            chosen = torch.nonzero((mask & (z > 0)).flatten()).squeeze(1)
            planes = (x_rays[r.x0 : r.x1] * z, y_rays[r.y0 : r.y1, None] * z, z)
            cloud = torch.stack([plane.reshape(-1)[chosen] for plane in planes])
            points.append(cloud.T.contiguous())
            mean = cloud.mean(dim=1, keepdim=True)
            centred = cloud - mean
            means[i], covariances[i] = mean[:, 0].numpy(), (centred @ centred.T / max(len(chosen), 1)).numpy()
        return Outcome(labels.numpy().astype(np.uint16), points, means, covariances)

    return run


def ultralytics_masks(sample: Sample) -> Callable[[], Any]:
    """Ultralytics' own masks at the image's size, where the user has installed it; nothing of 3D."""
    torch = importlib.import_module("torch")
    native = importlib.import_module("ultralytics.utils.ops").process_mask_native
    tensors = [torch.from_numpy(a) for a in (sample.prototypes, sample.coefficients, sample.boxes)]
    size = (sample.letterbox.height, sample.letterbox.width)

    def run() -> Any:
        with torch.inference_mode():
            return native(*tensors, size)

    return run


def installed(*modules: str) -> bool:
    """Whether all these can be imported."""
    return all(importlib.util.find_spec(name) is not None for name in modules)


def use_one_thread() -> None:
    """OpenCV and, where it is, PyTorch; BLAS reads its limits when it is loaded."""
    cv2.setNumThreads(1)
    if installed("torch"):
        importlib.import_module("torch").set_num_threads(1)


def _interpolation(size: int, scale: float, padding: int, cells: int) -> NDArray[np.float32]:
    """(size, cells) weights of the prototypes' cells in each pixel of one axis, bilinear."""
    where = ((np.arange(size) + 0.5) * scale + padding) / MAP_STRIDE - 0.5
    where = np.clip(where, 0, cells - 1)
    first = np.minimum(where.astype(np.int64), cells - 2)
    weights = np.zeros((size, cells), np.float32)
    weights[np.arange(size), first] = 1 - (where - first)
    weights[np.arange(size), first + 1] = where - first
    return weights


def _separable_rays(sample: Sample) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rays = ray_table(sample.intrinsics)
    return np.ascontiguousarray(rays[0, :, 0]), np.ascontiguousarray(rays[:, 0, 1])
