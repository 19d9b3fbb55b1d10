"""Which of Llama 4's tokens show some of the picture, against the pixels of its own processor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from contract import image_size, processed_images
from pruning_processor import pruning_processor

pytestmark = pytest.mark.server

SIZES = [(150, 260), (400, 400), (480, 640), (501, 37), (1, 1), (28, 29), (113, 224), (336, 336)]
SIDE, EDGE = 4, 28
"""Of a tile in tokens, of a token in pixels."""


@pytest.fixture(scope="module")
def processor() -> Any:
    return pruning_processor("demo-llama4")


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_token_shows_some_of_the_picture_unless_all_its_pixels_are_blank(
    processor: Any, size: tuple[int, int]
) -> None:
    _assert_blank_is_known(processor, size)


@pytest.mark.parametrize("more", [{"resize_to_max_canvas": True}, {"max_patches": 4}], ids=str)
def test_so_it_is_with_what_the_operator_says_to_the_processor(more: dict[str, Any]) -> None:
    asked = pruning_processor("demo-llama4", kwargs=more)
    for size in ((60, 112), (150, 260), (480, 640)):
        _assert_blank_is_known(asked, size)


def _assert_blank_is_known(processor: Any, size: tuple[int, int]) -> None:
    layout = processor.info.family.layout(processor.info, *size, {})
    (item,) = processed_images(processor, {"rate": 0.5}, size)["mm_kwargs"]["image"]
    tiles = item["pixel_values"].data.float()
    tokens = tiles.unflatten(3, (SIDE, EDGE)).unflatten(2, (SIDE, EDGE))
    is_blank = (tokens == -1).all(dim=5).all(dim=3).all(dim=1)  # black: noise is not, all over
    shows = torch.zeros(layout.crops, SIDE, SIDE, dtype=torch.bool)
    for tile, (rows, columns) in enumerate(layout.shown):
        shows[tile, :rows, :columns] = True
    assert torch.equal(shows, ~is_blank)


@pytest.mark.parametrize(
    ("size", "tiles", "shown"),
    [
        ((112, 112), 1, 16),
        ((60, 112), 1, 12),  # three rows of four
        ((112, 336), 3, 48),
        ((100, 400), 4, 60),  # the last tile: three columns
        ((150, 260), 6, 60),  # rows of four and two; columns of four, four and two
    ],
    ids=str,
)
def test_tiles_are_counted_and_half_is_kept_of_the_picture_first(
    processor: Any, size: tuple[int, int], tiles: int, shown: int
) -> None:
    """And all that separates tiles stays."""
    words = processor.info.get_tokenizer().get_vocab()
    whole, half = (processed_images(processor, {"rate": rate}, size) for rate in (0.0, 0.5))
    patch, across, below, picture = (
        words[f"<|{name}|>"] for name in ("patch", "tile_x_separator", "tile_y_separator", "image")
    )
    crops = tiles + 1 if tiles > 1 else 1
    for output, tokens in ((whole, 16 * crops), (half, 8 * crops)):
        prompt = output["prompt_token_ids"]
        assert prompt.count(patch) == tokens
        assert prompt.count(across) + prompt.count(below) == (tiles if tiles > 1 else 0)
        assert prompt.count(picture) == 1
    marks = [token for token in whole["prompt_token_ids"] if token != patch]
    assert marks == [token for token in half["prompt_token_ids"] if token != patch]
    layout = processor.info.family.layout(processor.info, *size, {})
    assert layout.showing == shown + (16 if tiles > 1 else 0)
    assert processor.info.image_tokens(image_size(size)) == 16 * crops
