"""A model whose image is tiles that the tower encodes one by one: Idefics3, Gemma 3."""

from __future__ import annotations

from typing import Any

from vllm_pruner.worker.captured_model import CapturedModel

__all__ = ["TiledModel"]


class TiledModel(CapturedModel):
    """Mixin for a vLLM model whose images have the field `num_patches`; see `CapturedModel`.

    Own change: LoRA gets the tower's token count, not the pruned one.
    """

    def get_mm_lora_token_counts(
        self, *, modality: str, mm_kwargs: Any, num_mm_embeds: int
    ) -> tuple[int, int | None]:
        if mm_kwargs is None:
            stock: Any = super()
            counts: tuple[int, int | None] = stock.get_mm_lora_token_counts(
                modality=modality, mm_kwargs=mm_kwargs, num_mm_embeds=num_mm_embeds
            )
            return counts
        rows = int(mm_kwargs["num_patches"].data) * self.tower.page
        return rows * self.tower.patches_per_row, num_mm_embeds
