"""How sure a model is of the first token of an answer: the margin of the most probable one.

vLLM hands out log-probabilities with what it generates, so nothing is read from a device that would
not be anyway. Two are asked for where the client asked for fewer; which ones its answer has follows
from the client's request alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["FirstToken", "is_watched", "margin_of", "seen", "watched", "watching"]

_MOST: Final = 100.0
"""A margin that stands for any greater one: where sampling leaves a single token it has no end."""

_TWO: Final = 2

_watching: ContextVar[FirstToken | None] = ContextVar("vtprune_first_token", default=None)


@dataclass(slots=True)
class FirstToken:
    """Of one answer, filled in as it is generated."""

    margin: float | None = None
    """None before there is a token."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    outputs: AsyncGenerator[Any, None] | None = None
    """Of the engine."""

    asks_coverage: bool = False
    """Whether the workers are asked for `coverage`, which costs calls to them."""

    coverage: float | None = None
    """How well the kept tokens stand for the dropped ones; see `prompt.coverage`."""

    def note(self, output: Any) -> None:
        """Read one output of the engine."""
        self.prompt_tokens = len(output.prompt_token_ids or ())
        for completion in output.outputs:
            self.completion_tokens += len(completion.token_ids)
            if self.margin is None and completion.logprobs:
                self.margin = margin_of(completion.logprobs[0])


def margin_of(logprobs: Mapping[int, Any]) -> float:
    """Return the difference of the two greatest log-probabilities, by token."""
    first, *others = sorted((each.logprob for each in logprobs.values()), reverse=True)
    return round(min(first - others[0], _MOST), 4) if others else _MOST


def is_watched() -> bool:
    """Whether the answer to the request of this context is watched."""
    return _watching.get() is not None


def watching() -> FirstToken | None:
    """Return what is noted of the answer to the request of this context; None if nothing is."""
    return _watching.get()


@contextmanager
def watched(asks_coverage: bool = False) -> Iterator[FirstToken]:
    """Watch the answer that the engine is asked for in the block."""
    first = FirstToken(asks_coverage=asks_coverage)
    token = _watching.set(first)
    try:
        yield first
    finally:
        _watching.reset(token)


def seen(
    _engine: Any, _prompt: Any, params: Any, _id: str, outputs: AsyncGenerator[Any, None]
) -> AsyncGenerator[Any, None]:
    """Return the outputs of a request, watched if somebody watches.

    Args:
        params: its own, not read before the first output is asked for.
        outputs: of the engine.
    """
    if (first := _watching.get()) is None:
        return outputs
    if params.logprobs != -1:  # which stands for all
        params.logprobs = max(params.logprobs or 0, _TWO)
    first.outputs = _noted(first, outputs)
    return first.outputs


async def _noted(
    first: FirstToken, outputs: AsyncGenerator[Any, None]
) -> AsyncGenerator[Any, None]:
    async with aclosing(outputs):
        async for output in outputs:
            first.note(output)
            yield output
