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

from vllm_pruner.decoded_pixels import Pixels, nearest

__all__ = ["GRID", "UNSEEN", "Picture", "measure"]

GRID, ROWS = 32, 6
"""Cells per side, and rows of pixels sampled per cell."""
NARROWEST, WIDEST = 128, 1024
"""Width in pixels: a narrower picture is not examined, a wider one is sampled down to `WIDEST`."""
STROKE, SIDES, FLAT, PLAIN = 44, 20, 6, 12
"""Differences in brightness, of 255: the least between a stroke and its paper; the most between the
paper on both sides, between neighbours on paper, and within a plain cell."""
STROKES = 20
"""In a cell of print, at least one pixel in `STROKES` belongs to a stroke."""
PAPER = {2: 45, 4: 50, 8: 60}
"""Least per cent of pixels on paper in a cell of print. The key is the distance from a stroke to
its paper, in a row of `WIDEST` pixels; the bound is stricter for wide strokes, which more things
resemble."""
FEW, FEW_DRAWN = 32, 4
"""With fewer cells of print, none count: in a photograph, and in a drawn picture."""
DRAWN = 75
"""A picture is drawn if at least this percentage of its pixels exactly equal their neighbour."""

Marks = NDArray[np.bool_]


class Picture(NamedTuple):
    """Shares of a picture, in [0, 1], and its plain cells."""

    text: float
    """Cells of print and those around them."""

    plain: float
    """Cells of one brightness."""

    cells: bytes = b""
    """Which cells these are: `GRID` * `GRID` bits, row by row; empty if nothing was examined."""


UNSEEN = Picture(0.0, 0.0)
"""For an image without pixels to examine."""


def measure(image: Image.Image) -> Picture:
    """Return the shares of a picture of any size and mode; `UNSEEN` below `NARROWEST` pixels."""
    columns = min(image.width, WIDEST) // GRID * GRID
    if columns < NARROWEST:
        return UNSEEN
    pixels = _sampled(image, columns)
    darkest, brightest = _extremes(pixels)
    steps = _apart(pixels[1:], pixels[:-1])
    paper = 100 * _in_cells(_of_rows(steps <= FLAT, columns, 0, 1), columns)
    contrast = _wide(brightest, np.maximum) - _wide(darkest, np.minimum) >= STROKE
    cells = _joined(_print(pixels, columns, paper, contrast))
    number = np.count_nonzero(cells)
    enough = number >= FEW or (number >= FEW_DRAWN and _is_drawn(steps, columns))
    plain = brightest - darkest <= PLAIN
    text = _share(_around(cells)) if enough else 0.0
    return Picture(text, _share(plain), np.packbits(plain).tobytes())


def _print(pixels: Pixels, columns: int, paper: NDArray[np.int64], contrast: Marks) -> Marks:
    """Mark the cells that have strokes on paper.

    A row of cells in which none has both paper and the contrast of a stroke is not searched.
    """
    area = pixels.size // GRID**2
    found = np.zeros((GRID, GRID), np.bool_)
    for reach, least in _reaches(columns).items():
        may = contrast & (paper >= least * area)
        bands = may.any(axis=1)
        if not bands.any():
            continue
        some = pixels.reshape(GRID, -1)[bands].ravel()
        strokes = _in_cells(_strokes(some, columns, reach), columns)
        found[bands] |= may[bands] & (STROKES * strokes >= area)
    return found


def _is_drawn(steps: Pixels, columns: int) -> bool:
    """Return whether `DRAWN` per cent of the pixels equal their neighbour."""
    equal = np.count_nonzero(_of_rows(steps == 0, columns, 0, 1))
    return bool(100 * equal >= DRAWN * GRID * ROWS * (columns - 1))


