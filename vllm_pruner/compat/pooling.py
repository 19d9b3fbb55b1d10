"""Pruning settings in a request that is pooled, such as an embedding's, and its token counts.

Replaces: `PoolingBaseServing._preprocessing`.
Why: vLLM makes the prompts of these requests without `preprocess_chat`, and none of our code sees
their bodies.
Relies on: vLLM having checked the client's own arguments before; `prompt_extras` of the request's
context going into each of its prompts; the engine's inputs then being in `engine_inputs`, one of a
dict's values each.
vLLM versions: 0.31 to 0.33.
Goes when: a plugin can add a field to requests.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from vllm_pruner.compat.patching import Patch, apply

if TYPE_CHECKING:
    from vllm.config import ModelConfig

__all__ = ["patch_pooling"]

_KWARGS = "mm_processor_kwargs"


def patch_pooling(
    key: str,
    requested: Callable[[ModelConfig, Any], Any],
    tell: Callable[[MutableMapping[str, Any], Sequence[Any]], None],
) -> None:
    """Let a pooling request carry settings. Safe to call again.

    Args:
        key: our key in `mm_processor_kwargs`.
        requested: returns a request's settings, given the model configuration and the request;
            None if it has none.
        tell: called with the scope of the HTTP request and the engine's inputs.

    Raises:
        RuntimeError: this vLLM lacks the method.
    """
    from vllm.entrypoints.pooling.base.serving import PoolingBaseServing

    def with_settings(
        preprocess: Callable[..., Coroutine[Any, Any, None]],
    ) -> Callable[..., Coroutine[Any, Any, None]]:
        async def _preprocessing(self: Any, io_processor: Any, ctx: Any) -> None:
            settings = requested(self.model_config, ctx.request)
            if settings is not None:
                extras = ctx.prompt_extras or {}
                kwargs = {**(extras.get(_KWARGS) or {}), key: settings}
                ctx.prompt_extras = {**extras, _KWARGS: kwargs}
            await preprocess(self, io_processor, ctx)
            if ctx.raw_request is not None:
                tell(ctx.raw_request.scope, [each["prompts"] for each in ctx.engine_inputs])

        return _preprocessing

    apply(Patch(PoolingBaseServing, "_preprocessing", with_settings))
