"""The prompt's half of pruning: a plan for each image, and as many placeholders as it keeps.

A mixin for vLLM's multimodal processors. It decides nothing about content: the count comes from
the same `PruneConfig` that the model selects with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any, Final

from vllm.multimodal.parse import DictEmbeddingItems, ImageEmbeddingItems

from vllm_pruner import compat
from vllm_pruner.methods.faults import MethodFault
from vllm_pruner.picture import UNSEEN, Picture
from vllm_pruner.plan import ImagePlan
from vllm_pruner.prompt.identities import identified, sizes_of
from vllm_pruner.prompt.image_items import PlannedItems, hand_on
from vllm_pruner.prompt.image_size import check_sizes
from vllm_pruner.prompt.message_text import MessageText
from vllm_pruner.prompt.names import Known, Names
from vllm_pruner.prompt.pictures import Pictures
from vllm_pruner.prompt.places import (
    check_counts,
    check_length,
    check_neighbours,
    check_video_marks,
)
from vllm_pruner.prompt.refusal import failure, refusal, settings_refusal
from vllm_pruner.prompt.serving import install_where_rendered
from vllm_pruner.prompt.traffic import count_images
from vllm_pruner.settings.config import PruneConfig
from vllm_pruner.settings.errors import ConfigError
from vllm_pruner.settings.keys import DUMMY, KEY, REPORT
from vllm_pruner.settings.rules import resolve

if TYPE_CHECKING:
    from vllm.inputs import MultiModalInput
    from vllm.multimodal.parse import ImageSize
    from vllm.multimodal.processing import ProcessorInputs, TimingContext

    from vllm_pruner.prompt.info import PrunedInfo

__all__ = ["PrunedProcessor"]

_OURS: Final = object()
"""The mark, which no client can send."""


class PrunedProcessor(PlannedItems):
    """Mixin for a `BaseMultiModalProcessor` with a `PrunedInfo`.

    Changes beside those of `PlannedItems`: `apply` makes a plan for each image, from the server's
    settings, the request's and the prompt; and the process that makes a processor to render prompts
    gets what requests need there (`serving`).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        install_where_rendered(self.info.prune_config.limits)

    def apply(self, inputs: ProcessorInputs, timing_ctx: TimingContext) -> MultiModalInput:
        bare, requested, is_dummy = _take_settings(inputs)
        if bare.cache is not None:
            bare = dataclasses.replace(bare, cache=compat.item_cache(self, bare.cache))
        bare, named = identified(self, bare, self._names, self._pictures)
        if not (images := bare.mm_data_items.get("image")):
            output = super().apply(bare, timing_ctx)
        else:
            known = named.get("image")
            sizes = sizes_of(images) if known is None else [each.size for each in known]
            if not is_dummy:
                check_sizes(self.info.prune_config.limits, sizes)
            tokens = self._image_tokens(images, sizes, bare.hf_processor_mm_kwargs)
            identities = cache(lambda: compat.image_identities(self, bare))
            look = None if is_dummy else partial(self._look, images, known, identities)
            configs = self._resolve(requested, tokens, look)
            plans = self._plans(configs, tokens, bare, None if is_dummy else identities)
            output = super().apply(hand_on(plans, bare), timing_ctx)
            places = output["mm_placeholders"]["image"]
            kept = [place.get_num_embeds() for place in places]
            if plans:
                more = [
                    0 if size is None else self.info.separators(size, bare.hf_processor_mm_kwargs)
                    for size in sizes
                ]
                check_counts(configs, tokens, more, output)
                kept = [count - others for count, others in zip(kept, more, strict=True)]
                if self.info.family.item_layout is not None:
                    check_neighbours(output, self.info.image_token)
                check_video_marks(output, self.info.video_marks)
                if not is_dummy:
                    check_length(output, sum(kept), self.info.ctx.model_config.max_model_len)
                _report(configs, tokens, kept, output)
            if not is_dummy:
                count_images(configs, tokens, kept, plans)
        if inputs.cache is not None:
            for items in output["mm_kwargs"].values():
                compat.deliver_once(items, inputs.cache)
        return output

    @cached_property
    def _names(self) -> Names:
        return Names()

    def _image_tokens(
        self,
        images: Any,
        sizes: Sequence[ImageSize | None],
        mm_kwargs: Mapping[str, object],
    ) -> list[int | None]:
        """Return the visual tokens of each image, unpruned; None for embeddings whose number
        nothing says yet.

        Args:
            images: vLLM's items.
            sizes: in pixels, before the processor resizes them.
            mm_kwargs: the request's arguments for the processor.
        """
        if isinstance(images, DictEmbeddingItems):
            return [None] * len(images)
        if isinstance(images, ImageEmbeddingItems):
            return [images.get_feature_size(place) for place in range(len(images))]
        unsized = self.info.get_max_image_tokens() if self.info.family.one_layout else None
        return [
            unsized if size is None else self.info.image_tokens(size, mm_kwargs) for size in sizes
        ]

    @cached_property
    def _pictures(self) -> Pictures:
        return Pictures()

    def _look(
        self, images: Any, known: Sequence[Known] | None, identities: Callable[[], list[str]]
    ) -> list[Picture]:
        """Return what each image shows.

        Args:
            images: vLLM's items.
            known: of images that have names, what these stand for.
            identities: of the images, once they are asked for.
        """
        if known is not None:
            return [each.picture for each in known]
        if isinstance(images, DictEmbeddingItems | ImageEmbeddingItems):
            return [UNSEEN] * len(images)
        return [
            self._pictures.of(identity, images.get(place))
            for place, identity in enumerate(identities())
        ]

    def _resolve(
        self,
        requested: object,
        tokens: list[int | None],
        look: Callable[[], list[Picture]] | None,
    ) -> list[PruneConfig]:
        """Return the settings of each image.

        Raises:
            VLLMValidationError: a 400 for the client, if the request's cannot be used.
            GenerationError: a 500, if a method of another package cannot.
        """
        info: PrunedInfo = self.info
        try:
            return resolve(info, requested, tokens, look)
        except ConfigError as error:
            raise settings_refusal(error) from None
        except MethodFault as error:
            raise failure(error.method, str(error)) from error

    def _plans(
        self,
        configs: list[PruneConfig],
        tokens: list[int | None],
        inputs: ProcessorInputs,
        identities: Callable[[], list[str]] | None,
    ) -> list[ImagePlan]:
        """Return a plan for each image, in order; none if nothing is pruned.

        Args:
            configs: the settings of each image.
            tokens: of each, unpruned; None if nothing says it.
            inputs: the prompt and its images.
            identities: of the images; None if vLLM made them up.

        Raises:
            VLLMValidationError: there are embeddings in place of images.
        """
        if all(config.off for config in configs):
            return []
        _refuse_embeddings(inputs.mm_data_items["image"])
        names = [ImagePlan.ANONYMOUS] * len(configs) if identities is None else identities()
        texts = self._texts(configs, inputs.prompt)
        return [
            ImagePlan(config, identity, text, count and config.keep_count(count) or 0)
            for config, identity, text, count in zip(configs, names, texts, tokens, strict=True)
        ]

    def _texts(self, configs: list[PruneConfig], prompt: list[int]) -> list[tuple[int, ...]]:
        """Return the text that asks about each image, if its method reads it."""
        nothing: list[tuple[int, ...]] = [()] * len(configs)
        if not any(config.resolved[0].needs_text for config in configs):
            return nothing
        texts = self._message_text.of_images(prompt)
        if len(texts) != len(configs):
            return nothing  # vLLM refuses a prompt with too few placeholders in its own words
        return [
            text if config.resolved[0].needs_text else ()
            for config, text in zip(configs, texts, strict=True)
        ]

    @cached_property
    def _message_text(self) -> MessageText:
        return MessageText(self.info.get_tokenizer(), self.info.image_token, self.info.image_marks)

    def get_dummy_inputs(self, *args: Any, **kwargs: Any) -> ProcessorInputs:
        inputs = super().get_dummy_inputs(*args, **kwargs)
        marked = {**inputs.hf_processor_mm_kwargs, DUMMY: _OURS}
        return dataclasses.replace(inputs, hf_processor_mm_kwargs=marked)


