"""The prompt's half of pruning: a plan, and the right number of placeholders, for each image and
video.

A mixin for vLLM's multimodal processors. It chooses no tokens: the number comes from the same
`PruneConfig` by which the model selects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any, Final

from vllm.multimodal.parse import DictEmbeddingItems, EmbeddingItems, ImageEmbeddingItems

from vllm_pruner import compat
from vllm_pruner.prompt.asked import IMAGE, VIDEO, Asked, report
from vllm_pruner.prompt.byte_pixels import BytePixels
from vllm_pruner.prompt.identities import identified, sizes_of
from vllm_pruner.prompt.image_items import PlannedItems, hand_on
from vllm_pruner.prompt.image_size import check_sizes, check_videos
from vllm_pruner.prompt.live_rate import rate_for
from vllm_pruner.prompt.names import Known, Names
from vllm_pruner.prompt.pictures import Pictures
from vllm_pruner.prompt.places import (
    check_counts,
    check_length,
    check_neighbours,
    check_reach,
    check_video_marks,
)
from vllm_pruner.prompt.planner import Planner
from vllm_pruner.prompt.refusal import answered
from vllm_pruner.prompt.render_thread import compute_alone
from vllm_pruner.prompt.serving import install_where_rendered
from vllm_pruner.prompt.traffic import count_items
from vllm_pruner.settings.again import Again
from vllm_pruner.settings.keys import DUMMY, KEY, REPORT
from vllm_pruner.settings.rules import check_video, resolve, resolve_videos

if TYPE_CHECKING:
    from vllm.inputs import MultiModalInput
    from vllm.multimodal.parse import ImageSize
    from vllm.multimodal.processing import ProcessorInputs, TimingContext

    from vllm_pruner.prompt.info import PrunedInfo

__all__ = ["PrunedProcessor"]

_OURS: Final = object()
"""The mark of dummy inputs, which no client can send."""


class PrunedProcessor(PlannedItems, BytePixels):
    """Mixin for a `BaseMultiModalProcessor` with a `PrunedInfo`.

    Changes besides those of `PlannedItems` and `BytePixels`: `apply` makes a plan for each image
    and video, from the operator's settings, the request's and the prompt; and a process that
    creates the processor to render prompts is set up to serve requests (`serving`).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        install_where_rendered(self.info.prune_config, self.info.ctx.model_config)

    def apply(self, inputs: ProcessorInputs, timing_ctx: TimingContext) -> MultiModalInput:
        compute_alone()
        bare, requested, is_dummy = _take_settings(inputs)
        is_traffic = not is_dummy and (not isinstance(requested, Again) or requested.is_counted)
        rate = None if is_dummy else rate_for(self.info.prune_config, requested)
        requested = requested.settings if isinstance(requested, Again) else requested
        if bare.cache is not None:
            bare = dataclasses.replace(bare, cache=compat.item_cache(self, bare.cache))
        bare, named = identified(self, bare, self._names, self._pictures)
        asked = []
        if images := bare.mm_data_items.get(IMAGE):
            known = named.get(IMAGE)
            sizes = sizes_of(images) if known is None else [each.size for each in known]
            asked.append(self._asked_of_images(bare, requested, sizes, known, is_dummy, rate))
        if bare.mm_data_items.get(VIDEO):
            asked.append(self._asked_of_videos(bare, requested, is_dummy, rate))
        plans = {each.modality: each.plans for each in asked if each.plans}
        known_by = {name: [plan.image for plan in those] for name, those in plans.items()}
        hashed = bare if is_dummy else compat.hashed(self, bare, known_by)
        output = super().apply(hand_on(plans, hashed), timing_ctx)
        for each in asked:
            each.kept = [
                place.get_num_embeds() for place in output["mm_placeholders"][each.modality]
            ]
            if each.modality == VIDEO:
                self._count_videos(each, requested, output)
            elif each.plans:
                self._count_images(each, sizes, bare.hf_processor_mm_kwargs)
        if plans and not is_dummy:  # vLLM's dummy prompt has no text between its items
            self._check_prompt(output)
            if [each.modality for each in asked] == [IMAGE]:
                check_length(output, sum(asked[0].kept), self.info.ctx.model_config.max_model_len)
        # A server that never prunes anything by default answers as stock vLLM does.
        tells = asked and (plans or rate is not None or not self.info.prune_config.off)
        if tells and (told := report(asked, rate)) is not None:
            output[REPORT] = told  # type: ignore[literal-required]  # for `prompt.chat`
        if asked and is_traffic and self.info.prefills:
            count_items(asked)
        if inputs.cache is not None:
            for items in output["mm_kwargs"].values():
                compat.deliver_once(items, inputs.cache)
        return output

    def _asked_of_images(
        self,
        inputs: ProcessorInputs,
        requested: object,
        sizes: Sequence[ImageSize | None],
        known: Sequence[Known] | None,
        is_dummy: bool,
        rate: float | None,
    ) -> Asked:
        """Return the images with their settings and plans.

        `rate` replaces the server's own rate, if that moves.

        Raises:
            VLLMValidationError: a 400 for the client: a setting cannot be used.
            GenerationError: a 500: a method of another package failed.
        """
        if not is_dummy:
            check_sizes(self.info.prune_config.limits, sizes)
        images = inputs.mm_data_items[IMAGE]
        tokens = self._image_tokens(images, sizes, inputs.hf_processor_mm_kwargs)
        identities = self._identities(IMAGE, inputs)
        look = partial(self._pictures.of_items, images, known, identities)
        with answered():
            configs = resolve(self.info, requested, tokens, None if is_dummy else look, rate)
            keeps = [
                0 if count is None or config.off else config.keep_count(count)
                for config, count in zip(configs, tokens, strict=True)
            ]
        names = None if is_dummy else identities
        plans = self._planner.plans(IMAGE, configs, keeps, inputs, names)
        return Asked(IMAGE, configs, plans, tokens)

    def _asked_of_videos(
        self, inputs: ProcessorInputs, requested: object, is_dummy: bool, rate: float | None
    ) -> Asked:
        """Return the videos with their settings, all the same, and plans; raises as for images."""
        videos = inputs.mm_data_items[VIDEO]
        if not is_dummy and not isinstance(videos, DictEmbeddingItems | EmbeddingItems):
            check_videos(self.info.prune_config.limits, videos.get_all())
        with answered():
            config = resolve_videos(self.info, requested, is_dummy, rate)
        configs = [config] * len(videos)
        keeps = [0] * len(configs)  # not known before the videos are processed
        names = None if is_dummy else self._identities(VIDEO, inputs)
        return Asked(VIDEO, configs, self._planner.plans(VIDEO, configs, keeps, inputs, names))

    def _identities(self, modality: str, inputs: ProcessorInputs) -> Callable[[], list[str]]:
        """Return a cached function that returns the identity of each item."""
        return cache(lambda: compat.item_identities(self, inputs, modality))

    def _count_images(
        self,
        asked: Asked,
        sizes: Sequence[ImageSize | None],
        mm_kwargs: Mapping[str, object],
    ) -> None:
        """Check the placeholders of pruned images, and subtract those of separators from `kept`."""
        more = [0 if size is None else self.info.separators(size, mm_kwargs) for size in sizes]
        check_counts(asked, more)
        asked.kept = [count - others for count, others in zip(asked.kept, more, strict=True)]

    def _count_videos(self, asked: Asked, requested: object, output: MultiModalInput) -> None:
        """Fill in the videos' numbers of tokens, and check what is kept against the limits."""
        if not asked.plans:
            asked.tokens = [*asked.kept]
            return
        info: PrunedInfo = self.info
        items = output["mm_kwargs"].require_data()[VIDEO]
        layouts = [info.video_layout(item.get_data()) for item in items]
        asked.tokens = [layout.tokens for layout in layouts]
        with answered():
            for config, layout in zip(asked.configs, layouts, strict=True):
                check_video(info.prune_config, requested, config, layout.tokens)
        check_counts(asked, [0] * len(asked.kept))
        check_reach(layouts, asked.kept)

    def _check_prompt(self, output: MultiModalInput) -> None:
        """Refuse prompts in which kept tokens would get wrong positions."""
        if self.info.family.item_layout is not None:
            check_neighbours(output, self.info.item_tokens)
        check_video_marks(output, self.info.video_marks)

    @cached_property
    def _names(self) -> Names:
        return Names()

    @cached_property
    def _pictures(self) -> Pictures:
        return Pictures()

    @cached_property
    def _planner(self) -> Planner:
        return Planner(self)

    def _image_tokens(
        self,
        images: Any,
        sizes: Sequence[ImageSize | None],
        mm_kwargs: Mapping[str, object],
    ) -> list[int | None]:
        """Return the visual tokens of each image, unpruned; None if they are not yet known, as for
        embeddings.

        Args:
            images: vLLM's items.
            sizes: sizes in pixels, before the processor resizes them.
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

    def get_dummy_inputs(self, *args: Any, **kwargs: Any) -> ProcessorInputs:
        inputs = super().get_dummy_inputs(*args, **kwargs)
        marked = {**inputs.hf_processor_mm_kwargs, DUMMY: _OURS}
        return dataclasses.replace(inputs, hf_processor_mm_kwargs=marked)


def _take_settings(inputs: ProcessorInputs) -> tuple[ProcessorInputs, object, bool]:
    """Return the inputs without our keys, the request's settings (None if it has none), and whether
    the items are vLLM's dummies."""
    kwargs = dict(inputs.hf_processor_mm_kwargs)
    is_dummy = kwargs.pop(DUMMY, None) is _OURS
    requested = kwargs.pop(KEY, None)
    return dataclasses.replace(inputs, hf_processor_mm_kwargs=kwargs), requested, is_dummy
