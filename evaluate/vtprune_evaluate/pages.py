"""Pages of small print whose questions each hang on one visual token of a patch.

Lines of running words, and among them codes of a letter and a digit, each in a square of its own of
14 pixels: what a digit stands behind is asked. A page has no picture and no faint background, as a
screen or a scan has none. The same seed gives the same pixels.
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
"""Squares of a line, and lines."""
LABELS = "BCDEFGHJKLNPQRSTUVXYZ"
"""Letters that a square has room for beside a digit."""
DIGITS = "0123456789"
_WORDS = "the of and to in is that for with as on be at by this from or an are not it was which"
_WORDS += " total date page item price order number name street amount due paid net sum tax rate"
WORDS = _WORDS.split()
FONT, EMPTY = 10, 0.12
"""Its size in pixels, and the share of the lines that are empty."""
INK, PAPER = (0, 70), (235, 255)
"""Least and greatest brightness."""
CODES = 0.17
"""Share of the pieces of a line that are codes."""


@dataclass(slots=True)
class Page:
    """A picture of small print, and what stands in its codes."""

    pixels: NDArray[np.uint8]
    """`[height, width, 3]`"""
    codes: dict[str, str] = field(default_factory=dict)
    """Digit by letter."""
    squares: dict[str, int] = field(default_factory=dict)
    """Square by letter, in raster order."""


@lru_cache(maxsize=1024)
def _print(text: str) -> NDArray[np.float32]:
    """Coverage of a word in Pillow's own font, `[SQUARE, width]`."""
    font = ImageFont.load_default(FONT)
    image = Image.new("L", (int(np.ceil(font.getlength(text))) + 1, SQUARE))
    ImageDraw.Draw(image).text((0, 0), text, fill=255, font=font)
    return np.asarray(image, np.float32) / np.float32(255)


def draw_page(*seed: int) -> Page:
    """Draw the page of a seed: a margin of a square around 14 lines, some of them empty."""
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
    """Fill a line from the margin to the square `end` with words and codes; codes take labels."""
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
    """What is asked about a code."""
    return f"what does {letter.lower()} say?"
