"""Which sizes of selections are captured."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.worker.selection_shapes import (
    MOST_TOKENS,
    Shape,
    exact_shapes,
    ragged_shapes,
)


def _shapes(
    most: int, of_one_size: bool = False, width: int = 1024, **settings: Any
) -> list[Shape]:
    return ragged_shapes(most, width, PruneConfig(**settings).keep_count, of_one_size=of_one_size)


@pytest.mark.parametrize("rate", [0.25, 0.5, 8 / 9])
@pytest.mark.parametrize("most", [40, 576, 2928, MOST_TOKENS])
def test_every_image_up_to_the_largest_fits_with_little_padding(most: int, rate: float) -> None:
    shapes, keep_count = _shapes(most, rate=rate), PruneConfig(rate=rate).keep_count
    for tokens in range(1, most + 1):
        keep = keep_count(tokens)
        first = next((shape for shape in shapes if shape.holds(1, tokens, keep, keep)), None)
        assert first is not None, tokens
        assert first.tokens <= max(64, 1.5 * tokens)


@pytest.mark.parametrize("rate", [0.5, 8 / 9])
def test_an_image_with_newlines_has_half_of_its_budget_left(rate: float) -> None:
    shapes, keep_count = _shapes(2928, rate=rate), PruneConfig(rate=rate).keep_count
    for tokens in range(2, 2929):
        keep = max(1, keep_count(tokens) // 2)
        assert any(shape.holds(1, tokens, keep, keep) for shape in shapes), tokens


def test_images_of_one_size_class_fit_together() -> None:
    shapes, keep_count = _shapes(4096, rate=0.5), PruneConfig(rate=0.5).keep_count
    for images, shortest, longest in ((8, 1, 64), (8, 129, 200), (8, 513, 1024), (4, 1025, 2048)):
        least, keep = keep_count(shortest), keep_count(longest)
        assert any(shape.holds(images, longest, keep, least) for shape in shapes)


def test_an_image_with_print_keeps_up_to_four_times_as_many() -> None:
    shapes = _shapes(576, of_one_size=True, tokens=64)
    assert {shape.tokens for shape in shapes} == {576}
    assert {shape.keep for shape in shapes} == {64, 128, 256}
    assert {shape.images for shape in shapes} == {1, 2, 4, 8}
    assert {shape.least for shape in shapes} == {32}
    assert not any(shape.holds(1, 576, 257, 257) for shape in shapes)


def test_no_budget_is_above_what_there_is() -> None:
    assert {shape.keep for shape in _shapes(64, of_one_size=True, rate=0.25)} == {48, 64}


def test_large_images_are_few_in_a_graph() -> None:
    shapes = _shapes(MOST_TOKENS, rate=0.5)
    most = max(shape.images * shape.tokens**2 for shape in shapes)
    assert most * 4 <= 128 << 20, "bytes of similarities"
    assert max(shape.images for shape in shapes if shape.tokens == 1024) == 8
    assert max(shape.images for shape in shapes if shape.tokens == 4096) == 2
    wide = _shapes(MOST_TOKENS, rate=0.5, width=3584)
    assert max(shape.images for shape in wide if shape.tokens == 1024) == 4
    assert max(shape.images for shape in wide if shape.tokens == 4096) == 1


def test_an_exact_shape_holds_its_own_budget_alone() -> None:
    (one, *_) = exact_shapes(576, 64)
    assert one.holds(1, 576, 64, 64)
    assert not one.holds(2, 576, 64, 64)
    assert not one.holds(1, 575, 64, 64)
    assert not one.holds(1, 576, 63, 63)
    assert not one.holds(1, 576, 64, 63), "unequal images"
