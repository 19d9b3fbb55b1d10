"""What a picture has to show, by its pixels alone: how much of it is print, and how much is plain.

Pruning drops what looks alike or draws no attention, which is right for a photograph and wrong for
a page: each word on it is there to be read. So a picture is looked at before its prompt is built,
cell by cell of a grid of 32 x 32, on six rows of pixels of each:

- *print* is strokes on paper: pixels that differ by 44 of 255 or more from those two to eight to
  their left and right, which are alike, in a cell where most pixels equal their neighbours within
  6. An object's edge has two different sides, and a texture no paper. A cell counts if one beside
  it has print too, and brings the four around it, which hold parts of letters. A picture with
  little of it has none: photographs have some by chance;
- *plain* is a cell of one brightness within 12.

Integers only, so the same picture gives the same numbers everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["UNSEEN", "Picture", "measure"]

GRID, ROWS = 32, 6
"""Cells of a side, and rows of pixels looked at in a cell."""
NARROWEST, WIDEST = 128, 1024
"""Pixels of a row: of less nothing is said, of more so many are looked at."""
STROKE, SIDES, FLAT, PLAIN = 44, 20, 6, 12
"""Of 255: by which a stroke differs from its paper at least; its paper on two sides, neighbours on
paper, and all of a plain cell at most."""
STROKES = 20
"""A cell of print has one pixel of strokes in so many."""
PAPER = {2: 45, 4: 50, 8: 60}
"""And so many per cent on paper. Keys: how far beside a stroke its paper is looked for in a row of
`WIDEST` pixels; wide strokes resemble more things."""
FEW, FEW_DRAWN = 32, 4
"""Cells of print below which there is none: of a photograph, and of what was drawn."""
DRAWN = 75
"""Per cent of the pixels of what was drawn, at least, that equal their neighbour exactly."""

Pixels = NDArray[np.uint8]
Marks = NDArray[np.bool_]


class Picture(NamedTuple):
    """Shares of a picture, in [0, 1]."""

    text: float
    """Print and what is next to it."""

    plain: float
    """Cells of one brightness."""


UNSEEN = Picture(0.0, 0.0)
"""Of what has no pixels to look at."""


def measure(image: Image.Image) -> Picture:
    """Look at a picture of any size and mode."""
    columns = min(image.width, WIDEST) // GRID * GRID
    if columns < NARROWEST:
        return UNSEEN
    pixels = _sampled(image, columns)
    steps = _apart(pixels[:, 1:], pixels[:, :-1])
    paper = 100 * _in_cells(steps <= FLAT)
    area = pixels.size // GRID**2
    found = np.zeros((GRID, GRID), np.bool_)
    for reach, least in _reaches(columns).items():
        strokes = _in_cells(_strokes(pixels, reach))
        found |= (STROKES * strokes >= area) & (paper >= least * area)
    is_drawn = 100 * np.count_nonzero(steps == 0) >= DRAWN * steps.size
    cells = _joined(found)
    enough = np.count_nonzero(cells) >= (FEW_DRAWN if is_drawn else FEW)
    return Picture(_share(_around(cells)) if enough else 0.0, _share(_plain(pixels)))


def _reaches(columns: int) -> dict[int, int]:
    """`PAPER` for a row of that many pixels: two are the nearest that can be looked at."""
    reaches: dict[int, int] = {}
    for reach, least in PAPER.items():
        reaches.setdefault(max(2, columns * reach // WIDEST), least)
    return reaches


def _sampled(image: Image.Image, columns: int) -> Pixels:
    """Brightness of `columns` pixels in each of `GRID * ROWS` rows."""
    few = image.resize((columns, GRID * ROWS), Image.Resampling.NEAREST)
    if few.mode not in ("L", "RGB"):
        few = few.convert("RGB")
    return np.asarray(few.convert("L"))


def _apart(first: Pixels, second: Pixels) -> Pixels:
    """Absolute differences."""
    apart: Pixels = np.maximum(first, second) - np.minimum(first, second)
    return apart


def _strokes(pixels: Pixels, reach: int) -> Marks:
    """Where a pixel is darker, or brighter, than both of those `reach` to its sides."""
    left, middle, right = pixels[:, : -2 * reach], pixels[:, reach:-reach], pixels[:, 2 * reach :]
    low, high = np.minimum(left, right), np.maximum(left, right)
    over = np.maximum(middle, high) - high >= STROKE
    under = low - np.minimum(middle, low) >= STROKE
    inside: Marks = (over | under) & (high - low <= SIDES)
    return np.pad(inside, ((0, 0), (reach, reach)))


def _in_cells(marks: Marks) -> NDArray[np.int64]:
    """How many of a cell's pixels are marked; a row may lack its last pixel."""
    if lacking := -marks.shape[1] % GRID:
        marks = np.pad(marks, ((0, 0), (0, lacking)))
    cells = marks.view(np.uint8).reshape(GRID, ROWS, GRID, -1)
    of_columns = np.add.reduce(cells, axis=1, dtype=np.uint8)
    counts: NDArray[np.int64] = np.add.reduce(of_columns, axis=2, dtype=np.int64)
    return counts


def _plain(pixels: Pixels) -> Marks:
    """Which cells have one brightness."""
    cells = pixels.reshape(GRID, ROWS, GRID, -1)
    marks: Marks = cells.max(1).max(2) - cells.min(1).min(2) <= PLAIN
    return marks


def _joined(cells: Marks) -> Marks:
    """The cells that have another one to their left or right."""
    wide = np.pad(cells, ((0, 0), (1, 1)))
    return cells & (wide[:, :-2] | wide[:, 2:])


def _around(cells: Marks) -> Marks:
    """The cells, and the four around each."""
    wide = np.pad(cells, 1)
    beside = wide[1:-1, :-2] | wide[1:-1, 2:]
    return cells | beside | wide[:-2, 1:-1] | wide[2:, 1:-1]


def _share(cells: Marks) -> float:
    return int(np.count_nonzero(cells)) / GRID**2
