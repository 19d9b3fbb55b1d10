"""Make the plans of a prompt's images and videos."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vllm_pruner import compat
from vllm_pruner.plan import ImagePlan
from vllm_pruner.prompt.asked import IMAGE, VIDEO
from vllm_pruner.prompt.message_text import MessageText
from vllm_pruner.prompt.sent_embeddings import refuse_pruned
from vllm_pruner.settings.config import PruneConfig

if TYPE_CHECKING:
    from vllm.multimodal.processing import ProcessorInputs

    from vllm_pruner.prompt.info import PrunedInfo

__all__ = ["Planner"]


class Planner:
    """Makes the plans for one processor."""

    def __init__(self, processor: Any) -> None:
        """Store the processor; its tokenizer is read when a method first needs text."""
        self._processor = processor

    def plans(
        self,
        modality: str,
        configs: list[PruneConfig],
        keeps: list[int],
        inputs: ProcessorInputs,
        identities: Callable[[], list[str]] | None,
    ) -> list[ImagePlan]:
        """Return a plan for each item of a modality, in order; empty if nothing is pruned.

        Args:
            modality: the modality.
            configs: the settings of each item.
            keeps: tokens kept of each item; 0 if only the processor can tell.
            inputs: the prompt and its items.
            identities: returns the items' identities; None for vLLM's dummy items.

        Raises:
            VLLMValidationError: a 400 for the client: embeddings are sent in place of items.
        """
        if all(config.off for config in configs):
            return []
        refuse_pruned(modality, inputs.mm_data_items[modality])
        names = [ImagePlan.ANONYMOUS] * len(configs) if identities is None else identities()
        texts = self._texts(modality, configs, inputs.prompt)
        return [
            ImagePlan(config, identity, text, keep)
            for config, identity, text, keep in zip(configs, names, texts, keeps, strict=True)
        ]

    def _texts(
        self, modality: str, configs: list[PruneConfig], prompt: list[int]
    ) -> list[tuple[int, ...]]:
        """Return the text that asks about each item, if its method reads it."""
        nothing: list[tuple[int, ...]] = [()] * len(configs)
        if not any(config.resolved[0].needs_text for config in configs):
            return nothing
        texts = self._message_texts[modality].of_images(self._processor.info.signed(prompt))
        if len(texts) != len(configs):
            return nothing  # vLLM itself refuses a prompt with too few placeholders
        return [
            text if config.resolved[0].needs_text else ()
            for config, text in zip(configs, texts, strict=True)
        ]

    @cached_property
    def _message_texts(self) -> dict[str, MessageText]:
        """Finds texts, by modality."""
        info: PrunedInfo = self._processor.info
        tokens = {IMAGE: info.image_sign, VIDEO: info.video_sign}
        tokenizer = info.get_tokenizer()
        sent = compat.prompt_embeds_token(tokenizer)
        marks = info.marks if sent is None else info.marks | {sent}
        return {
            modality: MessageText(tokenizer, token, marks, info.around_message)
            for modality, token in tokens.items()
            if token is not None
        }
