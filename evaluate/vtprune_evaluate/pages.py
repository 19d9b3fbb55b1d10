"""Pages of small print, where the answer to each question is within one visual token.

A page has lines of words and, among them, codes of a letter and a digit, each in a square of 14
pixels of its own. A question asks for the digit after a letter. As on a screen or a scan, there is
no picture and no texture in the background. The same seed gives the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["DIGITS", "LABELS", "Page", "draw_page", "question_of"]

SIZE, SQUARE = 224, 14
SIDE = SIZE // SQUARE
"""Squares per line, and number of lines."""
LABELS = "BCDEFGHJKLNPQRSTUVXYZ"
"""Letters narrow enough to share a square with a digit."""
DIGITS = "0123456789"
_WORDS = "the of and to in is that for with as on be at by this from or an are not it was which"
_WORDS += " total date page item price order number name street amount due paid net sum tax rate"
WORDS = _WORDS.split()
FONT, EMPTY = 10, 0.12
"""Size of the font in pixels, and share of lines that are empty."""
INK, PAPER = (0, 70), (235, 255)
"""Lowest and highest brightness."""
CODES = 0.17
"""Share of the words of a line that are codes."""


@dataclass(slots=True)
class Page:
    """A picture of small print, and its codes."""

    pixels: NDArray[np.uint8]
    """`[height, width, 3]`"""
    codes: dict[str, str] = field(default_factory=dict)
    """The digit after each letter."""
    squares: dict[str, int] = field(default_factory=dict)
    """The square of each letter, in raster order."""


@lru_cache(maxsize=1024)
def _print(text: str) -> NDArray[np.float32]:
    """Return the coverage of a word in Pillow's own font, `[SQUARE, width]`, 0 to 1."""
    font = ImageFont.load_default(FONT)
    image = Image.new("L", (int(np.ceil(font.getlength(text))) + 1, SQUARE))
    ImageDraw.Draw(image).text((0, 0), text, fill=255, font=font)
    return np.asarray(image, np.float32) / np.float32(255)


def draw_page(*seed: int) -> Page:
    """Draw the page of a seed: 14 lines, some of them empty, within a margin of one square."""
    random = np.random.default_rng(seed)
    paper, ink = random.integers(*PAPER), random.integers(*INK)
    page, cover = Page(np.empty(0, np.uint8)), np.zeros((SIZE, SIZE), np.float32)
    labels = [str(letter) for letter in random.permutation(list(LABELS))]
    for line in range(1, SIDE - 1):
        if random.random() < EMPTY:
            continue
        end = SIDE - 1 if random.random() < 0.7 else int(random.integers(4, SIDE - 1))
        _write_line(random, cover, page, labels, line, end)
    pixels = np.rint(paper + cover * (int(ink) - int(paper))).astype(np.uint8)
    page.pixels = np.repeat(pixels[..., None], 3, axis=2)
    return page


def _write_line(
    random: np.random.Generator,
    cover: NDArray[np.float32],
    page: Page,
    labels: list[str],
    line: int,
    end: int,
) -> None:
    """Fill a line from the margin to the square `end` with words and codes; a code uses up one of
    `labels`."""
    column, top = 1, line * SQUARE
    while column < end:
        text, shift = str(random.choice(WORDS)), 0
        if labels and random.random() < CODES:
            letter, digit = labels.pop(), str(random.choice(list(DIGITS)))
            page.codes[letter], page.squares[letter] = digit, line * SIDE + column
            text, shift = letter + digit, int(random.integers(0, 2))
        ink = _print(text)
        squares = -(-(ink.shape[1] - 1) // SQUARE)
        if column + squares <= end:
            left = column * SQUARE + shift
            place = cover[top : top + SQUARE, left : left + ink.shape[1]]
            np.maximum(place, ink, out=place)
        column += squares


def question_of(letter: str) -> str:
    """Return the question about a letter's code."""
    return f"what does {letter.lower()} say?"
