"""The parts of a synthetic scene: colours, shapes, letters, and their pixels.

Shapes are filled polygons, drawn at four times their size and averaged down; letters are in
Pillow's own font, so no font of the machine is needed.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["COLORS", "LETTERS", "SHAPES", "background", "letter_mask", "shape_mask"]

COLORS = {
    "red": (222, 38, 38),
    "green": (40, 165, 55),
    "blue": (45, 75, 228),
    "yellow": (242, 220, 40),
    "orange": (248, 132, 20),
    "purple": (138, 48, 188),
    "cyan": (45, 205, 220),
    "pink": (248, 130, 190),
}
LETTERS = "ACEHKLPTXZ234579"
"""Ten letters and six digits that can be told apart at 16 pixels."""

_OVERSAMPLE = 4


def _star() -> list[tuple[float, float]]:
    radii = [0.5, 0.2] * 5
    angles = [math.pi * (i / 5 - 0.5) for i in range(10)]
    return [
        (0.5 + r * math.cos(a), 0.53 + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)
    ]


def _heart() -> list[tuple[float, float]]:
    points = []
    for i in range(40):
        t = 2 * math.pi * i / 40
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((0.5 + x / 34, 0.47 - y / 34))
    return points


SHAPES: dict[str, list[tuple[float, float]]] = {
    "circle": [
        (0.5 + 0.48 * math.cos(math.pi * i / 24), 0.5 + 0.48 * math.sin(math.pi * i / 24))
        for i in range(48)
    ],
    "square": [(0.06, 0.06), (0.94, 0.06), (0.94, 0.94), (0.06, 0.94)],
    "triangle": [(0.5, 0.02), (1.0, 0.95), (0.0, 0.95)],
    "star": _star(),
    "cross": [
        *[(0.32, 0.0), (0.68, 0.0), (0.68, 0.32), (1.0, 0.32), (1.0, 0.68), (0.68, 0.68)],
        *[(0.68, 1.0), (0.32, 1.0), (0.32, 0.68), (0.0, 0.68), (0.0, 0.32), (0.32, 0.32)],
    ],
    "diamond": [(0.5, 0.0), (0.9, 0.5), (0.5, 1.0), (0.1, 0.5)],
    "heart": _heart(),
    "arrow": [
        *[(0.0, 0.3), (0.5, 0.3), (0.5, 0.02), (1.0, 0.5)],
        *[(0.5, 0.98), (0.5, 0.7), (0.0, 0.7)],
    ],
}
"""Outlines in a unit square, y downwards."""


@lru_cache(maxsize=1024)
def shape_mask(shape: str, side: int) -> NDArray[np.float32]:
    """Return the coverage of each pixel, `[side, side]` in [0, 1]."""
    large = side * _OVERSAMPLE
    image = Image.new("L", (large, large))
    outline = [(x * (large - 1), y * (large - 1)) for x, y in SHAPES[shape]]
    ImageDraw.Draw(image).polygon(outline, fill=255)
    return np.asarray(image.resize((side, side), Image.Resampling.BOX), np.float32) / np.float32(
        255
    )


@lru_cache(maxsize=1024)
def letter_mask(letter: str, height: int) -> NDArray[np.float32]:
    """Return the coverage of a letter, cropped to its own width: `[height, width]` in [0, 1]."""
    font = ImageFont.load_default(4 * height)
    left, top, right, bottom = font.getbbox(letter, stroke_width=height // 6)
    image = Image.new("L", (int(right - left), int(bottom - top)))
    draw = ImageDraw.Draw(image)
    draw.text((-left, -top), letter, fill=255, font=font, stroke_width=height // 6)
    width = max(1, round(height * image.width / image.height))
    return np.asarray(image.resize((width, height), Image.Resampling.BOX), np.float32) / np.float32(
        255
    )


@lru_cache(maxsize=1)
def _grain() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 10, (512, 512, 3)).astype(np.float32)


def background(random: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Return a soft texture of low saturation with fine grain, tinted regions and faint stripes:
    `[size, size, 3]`, about 0 to 255."""
    grey = random.normal(0, 26, (9, 9, 1))
    tint = random.normal(0, 12, (9, 9, 3))
    coarse = np.clip(random.uniform(85, 165) + grey + tint, 0, 255).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    y, x = random.integers(0, 512 - size, 2)
    pixels = np.asarray(smooth, np.float32) + _grain()[y : y + size, x : x + size]
    for _ in range(int(random.integers(1, 4))):
        top, left, bottom, right = _region(random, size)
        region = pixels[top:bottom, left:right]
        region += random.normal(0, 9, 3).astype(np.float32)
        wave = random.uniform(0, 6) * np.sin(np.arange(size) * random.uniform(0.25, 1.2))
        stripes = wave.astype(np.float32)[:, None]
        region += stripes[top:bottom, None] if random.random() < 0.5 else stripes[left:right]
    return pixels


def _region(random: np.random.Generator, size: int) -> tuple[int, int, int, int]:
    """Return top, left, bottom and right of a rectangle with at least half the image's sides,
    clipped to the image."""
    (top, left), (height, width) = random.integers(0, size // 2, (2, 2)).tolist()
    return top, left, min(size, top + height + size // 2), min(size, left + width + size // 2)
