"""Draw an image as the tower saw it, with dropped patches darkened."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["draw", "picture"]

_DARK = 0.22
"""Brightness of a dropped patch: still recognisable, but never mistaken for a kept one."""


def picture(
    pixels: Any, mean: Any, std: Any, view: dict[str, Any], whole: tuple[int, int]
) -> np.ndarray:
    """Assemble the crops of a view, without padding.

    Args:
        pixels: `[crops, 3, height, width]`, normalised as the tower gets it, base crop first.
        mean: mean of each channel, which the processor subtracted.
        std: standard deviation of each channel, by which the processor divided.
        view: its grid of `crops`, or (0, 0) and its single `crop`; the half-open ranges of its
            `rows` and `columns` of patches.
        whole: rows and columns of patches in a crop.

    Returns:
        `[height, width, 3]`, 0 to 1.
    """
    down, across = view["crops"]
    height, width = pixels.shape[-2:]
    if down:
        grid = pixels[1:].reshape(down, across, 3, height, width)
        image = np.moveaxis(grid, 2, -1).swapaxes(1, 2).reshape(down * height, across * width, 3)
    else:
        image = np.moveaxis(pixels[view["crop"]], 0, -1)
    top, bottom = (edge * height // whole[0] for edge in view["rows"])
    left, right = (edge * width // whole[1] for edge in view["columns"])
    image = image[top:bottom, left:right]
    seen: np.ndarray = np.clip(image * np.asarray(std) + np.asarray(mean), 0.0, 1.0)
    return seen


def draw(seen: np.ndarray, rows: int, columns: int, kept: list[int]) -> str:
    """Draw a picture with all patches darkened that are not kept.

    Args:
        seen: `[height, width, 3]`, 0 to 1.
        rows: rows of patches.
        columns: columns of patches.
        kept: the kept patches, in raster order.

    Returns:
        A PNG as a data URL.
    """
    light = np.full(rows * columns, _DARK, dtype=np.float32)
    light[kept] = 1.0
    height, width, _ = seen.shape
    rows_of = np.arange(height) * rows // max(height, 1)
    columns_of = np.arange(width) * columns // max(width, 1)
    mask = light.reshape(rows, columns)[rows_of][:, columns_of]
    shaded = np.rint(seen * mask[..., None] * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(shaded).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
