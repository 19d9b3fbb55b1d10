"""What `row_max_cosine` alone promises: targets, ties, nothing to look at, any batch."""

from __future__ import annotations

import math

import pytest
import torch
from padded_batch import VALID, WAYS, drawn, padded
from vtprune_kernels import row_max_cosine
from vtprune_kernels.row_max_cosine import SPECS
from vtprune_kernels.spec import Spec, features

SPEC = SPECS[0]
EACH = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.case)


@pytest.mark.usefixtures("interpreted", "poisoned")
def test_assignment_to_targets_agrees_and_ties_go_to_the_lower_one() -> None:
    rows = features("random", (2, 37, 40), torch.float32, "cpu")
    targets = torch.cat([rows[:, ::9], rows[:, ::9]], dim=1)
    best, index = SPEC.launcher(rows, targets)
    wanted = SPEC.reference(rows, targets)
    assert torch.equal(best, wanted[0]) and torch.equal(index, wanted[1])
    assert index.max() < 5


def test_the_maximum_of_nothing_is_minus_infinity() -> None:
    best, index = row_max_cosine(torch.ones(1, 3, 4), mask="before")
    assert best[0, 0] == -math.inf and index[0].tolist() == [-1, 0, 0]


@EACH
@pytest.mark.parametrize("images", [1, 2, 7])
def test_the_best_match_is_the_same_in_any_batch(spec: Spec, images: int) -> None:
    rows = torch.randn(7, 120, 96, generator=torch.Generator().manual_seed(9))
    best, index = row_max_cosine(rows, mask=spec.case)
    some_best, some_index = row_max_cosine(rows[:images], mask=spec.case)
    assert torch.equal(some_best, best[:images]) and torch.equal(some_index, index[:images])


@EACH
@pytest.mark.parametrize(("way", "garbage"), WAYS)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_a_padded_batch_has_the_best_matches_of_each_image(
    spec: Spec, way: str, garbage: float
) -> None:
    run, images = getattr(spec, way), drawn()
    best, index = run(padded(images, garbage), mask=spec.case, valid=VALID)
    for image, rows in enumerate(images):
        n = len(rows)
        alone = run(rows[None], mask=spec.case)
        assert torch.equal(best[image, :n], alone[0][0])
        assert torch.equal(index[image, :n], alone[1][0])
        assert best[image, n:].isneginf().all() and (index[image, n:] == -1).all()


def test_an_unknown_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="allowed"):
        row_max_cosine(torch.ones(1, 2, 2), mask="after")
