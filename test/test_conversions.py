# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Images and calibrations as drivers send them. Every buffer is built here by hand, from the layouts' definitions."""

import struct
import sys
import tracemalloc
import types

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from seg_perception.ros.conversions import (
    ImageError,
    decode_color,
    decode_compressed_color,
    decode_compressed_depth,
    decode_depth,
    decode_ignore_mask,
    encode_image,
    intrinsics_from_info,
    same_camera,
    stamp_from_ns,
    stamp_ns,
)
from seg_perception.scene import Intrinsics

WIDTH, HEIGHT = 32, 24


def smooth_rgb() -> np.ndarray:
    """A picture whose color changes slowly, so that halved chroma loses next to nothing."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([40 + 5 * x, 200 - 6 * y, 60 + 2 * x + 3 * y], axis=2).astype(np.uint8)


def message(encoding: str, rows: np.ndarray, height: int = HEIGHT, padding: int = 0, big: bool = False) -> Image:
    """`rows` (R, bytes) uint8, each followed by `padding` bytes of rubbish."""
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xAA)
    msg = Image(encoding=encoding, height=height, width=WIDTH, step=padded.shape[1], is_bigendian=int(big))
    msg.data.frombytes(padded.tobytes())
    return msg


def rows_of(values: np.ndarray, big: bool = False) -> np.ndarray:
    """The bytes of each row of an (H, W) or (H, W, C) array."""
    ordered = np.ascontiguousarray(values, values.dtype.newbyteorder(">" if big else "<"))
    return np.frombuffer(ordered.tobytes(), np.uint8).reshape(len(values), -1)


def yuv(rgb: np.ndarray) -> np.ndarray:
    """BT.601, limited range, (H, W, 3) float."""
    r, g, b = (rgb[..., i] / 255.0 for i in range(3))
    y = 16 + 65.481 * r + 128.553 * g + 24.966 * b
    u = 128 - 37.797 * r - 74.203 * g + 112.0 * b
    v = 128 + 112.0 * r - 93.786 * g - 18.214 * b
    return np.stack([y, u, v], axis=2)


def as_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


# -- packed color ----------------------------------------------------------------------------------------------------

ORDERS = {"rgb": [0, 1, 2], "bgr": [2, 1, 0], "rgba": [0, 1, 2, 3], "bgra": [2, 1, 0, 3]}
CHANNELS = [
    *((f"{name}{bits}", order, bits) for name, order in ORDERS.items() for bits in (8, 16)),
    ("8UC3", [2, 1, 0], 8),
    ("8UC4", [2, 1, 0, 3], 8),
    ("16UC3", [2, 1, 0], 16),
]


@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(("encoding", "order", "bits"), CHANNELS)
def test_channel_orders(encoding: str, order: list[int], bits: int, big: bool, padding: int) -> None:
    rgb = smooth_rgb()
    sent = np.dstack([rgb, np.full((HEIGHT, WIDTH), 99, np.uint8)])[..., order]
    sent = sent if bits == 8 else sent.astype(np.uint16) * 257
    color = decode_color(message(encoding, rows_of(sent, big), padding=padding, big=big))
    assert color.dtype == np.uint8
    assert color.flags.c_contiguous
    assert_array_equal(color, rgb)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(
    ("encoding", "bits", "big"), [("mono8", 8, 0), ("8UC1", 8, 0), ("mono16", 16, 0), ("mono16", 16, 1)]
)
def test_mono(encoding: str, bits: int, big: int, padding: int) -> None:
    gray = smooth_rgb()[..., 0]
    sent = gray if bits == 8 else gray.astype(np.uint16) * 257
    color = decode_color(message(encoding, rows_of(sent, bool(big)), padding=padding, big=bool(big)))
    assert_array_equal(color, np.dstack([gray] * 3))


def test_rgb8_is_a_view_of_the_message() -> None:
    msg = message("rgb8", rows_of(smooth_rgb()))
    assert np.shares_memory(decode_color(msg), np.frombuffer(msg.data, np.uint8))


# -- bayer -----------------------------------------------------------------------------------------------------------


def mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    """What a sensor sees whose first 2 x 2 pixels are `pattern`, left to right, top to bottom (sensor_msgs' naming)."""
    out = np.empty(rgb.shape[:2], rgb.dtype)
    for i, letter in enumerate(pattern):
        y, x = divmod(i, 2)
        out[y::2, x::2] = rgb[y::2, x::2, "rgb".index(letter)]
    return out


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(("bits", "big"), [(8, False), (16, False), (16, True)])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer(pattern: str, bits: int, big: bool, padding: int) -> None:
    flat = np.full((HEIGHT, WIDTH, 3), (200, 110, 30), np.uint8)
    for rgb, tolerance in ((flat, 0), (smooth_rgb(), 6)):  # one 5-step gradient apart at most
        sent = mosaic(rgb, pattern)
        sent = sent if bits == 8 else sent.astype(np.uint16) * 257
        color = decode_color(message(f"bayer_{pattern}{bits}", rows_of(sent, big), padding=padding, big=big))
        assert_allclose(color[2:-2, 2:-2].astype(int), rgb[2:-2, 2:-2].astype(int), atol=tolerance)


# -- yuv -------------------------------------------------------------------------------------------------------------


def packed_422(rgb: np.ndarray, order: str) -> np.ndarray:
    """(H, 2 W) bytes: two pixels share u and v; `order` names the four bytes."""
    values = yuv(rgb)
    pair = values.reshape(HEIGHT, WIDTH // 2, 2, 3)
    shared = pair.mean(axis=2)
    parts = {"y": pair[:, :, 0, 0], "Y": pair[:, :, 1, 0], "u": shared[..., 1], "v": shared[..., 2]}
    return as_bytes(np.stack([parts[letter] for letter in order], axis=-1).reshape(HEIGHT, -1))


def planes(rgb: np.ndarray, encoding: str, padding: int) -> bytes:
    """Rows of Y, then the chroma planes; `padding` bytes after each row of Y, and in proportion after the others."""

    def padded(rows: np.ndarray, by: int) -> bytes:
        return np.pad(as_bytes(rows), ((0, 0), (0, by)), constant_values=0xAA).tobytes()

    y, u, v = np.moveaxis(yuv(rgb), 2, 0)
    if encoding == "nv24":
        chroma = np.stack([u, v], axis=2).reshape(HEIGHT, -1)
        return padded(y, padding) + padded(chroma, 2 * padding)
    u, v = (plane.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).mean(axis=(1, 3)) for plane in (u, v))
    if encoding == "i420":
        return padded(y, padding) + padded(u, padding // 2) + padded(v, padding // 2)
    pair = [u, v] if encoding == "nv12" else [v, u]
    return padded(y, padding) + padded(np.stack(pair, axis=2).reshape(HEIGHT // 2, -1), padding)


@pytest.mark.parametrize("padding", [0, 8])
@pytest.mark.parametrize(
    ("encoding", "order"), [("uyvy", "uyvY"), ("yuv422", "uyvY"), ("yuyv", "yuYv"), ("yuv422_yuy2", "yuYv")]
)
def test_yuv_422(encoding: str, order: str, padding: int) -> None:
    rgb = smooth_rgb()
    color = decode_color(message(encoding, packed_422(rgb, order), padding=padding))
    assert_allclose(color.astype(int), rgb.astype(int), atol=6)  # chroma of two pixels is one, 5 apart


@pytest.mark.parametrize("padding", [0, 8])
@pytest.mark.parametrize("encoding", ["nv12", "nv21", "nv24", "i420"])
def test_yuv_planes(encoding: str, padding: int) -> None:
    rgb = smooth_rgb()
    msg = Image(encoding=encoding, height=HEIGHT, width=WIDTH, step=WIDTH + padding)
    msg.data.frombytes(planes(rgb, encoding, padding))
    color = decode_color(msg)
    assert color.flags.c_contiguous
    assert_allclose(color.astype(int), rgb.astype(int), atol=2 if encoding == "nv24" else 9)
    msg.data = msg.data[:-1]
    with pytest.raises(ImageError, match=rf"{encoding} 32x24: data has \d+ bytes, expected >= \d+"):
        decode_color(msg)


@pytest.mark.parametrize("encoding", ["nv12", "nv21", "i420", "uyvy"])
def test_halved_chroma_needs_even_sizes(encoding: str) -> None:
    msg = Image(encoding=encoding, height=3, width=5, step=16)
    msg.data.frombytes(bytes(200))
    with pytest.raises(ImageError, match=f"{encoding} 5x3"):
        decode_color(msg)


# -- refusals --------------------------------------------------------------------------------------------------------

COLOR_BYTES = {
    "rgb8": 3,
    "bgra8": 4,
    "mono8": 1,
    "mono16": 2,
    "bayer_rggb8": 1,
    "bayer_grbg16": 2,
    "yuyv": 2,
    "rgb16": 6,
}
DEPTH_BYTES = {"16UC1": 2, "mono16": 2, "32FC1": 4, "64FC1": 8}


@pytest.mark.parametrize("decode", [decode_color, decode_depth])
def test_short_and_absurd_images_are_refused_before_anything_is_allocated(decode) -> None:
    for encoding, size in (COLOR_BYTES if decode is decode_color else DEPTH_BYTES).items():
        step = WIDTH * size
        good = message(encoding, np.zeros((HEIGHT, step), np.uint8))
        decode(good)
        good.data = good.data[:-1]
        with pytest.raises(ImageError, match=rf"{encoding} 32x24: data has {len(good.data)} bytes, expected >= "):
            decode(good)
        for width, height, row, expected in (
            (100_000, 100_000, 100_000 * size, "data has"),
            (2**32 - 1, 2**32 - 1, 2**32 - 1, "step" if size > 1 else "data has"),
            (0, HEIGHT, step, "expected a size > 0"),
            (WIDTH, 0, step, "expected a size > 0"),
            (WIDTH, HEIGHT, 0, rf"a row has 0 bytes \(step\), expected >= {step}"),
            (WIDTH, HEIGHT, step - 1, rf"a row has {step - 1} bytes"),
        ):
            bad = Image(encoding=encoding, width=width, height=height, step=row, data=good.data)
            tracemalloc.start()
            with pytest.raises(ImageError, match=expected) as refusal:
                decode(bad)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 200_000, f"{encoding} {width}x{height} allocated {peak} bytes"
            assert "\n" not in str(refusal.value)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(
        [*(e for e, *_ in CHANNELS), "mono8", "bayer_grbg16", "yuyv", "nv12", "nv24", "i420", "32FC1", "16UC1", "x"]
    ),
    *(st.one_of(st.integers(0, 6), st.integers(0, 2**32 - 1)) for _ in range(3)),
    st.booleans(),
    st.binary(max_size=300),
)
def test_any_header_is_decoded_or_refused(
    encoding: str, width: int, height: int, step: int, big: bool, data: bytes
) -> None:
    msg = Image(encoding=encoding, width=width, height=height, step=step, is_bigendian=int(big), data=data)
    for decode in (decode_color, decode_depth):
        try:
            pixels = decode(msg)
        except ImageError as refusal:
            assert "\n" not in str(refusal)  # noqa: PT017 - either outcome is right
        else:
            assert pixels.shape[:2] == (height, width)


def test_a_depth_image_is_no_color_image() -> None:
    for encoding in ("16UC1", "32FC1"):
        with pytest.raises(ImageError, match=f"{encoding} 32x24: this is a depth image"):
            decode_color(message(encoding, np.zeros((HEIGHT, WIDTH * 4), np.uint8)))


def test_other_encodings_go_through_cv_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """cv_bridge itself is not among the wheels: a stand-in with its one method."""
    asked = []

    class CvBridge:
        def imgmsg_to_cv2(self, msg: Image, encoding: str) -> np.ndarray:
            asked.append((msg.encoding, encoding))
            if msg.encoding == "broken":
                raise RuntimeError("Unrecognized image encoding [broken]")
            return smooth_rgb()

    odd = message("yuv411", np.zeros((HEIGHT, WIDTH), np.uint8))
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    with pytest.raises(ImageError, match=r"yuv411 32x24: .*rgb8.*docs/ros.md.*cv_bridge is absent") as refusal:
        decode_color(odd)
    assert len(str(refusal.value)) < 120  # one short line in /diagnostics
    monkeypatch.setitem(sys.modules, "cv_bridge", types.SimpleNamespace(CvBridge=CvBridge))
    assert_array_equal(decode_color(odd), smooth_rgb())
    assert asked == [("yuv411", "rgb8")]
    with pytest.raises(ImageError, match=r"broken 32x24: .*Unrecognized"):
        decode_color(message("broken", np.zeros((HEIGHT, WIDTH), np.uint8)))


# -- depth -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("encoding", ["16UC1", "mono16"])
def test_integer_depth_is_millimetres(encoding: str, big: bool, padding: int) -> None:
    units = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 80
    units[3, 4], units[5, 6] = 65535, 65534
    msg = message(encoding, rows_of(units, big), padding=padding, big=big)
    depth = decode_depth(msg)
    expected = units * 0.001
    expected[(units == 0) | (units == 65535)] = np.nan
    assert depth.dtype == np.float32
    assert_allclose(depth, expected, rtol=1e-6)
    assert depth[5, 6] == pytest.approx(65.534)
    assert_allclose(decode_depth(msg, scale=0.00025), expected / 4, rtol=1e-6)  # 0.25 mm per unit


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(("encoding", "dtype"), [("32FC1", np.float32), ("64FC1", np.float64)])
def test_float_depth_is_metres_and_keeps_too_near_and_too_far(encoding: str, dtype, big: bool, padding: int) -> None:
    metres = np.full((HEIGHT, WIDTH), 1.25, dtype)
    metres[0, :6] = [0.0, -0.5, np.nan, np.inf, -np.inf, 0.001]
    depth = decode_depth(message(encoding, rows_of(metres, big), padding=padding, big=big))
    assert depth.dtype == np.float32
    assert_array_equal(depth[0, :6], np.float32([np.nan, np.nan, np.nan, np.inf, -np.inf, 0.001]))
    assert (depth[1:] == 1.25).all()
    millimetres = decode_depth(message(encoding, rows_of(metres * 1000, big), padding=padding, big=big), scale=0.001)
    np.testing.assert_allclose(millimetres, depth, rtol=1e-6)  # a driver that does it wrong


@pytest.mark.parametrize(
    ("encoding", "hint"),
    [
        ("rgb8", "colorizer.enable:=false"),
        ("16SC1", "signed 16 bit"),
        ("mono8", "expected a depth image"),
        ("", "no encoding"),
    ],
)
def test_what_is_not_depth_is_refused_with_a_hint(encoding: str, hint: str) -> None:
    with pytest.raises(ImageError, match=hint):
        decode_depth(message(encoding, np.zeros((HEIGHT, WIDTH * 3), np.uint8)))


def test_ignore_mask() -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:8, 10:20] = [[1], [128], [255], [7]]
    assert_array_equal(decode_ignore_mask(message("mono8", mask, padding=3)), mask > 0)
    with pytest.raises(ImageError, match="rgb8 32x24: expected an ignore mask of encoding mono8"):
        decode_ignore_mask(message("rgb8", rows_of(smooth_rgb())))


# -- compressed ------------------------------------------------------------------------------------------------------


def compressed(format: str, data: bytes) -> CompressedImage:
    msg = CompressedImage(format=format)
    msg.data.frombytes(data)
    return msg


def file_of(pixels: np.ndarray, suffix: str) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


@pytest.mark.parametrize(
    ("format", "suffix", "tolerance"),
    [
        ("rgb8; jpeg compressed bgr8", ".jpg", 12),  # the bytes are BGR whatever the first word says
        ("bgr8; jpeg compressed bgr8", ".jpg", 12),
        ("jpeg", ".jpg", 12),
        ("png", ".png", 0),
        ("rgb8; png compressed bgr8", ".png", 0),
    ],
)
def test_compressed_color(format: str, suffix: str, tolerance: int) -> None:
    rgb = smooth_rgb()
    color = decode_compressed_color(compressed(format, file_of(rgb[..., ::-1], suffix)))
    assert_allclose(color.astype(int), rgb.astype(int), atol=tolerance)


def test_compressed_color_of_other_depths_and_channels() -> None:
    rgb = smooth_rgb()
    bgr16 = rgb[..., ::-1].astype(np.uint16) * 257
    assert_array_equal(decode_compressed_color(compressed("bgr16; png compressed bgr16", file_of(bgr16, ".png"))), rgb)
    bgra = np.dstack([rgb[..., ::-1], np.full((HEIGHT, WIDTH), 9, np.uint8)])
    assert_array_equal(decode_compressed_color(compressed("png", file_of(bgra, ".png"))), rgb)
    gray = decode_compressed_color(compressed("mono8; png compressed mono8", file_of(rgb[..., 1], ".png")))
    assert_array_equal(gray, np.dstack([rgb[..., 1]] * 3))
    flat = np.full((HEIGHT, WIDTH, 3), (200, 110, 30), np.uint8)
    sent = compressed("bayer_gbrg8; png compressed ", file_of(mosaic(flat, "gbrg"), ".png"))
    assert_array_equal(decode_compressed_color(sent)[2:-2, 2:-2], flat[2:-2, 2:-2])


def test_the_camera_is_not_turned_by_exif() -> None:
    """Depth and calibration know nothing of an orientation tag."""
    jpeg = file_of(smooth_rgb()[..., ::-1], ".jpg")
    tag = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack(
        "<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0
    )  # orientation 6: turn by 90 degrees
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(tag) + 2) + tag + jpeg[2:]
    assert decode_compressed_color(compressed("jpeg", turned)).shape == (HEIGHT, WIDTH, 3)


def png_that_claims(width: int, height: int) -> bytes:
    """A small PNG with another size in its header, checksum mended."""
    import zlib

    png = bytearray(file_of(np.zeros((4, 4), np.uint16), ".png"))
    png[16:24] = struct.pack(">II", width, height)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    return bytes(png)


@pytest.mark.parametrize("decode", [decode_compressed_color, decode_compressed_depth])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (b"\x00" * 100, r"\d+ bytes"),
        (b"\x89PNG\r\n\x1a\n", "8 bytes"),
        (png_that_claims(30_000, 30_000), "PNG claims 30000x30000 pixels in"),  # before OpenCV reserves 1.8 GB
    ],
    ids=["empty", "zeros", "cut", "bomb"],
)
def test_unreadable_files_are_refused(decode, data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words) as refusal:
        decode(compressed("16UC1; png compressed ", data))
    assert "16UC1; png compressed" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_png_depth_on_a_compressed_topic() -> None:
    units = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    expected = np.where(units == 0, np.nan, units * 0.001)
    for format in ("16UC1; png compressed ", "png"):
        assert_allclose(decode_compressed_depth(compressed(format, file_of(units, ".png"))), expected, rtol=1e-6)
    with pytest.raises(ImageError, match="jpeg destroys depth"):
        decode_compressed_depth(compressed("16UC1; jpeg compressed ", file_of(smooth_rgb(), ".jpg")))
    with pytest.raises(ImageError, match="16 bit and one channel, got uint8"):
        decode_compressed_depth(compressed("16UC1; png compressed ", file_of(smooth_rgb(), ".png")))


