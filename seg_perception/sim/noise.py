# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a real depth sensor makes of exact depth: disparity steps, noise that grows with z^2, ragged edges, holes.

Models and their sources:
- stereo: standard deviation of z is z^2 * subpixel / (focal * baseline) (Keselman et al., Intel RealSense Stereoscopic
  Depth Cameras, CVPRW 2017; Intel's tuning guide for the D400 gives 0.05 to 0.1 px). The D400 works in 1/32 px.
- structured light: 1/8 px steps, 0.075 m, 580 px (Khoshelham and Elberink, Sensors 2012); lateral noise of about 0.8 px
  and none beyond 80 degrees of incidence (Nguyen, Izadi, Lovell, 3DIMPVT 2012).
- order of the effects as in the ICL-NUIM benchmark (Handa et al., ICRA 2014): shift pixels, then perturb and quantise
  disparity.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import ndtri

from seg_perception.scene import Intrinsics


@dataclass(frozen=True, slots=True)
class DepthSensor:
    """The constants of one kind of sensor."""

    focal: float  # px, of the sensor's own depth image
    baseline: float  # m, between its two eyes
    shadow_side: int  # the second eye is to the right (+1) or left (-1) of the depth image's
    subpixel: float  # px, standard deviation of disparity
    correlation: float  # px, radius over which the matching window smears that noise
    step: float  # px, quantum of disparity
    lateral: float  # px, standard deviation of the shift of each pixel
    fattening: float  # px, how far near surfaces swell over far ones at most
    grazing: float  # degrees of incidence at which half of the pixels are lost
    dropout: float  # share of pixels lost anywhere, in small blobs
    min_depth: float  # m
    max_depth: float  # m
    unit: float = 0.001  # m, of the published 16 bit image


SENSORS = {
    "d435": DepthSensor(640.0, 0.050, 1, 0.06, 1.2, 1 / 32, 0.35, 1.5, 80.0, 0.0015, 0.28, 6.0),
    "kinect": DepthSensor(580.0, 0.075, -1, 0.10, 0.8, 1 / 8, 0.60, 0.0, 78.0, 0.003, 0.45, 4.5),
}
NOISE_MODELS = ("none", *SENSORS)


def sensor_depth(
    depth: NDArray[np.float32], intrinsics: Intrinsics, seed: int | tuple[int, ...], model: str = "d435"
) -> NDArray[np.float32]:
    """`depth` (H, W) m as the sensor `model` measures it: whole `unit`s, NaN where it measures nothing.

    The same seed gives the same noise. "none" returns the depth as it is. Raises ValueError for an unknown model.
    """
    if model == "none":
        return depth
    if model not in SENSORS:
        raise ValueError(f"noise: no sensor {model!r}; there are {', '.join(NOISE_MODELS)}")
    sensor = SENSORS[model]
    rng = np.random.default_rng(seed)
    shape = depth.shape
    scale = intrinsics.width / 640.0  # edge effects are in pixels of a VGA image
    true = np.where(np.isfinite(depth), depth, 0.0).astype(np.float32)

    fat = _fatten(true, round(sensor.fattening * scale), _smooth(rng, shape, 4.0 * scale))
    shifts = sensor.lateral * scale * rng.standard_normal((2, *shape), np.float32)
    moved = _shift(fat, shifts[0], shifts[1])

    lost = _occluded(true, intrinsics.fx * sensor.baseline, sensor.shadow_side)
    lost |= _smooth(rng, shape, 1.0) > _quantile(sensor.dropout)
    chance = _incidence(true, intrinsics) - np.float32(sensor.grazing) + 4.0 * _smooth(rng, shape, 1.5)
    lost |= chance > 0.0
    lost |= (moved < sensor.min_depth) | (moved > sensor.max_depth)

    noise = sensor.subpixel * _smooth(rng, shape, sensor.correlation * scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        disparity = sensor.focal * sensor.baseline / moved
        disparity = np.round((disparity + noise) / sensor.step) * sensor.step
        measured = np.round(sensor.focal * sensor.baseline / disparity / sensor.unit) * sensor.unit
    lost |= ~np.isfinite(measured)
    return np.where(lost, np.nan, measured).astype(np.float32)


def _smooth(rng: np.random.Generator, shape: tuple[int, int], radius: float) -> NDArray[np.float32]:
    """Normal noise of standard deviation 1 that changes over `radius` pixels."""
    white = rng.standard_normal(shape, np.float32)
    kernel = cv2.getGaussianKernel(2 * round(2.5 * radius) + 1, radius)
    gain = 1.0 / float((kernel**2).sum())  # a separable blur scales the deviation by the kernel's length, twice
    return gain * cv2.sepFilter2D(white, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT)


def _quantile(share: float) -> float:
    """Normal noise is above this in that share of pixels."""
    return float(-ndtri(share))


def _fatten(depth: NDArray[np.float32], reach: int, random: NDArray[np.float32]) -> NDArray[np.float32]:
    """Near surfaces swell over what is behind them by up to `reach` px, where `random` is positive by half of it."""
    out = depth
    for radius in range(1, reach + 1):
        seen = np.where(depth > 0, depth, np.float32(np.inf))
        near = cv2.erode(seen, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)))
        swell = (near < out - 0.02) & (random > (radius - 0.5) / reach)
        out = np.where(swell, near, out)
    return out


