"""What the engine gets for an image or video: the HF processor's output and the item's plan.

A mixin for vLLM's multimodal processors. vLLM identifies an item in all its caches by one hash.
Here the HF processor's output is cached by item, and the engine's input by item and plan, so that
another question, rate or method does not preprocess a known item again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
)
from vllm.multimodal.processing.processor import MultiModalProcessingResult

from vllm_pruner.layout.cuts import between_frames, cut_joined
from vllm_pruner.plan import ImagePlan
from vllm_pruner.settings.keys import PLANS

if TYPE_CHECKING:
    from vllm.model_executor.models.llava import LlavaMultiModalProcessor
    from vllm.multimodal.processing import ProcessorInputs, TimingContext
    from vllm.multimodal.processing.processor import ResolvedPromptUpdate

    from vllm_pruner.layout.cuts import Cut

    # Concrete for the checker: super() reaches the model's own processor, not the abstract base.
    _Processor = LlavaMultiModalProcessor
else:
    _Processor = object

__all__ = ["PlannedItems", "Plans", "hand_on"]


_FIELD = MultiModalBatchedField(keep_on_cpu=True)
"""How vLLM batches each field of plans."""

Plans = Mapping[str, list[ImagePlan]]
"""A plan for each item, by modality."""


def hand_on(plans: Plans, inputs: ProcessorInputs) -> ProcessorInputs:
    """Return the inputs with plans for `PlannedItems`; modalities without plans are unchanged."""
    kwargs = {k: v for k, v in inputs.hf_processor_mm_kwargs.items() if k != PLANS}
    if plans:
        kwargs[PLANS] = plans
    return replace(inputs, hf_processor_mm_kwargs=kwargs)


def _take(inputs: ProcessorInputs) -> tuple[Plans, ProcessorInputs]:
    """Return the arguments of `hand_on`."""
    kwargs = dict(inputs.hf_processor_mm_kwargs)
    plans: Any = kwargs.pop(PLANS, {})
    return plans, replace(inputs, hf_processor_mm_kwargs=kwargs)


class PlannedItems(_Processor):
    """Mixin for a `BaseMultiModalProcessor` that carries out the plans of `hand_on`.

    Change: items with plans are processed and cached as if they had none; then their placeholders
    are cut to the kept count, and the plans go to the model as fields. A plan gets what is known
    only by then: a kept count, if it has none, and what is between joined frames. A model may
    process some messages beside the cache.
    """

    info: Any

    def _cached_apply_hf_processor(
        self, inputs: ProcessorInputs, timing_ctx: TimingContext
    ) -> MultiModalProcessingResult:
        planned, bare = _take(inputs)
        return self._carried_out(planned, super()._cached_apply_hf_processor(bare, timing_ctx))

    def _apply_hf_processor(
        self, inputs: ProcessorInputs, timing_ctx: TimingContext
    ) -> MultiModalProcessingResult:
        planned, bare = _take(inputs)
        return self._carried_out(planned, super()._apply_hf_processor(bare, timing_ctx))

    def _carried_out(
        self, planned: Plans, result: MultiModalProcessingResult
    ) -> MultiModalProcessingResult:
        for modality, plans in planned.items():
            result = self._with_plans(result, modality, plans)
        return result

    def _with_plans(
        self, stock: MultiModalProcessingResult, modality: str, plans: list[ImagePlan]
    ) -> MultiModalProcessingResult:
        """Return a result in which the items of a modality have plans."""
        processed = stock.kwargs.require_data()[modality]
        cuts = [
            self.info.cut_of(modality, plan.config, item.get_data())
            for plan, item in zip(plans, processed, strict=True)
        ]
        plans = [
            _completed(plan, cut, updates[0])
            for plan, cut, updates in zip(plans, cuts, stock.prompt_updates[modality], strict=True)
        ]
        items = [
            MultiModalKwargsItem({**item, **_fields(plan)})
            for item, plan in zip(processed, plans, strict=True)
        ]
        updates = [
            [_short(update, plan, cut) for update in its_updates]
            for plan, cut, its_updates in zip(
                plans, cuts, stock.prompt_updates[modality], strict=True
            )
        ]
        return MultiModalProcessingResult(
            stock.prompt_ids,
            MultiModalKwargsItems({**stock.kwargs, modality: items}),
            {**stock.hashes, modality: [plan.identity for plan in plans]},
            {**stock.prompt_updates, modality: updates},
        )


def _completed(plan: ImagePlan, cut: Cut, update: ResolvedPromptUpdate) -> ImagePlan:
    """Return a plan with what follows from the item's tokens."""
    keep = plan.keep or plan.config.keep_count(_tokens(update))
    if cut is not cut_joined:
        return replace(plan, keep=keep)
    between = between_frames(update.content.full, _is_embed(update))
    return replace(plan, keep=keep, between=between)


def _short(update: ResolvedPromptUpdate, plan: ImagePlan, cut: Cut) -> ResolvedPromptUpdate:
    """Return an update with as many placeholders as the model will return rows."""
    content, is_embed = update.content, _is_embed(update)
    short = cut(content.full, is_embed, plan.config.keep_count(sum(is_embed)))
    return replace(update, content=replace(content, full=short))


def _is_embed(update: ResolvedPromptUpdate) -> list[bool]:
    """Return which tokens of an item are placeholders, replaced by the encoder's rows."""
    content = update.content
    if content.is_embed is None:
        return [True] * len(content.full)
    places: list[bool] = content.is_embed(content.full).tolist()
    return places


def _tokens(update: ResolvedPromptUpdate) -> int:
    return sum(_is_embed(update))


def _fields(plan: ImagePlan) -> dict[str, MultiModalFieldElem]:
    """Return a plan as vLLM carries it to the model."""
    return {name: MultiModalFieldElem(value, _FIELD) for name, value in plan.fields().items()}
