"""Decode JPEGs much larger than a model needs at a half, a quarter or an eighth of their size.

A JPEG stores blocks of 8 x 8 pixels as frequencies; a decoder that makes fewer pixels skips the
high ones, which are most of its work. The pixels differ from those of a full decode that is then
resized, so the decoded size is part of the identity under which caches store the image.
"""

from __future__ import annotations

from typing import Any

__all__ = ["decoded_at", "reduce", "reduce_to"]

_SIDES: list[int | None] = []
"""The settings of the engines in this process. A server has one engine; offline there may be
several, and when a file is read its engine is not known yet."""

_DECODED_AT = "vtprune_decoded_at"
"""Key of Pillow's `info`, which rotating or converting an image preserves."""


def reduce_to(side: int | None) -> None:
    """Have `reduce` leave at least `side` pixels on both sides; None turns it off."""
    if side not in _SIDES:
        _SIDES.append(side)


def reduce(image: Any) -> None:
    """Have a JPEG decoded with fewer pixels, if no engine of this process needs more.

    Args:
        image: Pillow's image, of which only the header has been read.
    """
    sides = [side for side in _SIDES if side is not None]
    if image.format != "JPEG" or not sides or None in _SIDES:
        return
    size = image.size
    image.draft(None, (max(sides), max(sides)))
    if image.size != size:
        image.info[_DECODED_AT] = image.size


def decoded_at(image: Any) -> tuple[int, int] | None:
    """Return the width and height at which an image is decoded; None for its own size."""
    size: tuple[int, int] | None = image.info.get(_DECODED_AT)
    return size
