"""The prompt's half of pruning: fewer placeholders, and a plan beside every image.

A mixin for vLLM's multimodal processors. It decides nothing about content: the count comes from
the same `PruneConfig` that the model selects with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vllm.exceptions import VLLMValidationError
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import ImageEmbeddingItems
from vllm.multimodal.processing import PromptReplacement, PromptUpdate

from vllm_pruner import compat
from vllm_pruner.config import KEY, ConfigError, PruneConfig, ServerConfig
from vllm_pruner.models import check_method
from vllm_pruner.models.message_text import MessageText
from vllm_pruner.models.plan import FIELDS, ImagePlan
from vllm_pruner.request import image_configs

if TYPE_CHECKING:
    from vllm.inputs import MultiModalInput
    from vllm.model_executor.models.llava import LlavaMultiModalProcessor
    from vllm.multimodal.parse import ImageSize
    from vllm.multimodal.processing import (
        BaseProcessingInfo,
        InputProcessingContext,
        ProcessorInputs,
        TimingContext,
    )

    _Info = BaseProcessingInfo
    # Concrete for the checker: super() reaches the model's own processor, not the abstract base.
    _Processor = LlavaMultiModalProcessor
else:
    _Info = _Processor = object

__all__ = ["PrunedInfo", "PrunedProcessor"]

_DUMMY = f"{KEY}_dummy"
"""Marks the images that vLLM makes up for its memory profile, on their way into `apply`."""


class PrunedInfo(_Info):
    """Mixin for a `BaseProcessingInfo`: holds the server's settings.

    Changes:
    - the context that the rest of vLLM sees no longer has our key in `mm_processor_kwargs`;
    - an image's largest token count is reported unpruned, because a request may ask for rate 0, and
      because the tower is profiled by it.
    """

    prune_config: ServerConfig
    get_max_image_tokens: Callable[[], int]
    get_num_image_tokens: Callable[..., int]

    def __init__(self, ctx: InputProcessingContext) -> None:
        settings = (ctx.get_mm_config().mm_processor_kwargs or {}).get(KEY, {})
        self.prune_config = ServerConfig.parse(settings)
        stripped = compat.without_settings(ctx.model_config, KEY)
        super().__init__(dataclasses.replace(ctx, model_config=stripped))

    def image_tokens(self, size: ImageSize | None) -> int | None:
        """Visual tokens of an image, unpruned; None if its size is not known but would say."""
        if size is None:
            return None
        return self.get_num_image_tokens(image_width=size.width, image_height=size.height)

    def get_mm_max_tokens_per_item(
        self, seq_len: int, mm_counts: Mapping[str, int]
    ) -> Mapping[str, int]:
        """vLLM's profile and encoder budget: as without pruning."""
        return {"image": self.get_max_image_tokens()}


