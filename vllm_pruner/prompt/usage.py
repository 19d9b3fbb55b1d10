"""What of ours goes into the `usage` of an answer, whole or streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

__all__ = ["in_usage"]

_Change = Callable[[Mapping[str, Any]], dict[str, Any]]


def in_usage(answer: Any, change: _Change) -> Any:
    """Return an answer with fields set in its usage; as it is if it has none, as an error.

    Args:
        answer: vLLM's to a chat completion or a Responses request, streamed or whole.
        change: returns the fields, given those that are there, when the answer ends.
    """
    if isinstance(answer, AsyncGenerator):
        return _streamed(answer, change)
    _set(answer, change)
    return answer


def _set(answer: Any, change: _Change) -> None:
    if (usage := getattr(answer, "usage", None)) is not None:
        for name, value in change(usage.model_dump()).items():
            setattr(usage, name, value)


async def _streamed(
    events: AsyncGenerator[Any, None], change: _Change
) -> AsyncGenerator[Any, None]:
    """The same events; the last one of a chat, which has a usage and no choices, changed, and so
    the last one of a response, which carries it whole."""
    async for event in events:
        if not isinstance(event, str):
            _set(getattr(event, "response", None), change)
        elif '"choices":[],' in event and '"usage":{' in event:
            chunk = json.loads(event.removeprefix("data: "))
            chunk["usage"] |= change(chunk["usage"])
            event = f"data: {json.dumps(chunk, ensure_ascii=False, separators=(',', ':'))}\n\n"
        yield event