def _reaches(columns: int) -> dict[int, int]:
    """Return `PAPER` scaled to a row of `columns` pixels; no distance is below two."""
    reaches: dict[int, int] = {}
    for reach, least in PAPER.items():
        reaches.setdefault(max(2, columns * reach // WIDEST), least)
    return reaches


def _sampled(image: Image.Image, columns: int) -> Pixels:
    """Return `[GRID * ROWS * columns]`, the brightness of the sampled pixels.

    One axis, because comparing shifted copies of it is three times as fast as row by row.
    """
    few = nearest(image, columns, GRID * ROWS)
    if few.mode not in ("L", "RGB"):
        few = few.convert("RGB")
    return np.asarray(few.convert("L")).ravel()


def _apart(first: Pixels, second: Pixels) -> Pixels:
    """Absolute differences."""
    apart: Pixels = np.maximum(first, second) - np.minimum(first, second)
    return apart


def _strokes(pixels: Pixels, columns: int, reach: int) -> Marks:
    """Mark each pixel that is darker, or brighter, than both pixels at distance `reach`."""
    left, middle, right = pixels[: -2 * reach], pixels[reach:-reach], pixels[2 * reach :]
    low, high = np.minimum(left, right), np.maximum(left, right)
    apart = high - low
    strokes = apart <= SIDES
    np.maximum(middle, high, out=apart)
    differ = np.subtract(apart, high, out=apart) >= STROKE
    np.minimum(middle, low, out=apart)
    differ |= np.subtract(low, apart, out=apart) >= STROKE
    strokes &= differ
    return _of_rows(strokes, columns, reach, reach)


def _of_rows(marks: Marks, columns: int, before: int, behind: int) -> Marks:
    """Return marks for all pixels, false for the first `before` and last `behind` of each row,
    whose neighbours would be in another row."""
    whole = np.empty(len(marks) + before + behind, np.bool_)
    whole[before : before + len(marks)] = marks
    rows = whole.reshape(-1, columns)
    rows[:, :before] = False
    rows[:, columns - behind :] = False
    return whole


def _in_cells(marks: Marks, columns: int) -> NDArray[np.int64]:
    """Count the marked pixels of each cell, at most 192: `[rows of cells, GRID]`."""
    rows = marks.view(np.uint8).reshape(-1, ROWS, columns)
    of_columns = np.add.reduce(rows, axis=1, dtype=np.uint8)
    counts: NDArray[np.int64] = _over_columns(of_columns, np.add).astype(np.int64)
    return counts


def _extremes(pixels: Pixels) -> tuple[Pixels, Pixels]:
    """Return the darkest and the brightest pixel of each cell, `[GRID, GRID]`."""
    rows = pixels.reshape(GRID, ROWS, -1)
    low, high = np.minimum.reduce(rows, axis=1), np.maximum.reduce(rows, axis=1)
    return _over_columns(low, np.minimum), _over_columns(high, np.maximum)


def _over_columns(values: Pixels, which: np.ufunc) -> Pixels:
    """Reduce the columns of each cell, for all cells at once: `[rows of cells, GRID]`."""
    columns = np.ascontiguousarray(values.reshape(len(values) * GRID, -1).T)
    cells: Pixels = which.reduce(columns, axis=0, dtype=np.uint8)
    return cells.reshape(len(values), GRID)


def _wide(cells: Pixels, which: np.ufunc) -> Pixels:
    """Return the extreme of each cell and the cells to its left and right, which contain the paper
    of its strokes."""
    wide: Pixels = cells.copy()
    which(wide[:, 1:], cells[:, :-1], out=wide[:, 1:])
    which(wide[:, :-1], cells[:, 1:], out=wide[:, :-1])
    return wide


def _joined(cells: Marks) -> Marks:
    """Return the marked cells that have a marked cell to their left or right."""
    beside = np.zeros_like(cells)
    beside[:, 1:] |= cells[:, :-1]
    beside[:, :-1] |= cells[:, 1:]
    return cells & beside


def _around(cells: Marks) -> Marks:
    """Return the marked cells and the four around each."""
    around: Marks = cells.copy()
    around[:, 1:] |= cells[:, :-1]
    around[:, :-1] |= cells[:, 1:]
    around[1:] |= cells[:-1]
    around[:-1] |= cells[1:]
    return around


def _share(cells: Marks) -> float:
    return int(np.count_nonzero(cells)) / GRID**2
