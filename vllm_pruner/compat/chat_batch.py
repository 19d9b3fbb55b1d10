"""Token counts in the answer to a batch of conversations, `/v1/chat/completions/batch`.

Replaces: `OpenAIServingChatBatch.render_batch_chat_request` and `.create_batch_chat_completion`.
Why: vLLM turns each conversation into a request, on which the counts are noted, but there is one
answer for all of them.
Relies on: the former returning a tuple that begins with these requests; unknown keys of the batch,
our settings included, being copied into each request.
vLLM versions: 0.31 to 0.33.
Goes when: a plugin can add a field to answers.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, MutableMapping
from functools import partial
from typing import Any

from vllm_pruner.compat.chat import with_report
from vllm_pruner.compat.patching import Patch, apply

__all__ = ["patch_chat_batch"]

_AddUp = Callable[[Any, Iterable[Any]], None]


def patch_chat_batch(
    add_up: _AddUp, report: Callable[[Any, Any, MutableMapping[str, Any]], Any]
) -> None:
    """Let the answer to a batch carry counts. Safe to call again.

    Args:
        add_up: called with the batch and the requests made from it.
        report: as for `patch_chat`.

    Raises:
        RuntimeError: this vLLM lacks one of the two methods.
    """
    from vllm.entrypoints.openai.chat_completion.batch_serving import OpenAIServingChatBatch

    apply(
        Patch(OpenAIServingChatBatch, "render_batch_chat_request", partial(_adding, add_up)),
        Patch(OpenAIServingChatBatch, "create_batch_chat_completion", partial(with_report, report)),
    )


def _adding(
    add_up: _AddUp, render: Callable[..., Coroutine[Any, Any, Any]]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def render_batch_chat_request(self: Any, request: Any) -> Any:
        made = await render(self, request)
        if isinstance(made, tuple):  # otherwise it is an error
            add_up(request, made[0])
        return made

    return render_batch_chat_request
