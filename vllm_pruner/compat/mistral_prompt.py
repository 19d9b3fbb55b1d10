"""Chat prompts of Mistral's tokenizer, before vLLM looks at their length.

Replaces: `MistralRenderer.render_messages` and `.render_messages_async`.
Why: vLLM holds a prompt's length against the model's, and truncates it, before a processor sees it.
Other models' prompts have one token for each image by then; these have all, unpruned.
Relies on: both returning the conversation and a prompt with its token ids.
vLLM versions: 0.31 to 0.33.
Goes when: a processor may shorten a prompt before it is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from vllm_pruner.compat.patching import Patch, apply

if TYPE_CHECKING:
    from vllm.config import ModelConfig

__all__ = ["patch_mistral_prompt"]

_Fold = Callable[["ModelConfig", Any, list[int]], list[int]]

_IDS = "prompt_token_ids"


def patch_mistral_prompt(fold: _Fold) -> None:
    """Have chat prompts of Mistral's tokenizer pass through a function. Safe to call again.

    Args:
        fold: returns the prompt's token ids, given the model configuration, the tokenizer and those
            that it made.

    Raises:
        RuntimeError: this vLLM lacks one of the two methods.
    """
    from vllm.renderers.mistral import MistralRenderer

    apply(
        Patch(MistralRenderer, "render_messages", partial(_folding, fold)),
        Patch(MistralRenderer, "render_messages_async", partial(_folding_later, fold)),
    )


def _folding(fold: _Fold, render: Callable[..., Any]) -> Callable[..., Any]:
    def render_messages(self: Any, *args: Any, **kwargs: Any) -> Any:
        conversation, prompt = render(self, *args, **kwargs)
        return conversation, _folded(fold, self, prompt)

    return render_messages


def _folding_later(fold: _Fold, render: Callable[..., Any]) -> Callable[..., Any]:
    async def render_messages_async(self: Any, *args: Any, **kwargs: Any) -> Any:
        conversation, prompt = await render(self, *args, **kwargs)
        return conversation, _folded(fold, self, prompt)

    return render_messages_async


def _folded(fold: _Fold, renderer: Any, prompt: Any) -> Any:
    if _IDS not in prompt:
        return prompt
    return {**prompt, _IDS: fold(renderer.model_config, renderer.get_tokenizer(), prompt[_IDS])}
