"""How many requests this process makes prompts of at the moment.

Their images are fetched, decoded and prepared one after another, before an engine hears of the
request: however many wait for that, vLLM's gauge of waiting requests says 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["counted", "rendered"]

_now = 0
"""Only the event loop changes it."""


@contextmanager
def counted() -> Iterator[None]:
    """Count a request for the duration of the block."""
    global _now
    _now += 1
    try:
        yield
    finally:
        _now -= 1


def rendered() -> int:
    """Return how many requests are in such a block."""
    return _now
