"""ERNIE-4.5-VL's experts of vision, for its visual tokens and the marks around them in every step.

vLLM's class tells them from text in steps that feed rows of an image or video. In another step, as
one that begins right behind a picture, or ends right before it, a mark goes to the experts of text:
what is said of a picture depends on where steps end, with or without vtprune.
"""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models.ernie45_vl import Ernie4_5_VLMoeForConditionalGeneration

__all__ = ["tell_marks_in_every_step"]


def tell_marks_in_every_step() -> None:
    """Have vLLM's class look in every step. Before a model runs."""
    model: Any = Ernie4_5_VLMoeForConditionalGeneration
    stock = model.embed_input_ids

    def embedded(self: Any, input_ids: Any, *args: Any, **kwargs: Any) -> Any:
        rows = stock(self, input_ids, *args, **kwargs)
        self._set_visual_token_mask(input_ids)
        return rows

    model.embed_input_ids = embedded
