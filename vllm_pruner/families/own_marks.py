"""What families have in common in whose images vLLM itself puts marks, as rows among those of the
tower: Molmo2's, DeepSeek-OCR's.

To vLLM marks are placeholders. Here all stay, count in no budget, and where between kept tokens
they stand is known only once the tower has run: so a pruned prompt has places for both, and the
model's `placed` puts the marks among the rows (`Family.own_marks`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from vllm.multimodal.processing.processor import MultiModalProcessingResult

from vllm_pruner.layout.cuts import cut_runs
from vllm_pruner.prompt.processor import PrunedProcessor

if TYPE_CHECKING:
    import torch
    from vllm.multimodal.processing.processor import ResolvedPromptUpdate

    from vllm_pruner.plan import ImagePlan

__all__ = ["MarkedProcessor", "cut"]


def cut(full: Sequence[int], is_embed: Sequence[bool], kept: int) -> list[int]:
    """Return placeholders for kept tokens and for marks; see `Family.cut`."""
    pairs = list(zip(full, is_embed, strict=True))
    tokens = [token for token, embeds in pairs if embeds]
    short = cut_runs(tokens, [True] * len(tokens), kept)
    return short + short[:1] * (len(full) - len(tokens))


class MarkedProcessor(PrunedProcessor):
    """A `PrunedProcessor` of a family with `own_marks`.

    Change: a plan counts no marks.
    """

    @abstractmethod
    def shows(self, item: Mapping[str, Any], full: Sequence[int]) -> torch.Tensor:
        """Return which of an image's tokens in the prompt show some of it, as a mask.

        Args:
            item: the image's fields.
            full: all tokens that vLLM inserted for it.
        """

    def _with_plans(
        self, stock: MultiModalProcessingResult, modality: str, plans: list[ImagePlan]
    ) -> MultiModalProcessingResult:
        whole, items = stock.prompt_updates[modality], stock.kwargs.require_data()[modality]
        bare = [
            [self._of_tokens(update, item.get_data()) for update in of_item]
            for of_item, item in zip(whole, items, strict=True)
        ]
        told = _with_updates(stock, {**stock.prompt_updates, modality: bare})
        made = super()._with_plans(told, modality, plans)
        updates = [
            [_embedded_as(short, update) for short, update in zip(*of_item, strict=True)]
            for of_item in zip(made.prompt_updates[modality], whole, strict=True)
        ]
        return _with_updates(made, {**made.prompt_updates, modality: updates})

    def _of_tokens(
        self, update: ResolvedPromptUpdate, item: Mapping[str, Any]
    ) -> ResolvedPromptUpdate:
        """Return an update whose placeholders are the tokens that show some of the picture."""
        return replace(update, content=replace(update.content, is_embed=partial(self.shows, item)))


def _with_updates(result: MultiModalProcessingResult, updates: Any) -> MultiModalProcessingResult:
    return MultiModalProcessingResult(result.prompt_ids, result.kwargs, result.hashes, updates)


def _embedded_as(short: ResolvedPromptUpdate, stock: ResolvedPromptUpdate) -> ResolvedPromptUpdate:
    """Return an update with vLLM's rule of what a placeholder is."""
    return replace(short, content=replace(short.content, is_embed=stock.content.is_embed))
