"""What `text_relevance` alone promises: its formula, and the same values in any batch."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
import torch
from padded_batch import LENGTHS, LONGEST, VALID, WAYS, WIDTH, drawn, padded
from vtprune_kernels import text_relevance
from vtprune_kernels.spec import features
from vtprune_kernels.text_relevance import SPECS

(SPEC,) = SPECS
SIZES, TEXTS = (70, 200, 1, 70, 131), (5, 40, 3, 0, 17)
BATCHES = ((1,), (1, 0), (4, 1, 2), (0, 1, 2, 3, 4), (3, 1, 1))


def test_relevance_is_the_formula_for_each_image() -> None:
    generator = torch.Generator().manual_seed(6)
    visual, text = (torch.randn(n, 24, generator=generator) for n in (50, 9))
    found = text_relevance(visual, text, torch.tensor([0, 20, 50]), torch.tensor([0, 4, 9]))
    for v, t in ((slice(0, 20), slice(0, 4)), (slice(20, 50), slice(4, 9))):
        cosine = torch.cosine_similarity(text[t, None], visual[None, v], dim=-1)
        torch.testing.assert_close(found[v], (100 * cosine).softmax(dim=1).amax(dim=0))


def _images(dtype: torch.dtype) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(8)
    made = [
        [torch.randn(size, 96, generator=generator).to(dtype) for size in sizes]
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
        values: torch.Tensor = SPEC.launcher(*rows, *bounds)
        return values[: SIZES[batch[0]]]

    assert torch.equal(short((0, 4)), short((0,)))


@pytest.mark.parametrize(("way", "garbage"), WAYS)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_a_padded_batch_is_relevant_as_each_image(way: str, garbage: float) -> None:
    """To the bit, beside images without a text, in a buffer larger than the texts in it."""
    run, images, lengths = getattr(SPEC, way), drawn(), (4, 0, 7, 2, 1)
    text = features("random", (sum(lengths), WIDTH), torch.float32, "cpu", 9)
    buffer = torch.full((40, WIDTH), garbage)
    buffer[: len(text)] = text
    words = torch.tensor([0, *accumulate(lengths)])
    together = run(
        padded(images, garbage).flatten(0, 1),
        buffer,
        torch.arange(len(LENGTHS) + 1) * LONGEST,
        words,
        max_visual=LONGEST,
        max_text=9,
        valid=VALID.flatten(),
    ).view(len(LENGTHS), LONGEST)
    for found, rows, own in zip(together, images, text.split(lengths), strict=True):
        n = len(rows)
        alone = run(rows, own, torch.tensor([0, n]), torch.tensor([0, len(own)]))
        assert torch.equal(found[:n], alone)
        assert not found[n:].any()
