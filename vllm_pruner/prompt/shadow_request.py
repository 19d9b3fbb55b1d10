"""Ask a chat request again, to compare two answers to it.

Both answers are greedy, whatever the client asked for, because two samples differ by chance. So the
client's own answer is not used, and its request needs nothing extra from the engine. The pruned
answer costs only decoding again, since its prompt is still in the prefix cache. Everything else
that shapes an answer is the client's: tools, penalties, stop words, templates, structured output.
"""

from __future__ import annotations

import copy
from typing import Any

from vllm_pruner.prompt.agreement import Answer
from vllm_pruner.settings.again import Again
from vllm_pruner.settings.keys import KEY

__all__ = ["MOST_TOKENS", "Refused", "ask", "question", "quiet"]

MOST_TOKENS = 64
"""Most tokens of an answer."""

_LIKELIEST = 20
"""Candidates for the first token to get log-probabilities for: vLLM's default maximum."""

_LAST = 2**31 - 1
"""The lowest priority."""


class Refused(Exception):
    """vLLM refuses the request: unpruned, a prompt may be too long for the model."""


def quiet(handler: Any) -> Any:
    """Return a copy of vLLM's handler of chat completions that does not log prompts."""
    handler = copy.copy(handler)
    handler.request_logger = None
    return handler


def question(request: Any) -> str:
    """Return the text of the last user message."""
    asked = [message for message in request.messages if message.get("role") == "user"]
    content = asked[-1].get("content") if asked else None
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        content = "\n".join(str(part["text"]) for part in parts if "text" in part)
    return str(content or "")


async def ask(handler: Any, request: Any, again: Again) -> Answer:
    """Answer a request greedily.

    Args:
        handler: vLLM's handler of chat completions.
        request: a request that has been answered; it is not changed.
        again: replaces the client's settings.

    Raises:
        Refused: vLLM refuses the request.
    """
    from vllm.exceptions import VLLMValidationError

    try:
        made = await handler.create_chat_completion(_again(handler, request, again))
    except (VLLMValidationError, ValueError) as error:  # vLLM would answer with a 400
        raise Refused from error
    if not hasattr(made, "choices"):
        raise Refused
    (choice,) = made.choices
    return Answer(choice.message.content or "", tuple(choice.token_ids), _first(choice.logprobs))


def _again(handler: Any, request: Any, again: Again) -> Any:
    """Return a copy of a request that asks for a short greedy answer."""
    most = handler.model_config.max_logprobs
    last = handler.engine_client.vllm_config.scheduler_config.policy == "priority"
    asked = request.max_completion_tokens or request.max_tokens or MOST_TOKENS
    tokens = min(asked, MOST_TOKENS)
    others = {k: v for k, v in (request.mm_processor_kwargs or {}).items() if k != KEY}
    return request.model_copy(
        update={
            KEY: again,
            "mm_processor_kwargs": others or None,
            "request_id": f"shadow-{request.request_id}",
            **dict.fromkeys(("stream", "echo", "use_beam_search"), False),
            **dict.fromkeys(("stream_options", "prompt_logprobs", "logprob_token_ids", "seed")),
            **dict.fromkeys(("kv_transfer_params", "ec_transfer_params", "max_tokens")),
            "n": 1,
            "temperature": 0.0,
            "max_completion_tokens": tokens,
            "min_tokens": min(request.min_tokens, tokens),
            "logprobs": True,
            "top_logprobs": _LIKELIEST if most < 0 else min(most, _LIKELIEST),
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "priority": _LAST if last else 0,
        }
    )


def _first(logprobs: Any) -> dict[int, float]:
    """Return the log-probabilities of the candidates for the first token, by token id."""
    if logprobs is None or not logprobs.content:
        return {}
    first = logprobs.content[0]
    named = {each.token: each.logprob for each in (*first.top_logprobs, first)}
    return {int(name.removeprefix("token_id:")): value for name, value in named.items()}
