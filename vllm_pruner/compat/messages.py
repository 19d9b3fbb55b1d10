"""Pruning settings in Anthropic's `/v1/messages`, and token counts in its usage.

Replaces: `create_messages`, `count_tokens` and `_build_base_request` of `AnthropicServingMessages`.
Why: vLLM converts the body to a chat completion request without the keys that Anthropic's API does
not define, and the answer's usage to Anthropic's fields.
Relies on: the handler's HTTP request having read, and kept, the body; `_build_base_request`
building the chat request inside the handler; a streamed usage in the event `message_delta`.
vLLM versions: 0.31 to 0.33.
Goes when: a plugin can add a field to requests and answers.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from functools import cache, partial
from typing import Any

from vllm_pruner.compat.patching import Patch, apply

__all__ = ["patch_messages"]

_Async = Callable[..., Coroutine[Any, Any, Any]]
_Meant = Callable[[Mapping[str, Any]], dict[str, Any]]

_EVENT = "event: message_delta\ndata: "

_carried: ContextVar[dict[str, Any]] = ContextVar("vtprune_messages")
"""Keys of the current body that go into the chat request made from it."""


def patch_messages(
    meant: _Meant, counts: Callable[[Mapping[str, Any]], dict[str, Any]], usage: str
) -> None:
    """Let Anthropic's messages carry settings, and their answers counts. Safe to call again.

    Args:
        meant: returns the part of a body that goes into the chat request.
        counts: returns the counts to report, given the scope of the HTTP request.
        usage: name of the field of `usage` for the counts.

    Raises:
        RuntimeError: this vLLM lacks one of the methods.
    """
    from vllm.entrypoints.anthropic.serving import AnthropicServingMessages as Messages

    def counting(handle: _Async) -> _Async:
        carrying = _carrying(meant, handle)

        async def create_messages(self: Any, request: Any, raw_request: Any = None) -> Any:
            answer = await carrying(self, request, raw_request)
            told = counts({} if raw_request is None else raw_request.scope)
            return _with_counts(answer, usage, told) if told else answer

        return create_messages

    apply(
        Patch(Messages, "create_messages", counting),
        Patch(Messages, "count_tokens", partial(_carrying, meant)),
        Patch(Messages, "_build_base_request", _with_carried),
    )


def _carrying(meant: _Meant, handle: _Async) -> _Async:
    async def handle_with_settings(self: Any, request: Any, raw_request: Any = None) -> Any:
        body = {} if raw_request is None else await raw_request.json()  # parsed once, then kept
        token = _carried.set(meant(body))
        try:
            return await handle(self, request, raw_request)
        finally:
            _carried.reset(token)

    return handle_with_settings


def _with_carried(build: Callable[..., Any]) -> Callable[..., Any]:
    def build_with_settings(cls: Any, *args: Any, **kwargs: Any) -> Any:
        request = build(cls, *args, **kwargs)
        for key, value in _carried.get({}).items():
            setattr(request, key, value)
        return request

    return build_with_settings


def _with_counts(answer: Any, usage: str, counts: dict[str, Any]) -> Any:
    """Return an answer with the counts in its usage; an error is returned unchanged."""
    if isinstance(answer, AsyncGenerator):
        return _streamed(answer, usage, counts)
    return _whole(answer, usage, counts) if hasattr(answer, "usage") else answer


def _whole(answer: Any, usage: str, counts: dict[str, Any]) -> Any:
    kind: Any = type(answer)
    kind_of_usage: Any = type(answer.usage)
    of_usage, of_answer = _kinds(kind, kind_of_usage, usage)
    spent = of_usage(**_set(answer.usage), **{usage: counts})
    return of_answer(**{**_set(answer), "usage": spent})


@cache
def _kinds(answer: Any, spent: Any, usage: str) -> tuple[Any, Any]:
    """Return subclasses for a usage with one more field and for an answer with that usage."""
    from pydantic import create_model

    field: Any = {usage: (dict[str, Any], ...)}
    told = create_model("Usage", __base__=spent, **field)
    return told, create_model("Answer", __base__=answer, usage=(told, ...))


def _set(model: Any) -> dict[str, Any]:
    return {name: getattr(model, name) for name in model.model_fields_set}


async def _streamed(
    events: AsyncGenerator[str, None], usage: str, counts: dict[str, Any]
) -> AsyncGenerator[str, None]:
    async with aclosing(events):
        async for event in events:
            if event.startswith(_EVENT):
                data = json.loads(event.removeprefix(_EVENT))
                data.setdefault("usage", {})[usage] = counts
                event = f"{_EVENT}{json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"
            yield event
