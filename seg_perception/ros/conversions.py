# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What comes in from a camera driver: images, compressed images and calibrations, as the core's arrays and types.

Every refusal is an `ImageError` (or a ValueError for a calibration) of one line; the node adds the topic.
"""

from __future__ import annotations

import array
import sys
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from numba import njit
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from seg_perception.calibration import intrinsics_from_info
from seg_perception.encodings import BAYER, PACKED, PLANAR, ImageError, describe, packed_to_rgb, plane, to_rgb
from seg_perception.geometry import unproject_pixels
from seg_perception.ros.compressed_depth import PNG_SIGNATURE, decode_depth_payload, decode_png, refuse_png_bomb
from seg_perception.scene import Intrinsics

__all__ = [
    "ImageError",
    "decode_color",
    "decode_compressed_color",
    "decode_compressed_depth",
    "decode_depth",
    "decode_ignore_mask",
    "encode_image",
    "intrinsics_from_info",
    "same_camera",
    "stamp_from_ns",
    "stamp_ns",
]

MILLIMETRE = 0.001
CHECKED = "_check_fields" in Header.__slots__  # not in all distributions
DEPTH_ENCODINGS = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4", "64FC1": "f8"}
IMAGE_DTYPES = {  # what encode_image checks
    "rgb8": ("u1", 3),
    "bgr8": ("u1", 3),
    "mono8": ("u1", 1),
    "8UC1": ("u1", 1),
    "mono16": ("u2", 1),
    "16UC1": ("u2", 1),
    "32FC1": ("f4", 1),
}


# -- color -----------------------------------------------------------------------------------------------------------


def decode_color(msg: Image) -> NDArray[np.uint8]:
    """The image as (H, W, 3) uint8 RGB; rgb8 without padding is a view of the message. Raises ImageError."""
    if msg.encoding in PACKED or msg.encoding in PLANAR:
        return to_rgb(msg)
    if msg.encoding in DEPTH_ENCODINGS:
        raise ImageError(f"{describe(msg)}: this is a depth image, expected a color image")
    return _through_cv_bridge(msg)


def _through_cv_bridge(msg: Image) -> NDArray[np.uint8]:
    plane(msg, "u1", size=(msg.height, 1))  # size and length, whatever the layout
    try:
        from cv_bridge import CvBridge
    except ImportError as error:
        raise ImageError(
            f"{describe(msg)}: unknown encoding, expected rgb8, bgr8 or another of docs/ros.md; cv_bridge is absent"
        ) from error
    try:
        return np.ascontiguousarray(CvBridge().imgmsg_to_cv2(msg, "rgb8"))
    except Exception as error:  # cv_bridge raises its own and OpenCV's errors, and assertions, by version
        raise ImageError(f"{describe(msg)}: cv_bridge cannot convert it: {_one_line(error)}") from error


def decode_compressed_color(msg: CompressedImage) -> NDArray[np.uint8]:
    """A JPEG, PNG or other file that OpenCV reads as (H, W, 3) uint8 RGB. Raises ImageError.

    The bytes hold BGR whatever the first word of `format` says; a Bayer mosaic stays one and is resolved here.
    """
    pixels = _read_file(msg)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"compressed '{msg.format}': expected 8 or 16 bit values, got {pixels.dtype}")
    if pixels.ndim == 3:
        return packed_to_rgb(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGB)
    mosaic = msg.format.split(";")[0].strip().rstrip("0123456789")
    return packed_to_rgb(pixels, BAYER.get(mosaic, cv2.COLOR_GRAY2RGB))


def decode_ignore_mask(msg: Image) -> NDArray[np.bool_]:
    """(H, W) bool, True where the mask is not 0. Raises ImageError unless it is mono8 (or 8UC1)."""
    if msg.encoding not in ("mono8", "8UC1"):
        raise ImageError(f"{describe(msg)}: expected an ignore mask of encoding mono8")
    return plane(msg, "u1") != 0


# -- depth -----------------------------------------------------------------------------------------------------------


def decode_depth(msg: Image, scale: float = 0.0) -> NDArray[np.float32]:
    """Depth (H, W) float32 m along z: NaN = not measured, -inf / +inf = nearer / farther than the range (REP 117).

    16UC1 and mono16 are millimetres, 32FC1 and 64FC1 metres, or each `scale` metres per unit where that is not 0.
    Of integers, 0 and 65535 are not measured. Raises ImageError.
    """
    if msg.encoding not in DEPTH_ENCODINGS:
        known = " ".join(DEPTH_ENCODINGS)
        raise ImageError(f"{describe(msg)}: expected a depth image ({known}){_depth_hint(msg.encoding)}")
    return _metres(plane(msg, DEPTH_ENCODINGS[msg.encoding]), scale)


def decode_compressed_depth(msg: CompressedImage, scale: float = 0.0) -> NDArray[np.float32]:
    """Depth as `decode_depth`, from a `compressedDepth` (PNG or RVL) or a plain PNG `compressed` topic."""
    start = bytes(memoryview(msg.data)[:8])
    if start.startswith(b"\xff\xd8\xff") or "jpeg" in msg.format.lower():
        raise ImageError(
            f"compressed depth '{msg.format}': jpeg destroys depth values; "
            "use compressedDepth, or set the publisher's <topic>.format to png"
        )
    try:
        plain = start == PNG_SIGNATURE
        return _metres(decode_png(msg.data) if plain else decode_depth_payload(msg.data, msg.format), scale)
    except ValueError as error:
        raise ImageError(f"compressed depth '{msg.format}': {error}") from error


def _metres(raw: NDArray, scale: float) -> NDArray[np.float32]:
    native = np.require(raw, raw.dtype.newbyteorder("="), ["C", "ALIGNED"])
    if native.dtype == np.uint16:
        return _metres_of_units(native, scale or MILLIMETRE)
    return _metres_of_floats(native * native.dtype.type(scale) if scale else native)


def _depth_hint(encoding: str) -> str:
    if encoding.startswith(("rgb", "bgr")):
        return "; a colored picture of depth: switch the driver's colorizer off (RealSense: colorizer.enable:=false)"
    if encoding == "16SC1":
        return "; signed 16 bit values have no agreed unit: let the driver publish 16UC1"
    return ""


# -- calibration -----------------------------------------------------------------------------------------------------


def same_camera(a: Intrinsics, b: Intrinsics, tolerance_px: float = 1.0) -> bool:
    """Whether two calibrations see every pixel along the same ray: same size, K and lens, within `tolerance_px`."""
    if (a.width, a.height) != (b.width, b.height):
        return False
    if np.abs(np.subtract((a.fx, a.fy, a.cx, a.cy), (b.fx, b.fy, b.cx, b.cy))).max() > tolerance_px:
        return False
    if a.distortion == b.distortion:
        return True
    u, v = np.meshgrid(np.linspace(0, a.width - 1, 5), np.linspace(0, a.height - 1, 5))
    pixels = np.stack([u, v], axis=-1)
    apart = (unproject_pixels(a, pixels) - unproject_pixels(b, pixels)) * [a.fx, a.fy]
    return bool(np.abs(apart).max() <= tolerance_px)


# -- stamps and images out -------------------------------------------------------------------------------------------


def stamp_ns(stamp: Time) -> int:
    """Nanoseconds since the epoch of a `builtin_interfaces/Time`."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def stamp_from_ns(ns: int) -> Time:
    """The `builtin_interfaces/Time` of nanoseconds since the epoch."""
    return Time(sec=int(ns // 1_000_000_000), nanosec=int(ns % 1_000_000_000))


def encode_image(pixels: ArrayLike, encoding: str, header: Header) -> Image:
    """`pixels` (H, W) or (H, W, C) as an image message. Raises ImageError where dtype or channels do not fit."""
    image = np.ascontiguousarray(pixels)
    dtype, channels = IMAGE_DTYPES.get(encoding, (image.dtype.str[1:], image.shape[2] if image.ndim == 3 else 1))
    if image.dtype.str[1:] != dtype or (image.shape[2] if image.ndim == 3 else 1) != channels:
        raise ImageError(
            f"{encoding}: expected {channels} channels of {np.dtype(dtype)}, got {image.shape} {image.dtype}"
        )
    msg = Image(header=header, height=image.shape[0], width=image.shape[1], encoding=encoding)
    msg.step = image.strides[0]
    msg.is_bigendian = int(sys.byteorder == "big")
    set_array(msg, "data", image, "B")
    return msg


def zero_image(height: int, width: int, encoding: str, header: Header) -> tuple[Image, NDArray]:
    """A black image of one of `IMAGE_DTYPES` with one channel, and its pixels (H, W), to be painted in place."""
    dtype = np.dtype(IMAGE_DTYPES[encoding][0])
    msg = Image(header=header, height=height, width=width, encoding=encoding)
    msg.step = width * dtype.itemsize
    msg.is_bigendian = int(sys.byteorder == "big")
    data = array.array("B", b"\0") * (height * msg.step)
    set_sequence(msg, "data", data)
    return msg, np.frombuffer(data, dtype).reshape(height, width)


def set_array(msg: Any, field: str, values: NDArray, typecode: str) -> None:
    """Puts the bytes of an array into a sequence field of `array.array` type `typecode` ("B" for uint8[]), in one copy.

    The setter would check every element (seconds per image) unless it is given an array.array, and then still copies;
    the slot takes the array.array itself, in every distribution.
    """
    set_sequence(msg, field, sequence_of(values, typecode))


def sequence_of(values: NDArray, typecode: str) -> array.array[Any]:
    """The bytes of an array as an `array.array` of type `typecode`."""
    sequence = array.array(typecode)
    sequence.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    return sequence


def set_sequence(msg: Any, field: str, sequence: array.array[Any]) -> None:
    """Puts an `array.array` of the field's type into a sequence field as it is, see `set_array`."""
    setattr(msg, f"_{field}" if hasattr(msg, f"_{field}") else field, sequence)


def blank(kind: Any) -> Any:
    """A message of which no field is set yet: set the slot `_field` of each.

    Constructors and setters with their checks take most of the time of filling many small messages.
    """
    msg = kind.__new__(kind)
    if CHECKED:
        msg._check_fields = False
    return msg


# -- files and kernels -----------------------------------------------------------------------------------------------


def _read_file(msg: CompressedImage) -> NDArray:
    """The picture in a compressed message as OpenCV reads it, unchanged."""
    data = np.frombuffer(msg.data, np.uint8)
    try:
        refuse_png_bomb(msg.data)
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    except (cv2.error, ValueError) as error:
        raise ImageError(f"compressed '{msg.format}': cannot be read: {_one_line(error)}") from error
    if pixels is None:
        raise ImageError(f"compressed '{msg.format}': {len(data)} bytes that are no readable picture")
    return pixels


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


@njit(cache=True, nogil=True)
def _metres_of_units(units, scale):  # type: ignore[no-untyped-def]
    out = np.empty(units.shape, np.float32)
    for y in range(units.shape[0]):
        for x in range(units.shape[1]):
            unit = units[y, x]
            out[y, x] = np.float32(unit * scale) if 0 < unit < 65535 else np.float32(np.nan)
    return out


@njit(cache=True, nogil=True)
def _metres_of_floats(metres):  # type: ignore[no-untyped-def]
    out = np.empty(metres.shape, np.float32)
    for y in range(metres.shape[0]):
        for x in range(metres.shape[1]):
            z = metres[y, x]
            out[y, x] = z if z > 0 or z == -np.inf else np.nan
    return out
