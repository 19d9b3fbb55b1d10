"""How many tokens an image keeps: plain arithmetic, known before anything is computed.

vLLM sizes an image's placeholders while the prompt is built, long before the encoder runs. The
count is therefore a pure function of the number of tokens and the budget, never of the content.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Budget", "keep_count"]


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a method may keep: exactly one of the two fields is set."""

    rate: float | None = None
    """Fraction removed, in [0, 1), as in vLLM's own `video_pruning_rate`. 0 prunes nothing."""

    tokens: int | None = None
    """Tokens kept per image, at least 1."""


def keep_count(tokens: int, budget: Budget) -> int:
    """Return how many of `tokens` visual tokens are kept.

    A rate keeps the nearest integer to `tokens * (1 - rate)`, halves rounded to even, and at least
    one token. A fixed number is capped at `tokens`: an image never has more than it came with.
    """
    if budget.tokens is not None:
        return min(budget.tokens, tokens)
    assert budget.rate is not None, "a Budget has a rate or a number of tokens"
    return min(tokens, max(1, round(tokens * (1.0 - budget.rate))))