def _incidence(depth: NDArray[np.float32], k: Intrinsics) -> NDArray[np.float32]:
    """Angle (H, W) in degrees between the surface's normal and the line of sight; from the slope of inverse depth."""
    with np.errstate(divide="ignore"):
        w = np.where(depth > 0, 1.0 / depth, 0.0).astype(np.float32)
    slope_x, slope_y = _least_slope(w, 1), _least_slope(w, 0)
    # On a plane, w = a x + b y + c with (a, b, c) along the normal; x = (u - cx) / fx.
    a, b = slope_x * k.fx, slope_y * k.fy
    x = (np.arange(k.width, dtype=np.float32) - k.cx) / k.fx
    y = ((np.arange(k.height, dtype=np.float32) - k.cy) / k.fy)[:, None]
    c = w - a * x - b * y
    cosine = np.abs(w) / np.sqrt((a * a + b * b + c * c) * (x * x + y * y + 1.0) + 1e-12)
    return np.degrees(np.arccos(np.clip(cosine, 0.0, 1.0))).astype(np.float32)


def _least_slope(w: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """The flatter of the slopes to both neighbours, so that a jump in depth is not taken for a slope."""
    step = np.diff(w, axis=axis)
    ahead = np.concatenate([step, np.take(step, [-1], axis)], axis)
    behind = np.concatenate([np.take(step, [0], axis), step], axis)
    return np.where(np.abs(ahead) < np.abs(behind), ahead, behind)


@njit(cache=True, nogil=True)
def _shift(depth, du, dv):  # type: ignore[no-untyped-def]
    """Depth read `du`, `dv` px beside each pixel, bilinear: across an edge that mixes near and far (flying pixels)."""
    height, width = depth.shape
    out = np.empty_like(depth)
    for y in range(height):
        for x in range(width):
            u, v = min(max(x + du[y, x], 0.0), width - 1.001), min(max(y + dv[y, x], 0.0), height - 1.001)
            x0, y0 = int(u), int(v)
            fx, fy = u - x0, v - y0
            a, b, c, d = depth[y0, x0], depth[y0, x0 + 1], depth[y0 + 1, x0], depth[y0 + 1, x0 + 1]
            low, high = min(min(a, b), min(c, d)), max(max(a, b), max(c, d))
            if low <= 0.0:
                out[y, x] = 0.0
            elif high - low < 0.01 + 0.02 * low or (x * 7 + y * 13) % 8 == 0:  # one edge pixel of eight flies
                out[y, x] = (a * (1 - fx) + b * fx) * (1 - fy) + (c * (1 - fx) + d * fx) * fy
            else:
                out[y, x] = depth[min(height - 1, int(v + 0.5)), min(width - 1, int(u + 0.5))]
    return out


@njit(cache=True, nogil=True)
def _occluded(depth, focal_baseline, side):  # type: ignore[no-untyped-def]
    """True where the sensor's second eye does not see the surface: something nearer covers it there."""
    height, width = depth.shape
    lost = np.zeros((height, width), np.bool_)
    for y in range(height):
        edge = np.inf
        for k in range(width):
            x = width - 1 - k if side > 0 else k
            z = depth[y, x]
            if z <= 0.0:
                continue
            seen_at = (x - focal_baseline / z) if side > 0 else -(x + focal_baseline / z)
            if seen_at > edge + 0.5:
                lost[y, x] = True
            edge = min(edge, seen_at)
    return lost
