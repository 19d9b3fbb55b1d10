"""Pruning settings in a chat request, names of its images, and token counts in its answer.

Replaces: `OnlineRenderer.preprocess_chat`, `OpenAIServingChat.create_chat_completion`,
`OpenAIServingResponses.create_responses` and its `responses_full_generator`.
Why: vLLM accepts processor settings in a request only on a server that trusts every key of every
client (`--trust-request-mm-kwargs`); ours are validated before they get there.
Relies on: `preprocess_chat` making the engine's input for every chat-like request and reading
`request.mm_processor_kwargs`; the renderer's `trust_request_mm_kwargs`; a request object that
belongs to one request.
vLLM versions: 0.31 to 0.33.
Goes when: a plugin can add a field to requests.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from vllm_pruner.compat.patching import Patch, apply

if TYPE_CHECKING:
    from vllm.config import ModelConfig
    from vllm.renderers.online_renderer import OnlineRenderer

__all__ = ["patch_chat", "with_report"]

_Async = Callable[..., Coroutine[Any, Any, Any]]


class _Hooks(NamedTuple):
    """The arguments of `patch_chat` that `preprocess_chat` takes."""

    key: str
    requested: Callable[[ModelConfig, Any, list[Any]], Any]
    take_counts: Callable[[Any, Any], None]
    rename: Callable[[ModelConfig, list[Any]], list[Any]]
    rendering: Callable[[], AbstractContextManager[None]]


def patch_chat(
    key: str,
    requested: Callable[[ModelConfig, Any, list[Any]], Any],
    take_counts: Callable[[Any, Any], None],
    rename: Callable[[ModelConfig, list[Any]], list[Any]],
    report: Callable[[Any, Any, MutableMapping[str, Any]], Any],
    given: Callable[[Any, Any, Any, Any], Any],
    around: Callable[[_Async, Any, Any, Any], Coroutine[Any, Any, Any]],
    rendering: Callable[[], AbstractContextManager[None]],
) -> None:
    """Let a chat request carry settings, and its answer carry counts. Safe to call again.

    Args:
        key: our key in `mm_processor_kwargs`.
        requested: returns a request's settings, given the model configuration, the request and its
            messages; None if it has none.
        take_counts: called with the request and the engine's input made from it.
        rename: returns the messages with images renamed, given the model configuration.
        report: returns the answer to a client, given the request, vLLM's answer and the scope of
            the HTTP request.
        given: returns the answer to a chat completion, given vLLM's handler, the request, the HTTP
            request or None, and vLLM's answer; called before `report`.
        around: answers a chat completion, given vLLM's own way to, its handler, the request and the
            HTTP request.
        rendering: entered for as long as vLLM makes the engine's input from a request.

    Raises:
        RuntimeError: this vLLM lacks one of the four methods.
    """
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
    from vllm.renderers.online_renderer import OnlineRenderer

    with_settings = partial(_with_settings, _Hooks(key, requested, take_counts, rename, rendering))
    reporting = partial(with_report, report)
    apply(
        Patch(OnlineRenderer, "preprocess_chat", with_settings),
        Patch(
            OpenAIServingChat,
            "create_chat_completion",
            lambda answer: reporting(partial(around, answer), given=given),
        ),
        Patch(OpenAIServingResponses, "create_responses", reporting),
        Patch(
            OpenAIServingResponses,
            "responses_full_generator",
            partial(_with_report_later, report),
        ),
    )


def _with_settings(hooks: _Hooks, preprocess: _Async) -> _Async:
    """Return a `preprocess_chat` that passes settings on and takes counts."""

    async def preprocess_chat(
        self: OnlineRenderer, request: Any, messages: list[Any], *args: Any, **kwargs: Any
    ) -> Any:
        settings = hooks.requested(self.model_config, request, messages)
        messages = hooks.rename(self.model_config, messages)
        with hooks.rendering():
            if settings is not None:
                _check_client(self, request)
                with _carrying(request, hooks.key, settings):
                    made = await preprocess(_trusting(self), request, messages, *args, **kwargs)
            else:
                made = await preprocess(self, request, messages, *args, **kwargs)
        for engine_input in made[1]:
            hooks.take_counts(request, engine_input)
        return made

    return preprocess_chat


def _check_client(renderer: OnlineRenderer, request: Any) -> None:
    """Apply vLLM's check of the client's own arguments before our settings are added to them."""
    from vllm.entrypoints.generate.base.protocol import validate_request_mm_kwargs

    validate_request_mm_kwargs(
        mm_processor_kwargs=getattr(request, "mm_processor_kwargs", None),
        media_io_kwargs=getattr(request, "media_io_kwargs", None),
        trust_request_mm_kwargs=renderer.trust_request_mm_kwargs,
    )


def _trusting(renderer: OnlineRenderer) -> OnlineRenderer:
    """Return a shallow copy that trusts its request; the original serves other requests too."""
    trusting = copy.copy(renderer)
    trusting.trust_request_mm_kwargs = True
    return trusting


@contextmanager
def _carrying(request: Any, key: str, settings: Any) -> Iterator[None]:
    """Put settings into a request for the duration of the block. Not into a copy: vLLM's parsers
    change the request in place, and later code needs those changes."""
    sent = getattr(request, "mm_processor_kwargs", None)
    request.mm_processor_kwargs = {**(sent or {}), key: settings}
    try:
        yield
    finally:
        request.mm_processor_kwargs = sent


def _with_report_later(
    report: Callable[[Any, Any, MutableMapping[str, Any]], Any], finish: _Async
) -> _Async:
    """Return what ends a response; one made in the background, which a client fetches when it is
    done, passes through `report` there: `create_responses` had returned before it was begun."""

    async def responses_full_generator(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        finished = await finish(self, request, *args, **kwargs)
        return report(request, finished, {}) if request.background else finished

    return responses_full_generator


def with_report(
    report: Callable[[Any, Any, MutableMapping[str, Any]], Any],
    answer: _Async,
    given: Callable[[Any, Any, Any, Any], Any] | None = None,
) -> _Async:
    """Return a handler whose answer passes through `given`, if there is one, and `report`."""

    async def answer_with_counts(self: Any, request: Any, raw_request: Any = None) -> Any:
        scope = {} if raw_request is None else raw_request.scope
        answered = await answer(self, request, raw_request)
        if given is not None:
            answered = given(self, request, raw_request, answered)
        return report(request, answered, scope)

    return answer_with_counts
