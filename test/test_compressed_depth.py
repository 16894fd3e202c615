# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""compressedDepth against encoders written here from the published formats, not from the decoder."""

import struct
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_allclose, assert_array_equal

from seg_perception.ros.compressed_depth import decode_depth_payload, decode_png, decode_rvl

GARBAGE = struct.pack("<iII", 0, 0xDEADBEEF, 0x7FC00000)  # 16 bit images leave A and B uninitialised


# -- an encoder of RVL, by the paper ---------------------------------------------------------------------------------


def variable_length(value: int) -> Iterable[int]:
    """Nibbles of three bits, low ones first, the top bit says that more come."""
    while True:
        low, value = value & 7, value >> 3
        yield low | (8 if value else 0)
        if not value:
            return


def rvl(units: np.ndarray, closing_count: bool = True) -> bytes:
    """Alternately a count of zeros, a count of values, and the values' zigzag differences; nibbles fill 32 bit words
    from the top. `closing_count` writes the empty run of values behind trailing zeros, as the reference does."""
    flat = units.reshape(-1).tolist()
    nibbles: list[int] = []
    position, previous = 0, 0
    while position < len(flat):
        zeros = 0
        while position < len(flat) and flat[position] == 0:
            zeros, position = zeros + 1, position + 1
        nibbles += variable_length(zeros)
        if position == len(flat) and not closing_count:
            break
        start = position
        while position < len(flat) and flat[position] != 0:
            position += 1
        nibbles += variable_length(position - start)
        for value in flat[start:position]:
            difference = value - previous
            nibbles += variable_length(2 * difference if difference >= 0 else -2 * difference - 1)
            previous = value
    nibbles += [0] * (-len(nibbles) % 8)
    words = [int("".join(f"{n:x}" for n in nibbles[i : i + 8]), 16) for i in range(0, len(nibbles), 8)]
    return struct.pack(f"<II{len(words)}I", units.shape[1], units.shape[0], *words)


def png(units: np.ndarray) -> bytes:
    return cv2.imencode(".png", units)[1].tobytes()


def scene() -> np.ndarray:
    """A slope with holes and steps, mm."""
    y, x = np.mgrid[:48, :64]
    units = (900 + 3 * x + 2 * y).astype(np.uint16)
    units[10:20, 20:40] = 640
    units[:5] = 0
    units[30:, 50:] = 0
    units[40, 3] = 65535
    return units


# -- what is sent arrives --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["16UC1", "mono16"])
@pytest.mark.parametrize(
    ("suffix", "encode"),
    [("compressedDepth", png), ("compressedDepth png", png), ("compressedDepth rvl", rvl), ("", png)],
)
def test_integer_depth_arrives_unchanged(encoding: str, suffix: str, encode) -> None:
    format = f"{encoding}; {suffix}" if suffix else encoding
    assert_array_equal(decode_depth_payload(GARBAGE + encode(scene()), format), scene())


@settings(max_examples=150, deadline=None)
@given(
    arrays(
        np.uint16,
        array_shapes(min_dims=2, max_dims=2, max_side=24),
        elements=st.one_of(st.just(0), st.integers(0, 65535), st.integers(1000, 1010)),
    ),
    st.booleans(),
)
def test_rvl_round_trip(units: np.ndarray, closing_count: bool) -> None:
    assert_array_equal(decode_rvl(memoryview(rvl(units, closing_count))), units)


@pytest.mark.parametrize("closing_count", [False, True])
def test_rvl_of_an_almost_empty_image(closing_count: bool) -> None:
    """A covered camera: 921600 pixels in a few bytes."""
    units = np.zeros((720, 1280), np.uint16)
    assert_array_equal(decode_rvl(memoryview(rvl(units, closing_count))), units)
    units[300, 500:510] = 700
    assert_array_equal(decode_rvl(memoryview(rvl(units, closing_count))), units)


@pytest.mark.parametrize(("suffix", "encode"), [("", png), (" png", png), (" rvl", rvl)])
def test_float_depth_is_quantised_inverse_depth(suffix: str, encode) -> None:
    """The encoder of the ROS plugin: v = A / z + B with A = q (q + 1), B = 1 - A / depth_max; 0 = invalid."""
    metres = np.random.default_rng(0).uniform(0.3, 9.9, (40, 50)).astype(np.float32)
    metres[:4] = np.nan
    quantization, depth_max = 100.0, 10.0
    a = np.float32(quantization * (quantization + 1))
    b = np.float32(1.0 - a / depth_max)
    units = np.where(np.isfinite(metres), a / metres + b, 0).astype(np.uint16)
    depth = decode_depth_payload(struct.pack("<iff", 0, a, b) + encode(units), f"32FC1; compressedDepth{suffix}")
    assert depth.dtype == np.float32
    assert_array_equal(np.isnan(depth), np.isnan(metres))
    step = metres[4:] ** 2 / a  # one unit of v, in metres
    assert (np.abs(depth[4:] - metres[4:]) <= step * 1.1).all()


