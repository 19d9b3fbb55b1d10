"""Pixels of an image as an array, kept beside Pillow's image, which then need not decode its file.

Pillow stores four bytes a pixel, and copies them twice on the way to an array.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Pixels", "keep_pixels", "nearest", "pixels_of"]

Pixels = NDArray[np.uint8]

_KEY = "vtprune_pixels"


def keep_pixels(image: Image.Image, pixels: Pixels) -> None:
    """Keep the pixels of an image, `[height, width, 3]`, for `pixels_of`."""
    vars(image)[_KEY] = pixels


def pixels_of(image: Any) -> Pixels | None:
    """Return the kept pixels of an image; None if it has none, as most images have."""
    kept: Pixels | None = vars(image).get(_KEY)
    return kept


def nearest(image: Image.Image, columns: int, rows: int) -> Image.Image:
    """Return Pillow's `resize` of an image to the nearest pixels, made from the kept ones if there
    are any; rows are taken first, so that few pixels are copied."""
    pixels = pixels_of(image)
    if pixels is None:
        return image.resize((columns, rows), Image.Resampling.NEAREST)
    few = pixels.take(_places(len(pixels), rows), axis=0)
    wide = Image.frombuffer("RGB", (image.width, rows), few, "raw", "RGB", 0, 1)
    if columns == image.width:
        return wide
    return wide.resize((columns, rows), Image.Resampling.NEAREST)


@lru_cache(maxsize=256)
def _places(length: int, number: int) -> NDArray[np.int32]:
    """Return the places that Pillow takes `number` nearest pixels from in a line of `length`."""
    line = Image.fromarray(np.arange(length, dtype=np.int32)[None])
    places: NDArray[np.int32] = np.asarray(line.resize((number, 1), Image.Resampling.NEAREST))[0]
    return places