def _take_settings(inputs: ProcessorInputs) -> tuple[ProcessorInputs, object, bool]:
    """Return the inputs without what is ours, the request's settings (None if it has none), and
    whether the images are vLLM's dummies."""
    kwargs = dict(inputs.hf_processor_mm_kwargs)
    is_dummy = kwargs.pop(DUMMY, None) is _OURS
    requested = kwargs.pop(KEY, None)
    return dataclasses.replace(inputs, hf_processor_mm_kwargs=kwargs), requested, is_dummy


def _refuse_embeddings(images: Any) -> None:
    if isinstance(images, DictEmbeddingItems | ImageEmbeddingItems):
        raise refusal(
            "image_embeds is given, but vtprune prunes in the encoder, which it bypasses; "
            f"allowed: an image, or {KEY} rate 0",
            parameter="image_embeds",
        )


def _report(
    configs: Sequence[PruneConfig],
    tokens: Sequence[int | None],
    kept: Sequence[int],
    output: MultiModalInput,
) -> None:
    """Put the counts into the engine's input, unless an image's are not known.

    `prompt.chat` reads it for the answer's usage and the request's span; nothing in vLLM does.
    """
    known = [count for count in tokens if count is not None]
    if len(known) == len(tokens):
        methods = sorted({config.method for config in configs if not config.off})
        report = {"original": sum(known), "kept": sum(kept), "method": ", ".join(methods)}
        if any(config.floor != "off" for config in configs):
            report["floor"] = "text"
        output[REPORT] = report  # type: ignore[literal-required]
