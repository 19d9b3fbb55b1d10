"""Decode JPEGs by libjpeg-turbo straight into arrays.

Pillow decodes by the same library, into memory of its own, from where the pixels are copied twice
on their way to a tensor, which takes longer than to decode them (`docs/benchmarks.md`). Both give
equal pixels: tested once where it is turned on, and on many kinds of files by
`tests/prompt/test_turbo.py`. A file that libjpeg-turbo has anything to say about is Pillow's to
decode, or to refuse.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from vllm_pruner.decoded_pixels import Pixels, keep_pixels, pixels_of

__all__ = ["decode", "is_decoded", "turn_on"]

logger = logging.getLogger("vllm.vtprune")

_ON: list[bool] = []
"""Not empty if a processor of this process takes arrays. Pillow decodes for those that do not."""


def turn_on() -> None:
    """Have `decode` decode."""
    if not _ON and _decoder() is not None:
        _ON.append(True)


def decode(image: Any, data: bytes) -> bool:
    """Decode a JPEG and keep its pixels with Pillow's image of it, which stays undecoded.

    Args:
        image: Pillow's image of the file, of which only the header has been read.
        data: the file.

    Returns:
        False if Pillow has to decode the file: nobody turned this on, the image is not RGB, or the
        file is not in order.
    """
    if not _ON or image.mode != "RGB" or (decoder := _decoder()) is None:
        return False
    try:
        pixels = decoder(data, image.height, image.width)
    except ValueError:
        return False
    if pixels.shape != (image.height, image.width, 3):
        return False
    keep_pixels(image, pixels)
    return True


def is_decoded(image: Any) -> bool:
    """Return whether `decode` has decoded an image."""
    return pixels_of(image) is not None


@cache
def _decoder() -> Callable[[bytes, int, int], Pixels] | None:
    """Return what decodes a file, given height and width, to `[height, width, 3]`, or None, said in
    the log."""
    try:
        from simplejpeg import decode_jpeg
    except ImportError as error:
        logger.info("vtprune: JPEGs are decoded by Pillow: %s", error)
        return None

    def decoder(data: bytes, height: int, width: int) -> Pixels:
        """Decode at the least part of the file's size that is as large; raises ValueError if the
        library warns."""
        pixels: Pixels = decode_jpeg(data, "RGB", min_height=height, min_width=width, strict=True)
        return pixels

    if not all(_is_equal(decoder, subsampling) for subsampling in range(3)):
        logger.warning("vtprune: JPEGs are decoded by Pillow, because simplejpeg's pixels differ")
        return None
    return decoder


def _is_equal(decoder: Callable[[bytes, int, int], Pixels], subsampling: int) -> bool:
    """Return whether the pixels of a test image are Pillow's."""
    drawn = np.random.default_rng(0).integers(0, 256, (37, 51, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, "JPEG", subsampling=subsampling)
    return np.array_equal(decoder(file.getvalue(), 37, 51), np.asarray(Image.open(file)))
