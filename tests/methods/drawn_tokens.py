"""Visual tokens of every kind for the tests of methods: with everything that a method may ask for.

Rows are of signs or of zeros, whose cosines are exact in any binary arithmetic, except for the kind
"random"; importance is in multiples of 1/1024, so that tokens tie.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import torch

KINDS = ("random", "clustered", "constant", "zero")
COUNTS = (1, 2, 7, 64, 576)
WIDTH = 64


def keeps(tokens: int) -> list[int]:
    """None, one, a ninth, all but one, all; of a real image's tokens, what a test can wait for."""
    return [64] if tokens > 64 else sorted({0, 1, tokens // 9, tokens - 1, tokens})


def rows(kind: str, *shape: int, seed: int = 0) -> torch.Tensor:
    """Rows of one kind, float32."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "random":
        return torch.randn(shape, generator=generator)
    if kind == "clustered":
        centres = torch.randint(2, (5, shape[-1]), generator=generator) * 2.0 - 1.0
        return centres[torch.randint(5, shape[:-1], generator=generator)]
    return torch.full(shape, float(kind == "constant"))


def draw(kind: str, images: int, tokens: int, words: int = 3, seed: int = 0) -> dict[str, Any]:
    """Arguments of `vllm_pruner.select` for any method."""
    generator = torch.Generator().manual_seed(seed)

    def scores() -> torch.Tensor:
        return torch.randint(1, 1025, (images, tokens), generator=generator) / 1024

    side = isqrt(tokens)
    return {
        "features": rows(kind, images, tokens, WIDTH, seed=seed),
        "importance": scores(),
        "projected": rows(kind, images, tokens, WIDTH, seed=seed + 1),
        "text": list(rows("random", images, words, WIDTH, seed=seed + 2)),
        "keys": rows(kind, images, tokens, 16, seed=seed + 3),
        "received": scores(),
        "received_midway": scores(),
        "grid": (side, side) if side * side == tokens else (1, tokens),
    }


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Cosine of every row to every other, float64; a row of zeros has none, which counts as 0."""
    a, b = (x.double() / x.double().norm(dim=-1, keepdim=True).clamp_min(1e-30) for x in (a, b))
    return a @ b.mT


def best(scores: torch.Tensor, taken: list[int]) -> int:
    """The place of the highest score that is not taken, ties to the lower one."""
    scores = scores.clone()
    scores[taken] = -torch.inf
    return int((scores == scores.max()).nonzero()[0])


def ranked(scores: torch.Tensor) -> list[int]:
    """Places by falling score, ties to the lower one."""
    values = scores.double().tolist()
    return sorted(range(len(values)), key=lambda j: (-values[j], j))
