"""How many of this process's requests wait for their first token.

vLLM's gauge of waiting requests does not say it: a request counts as running as soon as the first
tokens of its prompt are scheduled, though its image may wait for the encoder's budget of many steps
to come. What vLLM does say is how many prompt tokens have no output token yet; divided by the mean
length of recent prompts that is a number of requests.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final
from weakref import WeakKeyDictionary

from vllm_pruner import compat

__all__ = ["prefilling", "seen"]

_RECENT: Final = 16
"""Prompts that a mean is about."""

_lengths: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
"""Of each engine client of this process: the mean length of recent prompts, in tokens."""


def seen(
    engine: Any, prompt: Any, _params: Any, _id: str, outputs: AsyncGenerator[Any, None]
) -> AsyncGenerator[Any, None]:
    """Note the length of a prompt, and return its outputs, the same."""
    tokens = prompt.get("prompt_token_ids") if isinstance(prompt, dict) else None
    if tokens:
        before = _lengths.get(engine, float(len(tokens)))
        _lengths[engine] = before + (len(tokens) - before) / _RECENT
    return outputs


def prefilling() -> float:
    """Return about how many requests of this process wait for their first token."""
    queued = [(compat.queued_tokens(engine), mean) for engine, mean in list(_lengths.items())]
    return sum((tokens or 0) / mean for tokens, mean in queued)
