"""Chat completions that say how sure the model was, and those answered again where it was not.

Whether an answer is given or made again shows in its first token, so of a stream the first event
waits for that, as it does anyway: nothing of the pruned answer is sent before it stands. A whole
answer comes whole from vLLM, and is paid whole. Unpruned, the prompt may be longer than the model
takes; then the pruned answer stays, and says why.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

from vllm.exceptions import VLLMValidationError

from vllm_pruner.prompt.first_token import FirstToken, watched
from vllm_pruner.prompt.refusal import answered, refusal
from vllm_pruner.prompt.usage import in_usage
from vllm_pruner.settings.again import UNPRUNED, Again
from vllm_pruner.settings.detail import without_detail
from vllm_pruner.settings.keys import COUNTS, KEY, sent_with
from vllm_pruner.settings.wishes import Wishes, apart
from vllm_pruner.telemetry import metrics

__all__ = ["CONFIDENCE", "answer_surely"]

CONFIDENCE = "confidence"
"""The field of `usage`: `{"margin": of the first token}`, with `"coverage"` if the request asks for
`confidence` and it is known. Of a request that may be answered again also `"retried"`, and then
`"first"`, what the pruned answer was, or `"refused"`, why there is no other one."""

_Answer = Callable[[Any, Any, Any], Coroutine[Any, Any, Any]]


async def answer_surely(answer: _Answer, handler: Any, request: Any, raw_request: Any) -> Any:
    """Answer a chat completion.

    Args:
        answer: vLLM's way.
        handler: vLLM's, the first argument of `answer`.
        request: of a client, or of ours.
        raw_request: the HTTP request, None if there is none.

    Raises:
        VLLMValidationError: a 400 for the client.
    """
    with answered():
        wishes, _ = apart(without_detail(sent_with(request)))
    if wishes is None:
        return await answer(handler, request, raw_request)
    _check(handler, request)
    with watched(wishes.confidence) as first:
        made = await answer(handler, request, raw_request)
    if wishes.retry_unpruned_below is None or not _is_answer(made):
        return in_usage(made, lambda _: {CONFIDENCE: _told(first)})
    if isinstance(made, AsyncGenerator):
        made = await _begun(made)
    if not _is_unsure(wishes, first, request):
        return in_usage(made, lambda _: {CONFIDENCE: {**_told(first), "retried": False}})
    return await _again(answer, handler, request, raw_request, made, first)


def _check(handler: Any, request: Any) -> None:
    """Refuse wishes beside what leaves the two most probable tokens unknown."""
    most = handler.model_config.max_logprobs
    if 0 <= most < 2:
        raise refusal(
            f"{KEY}: {CONFIDENCE} needs two log-probabilities; allowed: none, since "
            f"max_logprobs of this server is {most}"
        )
    for name in ("use_beam_search", "logprob_token_ids"):
        if getattr(request, name, None):
            raise refusal(
                f"{KEY}: {CONFIDENCE} is asked for beside {name}; allowed: one of the two"
            )


def _is_answer(made: Any) -> bool:
    return isinstance(made, AsyncGenerator) or hasattr(made, "choices")


def _is_unsure(wishes: Wishes, first: FirstToken, request: Any) -> bool:
    """Whether an answer is made again: something was pruned, and the margin is below the bound."""
    counts = (request.model_extra or {}).get(COUNTS)
    if counts is None or counts["kept"] >= counts["original"] or first.margin is None:
        return False
    below = wishes.retry_unpruned_below
    return below is not None and first.margin < below


async def _begun(events: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """Return the same events, whose first one is there, and with it the first token."""
    head = [await anext(events)]

    async def whole() -> AsyncGenerator[Any, None]:
        async with aclosing(events):
            for event in head:
                yield event
            async for event in events:
                yield event

    return whole()


async def _again(
    answer: _Answer, handler: Any, request: Any, raw_request: Any, made: Any, first: FirstToken
) -> Any:
    """The answer to the same request with nothing pruned; `made` if there is none."""
    counts = request.model_extra[COUNTS]
    with watched() as second:
        other = await _unpruned(answer, handler, request, raw_request)
    if isinstance(other, str):
        told = {**_told(first), "retried": False, "refused": other}
        return in_usage(made, lambda _: {CONFIDENCE: told})
    if isinstance(made, AsyncGenerator):
        await made.aclose()
        assert first.outputs is not None, "its first token is there"
        await first.outputs.aclose()  # the engine goes on with it otherwise
    metrics.RETRIES.add(method=counts["method"])
    setattr(request, COUNTS, _whole(counts))
    return in_usage(other, partial(_both, first, second, counts))


async def _unpruned(answer: _Answer, handler: Any, request: Any, raw_request: Any) -> Any:
    """The answer with nothing pruned, or the sentence that refuses it."""
    others = {k: v for k, v in (request.mm_processor_kwargs or {}).items() if k != KEY}
    settings = {KEY: Again(UNPRUNED, is_counted=True), "mm_processor_kwargs": others or None}
    try:
        made = await answer(handler, request.model_copy(update=settings), raw_request)
    except (VLLMValidationError, ValueError) as error:  # what vLLM answers by a 400
        return str(error)
    return made if _is_answer(made) else made.error.message


def _told(first: FirstToken) -> dict[str, Any]:
    """Return what is known of an answer, read when its usage is written."""
    covered = {} if first.coverage is None else {"coverage": first.coverage}
    return {"margin": first.margin, **covered}


def _whole(counts: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of the same images and videos where all is kept."""
    whole = {"original": counts["original"], "kept": counts["original"], "method": ""}
    return {**whole, **({"video": _whole(counts["video"])} if "video" in counts else {})}


def _both(
    first: FirstToken, second: FirstToken, counts: Mapping[str, Any], usage: Mapping[str, Any]
) -> dict[str, Any]:
    """What the usage of the second answer says of both: tokens are paid twice."""
    spent = {"prompt_tokens": first.prompt_tokens, "completion_tokens": first.completion_tokens}
    sums = {name: (usage[name] or 0) + count for name, count in spent.items()}
    pruned = {name: counts[name] for name in ("original", "kept")}
    told = {**_told(first), **spent, "visual_tokens": pruned}
    return {
        **sums,
        "total_tokens": sum(sums.values()),
        CONFIDENCE: {"margin": second.margin, "retried": True, "first": told},
    }