def test_a_real_depth_image(data_dir: Path) -> None:
    """A recorded frame with its holes and noise, through both codecs; a part of it, as the encoder here is slow."""
    path = sorted((data_dir / "ycbv" / "frames").glob("*_depth.png"))[0]
    units = decode_png(path.read_bytes())
    assert (units == 0).any()
    assert_array_equal(decode_depth_payload(GARBAGE + path.read_bytes(), "16UC1; compressedDepth png"), units)
    part = np.ascontiguousarray(units[100:300, 150:400])
    assert_array_equal(decode_depth_payload(GARBAGE + rvl(part), "16UC1; compressedDepth rvl"), part)


# -- what is broken is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), [(np.nan, 1.0), (0.0, 1.0), (-5.0, 1.0), (np.inf, 1.0), (100.0, np.nan)])
def test_float_depth_with_an_uninitialised_header_names_humble(a: float, b: float) -> None:
    with pytest.raises(ValueError, match=r"A=.* B=.*Humble.*16UC1"):
        decode_depth_payload(struct.pack("<iff", 0, a, b) + png(scene()), "32FC1; compressedDepth png")


@pytest.mark.parametrize(
    ("data", "format", "words"),
    [
        (b"", "16UC1; compressedDepth", "0 bytes, expected more than the 12"),
        (GARBAGE, "16UC1; compressedDepth", "12 bytes, expected more"),
        (GARBAGE + b"no picture", "16UC1; compressedDepth png", "expected a PNG"),
        (GARBAGE + png(scene())[:60], "16UC1; compressedDepth png", "PNG"),
        (GARBAGE + png(scene().astype(np.uint8)), "16UC1; compressedDepth png", "16 bit and one channel, got uint8"),
        (GARBAGE + b"\1\0\0\0", "16UC1; compressedDepth rvl", "expected at least the 8"),
        (GARBAGE + rvl(scene())[:-8], "16UC1; compressedDepth rvl", r"broken after \d+ of 3072 pixels"),
        (GARBAGE + struct.pack("<II", 0, 5) + bytes(50), "16UC1; compressedDepth rvl", "claims 0x5"),
        (
            GARBAGE + struct.pack("<II", 100_000, 100_000) + bytes(50),
            "16UC1; compressedDepth rvl",
            "claims 100000x100000",
        ),
        (
            GARBAGE + struct.pack("<II", 8000, 8000) + bytes(50),
            "16UC1; compressedDepth rvl",
            "broken after 0 of 64000000",
        ),
        (GARBAGE + struct.pack("<II", 2**32 - 1, 2**32 - 1) + bytes(50), "16UC1; compressedDepth rvl", "claims"),
        (GARBAGE + png(scene()), "rgb8; compressedDepth png", "encoding 'rgb8', expected 16UC1"),
    ],
)
def test_broken_messages_are_refused(data: bytes, format: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decode_depth_payload(data, format)


@settings(max_examples=400, deadline=2000)
@given(st.binary(max_size=400), st.booleans(), st.integers(0, 60), st.integers(0, 60))
def test_random_bytes_neither_hang_nor_allocate_much(noise: bytes, sized: bool, columns: int, rows: int) -> None:
    payload = struct.pack("<II", columns, rows) + noise if sized else noise
    tracemalloc.start()
    try:
        units = decode_rvl(memoryview(payload))
    except ValueError:
        pass
    else:
        assert units.size <= 60 * 60
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
    if noise:
        with pytest.raises(ValueError, match="PNG"):
            decode_png(noise)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_flipped_byte_never_writes_past_the_image(data: st.DataObject) -> None:
    payload = bytearray(rvl(scene()))
    for _ in range(data.draw(st.integers(1, 8))):
        payload[data.draw(st.integers(8, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        units = decode_rvl(memoryview(payload))
    except ValueError as error:
        assert "broken after" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert units.shape == scene().shape


def test_invalid_float_pixels_are_nan() -> None:
    units = np.array([[0, 100, 40]], np.uint16)
    depth = decode_depth_payload(struct.pack("<iff", 0, 50.0, 50.0) + png(units), "32FC1; compressedDepth")
    assert_allclose(depth, [[np.nan, 1.0, np.nan]])  # v = 40 < B would lie behind the camera
