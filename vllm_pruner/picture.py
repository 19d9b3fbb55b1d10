"""Estimate from its pixels how much of a picture is print, and how much is plain.

Pruning drops what looks alike or draws no attention, which is right for a photograph and wrong for
a page, where every word matters. So each picture is examined before its prompt is built, in a grid
of 32 x 32 cells, sampling six rows of pixels in each cell:

- A cell is *print* if it has strokes on paper. A stroke is a pixel that differs by at least 44 of
  255 from the two pixels some distance (two to eight pixels) to its left and right, which resemble
  each other; on paper, most pixels are within 6 of their neighbours. The edge of an object has two
  different sides, and a texture has no paper. A cell counts only if the cell to its left or right
  is print too; the four cells around it, which hold parts of letters, then count as well. If few
  cells are print, none count: photographs have some by chance.
- A cell is *plain* if its brightness varies by at most 12.

All arithmetic is on integers, so a picture gives the same numbers everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["UNSEEN", "Picture", "measure"]

GRID, ROWS = 32, 6
"""Cells per side, and rows of pixels sampled per cell."""
NARROWEST, WIDEST = 128, 1024
"""Width in pixels: a narrower picture is not examined, a wider one is sampled down to `WIDEST`."""
STROKE, SIDES, FLAT, PLAIN = 44, 20, 6, 12
"""Differences in brightness, of 255: the least between a stroke and its paper; the most between the
paper on both sides, between neighbours on paper, and within a plain cell."""
STROKES = 20
"""A cell of print has at least one pixel of strokes in so many."""
PAPER = {2: 45, 4: 50, 8: 60}
"""Least per cent of pixels on paper in a cell of print. The key is the distance from a stroke to
its paper, in a row of `WIDEST` pixels; the bound is stricter for wide strokes, which more things
resemble."""
FEW, FEW_DRAWN = 32, 4
"""With fewer cells of print, none count: in a photograph, and in a drawn picture."""
DRAWN = 75
"""A picture is drawn if at least so many per cent of its pixels equal their neighbour exactly."""

Pixels = NDArray[np.uint8]
Marks = NDArray[np.bool_]


class Picture(NamedTuple):
    """Shares of a picture, in [0, 1]."""

    text: float
    """Cells of print and those around them."""

    plain: float
    """Cells of one brightness."""


UNSEEN = Picture(0.0, 0.0)
"""For an image without pixels to examine."""


def measure(image: Image.Image) -> Picture:
    """Return the shares of a picture of any size and mode; `UNSEEN` below `NARROWEST` pixels."""
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
    """Return `PAPER` scaled to a row of `columns` pixels; no distance is below two."""
    reaches: dict[int, int] = {}
    for reach, least in PAPER.items():
        reaches.setdefault(max(2, columns * reach // WIDEST), least)
    return reaches


def _sampled(image: Image.Image, columns: int) -> Pixels:
    """Return `[GRID * ROWS, columns]`, the brightness of the sampled pixels."""
    few = image.resize((columns, GRID * ROWS), Image.Resampling.NEAREST)
    if few.mode not in ("L", "RGB"):
        few = few.convert("RGB")
    return np.asarray(few.convert("L"))


def _apart(first: Pixels, second: Pixels) -> Pixels:
    """Absolute differences."""
    apart: Pixels = np.maximum(first, second) - np.minimum(first, second)
    return apart


def _strokes(pixels: Pixels, reach: int) -> Marks:
    """Mark each pixel that is darker, or brighter, than both pixels at distance `reach`."""
    left, middle, right = pixels[:, : -2 * reach], pixels[:, reach:-reach], pixels[:, 2 * reach :]
    low, high = np.minimum(left, right), np.maximum(left, right)
    over = np.maximum(middle, high) - high >= STROKE
    under = low - np.minimum(middle, low) >= STROKE
    inside: Marks = (over | under) & (high - low <= SIDES)
    return np.pad(inside, ((0, 0), (reach, reach)))


def _in_cells(marks: Marks) -> NDArray[np.int64]:
    """Count the marked pixels of each cell; a row may lack its last pixel."""
    if lacking := -marks.shape[1] % GRID:
        marks = np.pad(marks, ((0, 0), (0, lacking)))
    cells = marks.view(np.uint8).reshape(GRID, ROWS, GRID, -1)
    of_columns = np.add.reduce(cells, axis=1, dtype=np.uint8)
    counts: NDArray[np.int64] = np.add.reduce(of_columns, axis=2, dtype=np.int64)
    return counts


def _plain(pixels: Pixels) -> Marks:
    """Mark the plain cells."""
    cells = pixels.reshape(GRID, ROWS, GRID, -1)
    marks: Marks = cells.max(1).max(2) - cells.min(1).min(2) <= PLAIN
    return marks


def _joined(cells: Marks) -> Marks:
    """Return the marked cells that have a marked cell to their left or right."""
    wide = np.pad(cells, ((0, 0), (1, 1)))
    return cells & (wide[:, :-2] | wide[:, 2:])


def _around(cells: Marks) -> Marks:
    """Return the marked cells and the four around each."""
    wide = np.pad(cells, 1)
    beside = wide[1:-1, :-2] | wide[1:-1, 2:]
    return cells | beside | wide[:-2, 1:-1] | wide[2:, 1:-1]


def _share(cells: Marks) -> float:
    return int(np.count_nonzero(cells)) / GRID**2
