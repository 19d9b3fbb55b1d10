"""Measure and count how far two answers to one request agree.

Two measures, because each fails on other answers. An answer of a word or a number is right or wrong
as a whole, so answers have *agreed* only if all tokens are equal. Longer answers diverge sooner or
later over a synonym, so for them the number of *common* tokens before the first difference says
more than a share of equal answers near zero. Each is a pair of counters, whose quotient over any
period is a share.

Histograms get absolute values, because the sum of a histogram must not fall. Signs are in the log.
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
    """Token ids, including the stop token if there is one."""

    first: Mapping[int, float]
    """Log-probabilities of the most probable candidates for the first token, by token id."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Compares two answers."""

    pruned: Answer
    unpruned: Answer

    @property
    def agreed(self) -> bool:
        """Whether they are the same tokens."""
        return self.pruned.tokens == self.unpruned.tokens

    @property
    def common(self) -> int:
        """How many tokens are the same before the first difference."""
        pairs = list(zip(self.pruned.tokens, self.unpruned.tokens, strict=False))
        return next((place for place, (a, b) in enumerate(pairs) if a != b), len(pairs))

    @property
    def longer(self) -> int:
        """Tokens of the longer answer."""
        return max(len(self.pruned.tokens), len(self.unpruned.tokens))

    @property
    def gap(self) -> float | None:
        """How much log-probability the unpruned answer's first token loses by pruning.

        A lower bound if the token is not among the pruned answer's candidates; None if either
        answer has no log-probabilities.
        """
        if not (self.pruned.first and self.unpruned.first and self.unpruned.tokens):
            return None
        token = self.unpruned.tokens[0]
        lost = self.pruned.first.get(token, min(self.pruned.first.values()))
        return self.unpruned.first[token] - lost


def rate_label(original: int, kept: int) -> str:
    """Return the rate over all images of a request, rounded to 0.05, 0.10, ..., 0.95: clients may
    ask for any rate, and every label makes a series."""
    step = round(_STEPS * (1 - kept / original))
    return f"{min(max(step, 1), _STEPS - 1) / _STEPS:.2f}"


def count(agreement: Agreement, method: str, rate: str) -> None:
    """Count a comparison for `/metrics`.

    Args:
        agreement: the comparison.
        method: the pruning method.
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
