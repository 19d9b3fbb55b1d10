"""Pruning settings in a request that cannot have images, `/v1/completions`.

Replaces: `OpenAIServingCompletion.create_completion`.
Why: unknown keys are accepted there, and none of our code sees the request.
Relies on: `request.model_extra` holding the keys that vLLM does not know.
vLLM versions: 0.31 to 0.33.
Goes when: completions take images, or refuse unknown keys.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from vllm_pruner.compat.patching import Patch, apply

__all__ = ["patch_completion"]


def patch_completion(check: Callable[[Mapping[str, Any]], None]) -> None:
    """Check the unknown keys of a completion request. Safe to call again.

    Args:
        check: called with them; raises the error that the client gets.

    Raises:
        RuntimeError: this vLLM lacks the method.
    """
    from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion

    def checked(create: Callable[..., Coroutine[Any, Any, Any]]) -> Any:
        async def create_completion(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
            check(request.model_extra or {})
            return await create(self, request, *args, **kwargs)

        return create_completion

    apply(Patch(OpenAIServingCompletion, "create_completion", checked))
