# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Decoding of image_transport's `compressedDepth`: PNG or RVL behind a 12 byte header. No ROS import.

RVL: A. D. Wilson, "Fast Lossless Depth Image Compression", ISS 2017. Every size and count is checked against the
bytes that are there before anything is allocated; whatever does not fit raises ValueError.
"""

from __future__ import annotations

import struct

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

HEADER = struct.Struct("<iff")  # int32 format, float32 A, float32 B
SIZE = struct.Struct("<II")  # columns, rows
PIXELS_PER_BYTE = 5  # above it a stream is read once to see whether it holds them: an empty image has 16 bytes
MAX_PIXELS = 2**26
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS_PER_BYTE = 8 * 1032  # deflate shrinks at most 1032 times, and a pixel has at least a bit
INTEGER_ENCODINGS = ("16UC1", "mono16")


def decode_depth_payload(data: bytes | bytearray | memoryview, format: str) -> NDArray:
    """Depth of a `compressedDepth` message, (H, W): uint16 units (16UC1, mono16), or float32 m (32FC1), NaN invalid.

    `format` is the message's: "<encoding>; compressedDepth [png|rvl]". Raises ValueError.
    """
    encoding, _, transport = (part.strip() for part in format.partition(";"))
    if encoding not in (*INTEGER_ENCODINGS, "32FC1"):
        raise ValueError(f"encoding '{encoding}', expected 16UC1, mono16 or 32FC1")
    payload = memoryview(data).cast("B")
    if len(payload) <= HEADER.size:
        raise ValueError(f"{len(payload)} bytes, expected more than the {HEADER.size} of the header")
    _, a, b = HEADER.unpack_from(payload)
    units = (decode_rvl if "rvl" in transport.lower() else decode_png)(payload[HEADER.size :])
    # For integer encodings the sender leaves A and B uninitialised.
    return units if encoding in INTEGER_ENCODINGS else metres_of_inverse(units, a, b)


def refuse_png_bomb(payload: bytes | bytearray | memoryview) -> None:
    """Raises ValueError where `payload` is a PNG whose header promises more pixels than its bytes can hold."""
    if bytes(payload[:8]) != PNG_SIGNATURE or len(payload) < 24:
        return
    columns, rows = struct.unpack_from(">II", payload, 16)
    if columns * rows > PNG_PIXELS_PER_BYTE * len(payload):
        raise ValueError(f"PNG claims {columns}x{rows} pixels in {len(payload)} bytes")


def decode_png(payload: bytes | bytearray | memoryview) -> NDArray[np.uint16]:
    """A PNG of 16 bit and one channel, (H, W) uint16. Raises ValueError."""
    if bytes(payload[:8]) != PNG_SIGNATURE:
        raise ValueError(f"expected a PNG, got {len(payload)} bytes that do not start like one")
    refuse_png_bomb(payload)
    try:
        units = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError("OpenCV cannot read the PNG") from error
    if units is None:
        raise ValueError(f"a PNG of {len(payload)} bytes that cannot be read")
    if units.ndim != 2 or units.dtype != np.uint16:
        raise ValueError(f"expected a PNG of 16 bit and one channel, got {units.dtype} {units.shape}")
    return units


def decode_rvl(payload: memoryview) -> NDArray[np.uint16]:
    """An RVL stream behind its size, (H, W) uint16. Raises ValueError where it ends early or runs over."""
    if len(payload) < SIZE.size:
        raise ValueError(f"{len(payload)} bytes behind the header, expected at least the {SIZE.size} of the size")
    columns, rows = SIZE.unpack_from(payload)
    stream = payload[SIZE.size :]
    pixels = columns * rows
    if not 0 < pixels <= MAX_PIXELS:
        raise ValueError(f"RVL claims {columns}x{rows} pixels in {len(payload)} bytes")
    words = np.frombuffer(stream, "<u4", count=len(stream) // 4)
    nothing = np.empty(0, np.uint16)
    credible = pixels <= PIXELS_PER_BYTE * len(payload) or _decode_rvl(words, pixels, nothing) == pixels
    units = np.zeros(pixels if credible else 0, np.uint16)
    decoded = _decode_rvl(words, pixels, units)
    if decoded != pixels:
        raise ValueError(f"RVL stream of {columns}x{rows} is broken after {decoded} of {pixels} pixels")
    return units.reshape(rows, columns)


def metres_of_inverse(units: NDArray[np.uint16], a: float, b: float) -> NDArray[np.float32]:
    """Depth m of quantised inverse depth: z = a / (v - b), NaN where v = 0. Raises ValueError for unusable a or b."""
    if not np.isfinite([a, b]).all() or a <= 0:
        raise ValueError(
            f"32FC1 with quantisation A={a:g} B={b:g}, expected finite numbers and A > 0 "
            "(ROS 2 Humble's publisher leaves them uninitialised): publish 16UC1"
        )
    table = np.full(65536, np.nan)
    values = np.arange(1, 65536, dtype=np.float64)
    with np.errstate(divide="ignore"):
        z = a / (values - b)
    table[1:] = np.where(np.isfinite(z) & (z > 0), z, np.nan)
    return table.astype(np.float32)[units]


@njit(cache=True, nogil=True)
def _decode_rvl(words, pixels, out):  # type: ignore[no-untyped-def]
    """Fills `out` (empty: only counts) and returns how many pixels the stream held: fewer = ended early or ran over."""
    nibbles = 8 * len(words)
    position = 0  # in nibbles, the most significant of each word first
    done = 0
    previous = 0
    while done < pixels:
        for kind in range(2):  # a count of zeros, then a count of values
            count = 0
            shift = 0
            more = True
            while more:
                if position >= nibbles or shift > 30:
                    return done
                nibble = (words[position >> 3] >> (28 - 4 * (position & 7))) & 15
                position += 1
                count |= np.int64(nibble & 7) << shift
                shift += 3
                more = (nibble & 8) != 0
            if count > pixels - done:
                return done
            if kind == 0:
                done += count  # `previous` carries over the zeros
                continue
            for _ in range(count):
                zigzag = 0
                shift = 0
                more = True
                while more:
                    if position >= nibbles or shift > 30:
                        return done
                    nibble = (words[position >> 3] >> (28 - 4 * (position & 7))) & 15
                    position += 1
                    zigzag |= np.int64(nibble & 7) << shift
                    shift += 3
                    more = (nibble & 8) != 0
                previous = (previous + ((zigzag >> 1) ^ -(zigzag & 1))) & 0xFFFF
                if len(out):
                    out[done] = previous
                done += 1
    return done
