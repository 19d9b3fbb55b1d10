"""What the engine gets of an image: the output of the HF processor, and the image's plan.

A mixin for vLLM's multimodal processors. vLLM identifies an image in all its caches by one hash;
here the HF processor's output is cached by the image alone, and what the engine gets by image and
plan. So another question, rate or method does not preprocess a known image again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Any

from transformers.feature_extraction_utils import BatchFeature
from vllm.multimodal.inputs import (
    MultiModalFieldConfig,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
)
from vllm.multimodal.processing.processor import MultiModalProcessingResult

from vllm_pruner import compat
from vllm_pruner.plan import FIELDS, ImagePlan

if TYPE_CHECKING:
    from vllm.model_executor.models.llava import LlavaMultiModalProcessor
    from vllm.multimodal.processing import ProcessorInputs, TimingContext
    from vllm.multimodal.processing.processor import (
        MultiModalPromptUpdates,
        ResolvedPromptUpdate,
    )

    # Concrete for the checker: super() reaches the model's own processor, not the abstract base.
    _Processor = LlavaMultiModalProcessor
else:
    _Processor = object

__all__ = ["PlannedItems", "hand_on"]

_PLANS = "vtprune_plans"
"""The processor kwarg that holds a `list[ImagePlan]` between `apply` and the mixin below."""


def hand_on(plans: list[ImagePlan], inputs: ProcessorInputs) -> ProcessorInputs:
    """Return the inputs with a plan for each image, for `PlannedItems` to take; none changes
    nothing."""
    if not plans:
        return inputs
    kwargs = {**inputs.hf_processor_mm_kwargs, _PLANS: plans}
    return dataclasses.replace(inputs, hf_processor_mm_kwargs=kwargs)


def _take(inputs: ProcessorInputs) -> tuple[list[ImagePlan], ProcessorInputs]:
    """Return what `hand_on` was given."""
    kwargs = dict(inputs.hf_processor_mm_kwargs)
    plans: Any = kwargs.pop(_PLANS, [])
    return plans, dataclasses.replace(inputs, hf_processor_mm_kwargs=kwargs)


def _only(modalities: Set[str], inputs: ProcessorInputs) -> ProcessorInputs:
    """Return the inputs with media of some modalities only."""
    uuids = inputs.mm_uuid_items
    if uuids is not None:
        uuids = {name: uuids[name] for name in modalities & uuids.keys()}
    data = inputs.mm_data_items.select(modalities)
    return dataclasses.replace(inputs, mm_data_items=data, mm_uuid_items=uuids)


class PlannedItems(_Processor):
    """Mixin for a `BaseMultiModalProcessor` that knows what to do with the plans of `hand_on`.

    Change, following `vllm.multimodal.processing.processor` of vLLM 0.32: images with plans are
    processed as if they had none; then their placeholders are cut to the kept count, and the plans
    go to the model as fields.
    """

    info: Any

    def _cached_apply_hf_processor(
        self, inputs: ProcessorInputs, timing_ctx: TimingContext
    ) -> MultiModalProcessingResult:
        plans, bare = _take(inputs)
        if not plans:
            return super()._cached_apply_hf_processor(bare, timing_ctx)
        others = bare.mm_data_items.keys() - {"image"}
        if not others:
            return self._planned_images(plans, bare, timing_ctx)
        images = self._planned_images(plans, _only({"image"}, bare), timing_ctx)
        rest = super()._cached_apply_hf_processor(_only(others, bare), timing_ctx)
        return MultiModalProcessingResult(
            images.prompt_ids,
            MultiModalKwargsItems({**rest.kwargs, **images.kwargs}),
            {**rest.hashes, **images.hashes},
            {**rest.prompt_updates, **images.prompt_updates},
        )

    def _planned_images(
        self, plans: list[ImagePlan], bare: ProcessorInputs, timing_ctx: TimingContext
    ) -> MultiModalProcessingResult:
        """Return what the engine gets of a prompt whose media are images only."""
        prompt, cache = self._postprocess_prompt(bare.prompt), bare.cache
        identities = {"image": [plan.identity for plan in plans]}
        known = cache.is_cached(identities["image"]) if cache else [False] * len(plans)
        missing = [place for place, is_known in enumerate(known) if not is_known]
        items, updates = self._planned(bare, plans, missing, timing_ctx)
        if cache is None:
            return MultiModalProcessingResult(prompt, items, identities, updates)
        try:
            merged = self._merge_mm_kwargs(cache, identities, {"image": known}, items, updates)
        finally:
            compat.release_touches(cache)
        return MultiModalProcessingResult(prompt, merged[0], identities, merged[1])

    def _planned(
        self,
        bare: ProcessorInputs,
        plans: list[ImagePlan],
        places: list[int],
        timing_ctx: TimingContext,
    ) -> tuple[MultiModalKwargsItems[MultiModalKwargsItem], MultiModalPromptUpdates]:
        """Return what the engine gets of the images at `places`, and their placeholders."""
        if not places:
            return MultiModalKwargsItems(), {}
        plans = [plans[place] for place in places]
        images = [bare.mm_data_items["image"][place] for place in places]
        stock = self._without_plans(bare, images, plans, timing_ctx)
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
        return MultiModalKwargsItems({"image": items}), {"image": updates}

    def _without_plans(
        self,
        bare: ProcessorInputs,
        images: list[Any],
        plans: list[ImagePlan],
        timing_ctx: TimingContext,
    ) -> MultiModalProcessingResult:
        """Process images as vLLM does, with a cache in which they are known without plans.

        Their identities are passed on as if the client had given them: hashing an image takes
        longer than finding it.
        """
        cache = bare.cache
        if cache is not None:
            cache = compat.bare_image_cache(cache, self.info.ctx.model_config)
        return super()._cached_apply_hf_processor(
            dataclasses.replace(
                bare,
                mm_data_items=self.info.parse_mm_data({"image": images}, validate=False),
                mm_uuid_items={"image": [plan.image or None for plan in plans]},
                cache=cache,
            ),
            timing_ctx,
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
