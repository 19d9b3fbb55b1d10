"""What is plain is told by tokens of two by two cells: less than by cells, by none that shows."""

from __future__ import annotations

import numpy as np
from PIL import Image

from vllm_pruner.picture import GRID, measure
from vllm_pruner.prompt.coarse_pictures import CoarsePictures
from vllm_pruner.settings.plain_tokens import plain_share


def test_a_token_with_one_cell_that_shows_something_is_not_plain() -> None:
    pixels = np.full((640, 640, 3), 255, np.uint8)
    draw = np.random.default_rng(0)
    for row, column in ((3, 5), (10, 10), (10, 11), (31, 0)):  # of cells of 20 pixels
        place = slice(20 * row, 20 * row + 20), slice(20 * column, 20 * column + 20)
        pixels[place] = draw.integers(0, 256, (20, 20, 3), np.uint8)
    image = Image.fromarray(pixels)
    fine, coarse = measure(image), CoarsePictures().of("a", image)
    assert round((1 - fine.plain) * GRID**2) == 4
    assert round((1 - coarse.plain) * GRID**2) == 4 * 3, "three tokens of four cells"
    assert coarse.text == fine.text
    for tokens in (256, 656, 856):
        assert plain_share(coarse, tokens) <= plain_share(coarse, 256) == 1 - 3 / 256
    assert plain_share(fine, 1024) > plain_share(coarse, 1024)


def test_nothing_is_said_of_a_picture_that_is_too_small_to_examine() -> None:
    assert not CoarsePictures().of("a", Image.new("RGB", (64, 64))).cells
