"""Offsets beyond 32 bits. The tensors reserve gigabytes of addresses and touch a few pages."""

from __future__ import annotations

import pytest
import torch
from vtprune_kernels.spec import all_specs

SPECS = {spec.name: spec for spec in all_specs()}
FAR = (1 << 30) + 64
"""Elements from one row to the next: the third row is past 2**31."""


def _far(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    """Random rows `FAR` elements apart; only their own pages exist."""
    storage = torch.empty((rows - 1) * FAR + width, dtype=torch.float16)
    view = storage.as_strided((rows, width), (FAR, 1))
    view.copy_(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)))
    return view


@pytest.mark.parametrize(
    "name",
    ["cls_importance", "column_importance", "top_k_sorted", "cosine_gram", "row_max_cosine"]
    + ["text_relevance", "gather_rows", "relative_scores", "ranked"],
)
@pytest.mark.usefixtures("interpreted", "coarse")
def test_rows_past_32_bits_are_found(name: str) -> None:
    rows = _far(3, 64)
    heads = {"key": rows[None], "num_heads": 2, "scale": 0.2}
    bounds = torch.tensor([0, 3])
    inputs = {
        "cls_importance": {"query": rows[None], **heads},
        "column_importance": {"query": rows[None], **heads},
        "top_k_sorted": {"scores": rows, "k": 5},
        "relative_scores": {"scores": rows},
        "ranked": {"scores": rows},
        "cosine_gram": {"features": rows[None]},
        "row_max_cosine": {"features": rows[:, None].transpose(0, 1), "mask": "before"},
        "text_relevance": {
            **{"visual": rows, "text": rows.contiguous()},
            **{"visual_bounds": bounds, "text_bounds": bounds},
        },
        "gather_rows": {
            **{"tensors": [rows[None]], "kept": torch.tensor([[2, 0]])},
            "out": [torch.zeros(1, 2, 64, dtype=torch.float16)],
        },
    }[name]
    found = SPECS[name].launcher(**inputs)
    near = {k: v.contiguous() if k in ("query", "key", "scores", "features", "visual") else v
            for k, v in inputs.items()}  # fmt: skip
    wanted = SPECS[name].launcher(**near) if name != "gather_rows" else [rows[[2, 0]][None]]
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
