"""Scenes of many sizes, enlarged by half, for a tower that takes any resolution.

A picture's sides are multiples of 28 pixels, the side of one visual token of Qwen2.5-VL, so its
processor resizes nothing and the grid has exactly the 112 to 144 tokens that were drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vtprune_evaluate.scenes import Scene, draw_scene

__all__ = ["GRIDS", "TOKEN", "ZOOM", "draw_ragged", "enlarged", "grid_of"]

TOKEN = 28
"""Side of a token in pixels."""
ZOOM = 1.5
"""Factor by which a scene is enlarged: 14 of its pixels become three quarters of a token."""
GRIDS = (
    *((8, 14), (9, 13), (10, 12), (11, 11), (12, 12)),
    *((12, 10), (13, 9), (14, 8), (10, 14), (14, 10)),
)
"""Rows and columns of tokens."""


def grid_of(*seed: int) -> tuple[int, int]:
    """Return rows and columns of tokens of a seed's picture."""
    return GRIDS[int(np.random.default_rng((*seed, 1)).integers(len(GRIDS)))]


def draw_ragged(*seed: int, grid: tuple[int, int]) -> Scene:
    """Draw the scene of a seed at the size from which `enlarged` makes the grid."""
    rows, columns = grid
    return draw_scene(*seed, size=(round(columns * TOKEN / ZOOM), round(rows * TOKEN / ZOOM)))


def enlarged(scene: Scene, grid: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """Return a scene's pixels `[28 * rows, 28 * columns, 3]` and owners `[28 * rows, 28 * columns]`
    at the size of a grid."""
    rows, columns = grid
    size = (columns * TOKEN, rows * TOKEN)
    pixels = Image.fromarray(scene.pixels).resize(size, Image.Resampling.BICUBIC)
    owner = Image.fromarray(scene.owner.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    return np.asarray(pixels), np.asarray(owner).astype(np.int8)
