"""What `greedy_select` promises where "demand" keeps all gains exact: rows longer than are held."""

from __future__ import annotations

import pytest
import torch
from vtprune_kernels import cosine_gram, greedy_cover_triton, greedy_exact_triton
from vtprune_kernels.greedy_select import SPECS
from vtprune_kernels.spec import KINDS, features

(SPEC,) = [spec for spec in SPECS if spec.case == "demand"]
pytestmark = pytest.mark.usefixtures("interpreted", "poisoned", "coarse", "short")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 300 are long: two chunks of them, the second one over the end of the first, and their
    columns are listed in two parts."""
    monkeypatch.setattr(greedy_cover_triton, "_HELD", 256)
    monkeypatch.setattr(greedy_exact_triton, "_CHUNK", 256)
    monkeypatch.setattr(greedy_exact_triton, "_LISTED", 256)
    monkeypatch.setattr(greedy_exact_triton, "SPREAD", 2)


@pytest.mark.parametrize("kind", KINDS)
def test_long_rows_agree_with_and_without_weights(kind: str) -> None:
    inputs = {**SPEC.make_inputs(kind, 300, torch.float32, "cpu"), "keep": 9}
    for weight in (inputs["weight"], None):
        inputs["weight"] = weight
        assert torch.equal(SPEC.launcher(**inputs), SPEC.reference(**inputs))


@pytest.mark.parametrize("spread", [0, 2, 6])
@pytest.mark.parametrize(("rows", "keep"), [(257, 1), (384, 5), (390, 12)])
def test_it_matters_not_which_launch_takes_a_row(
    spread: int, rows: int, keep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also more than the set has, and if the last launch takes the first, which raises the cover of
    more columns than are looked up together."""
    monkeypatch.setattr(greedy_exact_triton, "SPREAD", spread)
    gram = cosine_gram(features("random", (2, rows, 16), torch.float32, "cpu", seed=rows)).abs()
    weight = torch.rand((2, rows), generator=torch.Generator().manual_seed(keep)) / rows
    arguments = (gram, keep, "demand", weight)
    assert torch.equal(SPEC.launcher(*arguments), SPEC.reference(*arguments))


def test_most_rows_are_taken_from_few_values() -> None:
    """Ties everywhere, and gains of zero long before the end."""
    generator = torch.Generator().manual_seed(7)
    half = torch.randint(-2, 3, (1, 260, 260), generator=generator) / 2.0
    gram = torch.maximum(half, half.mT).clamp(max=1.0)
    weight = torch.randint(0, 3, (1, 260), generator=generator) / 1024.0
    arguments = (gram, 70, "demand", weight)
    assert torch.equal(SPEC.launcher(*arguments), SPEC.reference(*arguments))


@pytest.mark.parametrize("weighted", [True, False])
def test_long_rows_of_a_padded_batch(weighted: bool) -> None:
    """Rows that do not exist stand anywhere; a segment has none, or wants fewer than are spread."""
    generator = torch.Generator().manual_seed(3)
    share = torch.tensor([0.9, 0.5, 0.02, 0.0, 0.7])
    valid = torch.rand((5, 310), generator=generator) < share[:, None]
    counts = torch.tensor([12, 1, 40, 4, 0])
    gram = cosine_gram(features("clustered", (5, 310, 16), torch.float32, "cpu"))
    gram = gram.masked_fill(~valid[:, :, None] | ~valid[:, None, :], torch.nan)
    weight = torch.rand((5, 310), generator=generator) / 310
    weight = weight.where(valid, torch.nan) if weighted else None
    arguments = (gram, 14, "demand", weight, valid, counts)
    found = SPEC.launcher(*arguments)
    assert torch.equal(found, SPEC.reference(*arguments))
    for segment in range(5):
        alone = [a[segment : segment + 1] if isinstance(a, torch.Tensor) else a for a in arguments]
        assert torch.equal(SPEC.launcher(*alone), found[segment : segment + 1])
