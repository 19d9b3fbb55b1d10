"""What the engine gets of an image: the output of the HF processor, and the image's plan.

A mixin for vLLM's multimodal processors. vLLM identifies an image in all its caches by one hash;
here the HF processor's output is cached by the image alone, and what the engine gets by image and
plan. So another question, rate or method does not preprocess a known image again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers.feature_extraction_utils import BatchFeature
from vllm.multimodal.inputs import (
    MultiModalFieldConfig,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
)
from vllm.multimodal.processing.processor import MultiModalProcessingResult

from vllm_pruner.plan import FIELDS, ImagePlan
from vllm_pruner.settings.keys import PLANS

if TYPE_CHECKING:
    from vllm.model_executor.models.llava import LlavaMultiModalProcessor
    from vllm.multimodal.processing import ProcessorInputs, TimingContext
    from vllm.multimodal.processing.processor import (
        ResolvedPromptUpdate,
    )

    # Concrete for the checker: super() reaches the model's own processor, not the abstract base.
    _Processor = LlavaMultiModalProcessor
else:
    _Processor = object

__all__ = ["PlannedItems", "hand_on"]


def hand_on(plans: list[ImagePlan], inputs: ProcessorInputs) -> ProcessorInputs:
    """Return the inputs with a plan for each image, for `PlannedItems` to take; none changes
    nothing."""
    kwargs = {k: v for k, v in inputs.hf_processor_mm_kwargs.items() if k != PLANS}
    if plans:
        kwargs[PLANS] = plans
    return dataclasses.replace(inputs, hf_processor_mm_kwargs=kwargs)


def _take(inputs: ProcessorInputs) -> tuple[list[ImagePlan], ProcessorInputs]:
    """Return what `hand_on` was given."""
    kwargs = dict(inputs.hf_processor_mm_kwargs)
    plans: Any = kwargs.pop(PLANS, [])
    return plans, dataclasses.replace(inputs, hf_processor_mm_kwargs=kwargs)


class PlannedItems(_Processor):
    """Mixin for a `BaseMultiModalProcessor` that knows what to do with the plans of `hand_on`.

    Change: images with plans are processed and cached as if they had none; then their placeholders
    are cut to the kept count, and the plans go to the model as fields.
    """

    info: Any

    def _cached_apply_hf_processor(
        self, inputs: ProcessorInputs, timing_ctx: TimingContext
    ) -> MultiModalProcessingResult:
        plans, bare = _take(inputs)
        stock = super()._cached_apply_hf_processor(bare, timing_ctx)
        if not plans:
            return stock
        items = [
            MultiModalKwargsItem({**item, **fields})
            for item, fields in zip(
                stock.kwargs.require_data()["image"], _as_items(plans), strict=True
            )
        ]
        updates = [
            [self._cut(update, plan) for update in updates_of_image]
            for updates_of_image, plan in zip(stock.prompt_updates["image"], plans, strict=True)
        ]
        return MultiModalProcessingResult(
            stock.prompt_ids,
            MultiModalKwargsItems({**stock.kwargs, "image": items}),
            {**stock.hashes, "image": [plan.identity for plan in plans]},
            {**stock.prompt_updates, "image": updates},
        )

    def _cut(self, update: ResolvedPromptUpdate, plan: ImagePlan) -> ResolvedPromptUpdate:
        """Return an update with as many placeholders as the model will return embeddings."""
        content = update.content
        is_embed = [True] * len(content.full)
        if content.is_embed is not None:
            is_embed = content.is_embed(content.full).tolist()
        kept = plan.config.keep_count(sum(is_embed))
        short = self.info.family.cut(content.full, is_embed, kept)
        return dataclasses.replace(update, content=dataclasses.replace(content, full=short))


def _as_items(plans: list[ImagePlan]) -> Sequence[MultiModalKwargsItem]:
    """Return the fields of each plan as vLLM carries them to the model."""
    rows = [plan.fields() for plan in plans]
    columns = {name: [row[name] for row in rows] for name in FIELDS}
    config = MultiModalFieldConfig.batched("image", keep_on_cpu=True)
    items: MultiModalKwargsItems[MultiModalKwargsItem] = MultiModalKwargsItems.from_hf_inputs(
        BatchFeature(columns), dict.fromkeys(FIELDS, config)
    )
    return items["image"]
