"""Segments of unequal length, padding, saved log-sum-exps and the merge of patches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vtprune_kernels import column_importance
from vtprune_kernels.column_importance import SPECS

(SPEC,) = SPECS
HEADS, HEAD_SIZE, SCALE = 2, 64, 0.3
BOUNDS = torch.tensor([0, 4, 72, 140, 140, 200])


def _rows(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    # A view into a wider tensor, as a slice of a fused projection is.
    fused = torch.randn((*shape, 3 * HEADS * HEAD_SIZE), generator=generator)
    query, key, _ = fused.chunk(3, dim=-1)
    return query, key


def _shuffled_merge(sizes: list[int]) -> torch.Tensor:
    """Each token takes four patches from anywhere in its segment."""
    generator = torch.Generator().manual_seed(4)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return torch.cat(
        [
            (torch.randperm(size, generator=generator) + start) // 4
            for size, start in zip(sizes, starts, strict=True)
        ]
    )


def _logits(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    query, key = (t.unflatten(-1, (HEADS, HEAD_SIZE)).transpose(-2, -3) for t in (query, key))
    return SCALE * query @ key.mT


def test_packed_segments_score_as_each_alone() -> None:
    query, key = _rows(200)
    together = column_importance(query, key, HEADS, SCALE, cu_seqlens=BOUNDS)
    for start, end in BOUNDS.unfold(0, 2, 1).tolist():
        part = slice(start, end)
        alone = _logits(query[part], key[part]).softmax(dim=-1).mean(dim=(0, 1))
        torch.testing.assert_close(together[part], alone)


def test_padding_receives_nothing_and_changes_nothing() -> None:
    query, key = _rows(1, 60)
    padded = column_importance(query, key, HEADS, SCALE, valid=torch.arange(60)[None] < 37)
    alone = column_importance(query[:, :37], key[:, :37], HEADS, SCALE)
    torch.testing.assert_close(padded[:, :37], alone)
    assert not padded[:, 37:].any()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"max_seqlen": 70}, id="bounded"),
        pytest.param({"patches_per_token": 4}, id="consecutive"),
        pytest.param(
            {"token_of_patch": _shuffled_merge([4, 68, 68, 0, 60]), "patches_per_token": 4},
            id="merged",
        ),
    ],
)
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_kernel_agrees_on_packed_segments(options: dict[str, Any]) -> None:
    query, key = _rows(200)
    inputs = {"num_heads": HEADS, "scale": SCALE, "cu_seqlens": BOUNDS, **options}
    found = SPEC.launcher(query, key, **inputs)
    wanted = SPEC.reference(query, key, **inputs)
    torch.testing.assert_close(found, wanted, rtol=0, atol=SPEC.tolerance[torch.float32])
    torch.testing.assert_close(found.sum(), torch.tensor(4.0))  # of five segments one is empty


@pytest.mark.parametrize("name", ["lse", "merged", "valid"])
@pytest.mark.usefixtures("interpreted", "poisoned")
def test_kernel_agrees_on_a_batch(name: str) -> None:
    query, key = _rows(3, 80)
    options: dict[str, Any] = {
        "lse": {"lse": _logits(query, key).logsumexp(dim=-1)},
        "merged": {"token_of_patch": _shuffled_merge([80]), "patches_per_token": 4},
        "valid": {"valid": torch.arange(80) < torch.tensor([[80], [1], [37]])},
    }[name]
    found = SPEC.launcher(query, key, HEADS, SCALE, **options)
    wanted = SPEC.reference(query, key, HEADS, SCALE, **options)
    torch.testing.assert_close(found, wanted, rtol=0, atol=SPEC.tolerance[torch.float32])
