"""Where the tokens of an image's crops stand in the decoder's sequence.

An image is a base crop and possibly a grid of crops. The decoder sees the base crop's tokens, then
the raster of all other crops together, without the padding around the picture, a newline token
after each of its rows. All of it follows from the image's size.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CropLayout"]


@dataclass(frozen=True, slots=True)
class CropLayout:
    """The layout of one image: hashable, so that images of equal layout can share a batch."""

    base: int
    """N, tokens of the base crop, and of every other one."""

    @property
    def crops(self) -> int:
        """Crops that the tower encodes."""
        return 1
