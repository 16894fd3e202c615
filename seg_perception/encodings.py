# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Pixel layouts of `sensor_msgs/Image` to RGB: one table of packed layouts, one of planar ones.

A new camera encoding is one line in `PACKED`, or one function in `PLANAR`. `image` is anything with the fields of
`sensor_msgs/Image`. Layouts: https://docs.ros.org/en/rolling/p/sensor_msgs (image_encodings) and V4L2's pixel formats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray


class ImageError(ValueError):
    """An image that is refused; one line naming encoding, size and what was expected."""


class Packed(NamedTuple):
    """A layout with all of a pixel's values side by side. `code` is OpenCV's conversion to RGB, None = is RGB."""

    dtype: str
    channels: int
    code: int | None


# OpenCV names a mosaic by the four pixels from (1, 1), ROS by those from (0, 0): ROS's RGGB is OpenCV's BayerBG.
BAYER = {
    "bayer_rggb": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg": cv2.COLOR_BayerGB2RGB,
}
_CHANNEL_ORDERS = {
    "rgb": (3, None),
    "bgr": (3, cv2.COLOR_BGR2RGB),
    "rgba": (4, cv2.COLOR_RGBA2RGB),
    "bgra": (4, cv2.COLOR_BGRA2RGB),
    "mono": (1, cv2.COLOR_GRAY2RGB),
    **{name: (1, code) for name, code in BAYER.items()},
}
PACKED: dict[str, Packed] = {
    **{f"{name}8": Packed("u1", channels, code) for name, (channels, code) in _CHANNEL_ORDERS.items()},
    **{f"{name}16": Packed("u2", channels, code) for name, (channels, code) in _CHANNEL_ORDERS.items()},
    "8UC1": Packed("u1", 1, cv2.COLOR_GRAY2RGB),
    "8UC3": Packed("u1", 3, cv2.COLOR_BGR2RGB),  # OpenCV's custom
    "8UC4": Packed("u1", 4, cv2.COLOR_BGRA2RGB),
    "16UC3": Packed("u2", 3, cv2.COLOR_BGR2RGB),
    "16UC4": Packed("u2", 4, cv2.COLOR_BGRA2RGB),
    "uyvy": Packed("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422": Packed("u1", 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuyv": Packed("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuv422_yuy2": Packed("u1", 2, cv2.COLOR_YUV2RGB_YUY2),
}

# Rows of R, G, B from Y, U, V, 1: BT.601, limited range, as OpenCV's conversions of the subsampled layouts.
_RGB_FROM_YUV444 = np.array(
    [
        [1.164, 0.0, 1.596, -16 * 1.164 - 128 * 1.596],
        [1.164, -0.391, -0.813, -16 * 1.164 + 128 * (0.391 + 0.813)],
        [1.164, 2.018, 0.0, -16 * 1.164 - 128 * 2.018],
    ],
    np.float32,
)


def to_rgb(image: Any) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, a view of the message where that is possible. Raises ImageError."""
    layout, planar = PACKED.get(image.encoding), PLANAR.get(image.encoding)
    try:
        if planar is not None:
            return planar(image)
        if layout is None:
            raise ImageError(f"{describe(image)}: expected an encoding of color or grey images")
        return packed_to_rgb(plane(image, layout.dtype, layout.channels), layout.code)
    except cv2.error as error:  # odd widths of subsampled colors, mosaics of one pixel
        reason = str(error).strip().splitlines()[-1]
        raise ImageError(f"{describe(image)}: OpenCV cannot convert it: {reason}") from error


def packed_to_rgb(pixels: NDArray, code: int | None) -> NDArray[np.uint8]:
    """`pixels` (H, W) or (H, W, C), uint8 or uint16, with OpenCV's conversion `code` as (H, W, 3) uint8 RGB."""
    if pixels.dtype.itemsize == 2:
        pixels = cv2.convertScaleAbs(np.ascontiguousarray(pixels, np.uint16), alpha=1 / 257)  # 65535 -> 255
    return np.ascontiguousarray(pixels) if code is None else cv2.cvtColor(pixels, code)


def plane(
    image: Any,
    dtype: str,
    channels: int = 1,
    size: tuple[int, int] | None = None,
    step: int | None = None,
    offset: int = 0,
) -> NDArray:
    """A view of the message's bytes, (H, W) or (H, W, channels), row padding skipped, in the sender's byte order.

    `size` (rows, columns), `step` and `offset` bytes describe one plane of several; by default the whole image.
    Nothing is allocated; a header that promises more bytes than there are raises ImageError.
    """
    rows, columns = size or (image.height, image.width)
    kind = np.dtype(dtype).newbyteorder(">" if image.is_bigendian else "<")
    stride = image.step if step is None else step
    if min(image.width, image.height, rows, columns) <= 0:
        raise ImageError(f"{describe(image)}: expected a size > 0")
    width, length = columns * channels * kind.itemsize, offset + rows * stride
    if stride < width:
        raise ImageError(f"{describe(image)}: a row has {stride} bytes (step), expected >= {width}")
    if len(image.data) < length:
        raise ImageError(f"{describe(image)}: data has {len(image.data)} bytes, expected >= {length} (height * step)")
    shape = (rows, columns) if channels == 1 else (rows, columns, channels)
    strides = (stride, channels * kind.itemsize, kind.itemsize)[: len(shape)]
    return np.ndarray(shape, kind, image.data, offset, strides)


def describe(image: Any) -> str:
    """The image in words, for error lines."""
    name = "".join(letter if letter.isprintable() else "?" for letter in image.encoding[:40])
    return f"{name or 'no encoding'} {image.width}x{image.height}"


def _semi_planar_420(code: int) -> Callable[[Any], NDArray[np.uint8]]:
    """nv12, nv21: rows of Y, then half as many rows of interleaved chroma with the same step."""

    def convert(image: Any) -> NDArray[np.uint8]:
        _require_even(image)
        rows, columns = image.height, image.width
        luma = plane(image, "u1")
        chroma = plane(image, "u1", 2, (rows // 2, columns // 2), image.step, rows * image.step)
        # OpenCV ignores the step of the first plane (its issue 17036).
        return cv2.cvtColorTwoPlane(np.ascontiguousarray(luma), np.ascontiguousarray(chroma), code)

    return convert


def _planar_420(image: Any) -> NDArray[np.uint8]:
    """i420: rows of Y, then of U, then of V at half the step."""
    _require_even(image)
    rows, half_step = image.height, image.step // 2
    half = (rows // 2, image.width // 2)
    u = plane(image, "u1", 1, half, half_step, rows * image.step)
    v = plane(image, "u1", 1, half, half_step, rows * image.step + half[0] * half_step)
    luma = np.ascontiguousarray(plane(image, "u1"))
    return cv2.cvtColorTwoPlane(luma, np.stack([u, v], axis=2), cv2.COLOR_YUV2RGB_NV12)


def _semi_planar_444(image: Any) -> NDArray[np.uint8]:
    """nv24: rows of Y, then as many rows of interleaved chroma at twice the step."""
    luma = plane(image, "u1")
    chroma = plane(image, "u1", 2, None, 2 * image.step, image.height * image.step)
    return cv2.transform(np.dstack([luma, chroma]), _RGB_FROM_YUV444)


def _require_even(image: Any) -> None:
    if image.width % 2 or image.height % 2:
        raise ImageError(f"{describe(image)}: expected an even width and height, as chroma is halved")


PLANAR: dict[str, Callable[[Any], NDArray[np.uint8]]] = {
    "nv12": _semi_planar_420(cv2.COLOR_YUV2RGB_NV12),  # not in image_encodings before 2025, but Isaac ROS sends it
    "nv21": _semi_planar_420(cv2.COLOR_YUV2RGB_NV21),
    "nv24": _semi_planar_444,
    "i420": _planar_420,
}
