"""The prompt's half of pruning: a plan, and the right number of placeholders, for each image and
video.

A mixin for vLLM's multimodal processors. It chooses no tokens: the number comes from the same
`PruneConfig` by which the model selects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any

from vllm.multimodal.parse import DictEmbeddingItems, EmbeddingItems

from vllm_pruner import compat
from vllm_pruner.prompt.array_images import ArrayImages
from vllm_pruner.prompt.asked import IMAGE, VIDEO, Asked, report
from vllm_pruner.prompt.byte_pixels import BytePixels
from vllm_pruner.prompt.identities import identified, sizes_of
from vllm_pruner.prompt.image_items import PlannedItems, hand_on
from vllm_pruner.prompt.image_size import check_sizes, check_videos
from vllm_pruner.prompt.names import Known, Names
from vllm_pruner.prompt.pictures import Pictures
from vllm_pruner.prompt.places import (
    check_in_tree,
    check_length,
    check_marks,
    check_neighbours,
    unplaced,
)
from vllm_pruner.prompt.planner import Planner
from vllm_pruner.prompt.refusal import answered
from vllm_pruner.prompt.render_thread import compute_alone
from vllm_pruner.prompt.sent_embeddings import check_rows
from vllm_pruner.prompt.serving import install_where_rendered
from vllm_pruner.prompt.token_counts import count, image_tokens
from vllm_pruner.prompt.traffic import count_items
from vllm_pruner.prompt.wanted import Wanted, as_dummy, taken
from vllm_pruner.settings.in_tree import check_owner
from vllm_pruner.settings.keys import REPORT
from vllm_pruner.settings.rules import resolve
from vllm_pruner.settings.video_rules import resolve_videos

if TYPE_CHECKING:
    from vllm.inputs import MultiModalInput
    from vllm.multimodal.parse import ImageSize
    from vllm.multimodal.processing import ProcessorInputs, TimingContext


__all__ = ["PrunedProcessor"]


class PrunedProcessor(PlannedItems, BytePixels, ArrayImages):
    """Mixin for a `BaseMultiModalProcessor` with a `PrunedInfo`.

    Changes besides those of its own mixins: `apply` makes a plan for each image and video, from the
    operator's settings, the request's and the prompt; and a process that creates the processor to
    render prompts is set up to serve requests (`serving`).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        install_where_rendered(self.info.prune_config, self.info.ctx.model_config)

    def apply(self, inputs: ProcessorInputs, timing_ctx: TimingContext) -> MultiModalInput:
        compute_alone()
        bare, wanted = taken(inputs, self.info.prune_config)
        check_rows(self.info, bare.mm_data_items)
        if bare.cache is not None:
            bare = dataclasses.replace(bare, cache=compat.item_cache(self, bare.cache))
        bare, named = identified(self, bare, self._names, self._pictures)
        asked = self._asked(bare, wanted, named.get(IMAGE))
        plans = {each.modality: each.plans for each in asked if each.plans}
        known_by = {name: [plan.image for plan in those] for name, those in plans.items()}
        hashed = bare if wanted.is_dummy else compat.hashed(self, bare, known_by)
        with compat.told_if_unplaced(unplaced):
            output = super().apply(hand_on(plans, hashed), timing_ctx)
        count(self.info, asked, wanted.settings, bare.hf_processor_mm_kwargs, output)
        pruned = plans or (self.info.in_tree and VIDEO in output["mm_placeholders"])
        if pruned and not wanted.is_dummy:  # vLLM's dummy prompt has no text between its items
            self._check_prompt(asked, output)
        self._check_length(asked, wanted, output)
        self._tell(asked, wanted, output)
        if inputs.cache is not None:
            for items in output["mm_kwargs"].values():
                compat.deliver_once(items, inputs.cache)
        return output

    def _asked(
        self, inputs: ProcessorInputs, wanted: Wanted, known: Sequence[Known] | None
    ) -> list[Asked]:
        """Return the images and the videos of a prompt with their settings and plans. Videos that
        vLLM itself prunes are checked, but not among them.

        Args:
            inputs: the prompt's.
            wanted: what its request says.
            known: the content of each image, if any of them has a name.
        """
        asked = []
        if images := inputs.mm_data_items.get(IMAGE):
            sizes = sizes_of(images) if known is None else [each.size for each in known]
            asked.append(self._asked_of_images(inputs, wanted, sizes, known))
        if inputs.mm_data_items.get(VIDEO):
            videos = self._asked_of_videos(inputs, wanted)
            if self.info.in_tree is None:
                asked.append(videos)
        return asked

    def _asked_of_images(
        self,
        inputs: ProcessorInputs,
        wanted: Wanted,
        sizes: Sequence[ImageSize | None],
        known: Sequence[Known] | None,
    ) -> Asked:
        """Return the images with their settings and plans.

        Raises:
            VLLMValidationError: a 400 for the client: a setting cannot be used.
            GenerationError: a 500: a method of another package failed.
        """
        if not wanted.is_dummy:
            check_sizes(self.info.prune_config.limits, sizes)
        images = inputs.mm_data_items[IMAGE]
        tokens = image_tokens(self.info, images, sizes, inputs.hf_processor_mm_kwargs)
        identities = self._identities(IMAGE, inputs)
        look = partial(self._pictures.of_items, images, known, identities)
        look_if_real = None if wanted.is_dummy else look
        with answered():
            configs = resolve(self.info, wanted.settings, tokens, look_if_real, wanted.rate)
            keeps = [
                0 if number is None or config.off else config.keep_count(number)
                for config, number in zip(configs, tokens, strict=True)
            ]
        names = None if wanted.is_dummy else identities
        plans = self._planner.plans(IMAGE, configs, keeps, inputs, names)
        return Asked(IMAGE, configs, plans, tokens, sizes=sizes)

    def _asked_of_videos(self, inputs: ProcessorInputs, wanted: Wanted) -> Asked:
        """Return the videos with their settings, all the same, and plans; raises as for images."""
        videos = inputs.mm_data_items[VIDEO]
        if not wanted.is_dummy and not isinstance(videos, DictEmbeddingItems | EmbeddingItems):
            check_videos(self.info.prune_config.limits, videos.get_all())
        with answered():
            config = resolve_videos(self.info, wanted.settings, wanted.is_dummy, wanted.rate)
            check_owner(self.info.in_tree, wanted.settings)
        configs = [config] * len(videos)
        keeps = [0] * len(configs)  # not known before the videos are processed
        names = None if wanted.is_dummy else self._identities(VIDEO, inputs)
        return Asked(VIDEO, configs, self._planner.plans(VIDEO, configs, keeps, inputs, names))

    def _identities(self, modality: str, inputs: ProcessorInputs) -> Callable[[], list[str]]:
        """Return a cached function that returns the identity of each item."""
        return cache(lambda: compat.item_identities(self, inputs, modality))

    def _check_prompt(self, asked: Sequence[Asked], output: MultiModalInput) -> None:
        """Refuse prompts in which kept tokens would get wrong positions."""
        if self.info.family.item_layout is not None:
            check_neighbours(output, self.info.item_tokens)
        check_marks(output, self.info.video_marks, ["video"])
        if self.info.in_tree is not None and self.info.family.videos is not None:
            check_in_tree(output, self.info.video_layout)

    def _check_length(
        self, asked: Sequence[Asked], wanted: Wanted, output: MultiModalInput
    ) -> None:
        """Refuse a client's images that make its prompt too long, as far as pruning is in use."""
        prunes = not self.info.prune_config.off or any(each.plans for each in asked)
        if prunes and wanted.has_to_fit and [*output["mm_placeholders"]] == [IMAGE]:
            check_length(output, sum(asked[0].kept), self.info.ctx.model_config.max_model_len)

    def _tell(self, asked: Sequence[Asked], wanted: Wanted, output: MultiModalInput) -> None:
        """Put the counts into the output, for `prompt.counts`, and add them to the metrics.

        A server that never prunes anything by default answers as stock vLLM does.
        """
        if not asked:
            return
        prunes = wanted.rate is not None or not self.info.prune_config.off
        tells = prunes or any(each.plans for each in asked)
        if tells and (told := report(asked, wanted.rate)) is not None:
            output[REPORT] = told  # type: ignore[literal-required]
        if wanted.is_traffic and self.info.prefills:
            count_items(asked)

    @cached_property
    def _names(self) -> Names:
        return Names()

    @cached_property
    def _pictures(self) -> Pictures:
        return Pictures()

    @cached_property
    def _planner(self) -> Planner:
        return Planner(self)

    def get_dummy_inputs(self, *args: Any, **kwargs: Any) -> ProcessorInputs:
        return as_dummy(super().get_dummy_inputs(*args, **kwargs))
