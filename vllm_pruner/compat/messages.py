"""Settings of ours in Anthropic's `/v1/messages`, and counts in its usage.

Replaces: `create_messages`, `count_tokens` and `_build_base_request` of `AnthropicServingMessages`.
Why: its body is made into a chat completion's without the keys that Anthropic does not have, and
the answer's usage into one of Anthropic's fields.
Relies on: the body being read, and kept, by the request that the handler is given; the chat request
being built by `_build_base_request` inside the handler; a streamed usage in the event
`message_delta`.
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
"""Keys of the body being handled that go into the chat request made of it."""


def patch_messages(
    meant: _Meant, counts: Callable[[Mapping[str, Any]], dict[str, Any]], usage: str
) -> None:
    """Let Anthropic's messages carry settings, and their answers counts. Safe to call again.

    Args:
        meant: returns what of a body goes into the chat request.
        counts: returns what is to be told, given the scope of the HTTP request.
        usage: the field of usage that tells it.

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
        body = {} if raw_request is None else await raw_request.json()  # as it was parsed before
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
    """Return an answer with the counts in its usage; an error as it is."""
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
    """Classes that inherit from those of an answer and its usage, which has one more field."""
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
