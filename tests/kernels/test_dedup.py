"""What `dedup` alone promises: agreement however few rows are left, and in a padded batch."""

from __future__ import annotations

import pytest
import torch
from padded_batch import COUNTS, KEEP, VALID, WAYS, grams, kept_alone, padded_grams
from vtprune_kernels import cosine_gram, dedup_triton
from vtprune_kernels.dedup import SPECS
from vtprune_kernels.spec import features

(SPEC,) = SPECS
INTERPRETED = pytest.mark.usefixtures("interpreted", "poisoned", "coarse")


@INTERPRETED
@pytest.mark.parametrize("kind", ["clustered", "constant", "near-tie"])
@pytest.mark.parametrize(
    ("rows", "keep", "step"), [(130, 3, 16), (97, 96, 8), (64, 1, 32), (33, 0, 4), (3, 1, 8)]
)
def test_kernel_agrees_when_neighbourhoods_run_out(
    rows: int, keep: int, step: int, kind: str
) -> None:
    gram = cosine_gram(features(kind, (2, rows, 8), torch.float32, "cpu", seed=rows))
    found = SPEC.launcher(gram, keep, step)
    assert torch.equal(found, SPEC.reference(gram, keep, step))


def _few_values(rows: int, different: int) -> torch.Tensor:
    """Similarities that are mostly equal to others, both zeros among them; not symmetric."""
    generator = torch.Generator().manual_seed(rows)
    values = torch.tensor([-0.0, 0.0, 0.5, -0.5, 1e-40, -1e-40, 3e38, -3e38])[:different]
    return values[torch.randint(different, (2, rows, rows), generator=generator)]


@INTERPRETED
@pytest.mark.parametrize("different", [2, 4, 8])
@pytest.mark.parametrize("rows", [63, 64, 65, 66, 150, 193])
def test_equal_matches_stay_in_order_across_blocks(
    rows: int, different: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of 32 rows of a: one, exactly one, two of which the last has a row, three, four."""
    monkeypatch.setattr(dedup_triton, "BLOCK", 32)
    gram = _few_values(rows, different)
    assert torch.equal(SPEC.launcher(gram, 5, 7), SPEC.reference(gram, 5, 7))


@INTERPRETED
def test_more_rows_look_through_b_than_are_taken_at_once() -> None:
    """Every row's neighbours are the same 40, which are removed or in a, and b is long."""
    rows, centre = 300, 40
    gram = torch.rand((1, rows, rows), generator=torch.Generator().manual_seed(3)) / 2
    gram[:, :, 0 : 2 * centre : 2] += 0.5  # even positions: all of them in a at first
    assert torch.equal(SPEC.launcher(gram, 230, 16), SPEC.reference(gram, 230, 16))


@INTERPRETED
@pytest.mark.parametrize("block", [32, 256])
def test_rows_that_do_not_exist_leave_no_trace(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first row among them, which threads without a row of their own read instead."""
    monkeypatch.setattr(dedup_triton, "BLOCK", block)
    generator = torch.Generator().manual_seed(11)
    valid = torch.rand((3, 180), generator=generator) < torch.tensor([[0.9], [0.5], [0.1]])
    valid[:, 0] = False
    gram = cosine_gram(features("clustered", (3, 180, 16), torch.float32, "cpu"))
    gram = gram.masked_fill(~valid[:, :, None] | ~valid[:, None, :], torch.nan)
    counts = torch.tensor([40, 3, 17])
    arguments = (gram, 30, 8, valid, counts)
    assert torch.equal(SPEC.launcher(*arguments), SPEC.reference(*arguments))


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize(("way", "garbage"), WAYS)
@pytest.mark.usefixtures("interpreted", "poisoned", "rows_share_programs")
def test_a_padded_batch_keeps_what_each_image_keeps(way: str, garbage: float, step: int) -> None:
    run, images = getattr(SPEC, way), grams()
    together = run(padded_grams(images, garbage), KEEP, step, VALID, COUNTS)
    for image, gram in enumerate(images):
        assert together[image].tolist() == kept_alone(run, image, gram[None], step=step)
