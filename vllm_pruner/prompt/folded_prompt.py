"""Prompts into which the tokenizer itself has written all tokens of each image: Mistral's.

vLLM's processor only looks for these tokens, of which it expects as many as the unpruned image has.
Here an image's tokens are folded into the one that ends them, as other models' prompts have one for
an image, and vLLM inserts as many as are kept. So a prompt's length is that of the pruned images
when it is held against the model's, and an image that vLLM turns upright or decodes at another size
than the tokenizer has the tokens of the size at which it is encoded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

from vllm.multimodal.processing import BaseMultiModalProcessor

from vllm_pruner import compat
from vllm_pruner.prompt.asked import IMAGE
from vllm_pruner.prompt.places import unplaced
from vllm_pruner.settings.keys import settings_in

if TYPE_CHECKING:
    from vllm.config import ModelConfig
    from vllm.inputs import MultiModalInput
    from vllm.multimodal.processing import ProcessorInputs, PromptUpdate, TimingContext

    from vllm_pruner.prompt.processor import PrunedProcessor

    _Processor = PrunedProcessor
else:
    _Processor = object

__all__ = ["FoldedPrompt", "folded"]


class FoldedPrompt(_Processor):
    """Mixin for a `PrunedProcessor` whose info has `special_ids`; its only items are images.

    Change: prompts are folded, and vLLM inserts the tokens of the images.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        compat.patch_mistral_prompt(_folded_if_pruned)

    def apply(self, inputs: ProcessorInputs, timing_ctx: TimingContext) -> MultiModalInput:
        prompt = _folded(self.info.special_ids, inputs.prompt)
        if prompt.count(self.info.image_sign) < len(inputs.mm_data_items.get(IMAGE, ())):
            raise unplaced()  # vLLM would look for the sign's text
        return super().apply(dataclasses.replace(inputs, prompt=prompt), timing_ctx)

    def _get_prompt_updates(self, *args: Any, **kwargs: Any) -> list[PromptUpdate]:
        target, updates = [self.info.image_sign], super()._get_prompt_updates(*args, **kwargs)
        return [dataclasses.replace(update, target=target) for update in updates]

    def _maybe_apply_prompt_updates(self, *args: Any, **kwargs: Any) -> Any:
        return BaseMultiModalProcessor._maybe_apply_prompt_updates(self, *args, **kwargs)


def folded(prompt: Sequence[int], inner: Container[int], end: int) -> list[int]:
    """Return a prompt in which each run of tokens that ends in `end` is that token alone.

    Args:
        prompt: the prompt.
        inner: the tokens of which a run consists.
        end: the token that ends one.
    """
    short: list[int] = []
    run: list[int] = []
    for token in prompt:
        if token in inner:
            run.append(token)
            continue
        if run and token != end:
            short += run
        run.clear()
        short.append(token)
    return short + run


def _folded(ids: Any, prompt: Sequence[int]) -> list[int]:
    """Return a prompt with images folded, given mistral-common's `SpecialImageIDs`."""
    return folded(prompt, frozenset((ids.img, ids.img_break)), ids.img_end)


def _folded_if_pruned(model_config: ModelConfig, tokenizer: Any, prompt: list[int]) -> list[int]:
    """Return the prompt of a chat as its processor wants it: an engine that prunes has ours."""
    if settings_in(model_config.multimodal_config) is None:
        return prompt
    return _folded(tokenizer.instruct.mm_encoder.special_ids, prompt)
