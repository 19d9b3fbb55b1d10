"""What `cosine_gram` alone promises: rows without direction, and the same bits in any batch."""

from __future__ import annotations

import math

import pytest
import torch
from padded_batch import VALID, WAYS, drawn, padded
from vtprune_kernels import cosine_gram
from vtprune_kernels.cosine_gram import SPECS
from vtprune_kernels.spec import features

(SPEC,) = SPECS


@pytest.mark.usefixtures("interpreted", "poisoned")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_similarity_of_rows_without_direction_is_zero(dtype: torch.dtype) -> None:
    rows = features("random", (1, 6, 40), dtype, "cpu")
    rows[0, 1] = 0
    rows[0, 2, 3] = math.inf
    rows[0, 3, 4] = math.nan
    rows[0, 4] *= 1e-34  # norm below 2**-100, squares below the smallest float32
    found = SPEC.launcher(rows)
    assert torch.equal(found, SPEC.reference(rows))
    assert not found[0, 1:4].any()
    torch.testing.assert_close(found[0, [0, 5], [0, 5]], torch.ones(2))


@pytest.mark.parametrize("images", [1, 2, 7])
def test_similarities_are_the_same_in_any_batch(images: int) -> None:
    rows = torch.randn(7, 120, 96, generator=torch.Generator().manual_seed(9))
    assert torch.equal(cosine_gram(rows[:images]), cosine_gram(rows)[:images])


@pytest.mark.parametrize(("way", "garbage"), WAYS)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_a_padded_batch_has_the_similarities_of_each_image(way: str, garbage: float) -> None:
    run, images = getattr(SPEC, way), drawn()
    together = run(padded(images, garbage), valid=VALID)
    for found, rows in zip(together, images, strict=True):
        n = len(rows)
        assert torch.equal(found[:n, :n], run(rows[None])[0])
        assert not found[n:].any() and not found[:, n:].any()
