"""Equal input gives equal output in any batch, to the bit: greedy choices turn on one rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vtprune_kernels import cosine_gram, greedy_select, row_max_cosine, text_relevance
from vtprune_kernels.text_relevance import SPEC as TEXT_RELEVANCE

SIZES, TEXTS, WIDTH = (70, 200, 1, 70, 131), (5, 40, 3, 0, 17), 96
BATCHES = ((1,), (1, 0), (4, 1, 2), (0, 1, 2, 3, 4), (3, 1, 1))


def _images(dtype: torch.dtype) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(8)
    made = [
        [torch.randn(size, WIDTH, generator=generator).to(dtype) for size in sizes]
        for sizes in (SIZES, TEXTS)
    ]
    return made[0], made[1]


def _relevance(run: Any, dtype: torch.dtype, batch: tuple[int, ...]) -> torch.Tensor:
    """The values of image 1 in a batch of images."""
    visual, text = _images(dtype)
    bounds = []
    for parts in (visual, text):
        lengths = torch.tensor([0, *[len(parts[i]) for i in batch]])
        bounds.append(lengths.cumsum(0))
    together = (torch.cat([parts[i] for i in batch]) for parts in (visual, text))
    start = int(bounds[0][batch.index(1)])
    values: torch.Tensor = run(*together, *bounds)
    return values[start : start + SIZES[1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_relevance_is_the_same_in_any_batch(dtype: torch.dtype) -> None:
    alone = _relevance(text_relevance, dtype, (1,))
    assert alone.max() > 0
    for batch in BATCHES:
        assert torch.equal(_relevance(text_relevance, dtype, batch), alone), batch


@pytest.mark.usefixtures("interpreted", "poisoned")
def test_relevance_of_the_kernels_is_the_same_in_any_batch() -> None:
    """Image 4 is longer than image 0, so in the batch its neighbour has blocks that it lacks."""

    def short(batch: tuple[int, ...]) -> torch.Tensor:
        visual, text = _images(torch.float32)
        bounds = [torch.tensor([0, *[len(p[i]) for i in batch]]).cumsum(0) for p in (visual, text)]
        rows = [torch.cat([p[i] for i in batch]) for p in (visual, text)]
        values: torch.Tensor = TEXT_RELEVANCE.launcher(*rows, *bounds)
        return values[: SIZES[batch[0]]]

    assert torch.equal(short((0, 4)), short((0,)))


@pytest.mark.parametrize("images", [1, 2, 7])
def test_similarities_and_what_follows_are_the_same_in_any_batch(images: int) -> None:
    rows = torch.randn(7, 120, WIDTH, generator=torch.Generator().manual_seed(9))
    gram, (best, index) = cosine_gram(rows), row_max_cosine(rows, mask="before")
    assert torch.equal(cosine_gram(rows[:images]), gram[:images])
    some_best, some_index = row_max_cosine(rows[:images], mask="before")
    assert torch.equal(some_best, best[:images]) and torch.equal(some_index, index[:images])
    for objective in ("max-min", "coverage", "dpp", "demand"):
        kept = greedy_select(gram, 20, objective)
        assert torch.equal(greedy_select(gram[:images], 20, objective), kept[:images])
