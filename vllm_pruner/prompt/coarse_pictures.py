"""What pictures show whose tokens are of two sizes: what is plain is told by the larger ones.

The floor `content` counts how much of a picture is plain in squares of the area of its mean token.
Smaller ones find more between lines and columns than larger ones, and so would leave too few places
for the larger ones that show something.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vllm_pruner.picture import GRID, Picture
from vllm_pruner.prompt.pictures import Pictures

__all__ = ["CoarsePictures"]

_CELLS = 2
"""Rows, and columns, of cells in a token: there are 16 of DeepSeek-OCR's whole picture."""


class CoarsePictures(Pictures):
    """`Pictures` in which a cell is plain if all cells of its token are."""

    def of(self, identity: str, image: Any) -> Picture:
        return _coarse(super().of(identity, image))


def _coarse(picture: Picture) -> Picture:
    if not picture.cells:
        return picture
    cells = np.unpackbits(np.frombuffer(picture.cells, np.uint8)).reshape(GRID, GRID)
    squares = cells.reshape(GRID // _CELLS, _CELLS, GRID // _CELLS, _CELLS).min(axis=(1, 3))
    plain = squares.repeat(_CELLS, axis=0).repeat(_CELLS, axis=1)
    return picture._replace(plain=float(plain.mean()), cells=np.packbits(plain).tobytes())