class PrunedProcessor(_Processor):
    """Mixin for a `BaseMultiModalProcessor` whose images are rows of one placeholder token.

    Changes, following `vllm.multimodal.processing.processor` of vLLM 0.32:
    - `apply` makes a plan for each image, from the server's settings, the request's and the prompt,
      and hands it on inside the processor kwargs;
    - an image's identity, by which vLLM caches everything about it, includes its plan;
    - the HF processor is called without our key;
    - placeholders are cut to the kept count, and the plan goes to the model as fields.
    """

    info: Any

    def apply(self, inputs: ProcessorInputs, timing_ctx: TimingContext) -> MultiModalInput:
        kwargs = dict(inputs.hf_processor_mm_kwargs)
        anonymous = bool(kwargs.pop(_DUMMY, False))
        requested = kwargs.pop(KEY, None)
        if not (items := inputs.mm_data_items.get("image")):
            bare = dataclasses.replace(inputs, hf_processor_mm_kwargs=kwargs)
            return super().apply(bare, timing_ctx)
        tokens = self._image_tokens(items)
        configs = self._resolve(requested, tokens)
        if all(config.off for config in configs):
            bare = dataclasses.replace(inputs, hf_processor_mm_kwargs=kwargs)
            return super().apply(bare, timing_ctx)
        self._refuse_embeddings(items)
        bare = dataclasses.replace(inputs, hf_processor_mm_kwargs=dict(kwargs))
        kwargs[KEY] = self._plans(configs, bare, anonymous)
        planned = dataclasses.replace(inputs, hf_processor_mm_kwargs=kwargs)
        output = super().apply(planned, timing_ctx)
        if None not in tokens:
            output[KEY] = sum(tokens)  # type: ignore[literal-required]  # for the answer's usage
        return output

    def get_dummy_inputs(self, *args: Any, **kwargs: Any) -> ProcessorInputs:
        inputs = super().get_dummy_inputs(*args, **kwargs)
        marked = {**inputs.hf_processor_mm_kwargs, _DUMMY: True}
        return dataclasses.replace(inputs, hf_processor_mm_kwargs=marked)

    def _image_tokens(self, items: Any) -> list[int | None]:
        """Visual tokens of each image, unpruned; None for one that its client sent before and now
        only names, if its size says how many."""
        if isinstance(items, ImageEmbeddingItems):
            return [items.get_feature_size(item) for item in range(len(items))]
        sizes = [
            items.get_image_size(item) if items.get(item) is not None else None
            for item in range(len(items))
        ]
        return [self.info.image_tokens(size) for size in sizes]

    def _resolve(self, requested: object, tokens: list[int | None]) -> list[PruneConfig]:
        """The settings of each image; a bad request is the client's error."""
        most = self.info.get_max_image_tokens()
        counts = [most if count is None else count for count in tokens]
        try:
            configs = image_configs(self.info.prune_config, requested, counts, most)
            for config in configs:
                check_method(self.info.get_hf_config(), config)
            return configs
        except ConfigError as error:
            raise VLLMValidationError(f"{KEY}: {error}", parameter=KEY) from None

    def _refuse_embeddings(self, items: Any) -> None:
        if isinstance(items, ImageEmbeddingItems):
            raise VLLMValidationError(
                "image_embeds is given, but vtprune prunes in the encoder, which it bypasses; "
                f"allowed: an image, or {KEY} rate 0",
                parameter="image_embeds",
            )

    def _plans(
        self, configs: list[PruneConfig], inputs: ProcessorInputs, anonymous: bool
    ) -> list[ImagePlan]:
        """One plan for each image of the request, in order."""
        images = super()._get_mm_hashes(inputs)["image"]
        if anonymous:
            images = [ImagePlan.ANONYMOUS] * len(images)
        texts: list[tuple[int, ...]] = [()] * len(images)
        if any(config.resolved[0].needs_text for config in configs):
            found = self._message_text.of_images(inputs.prompt)
            # A prompt without placeholders is refused by vLLM, in its own words.
            texts = found if len(found) == len(images) else texts
        return [
            ImagePlan(config, image, text if config.resolved[0].needs_text else ())
            for config, image, text in zip(configs, images, texts, strict=True)
        ]

    @cached_property
    def _message_text(self) -> MessageText:
        return MessageText(self.info.get_tokenizer(), self.info.get_hf_config().image_token_index)

    def _get_mm_hashes(self, inputs: ProcessorInputs) -> Any:
        plans = _plans_in(inputs.hf_processor_mm_kwargs)
        if not plans:
            return super()._get_mm_hashes(inputs)
        return {"image": [plan.identity for plan in plans]}

    def _get_cache_missing_processor_kwargs(
        self, inputs: ProcessorInputs, mm_is_cached: dict[str, list[bool]]
    ) -> Mapping[str, object]:
        kwargs = super()._get_cache_missing_processor_kwargs(inputs, mm_is_cached)
        if not (plans := _plans_in(kwargs)):
            return kwargs
        pairs = zip(plans, mm_is_cached["image"], strict=True)
        return {**kwargs, KEY: [plan for plan, cached in pairs if not cached]}

    def _call_hf_processor(
        self, hf_data: Mapping[str, object], hf_kwargs: Mapping[str, object]
    ) -> Any:
        return super()._call_hf_processor(hf_data, _without_key(hf_kwargs))

    def _postprocess_hf_mm_data(
        self, mm_inputs: Mapping[str, object], hf_processor_mm_kwargs: Any, processed_data: Any
    ) -> Any:
        data = super()._postprocess_hf_mm_data(
            mm_inputs, _without_key(hf_processor_mm_kwargs), processed_data
        )
        plans = [plan.fields() for plan in _plans_in(hf_processor_mm_kwargs)]
        if plans:
            data.update({name: [fields[name] for fields in plans] for name in FIELDS})
        return data

    def _get_mm_fields_config(
        self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        fields = super()._get_mm_fields_config(hf_inputs, _without_key(hf_processor_mm_kwargs))
        ours = MultiModalFieldConfig.batched("image", keep_on_cpu=True)
        return {**fields, **{name: ours for name in FIELDS if name in hf_inputs}}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[PromptUpdate]:
        updates = super()._get_prompt_updates(
            mm_items=mm_items,
            hf_processor_mm_kwargs=_without_key(hf_processor_mm_kwargs),
            out_mm_kwargs=out_mm_kwargs,
        )
        plans = _plans_in(hf_processor_mm_kwargs)
        return [_shorten(update, plans) for update in updates] if plans else updates


def _without_key(kwargs: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in kwargs.items() if name != KEY}


def _plans_in(kwargs: Mapping[str, Any]) -> list[ImagePlan]:
    """The plans that `apply` put into the processor kwargs: one an image, or none at all."""
    return list(kwargs.get(KEY, ()))


def _shorten(update: PromptUpdate, plans: list[ImagePlan]) -> PromptUpdate:
    """The same update with as many placeholder tokens as the model will return embeddings."""
    if not isinstance(update, PromptReplacement) or not callable(update.replacement):
        raise RuntimeError(f"vtprune: {update} is not built as in vLLM {compat.CHECKED_VERSION}")
    full = update.replacement

    def shortened(item: int) -> Any:
        tokens: Any = full(item)
        return tokens[: plans[item].config.keep_count(len(tokens))]

    return dataclasses.replace(update, replacement=shortened)
