"""What the engine gets of an image: HF's part, which any plan can use again, and the plan.

A mixin for vLLM's multimodal processors. vLLM has one identity of an image for everything it
caches; here what HF made of an image is kept by the image alone, and what the engine gets of it by
image and plan. So another question, rate or method does not preprocess a known image again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
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
from vllm_pruner.settings.config import KEY

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

__all__ = ["PlannedItems"]


class PlannedItems(_Processor):
    """Mixin for a `BaseMultiModalProcessor` whose images are rows of one placeholder token.

    Change, following `vllm.multimodal.processing.processor` of vLLM 0.32: images with plans, which
    are in the processor kwargs under our key, are processed without them; then placeholders are cut
    to the kept count and the plans go to the model as fields.
    """

    info: Any

    def _cached_apply_hf_processor(
        self, inputs: ProcessorInputs, timing_ctx: TimingContext
    ) -> MultiModalProcessingResult:
        if not (plans := _plans_in(inputs.hf_processor_mm_kwargs)):
            return super()._cached_apply_hf_processor(inputs, timing_ctx)
        identities = {"image": [plan.identity for plan in plans]}
        cache = inputs.cache
        known = cache.is_cached(identities["image"]) if cache else [False] * len(plans)
        missing = [place for place, is_known in enumerate(known) if not is_known]
        prompt = self._postprocess_prompt(inputs.prompt)
        made, updates = self._planned(inputs, plans, missing, timing_ctx)
        if cache is None:
            return MultiModalProcessingResult(prompt, made, identities, updates)
        try:
            merged = self._merge_mm_kwargs(cache, identities, {"image": known}, made, updates)
        finally:
            cache.release_sender_touches()
        return MultiModalProcessingResult(prompt, merged[0], identities, merged[1])

    def _planned(
        self,
        inputs: ProcessorInputs,
        plans: list[ImagePlan],
        places: list[int],
        timing_ctx: TimingContext,
    ) -> tuple[MultiModalKwargsItems[MultiModalKwargsItem], MultiModalPromptUpdates]:
        """What the engine gets of the images at `places`: HF's part with their plans."""
        if not places:
            return MultiModalKwargsItems(), {}
        images, some = inputs.mm_data_items["image"], [plans[place] for place in places]
        parts = self._without_plans(inputs, [images[place] for place in places], some, timing_ctx)
        fields = [plan.fields() for plan in some]
        ours = MultiModalKwargsItems.from_hf_inputs(
            BatchFeature({name: [each[name] for each in fields] for name in FIELDS}),
            {name: MultiModalFieldConfig.batched("image", keep_on_cpu=True) for name in FIELDS},
        )
        kwargs = [
            MultiModalKwargsItem({**theirs, **own})
            for theirs, own in zip(parts.kwargs.require_data()["image"], ours["image"], strict=True)
        ]
        updates = [
            [self._shorten(update, plan) for update in of_image]
            for of_image, plan in zip(parts.prompt_updates["image"], some, strict=True)
        ]
        return MultiModalKwargsItems({"image": kwargs}), {"image": updates}

    def _without_plans(
        self,
        inputs: ProcessorInputs,
        images: list[Any],
        plans: list[ImagePlan],
        timing_ctx: TimingContext,
    ) -> MultiModalProcessingResult:
        """vLLM's own processing of bare images, over a cache of their own.

        Their identities are passed on as if the client had given them: hashing an image takes
        longer than finding it.
        """
        cache = inputs.cache
        if cache is not None:
            cache = compat.bare_image_cache(cache, self.info.ctx.model_config)
        return super()._cached_apply_hf_processor(
            dataclasses.replace(
                inputs,
                mm_data_items=self.info.parse_mm_data({"image": images}, validate=False),
                mm_uuid_items={"image": [plan.image or None for plan in plans]},
                hf_processor_mm_kwargs=_without_key(inputs.hf_processor_mm_kwargs),
                cache=cache,
            ),
            timing_ctx,
        )

    def _shorten(self, update: ResolvedPromptUpdate, plan: ImagePlan) -> ResolvedPromptUpdate:
        """Return an update with as many placeholders as the model will return embeddings."""
        content = update.content
        if content.is_embed is not None:
            raise RuntimeError(
                f"vtprune: {update} is not built as in vLLM {compat.SUPPORTED}"
            )
        kept = plan.config.keep_count(len(content.full))
        short = self.info.family.shorten(content.full, kept)
        return dataclasses.replace(update, content=dataclasses.replace(content, full=short))


def _without_key(kwargs: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in kwargs.items() if name != KEY}


def _plans_in(kwargs: Mapping[str, Any]) -> list[ImagePlan]:
    """The plans that `apply` put into the processor kwargs: one an image, or none at all."""
    return list(kwargs.get(KEY, ()))
