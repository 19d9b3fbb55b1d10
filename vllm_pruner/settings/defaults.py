"""What settings are where nobody says: the method, how much it removes, and the floor."""

from __future__ import annotations

from collections.abc import Mapping

from vllm_pruner import methods

__all__ = [
    "BUDGETS",
    "DEFAULT_METHOD",
    "DEFAULT_RATE",
    "EMPTY_RATE",
    "floor_of",
    "is_before_tower",
    "names_budget",
]

BUDGETS = ("rate", "tokens", "request_tokens")
"""The keys that set how much is kept; settings have exactly one of them."""

DEFAULT_METHOD = "scope"
"""The best of the methods that do not read the question, so that all questions about a picture
share its tokens and their prefix: `docs/methods.md` has what this rests on. Families whose images
keep more of their tokens have another (`Family.default_method`)."""

DEFAULT_RATE = 8 / 9
"""64 of LLaVA-1.5's 576 tokens. At this rate SCOPE retains 95.4 % (SIEVE's table) to 96.0 % (TOPS')
of the scores of LLaVA-1.5-7B, and 94 % of the demo LLaVA's accuracy (`docs/methods.md`)."""

EMPTY_RATE = 0.95
"""Removed of what the floor `content` leaves to the rate, whatever the family: this is empty, and a
twentieth of it still says where it is and what colour it has."""


def names_budget(data: Mapping[str, object]) -> bool:
    """Return whether settings set a budget; otherwise the model family's default applies."""
    return any(data.get(key) is not None for key in BUDGETS)


def is_before_tower(method: object) -> bool:
    """Return whether a method of this name chooses before the tower runs."""
    known = isinstance(method, str) and method in methods.names()
    return known and methods.get(str(method)).before_tower


def floor_of(data: Mapping[str, object]) -> object:
    """Return the floor of settings. That of a method that finds what is empty, not what is
    important, is `content` by default."""
    named = data.get("floor")
    if named is not None:
        return named
    return "content" if is_before_tower(data.get("method")) else "text"