# -- calibration -----------------------------------------------------------------------------------------------------


def info(**changes) -> CameraInfo:
    msg = CameraInfo(header=Header(frame_id="cam"), width=640, height=480, distortion_model="plumb_bob")
    msg.k = [600.0, 0.0, 321.0, 0.0, 601.0, 239.0, 0.0, 0.0, 1.0]
    msg.p = [500.0, 0.0, 300.0, 0.0, 0.0, 501.0, 200.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    for name, value in changes.items():
        target = msg.roi if name in ("x_offset", "y_offset", "do_rectify") else msg
        setattr(target, name, value)
    return msg


def test_intrinsics_of_a_plain_camera() -> None:
    assert intrinsics_from_info(info()) == Intrinsics(640, 480, 600.0, 601.0, 321.0, 239.0, ())
    assert intrinsics_from_info(info(), rectified=True) == Intrinsics(640, 480, 500.0, 501.0, 300.0, 200.0, ())


@pytest.mark.parametrize(
    ("model", "d", "expected"),
    [
        ("plumb_bob", [0.1, -0.2, 0.001, 0.002, 0.03], (0.1, -0.2, 0.001, 0.002, 0.03)),
        ("plumb_bob", [0.0] * 5, ()),
        ("plumb_bob", [0.0] * 8, ()),
        (
            "plumb_bob",
            [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
            (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
        ),  # Orbbec's K6
        ("equidistant", [0.1, 0.2, 0.3, 0.4], (0.1, 0.2, 0.3, 0.4)),
        ("plumb_bob", [0.1, 0.2, 0.3, 0.4], (0.1, 0.2, 0.3, 0.4, 0.0)),
        ("rational_polynomial", [0.1] * 8 + [0.0] * 4, (0.1,) * 8),
        ("rational_polynomial", [0.1] * 8 + [0.0] * 6, (0.1,) * 8),
    ],
)
def test_distortion_goes_by_its_count(model: str, d: list[float], expected: tuple[float, ...]) -> None:
    assert intrinsics_from_info(info(distortion_model=model, d=d)).distortion == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": [0.0] * 9}, "uncalibrated: K has fx=0"),
        ({"k": [float("nan")] + [0.0] * 8}, "uncalibrated"),
        ({"d": [0.1] * 12}, "thin prism"),
        ({"d": [0.1] * 14}, "thin prism"),
        ({"d": [0.1] * 6}, "distortion coefficients, got 6"),
        ({"d": [float("nan")] * 5}, "intrinsics: expected finite"),
        ({"width": 0, "height": 0}, "size > 0, got 0x0"),
    ],
)
def test_bad_calibrations_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        intrinsics_from_info(info(**changes))


def test_region_of_interest_and_binning() -> None:
    cropped = info(x_offset=100, y_offset=40)
    cropped.roi.width, cropped.roi.height = 320, 240
    assert intrinsics_from_info(cropped) == Intrinsics(320, 240, 600.0, 601.0, 221.0, 199.0)
    cropped.binning_x, cropped.binning_y = 2, 4
    assert intrinsics_from_info(cropped) == Intrinsics(160, 60, 300.0, 601.0 / 4, 110.5, 199.0 / 4)
    # Orbbec sets do_rectify with an all-zero ROI: that is the whole image, and no promise of rectification.
    odd = info(do_rectify=True, d=[0.1] * 5, binning_x=1, binning_y=1)
    assert intrinsics_from_info(odd) == Intrinsics(640, 480, 600.0, 601.0, 321.0, 239.0, (0.1,) * 5)


def test_same_camera() -> None:
    a = Intrinsics(640, 480, 600.0, 600.0, 320.0, 240.0)
    assert same_camera(a, Intrinsics(640, 480, 600.4, 599.6, 320.4, 239.5))
    assert not same_camera(a, Intrinsics(640, 480, 600.0, 600.0, 322.0, 240.0))
    assert not same_camera(a, Intrinsics(640, 480, 603.0, 600.0, 320.0, 240.0))
    assert not same_camera(a, Intrinsics(848, 480, 600.0, 600.0, 320.0, 240.0))
    assert same_camera(a, Intrinsics(640, 480, 600.0, 600.0, 320.0, 240.0, (1e-5, 0.0, 0.0, 0.0, 0.0)))
    # k1 = 0.05 moves the corner, at r = 0.67, by 0.05 * 0.67^3 * 600 = 9 px.
    assert not same_camera(a, Intrinsics(640, 480, 600.0, 600.0, 320.0, 240.0, (0.05, 0.0, 0.0, 0.0, 0.0)))


# -- out -------------------------------------------------------------------------------------------------------------


def test_images_and_stamps_out_and_in_again() -> None:
    header = Header(stamp=Time(sec=1_700_000_000, nanosec=123_456_789), frame_id="cam")
    rgb = smooth_rgb()
    msg = encode_image(rgb, "rgb8", header)
    assert (msg.width, msg.height, msg.step, len(msg.data)) == (WIDTH, HEIGHT, 3 * WIDTH, rgb.size)
    assert msg.header == header
    assert_array_equal(decode_color(msg), rgb)
    units = rgb[..., 0].astype(np.uint16) * 20
    assert_allclose(decode_depth(encode_image(units, "16UC1", header)), units * 0.001, rtol=1e-6)
    assert_array_equal(decode_color(encode_image(rgb[:, ::2], "rgb8", header)), rgb[:, ::2])  # not contiguous
    assert len(encode_image(np.empty((0, 4, 3), np.uint8), "rgb8", header).data) == 0
    with pytest.raises(ImageError, match=r"16UC1: expected 1 channels of uint16, got \(24, 32, 3\) uint8"):
        encode_image(rgb, "16UC1", header)
    assert stamp_ns(header.stamp) == 1_700_000_000_123_456_789
    assert stamp_from_ns(1_700_000_000_123_456_789) == header.stamp
