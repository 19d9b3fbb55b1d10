"""Every operator at the shapes of real towers, with a lower bound of its cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from _clip_tower import HEADS, PATCHES, WIDTH
from vtprune_kernels import cosine_gram
from vtprune_kernels.spec import features

__all__ = ["STEP", "Case", "cases"]

STEP = 8
CLUSTERED = "clustered"  # the kind of input: real features have near-duplicates


@dataclass(frozen=True, slots=True)
class Case:
    """One operator at one shape, with the bytes and operations that it needs at least."""

    op: str
    shape: str
    inputs: dict[str, Any]
    bytes: float
    operations: float = 0.0
    compiled: bool = True
    """Whether to time `torch.compile`; not where it would unroll hundreds of rounds for minutes."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Images of one tower in one call."""

    images: int
    patches: int
    width: int
    heads: int
    device: torch.device

    @property
    def label(self) -> str:
        return f"{self.images} x {self.patches}"

    @property
    def tokens(self) -> int:
        return self.images * self.patches

    def features(self) -> torch.Tensor:
        shape = (self.images, self.patches, self.width)
        return features(CLUSTERED, shape, torch.bfloat16, self.device)


def cases(device: torch.device, large: bool) -> Iterator[Case]:
    """Yield the shapes of LLaVA-1.5 in batches, LLaVA-NeXT's five crops and Qwen2.5-VL; unless
    `large`, small ones."""
    tower = (PATCHES, WIDTH, HEADS) if large else (20, 64, 2)
    for images in (1, 5, 8, 64) if large else (2,):
        batch = _Batch(images, *tower, device)
        scores = torch.rand(batch.images, batch.patches, device=device)
        rows, pool = batch.features(), scores.argsort(dim=1)[:, batch.patches // 18 :]
        yield from _attention(batch)
        yield Case(
            "top_k_sorted",
            batch.label,
            {"scores": scores, "k": batch.patches // 9},
            4.0 * batch.tokens,
        )
        yield Case("relative_scores", batch.label, {"scores": scores}, 8.0 * batch.tokens)
        yield from _ranking(batch, scores)
        yield from _similarity(batch, rows, pool)
        yield _gather(batch, rows, pool)
        yield _relevance(batch, *((50, 4096) if large else (9, 64)))
    if large:
        yield _merged(device)


def _attention(batch: _Batch) -> Iterator[Case]:
    wide = (batch.images, 1 + batch.patches, 3 * batch.width)
    query, key, _ = features(CLUSTERED, wide, torch.bfloat16, batch.device).chunk(3, dim=-1)
    scale = (batch.width // batch.heads) ** -0.5
    inputs = {"query": query, "key": key, "num_heads": batch.heads, "scale": scale}
    read = 2.0 * batch.tokens * batch.width
    yield Case("cls_importance", batch.label, inputs, read + 4 * batch.tokens)
    # The attention map is computed twice: for the log-sum-exp and for the columns.
    products = 4.0 * batch.tokens * batch.patches * batch.width
    yield Case("column_importance", batch.label, inputs, 2 * read, products)


def _similarity(batch: _Batch, rows: torch.Tensor, pool: torch.Tensor) -> Iterator[Case]:
    """Yield the operators on cosines of `rows` `[images, patches, width]` selected by `pool`."""
    length, keep = pool.shape[1], batch.patches // 9
    read = 2.0 * batch.images * length * batch.width + 4.0 * batch.images * length**2
    products = 1.0 * batch.images * length**2 * batch.width  # symmetric: half of 2 R^2 D
    yield Case("cosine_gram", batch.label, {"features": rows, "rows": pool}, read, products)
    gram = cosine_gram(rows, pool)
    removal = {"gram": gram, "keep": batch.patches // 18, "step": STEP}
    yield Case("dedup", batch.label, removal, 4.0 * gram.numel(), compiled=False)
    for mask, share in (("all", 1.0), ("before", 0.5), ("opposite", 0.5)):
        yield Case(
            "row_max_cosine",
            f"{batch.label} {mask}",
            {"features": rows, "mask": mask},
            2.0 * batch.tokens * batch.width,
            share * 2.0 * batch.tokens * batch.patches * batch.width,
        )
    for objective in ("max-min", "coverage", "dpp", "demand"):
        greedy = {"gram": gram, "keep": keep, "objective": objective}
        # At least the Gram column of each selected row; the first step's diagonal is negligible.
        least = 4.0 * batch.images * keep * length
        yield Case("greedy_select", f"{batch.label} {objective}", greedy, least, compiled=False)


def _ranking(batch: _Batch, scores: torch.Tensor) -> Iterator[Case]:
    """Yield the operators that VisPruner ranks with and picks by, one half by importance."""
    yield Case("ranked", batch.label, {"scores": scores}, 12.0 * batch.tokens)
    order, half = scores.argsort(dim=1), batch.patches // 18
    places = torch.arange(half, device=batch.device).repeat(batch.images, 1)
    picked = {"order": order, "first": half, "places": places, "keep": 2 * half}
    yield Case("picked_sorted", batch.label, picked, 8.0 * (5 * places.numel()))


def _gather(batch: _Batch, rows: torch.Tensor, pool: torch.Tensor) -> Case:
    kept = pool[:, : batch.patches // 9].sort(dim=1).values
    out = [rows.new_empty(batch.images, kept.shape[1], batch.width)]
    inputs = {"tensors": [rows], "kept": kept, "out": out}
    return Case("gather_rows", batch.label, inputs, 4.0 * out[0].numel())


def _relevance(batch: _Batch, texts: int, width: int) -> Case:
    """Return the case of questions of `texts` tokens, in a decoder of `width` channels."""
    visual = features(CLUSTERED, (batch.tokens, width), torch.bfloat16, batch.device)
    text = features("random", (batch.images * texts, width), torch.bfloat16, batch.device)
    image = torch.arange(batch.images + 1, device=batch.device)
    inputs = {
        "visual": visual,
        "text": text,
        "visual_bounds": image * batch.patches,
        "text_bounds": image * texts,
        "max_visual": batch.patches,
        "max_text": texts,
    }
    read = 2.0 * (visual.numel() + text.numel())
    products = 2.0 * batch.tokens * texts * width
    # The reference loops over images, which `torch.compile` cannot handle well.
    return Case("text_relevance", batch.label, inputs, read, products, compiled=False)


def _merged(device: torch.device) -> Case:
    """Return the case of a page in Qwen2.5-VL: 11,520 patches, four per token, in window order."""
    patches, heads, size = 11520, 16, 80
    query, key = torch.randn(2, patches, heads * size, device=device, dtype=torch.bfloat16)
    inputs = {
        "query": query,
        "key": key,
        "num_heads": heads,
        "scale": size**-0.5,
        "cu_seqlens": torch.tensor([0, patches], device=device),
        "max_seqlen": patches,
        "token_of_patch": torch.randperm(patches, device=device) // 4,
        "patches_per_token": 4,
    }
    products = 4.0 * patches**2 * heads * size
    least = 4.0 * query.numel()
    return Case("column_importance", f"{patches} merged", inputs, least, products, compiled=False)
