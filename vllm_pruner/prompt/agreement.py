"""How far two answers to one request agree, and where that is counted.

Two measures, for they err apart. Answers of a word or a number are right or wrong as a whole, so
*agreed* is the same tokens from the first to the last: nothing that differs is ever called equal.
Sentences part sooner or later over a synonym and go on in other words, so of those the *common*
tokens before the first difference say more than a count of equal answers near zero. Both are pairs
of counters, whose quotient over any time is a share.

Ranges are of numbers of 0 or more: what a histogram sums up must not fall. Signs are in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from vllm_pruner.telemetry import metrics

__all__ = ["Agreement", "Answer", "count", "rate_label"]

_STEPS = 20


class Answer(NamedTuple):
    """One answer."""

    text: str

    tokens: tuple[int, ...]
    """With the one that ended it, if it ended."""

    first: Mapping[int, float]
    """Log-probabilities of the tokens that could have been the first, the most probable ones."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two answers."""

    pruned: Answer
    unpruned: Answer

    @property
    def agreed(self) -> bool:
        """Whether they are the same tokens."""
        return self.pruned.tokens == self.unpruned.tokens

    @property
    def common(self) -> int:
        """How many tokens are the same before the first that is not."""
        pairs = list(zip(self.pruned.tokens, self.unpruned.tokens, strict=False))
        return next((place for place, (a, b) in enumerate(pairs) if a != b), len(pairs))

    @property
    def longer(self) -> int:
        """Tokens of the longer one."""
        return max(len(self.pruned.tokens), len(self.unpruned.tokens))

    @property
    def gap(self) -> float | None:
        """How much log-probability the unpruned answer's first token loses by pruning.

        At least so much, where it is not among the most probable ones of the pruned prompt; None
        if nothing is known of one of the two.
        """
        if not (self.pruned.first and self.unpruned.first and self.unpruned.tokens):
            return None
        token = self.unpruned.tokens[0]
        lost = self.pruned.first.get(token, min(self.pruned.first.values()))
        return self.unpruned.first[token] - lost


def rate_label(original: int, kept: int) -> str:
    """Return what became of all images of a request, as the nearest of 0.05, 0.10 to 0.95: clients
    may ask for any rate, and every label is a series of its own."""
    step = round(_STEPS * (1 - kept / original))
    return f"{min(max(step, 1), _STEPS - 1) / _STEPS:.2f}"


def count(agreement: Agreement, method: str, rate: str) -> None:
    """Count a comparison for `/metrics`.

    Args:
        agreement: of the two answers.
        method: that pruned.
        rate: a `rate_label`.
    """
    metrics.SHADOW_COMPARED.add(method=method, rate=rate)
    metrics.SHADOW_AGREED.add(agreement.agreed, method=method, rate=rate)
    metrics.SHADOW_COMPARED_TOKENS.add(agreement.longer, method=method, rate=rate)
    metrics.SHADOW_AGREED_TOKENS.add(agreement.common, method=method, rate=rate)
    difference = abs(len(agreement.pruned.tokens) - len(agreement.unpruned.tokens))
    metrics.SHADOW_LENGTH_DIFFERENCE.observe(difference, method=method, rate=rate)
    if agreement.gap is not None:
        metrics.SHADOW_LOGPROB_GAP.observe(abs(agreement.gap), method=method, rate=rate)
