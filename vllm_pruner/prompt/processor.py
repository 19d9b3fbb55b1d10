"""The prompt's half of pruning: fewer placeholders, and a plan beside every image.

A mixin for vLLM's multimodal processors. It decides nothing about content: the count comes from
the same `PruneConfig` that the model selects with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vllm.multimodal.parse import ImageEmbeddingItems

from vllm_pruner import compat
from vllm_pruner.family import Family
from vllm_pruner.plan import ImagePlan
from vllm_pruner.prompt import encoder_only
from vllm_pruner.prompt.image_items import PlannedItems
from vllm_pruner.prompt.message_text import MessageText
from vllm_pruner.prompt.refusal import refusal
from vllm_pruner.prompt.traffic import count_images
from vllm_pruner.settings.config import KEY, PruneConfig, ServerConfig
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.rules import image_configs

if TYPE_CHECKING:
    from vllm.inputs import MultiModalInput
    from vllm.multimodal.parse import ImageSize
    from vllm.multimodal.processing import (
        BaseProcessingInfo,
        InputProcessingContext,
        ProcessorInputs,
        TimingContext,
    )

    _Info = BaseProcessingInfo
else:
    _Info = object

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

    family: Family
    prune_config: ServerConfig

    def __init__(self, ctx: InputProcessingContext) -> None:
        settings = (ctx.get_mm_config().mm_processor_kwargs or {}).get(KEY, {})
        self.prune_config = ServerConfig.parse(settings)
        stripped = compat.without_settings(ctx.model_config, KEY)
        super().__init__(dataclasses.replace(ctx, model_config=stripped))

    def get_max_image_tokens(self) -> int:
        """Return the most visual tokens that an image has, unpruned."""
        return self.family.largest(self.get_hf_config()).tokens

    def image_tokens(self, size: ImageSize | None) -> int | None:
        """Return the visual tokens of an image, unpruned; None if they depend on its size and that
        is not known."""
        if self.family.one_layout:
            return self.get_max_image_tokens()
        if size is None:
            return None
        return self.family.layout(self.get_hf_config(), size.height, size.width).tokens

    def fault(self, config: PruneConfig) -> str | None:
        """What is wrong with settings for this model: one sentence, or None."""
        try:
            self.family.check_method(self.get_hf_config(), config.resolved[0])
        except ConfigError as error:
            return str(error)
        alone = encoder_only.lacks_language_model(self.ctx.model_config)
        return encoder_only.fault(config) if alone else None

    def get_mm_max_tokens_per_item(
        self, seq_len: int, mm_counts: Mapping[str, int]
    ) -> Mapping[str, int]:
        """vLLM's profile and encoder budget: as without pruning."""
        return {"image": self.get_max_image_tokens()}


class PrunedProcessor(PlannedItems):
    """Mixin for a `BaseMultiModalProcessor` whose images are rows of one placeholder token.

    Changes beside those of `PlannedItems`: `apply` makes a plan for each image, from the server's
    settings, the request's and the prompt, and hands it on inside the processor kwargs.
    """

    def apply(self, inputs: ProcessorInputs, timing_ctx: TimingContext) -> MultiModalInput:
        kwargs = dict(inputs.hf_processor_mm_kwargs)
        anonymous = bool(kwargs.pop(_DUMMY, False))
        requested = kwargs.pop(KEY, None)
        if not (items := inputs.mm_data_items.get("image")):
            bare = dataclasses.replace(inputs, hf_processor_mm_kwargs=kwargs)
            return super().apply(bare, timing_ctx)
        tokens = self._image_tokens(items)
        configs = self._resolve(requested, tokens)
        plans: list[ImagePlan] = []
        if not all(config.off for config in configs):
            self._refuse_embeddings(items)
            bare = dataclasses.replace(inputs, hf_processor_mm_kwargs=dict(kwargs))
            kwargs[KEY] = plans = self._plans(configs, bare, anonymous)
        planned = dataclasses.replace(inputs, hf_processor_mm_kwargs=kwargs)
        output = super().apply(planned, timing_ctx)
        known = [count for count in tokens if count is not None]
        if plans and len(known) == len(tokens):
            # For the answer's usage and the request's span; nothing else in vLLM looks at it.
            methods = sorted({config.method for config in configs if not config.off})
            told = {"original": sum(known), "method": ", ".join(methods)}
            output[KEY] = told  # type: ignore[literal-required]
        if not anonymous:
            count_images(configs, tokens, output["mm_placeholders"]["image"], plans)
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
                if fault := self.info.fault(config):
                    raise ConfigError(fault)
        except ConfigError as error:
            raise refusal(f"{KEY}: {error}") from None
        return configs

    def _refuse_embeddings(self, items: Any) -> None:
        if isinstance(items, ImageEmbeddingItems):
            raise refusal(
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
