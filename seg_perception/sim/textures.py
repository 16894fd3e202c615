# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures for surfaces, painted by code: wood, plaster, packages, labels. Same seed, same picture."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (H, W, 3) sRGB
Color = tuple[int, int, int]
Area = tuple[int, int, int, int]  # x0, y0, x1, y1 px
PAINTERS: dict[str, Callable[[np.random.Generator], Picture]] = {}
FONT = cv2.FONT_HERSHEY_DUPLEX


def painter(paint: Callable[[np.random.Generator], Picture]) -> Callable[[np.random.Generator], Picture]:
    PAINTERS[paint.__name__] = paint
    return paint


def paint(name: str) -> Picture:
    """The texture of that name. Raises KeyError naming those there are."""
    if name not in PAINTERS:
        raise KeyError(f"no texture {name!r}; there are {', '.join(sorted(PAINTERS))}")
    return PAINTERS[name](np.random.default_rng(sum(name.encode())))


def _grain(rng: np.random.Generator, size: tuple[int, int], *cells: tuple[int, int]) -> NDArray[np.float32]:
    """Smooth noise (H, W) of mean 0 and spread about 1, summed over lattices of `cells` (rows, columns)."""
    height, width = size
    total = np.zeros(size, np.float32)
    for weight, (rows, columns) in enumerate(cells, start=1):
        lattice = rng.standard_normal((rows, columns)).astype(np.float32)
        lattice = np.pad(lattice, 2, mode="wrap")
        size = (width * (columns + 4) // columns, height * (rows + 4) // rows)
        big = cv2.resize(lattice, size, interpolation=cv2.INTER_CUBIC)
        top, left = 2 * height // rows, 2 * width // columns
        total += big[top : top + height, left : left + width] / weight
    return total / max(1e-6, float(total.std()))


def _tint(color: Color, shade: NDArray[np.float32]) -> Picture:
    """`color` made lighter and darker by `shade` (H, W), 0 = as it is."""
    return np.clip(np.array(color, np.float32) * (1.0 + shade[..., None]), 0, 255).astype(np.uint8)


def _flat(color: Color, height: int = 512, width: int = 512) -> Picture:
    return np.full((height, width, 3), color, np.uint8)


def _text(
    picture: Picture, words: str, centre: tuple[float, float], height: float, color: Color, bold: float = 0.16
) -> None:
    """Writes `words` centred at `centre` x, y, with capitals `height` px tall."""
    scale = height / cv2.getTextSize("H", FONT, 1.0, 1)[0][1]
    thick = max(1, round(bold * height))
    (width, tall), _ = cv2.getTextSize(words, FONT, scale, thick)
    room = 0.92 * picture.shape[1]
    if width > room:
        return _text(picture, words, centre, height * room / width * 0.99, color, bold)
    at = (round(centre[0] - width / 2), round(centre[1] + tall / 2))
    cv2.putText(picture, words, at, FONT, scale, color, thick, cv2.LINE_AA)


def _lines(picture: Picture, rng: np.random.Generator, area: Area, pitch: int, color: Color) -> None:
    """Small print: bars where words would be, in `area`."""
    x0, y0, x1, y1 = area
    for y in range(y0, y1 - pitch // 2, pitch):
        x = x0
        end = x1 - int(rng.uniform(0, 0.25) * (x1 - x0))
        while x < end:
            step = int(rng.integers(pitch, 4 * pitch))
            cv2.rectangle(picture, (x, y), (min(end, x + step), y + pitch // 3), color, -1)
            x += step + pitch // 2


def _barcode(picture: Picture, rng: np.random.Generator, area: Area) -> None:
    x0, y0, x1, y1 = area
    cv2.rectangle(picture, (x0, y0), (x1, y1), (250, 250, 250), -1)
    x = x0 + 6
    while x < x1 - 6:
        step = int(rng.integers(2, 6))
        cv2.rectangle(picture, (x, y0 + 6), (x + step // 2, y1 - 6), (20, 20, 20), -1)
        x += step + int(rng.integers(1, 4))


@painter
def wood(rng: np.random.Generator) -> Picture:
    """Oak planks along x."""
    planks, height, width = 6, 1024, 1024
    out = np.empty((height, width, 3), np.uint8)
    rows = height // planks + 1
    for k in range(planks):
        warp = _grain(rng, (rows, width), (3, 3), (6, 8))
        fibre = _grain(rng, (rows, width), (85, 6), (170, 14))
        y = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
        rings = np.sin(2 * np.pi * (y * 4.0 + 0.55 * warp + rng.uniform()))
        shade = 0.075 * rings + 0.055 * fibre + rng.uniform(-0.08, 0.08)
        plank = _tint((188, 138, 90), shade.astype(np.float32))
        plank[:3] = plank[:3] * 0.55
        part = out[k * rows : (k + 1) * rows]
        part[:] = plank[: len(part)]
    return out


@painter
def wood_dark(rng: np.random.Generator) -> Picture:
    return (wood(rng) * np.array([0.62, 0.56, 0.52])).astype(np.uint8)


@painter
def floor_tiles(rng: np.random.Generator) -> Picture:
    """Four by four stone tiles."""
    out = _tint((150, 152, 154), 0.05 * _grain(rng, (1024, 1024), (8, 8), (32, 32), (128, 128)))
    for k in range(4):
        for j in range(4):
            tile = out[k * 256 : (k + 1) * 256, j * 256 : (j + 1) * 256]
            tile[:] = np.clip(tile * rng.uniform(0.92, 1.06), 0, 255)
            tile[:4] = tile[:, :4] = (104, 102, 100)
    return out


@painter
def plaster(rng: np.random.Generator) -> Picture:
    return _tint((196, 204, 200), 0.02 * _grain(rng, (512, 512), (6, 6), (40, 40), (160, 160)))


@painter
def cardboard(rng: np.random.Generator) -> Picture:
    """A parcel's side."""
    return _tint((186, 146, 104), 0.016 * _grain(rng, (512, 512), (90, 90), (200, 200), (5, 5)))


@painter
def cardboard_top(rng: np.random.Generator) -> Picture:
    """A parcel's lid: tape along the seam and an address label."""
    out = cardboard(rng)
    out[226:286] = (out[226:286] * 0.45 + np.array([206, 178, 128]) * 0.55).astype(np.uint8)
    out[255:257] = (120, 90, 60)
    cv2.rectangle(out, (296, 318), (492, 478), (246, 246, 242), -1)
    _lines(out, rng, (308, 330, 480, 400), 16, (60, 60, 64))
    _barcode(out, rng, (312, 412, 476, 470))
    return out


@painter
def cardboard_side(rng: np.random.Generator) -> Picture:
    out = cardboard(rng)
    out[:200, 226:286] = (out[:200, 226:286] * 0.45 + np.array([206, 178, 128]) * 0.55).astype(np.uint8)
    _text(out, "FRAGILE", (256, 330), 58, (150, 40, 34))
    cv2.rectangle(out, (60, 280), (452, 380), (150, 40, 34), 5, cv2.LINE_AA)
    return out


@painter
def crackers_front(rng: np.random.Generator) -> Picture:
    out = _flat((206, 46, 38))
    cv2.ellipse(out, (256, 540), (360, 230), 0, 0, 360, (246, 196, 66), -1, cv2.LINE_AA)
    for x, y, turn in ((150, 372, 12), (262, 340, -14), (360, 386, 24), (236, 440, 8)):
        corners = cv2.boxPoints(((x, y), (104, 104), turn)).astype(np.int32)
        cv2.fillConvexPoly(out, corners, (224, 160, 82), cv2.LINE_AA)
        cv2.polylines(out, [corners], True, (168, 104, 44), 4, cv2.LINE_AA)
        for dx in (-26, 0, 26):
            for dy in (-26, 0, 26):
                cv2.circle(out, (x + dx, y + dy), 5, (160, 100, 44), -1, cv2.LINE_AA)
    cv2.ellipse(out, (256, 150), (226, 92), 0, 0, 360, (250, 246, 236), -1, cv2.LINE_AA)
    cv2.ellipse(out, (256, 150), (214, 80), 0, 0, 360, (36, 58, 128), -1, cv2.LINE_AA)
    _text(out, "CRUNCH", (256, 138), 66, (255, 240, 200))
    _text(out, "baked crackers", (256, 196), 22, (255, 255, 255))
    return out


@painter
def crackers_side(rng: np.random.Generator) -> Picture:
    out = _flat((206, 46, 38))
    cv2.rectangle(out, (50, 60), (462, 330), (248, 244, 234), -1)
    _lines(out, rng, (76, 86, 440, 320), 26, (70, 66, 66))
    _barcode(out, rng, (110, 372, 402, 470))
    return out


@painter
def tea_front(rng: np.random.Generator) -> Picture:
    out = _tint((44, 122, 84), 0.03 * _grain(rng, (512, 512), (4, 4)))
    for angle in (20, 90, 160):
        tip = (256 + int(92 * np.cos(np.deg2rad(angle))), 330 - int(92 * np.sin(np.deg2rad(angle))))
        cv2.ellipse(out, tip, (92, 34), -angle, 0, 360, (158, 206, 92), -1, cv2.LINE_AA)
        cv2.line(out, (256, 330), (2 * tip[0] - 256, 2 * tip[1] - 330), (60, 120, 60), 5, cv2.LINE_AA)
    cv2.rectangle(out, (0, 70), (511, 200), (240, 234, 210), -1)
    _text(out, "GREEN TEA", (256, 136), 62, (34, 92, 62))
    cv2.rectangle(out, (14, 14), (497, 497), (214, 188, 106), 6)
    return out


@painter
def tea_side(rng: np.random.Generator) -> Picture:
    out = _flat((44, 122, 84))
    _lines(out, rng, (60, 80, 452, 440), 30, (210, 220, 190))
    return out


@painter
def soup_label(rng: np.random.Generator) -> Picture:
    """Goes once around a can."""
    out = _flat((244, 240, 230), 512, 1024)
    out[:250] = (190, 26, 36)
    out[246:254] = (212, 172, 74)
    for x in (256, 768):
        cv2.circle(out, (x, 250), 70, (222, 184, 84), -1, cv2.LINE_AA)
        cv2.circle(out, (x, 250), 56, (246, 222, 150), -1, cv2.LINE_AA)
        half = out[:, x - 230 : x + 230]
        _text(half, "TOMATO", (230, 110), 96, (255, 255, 255))
        _text(half, "SOUP", (230, 400), 96, (190, 26, 36))
    _lines(out, rng, (470, 280, 560, 500), 20, (150, 140, 140))
    return out


@painter
def soda_label(rng: np.random.Generator) -> Picture:
    out = _flat((22, 74, 168), 512, 1024)
    x = np.arange(1024)
    for k, color in enumerate(((240, 244, 250), (66, 164, 226), (240, 244, 250))):
        y = 300 + 36 * k + 60 * np.sin(2 * np.pi * (x / 512) + 0.5 * k)
        band = np.concatenate([np.stack([x, y], 1), np.stack([x, y + 22], 1)[::-1]]).astype(np.int32)
        cv2.fillPoly(out, [band], color, cv2.LINE_AA)
    for centre in (256, 768):
        _text(out[:, centre - 250 : centre + 250], "FIZZ", (250, 150), 120, (250, 252, 255), 0.22)
    return out


@painter
def bottle_label(rng: np.random.Generator) -> Picture:
    out = _flat((250, 248, 240), 512, 1024)
    out[:70] = out[-70:] = (34, 116, 62)
    for centre in (256, 768):
        part = out[:, centre - 250 : centre + 250]
        cv2.circle(part, (250, 330), 84, (236, 148, 36), -1, cv2.LINE_AA)
        for angle in np.linspace(0, 2 * np.pi, 9)[:-1]:
            end = (int(250 + 70 * np.cos(angle)), int(330 + 70 * np.sin(angle)))
            cv2.line(part, (250, 330), end, (252, 206, 120), 7, cv2.LINE_AA)
        _text(part, "ORANGE", (250, 160), 84, (214, 98, 20))
    return out


@painter
def mug_stripes(rng: np.random.Generator) -> Picture:
    out = _flat((238, 232, 220), 512, 1024)
    blue, orange = (36, 92, 128), (222, 138, 60)
    for y, tall, color in ((110, 70, blue), (200, 24, orange), (244, 130, blue), (394, 24, orange)):
        out[y : y + tall] = color
    for k in range(12):
        cv2.circle(out, (43 + k * 85, 309), 26, (238, 232, 220), -1, cv2.LINE_AA)
    return out


@painter
def bowl_rim(rng: np.random.Generator) -> Picture:
    out = _flat((226, 232, 236), 512, 2048)
    out[30:70] = (46, 78, 142)
    x = np.arange(2048)
    for phase in (0.0, np.pi):
        y = 190 + 62 * np.sin(2 * np.pi * x / 128 + phase)
        cv2.polylines(out, [np.stack([x, y], 1).astype(np.int32)], False, (46, 78, 142), 12, cv2.LINE_AA)
    out[310:326] = (46, 78, 142)
    return out


@painter
def ball_stripes(rng: np.random.Generator) -> Picture:
    out = np.empty((256, 768, 3), np.uint8)
    colors = ((226, 60, 52), (250, 246, 238), (46, 120, 200), (250, 246, 238), (248, 190, 50), (250, 246, 238))
    for k, color in enumerate(colors):
        out[:, k * 128 : (k + 1) * 128] = color
    out[:18] = out[-18:] = (250, 246, 238)
    return out


@painter
def lemon_skin(rng: np.random.Generator) -> Picture:
    return _tint((238, 202, 52), 0.05 * _grain(rng, (256, 512), (64, 128), (8, 16)))


@painter
def book_cover(rng: np.random.Generator) -> Picture:
    out = _tint((30, 52, 86), 0.05 * _grain(rng, (512, 512), (128, 128)))
    for k in range(7):
        size = 40 + 26 * k
        cv2.ellipse(out, (256, 330), (size, size), 0, 180, 360, (230 - 14 * k, 160 - 12 * k, 80), 8, cv2.LINE_AA)
    cv2.rectangle(out, (60, 334), (452, 340), (240, 226, 190), -1)
    _text(out, "ROBOT", (256, 400), 52, (240, 226, 190))
    _text(out, "STORIES", (256, 464), 36, (240, 226, 190))
    cv2.rectangle(out, (22, 22), (490, 490), (200, 170, 110), 4)
    return out


@painter
def book_pages(rng: np.random.Generator) -> Picture:
    lines = np.repeat(rng.uniform(-0.12, 0.04, (64, 1)).astype(np.float32), 4, axis=0)
    out = _tint((234, 226, 206), np.tile(lines, (1, 256)))
    out[:22] = out[-22:] = (30, 52, 86)
    return out


@painter
def sponge_holes(rng: np.random.Generator) -> Picture:
    out = _tint((244, 208, 76), 0.06 * _grain(rng, (256, 256), (40, 40), (90, 90)))
    for _ in range(140):
        x, y = rng.integers(0, 256, 2)
        cv2.circle(out, (int(x), int(y)), int(rng.integers(1, 5)), (196, 156, 44), -1, cv2.LINE_AA)
    return out


@painter
def checker(rng: np.random.Generator) -> Picture:
    cells = np.indices((8, 8)).sum(axis=0) % 2
    board = np.where(cells[..., None] == 0, (236, 236, 230), (44, 46, 52)).astype(np.uint8)
    return board.repeat(32, axis=0).repeat(32, axis=1)
