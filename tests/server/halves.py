"""A picture whose left half is red and whose right half is blue, and the overlays of what is kept
of it."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from media import encode, image_part, text_part
from PIL import Image
from vllm_server import Server

__all__ = ["assert_lies_on", "explained", "halves"]


def halves(width: int, height: int) -> Image.Image:
    """The picture."""
    picture = Image.new("RGB", (width, height), (200, 40, 40))
    picture.paste((40, 40, 200), (width // 2, 0, width, height))
    return picture


def explained(server: Server, width: int, height: int, **settings: Any) -> dict[str, Any]:
    """What is kept of the picture by `random`, three fifths removed unless the settings say how
    many tokens stay."""
    content = [image_part(encode(halves(width, height)), "image/png"), text_part("What?")]
    body: dict[str, Any] = {"messages": [{"role": "user", "content": content}], "overlay": True}
    body["vtprune"] = {"method": "random", **(settings or {"rate": 0.6})}
    (image,) = server.client.post("/vtprune/explain", json=body).json()["images"]
    return dict(image)


def assert_lies_on(view: dict[str, Any], is_left: np.ndarray) -> None:
    """Light where a token is kept, dark where it is not, and red on the left and blue on the right.

    Args:
        view: of an answer, with its overlay.
        is_left: which tokens show the left half, `[rows * columns]`.
    """
    colours = _cells(view)
    bright = colours.max(axis=1) > 120
    assert np.flatnonzero(bright).tolist() == view["kept"]
    redder, bluer = colours[:, 0] > colours[:, 2], colours[:, 2] > colours[:, 0]
    assert (redder == is_left)[bright].all()
    assert (bluer != is_left)[bright].all()


def _cells(view: dict[str, Any]) -> np.ndarray:
    """The mean colour `[tokens, 3]` of each token in a view's overlay, as `/explain` draws it."""
    data = base64.b64decode(view["overlay"].removeprefix("data:image/png;base64,"))
    drawn = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(float)
    (height, width), (rows, columns) = drawn.shape[:2], (view["rows"], view["columns"])
    row, column = np.arange(height) * rows // height, np.arange(width) * columns // width
    cell = (row[:, np.newaxis] * columns + column).ravel()
    total = [np.bincount(cell, weights=colour.ravel()) for colour in np.moveaxis(drawn, 2, 0)]
    return np.stack(total, axis=1) / np.bincount(cell)[:, np.newaxis]
